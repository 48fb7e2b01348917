"""A member dies for good with acknowledged ticks that it never posted: who followed its stream posts them."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sequencer.development import receipt_key
from sequencer.l1.follower import Follower
from sequencer.local.bench import owner_of
from sequencer.local.cluster import LocalCluster, Process
from sequencer.local.devnet import devnet_key
from sequencer.node.startup import KEY_VARIABLE
from sequencer.protocol.batch import ids_in
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.sdk.receipts import check_ack
from sequencer.wire.receipts import in_json
from tests.e2e_cluster import connected, eventually, funded, listed, orders, settings
from tests.simulation.test_standby import cli
from tests.simulation.world import World

HEIR = 1  # its devnet key


@pytest.mark.timeout(300)
def test_member_that_dies__its_receipted_ticks_are_posted_by_who_followed_its_stream(tmp_path: Path) -> None:
    asyncio.run(run(tmp_path))


async def run(folder: Path) -> None:
    async with LocalCluster(settings(folder, nodes=1, readers=0, gateways=0, batch_interval_s=4)) as cluster:
        world = await funded(cluster)
        await asyncio.to_thread(cli, world, "join", key=HEIR)
        heir = heir_of(cluster, folder)
        heir.start()
        try:
            await play(cluster, world, heir)
        finally:
            heir.kill()


def heir_of(cluster: LocalCluster, folder: Path) -> Process:
    command = [sys.executable, "-m", "sequencer.node.process", "--devnet", "--poll", "0.1"]
    command += ["--folder", str(folder / "heir"), "--socket", cluster.socket("heir")]
    command += ["--deployment", str(folder / "deployment.json"), "--l1", cluster.chain.url]
    command += ["--feed", "flat:46000", "--list", str(folder / "list.json"), "--batch-interval", "0.5"]
    for server in cluster.servers:
        command += ["--follow", server.config.url]
    env = {**os.environ, KEY_VARIABLE: "0x" + devnet_key(HEIR).hex()}
    return Process("heir", command, folder / "heir.log", env)


async def play(cluster: LocalCluster, world: World, heir: Process) -> None:
    at, domain = cluster.deployment, world.domain
    leader = cluster.leader
    assert leader is not None
    client = await connected(cluster, leader)

    options = await listed(client.ask)
    waiting = await connected(cluster, heir)
    posted = orders(domain, world.accounts, options[0]["number"], 0, 20)
    client.submit([(raw, owner_of(number % 2)) for number, raw in enumerate(posted)])
    answers = await client.all_of(posted)

    chain = cluster.chain
    last = orders(domain, world.accounts, options[0]["number"], 20, 20)
    client.submit([(raw, owner_of(number % 2)) for number, raw in enumerate(last)])
    answers += await client.all_of(last)
    leader.kill()
    await asyncio.sleep(1)
    key = address_of(public_key_of(receipt_key()))
    headers = {}
    for raw, body in zip(posted + last, answers, strict=True):
        opened = check_ack(raw, json.loads(in_json(body)), at.chain_id, at.rollup, {key})
        headers[opened.header.tick] = opened.header
    follower = Follower(chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
    before = await asyncio.to_thread(lambda: list(follower.batches(0)))
    assert not before or before[-1].tick < max(headers), "all was posted before the leader died"
    end = (await waiting.ask("status"))["log_end"]

    # Nobody of it comes back, and its servers die, too, once the heir has what they had.
    async def level() -> bool:
        nonlocal end
        before, end = end, (await waiting.ask("status"))["log_end"]
        await asyncio.sleep(0.5)
        return bool(end == before)

    await eventually(level, "the heir to have all")
    for server in cluster.servers:
        server.kill()
    until = time.monotonic() + 120
    while not (await waiting.ask("status"))["leads"]:
        assert time.monotonic() < until, heir.log_path.read_text()[-3000:]
        assert heir.is_running, heir.log_path.read_text()[-3000:]
        later = await asyncio.to_thread(chain.head_time_s) + 30
        await asyncio.to_thread(chain.set_time, later)
        await asyncio.sleep(0.3)

    # Every receipt of the dead member is honoured by the heir's batches.
    async def on_l1() -> Any:
        await asyncio.to_thread(chain.mine, 1)
        batches = await asyncio.to_thread(lambda: list(follower.batches(0)))
        return batches if batches and batches[-1].tick >= max(headers) else None

    batches = await eventually(on_l1, "the batches to be posted")
    ids = [one for batch in batches for one in ids_in(batch.payload, batch.segments, batch.ticks)]
    for header in headers.values():
        assert ids[header.tick - 1] == header.id

    # It goes on: an order of a trader is taken, behind those of the dead member.
    async def accepts() -> bool:
        await asyncio.to_thread(chain.mine, 1)
        return bool((await waiting.ask("status"))["accepts_orders"])

    await eventually(accepts, "orders to be taken")
    more = orders(domain, world.accounts, options[0]["number"], 40, 1)
    waiting.submit([(more[0], owner_of(0))])
    await waiting.all_of(more)
