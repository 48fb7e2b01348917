"""A cluster of real processes: its leader is killed under load, another goes on, and every answer stays what it was."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from sequencer.development import receipt_key
from sequencer.l1.follower import Follower
from sequencer.local.bench import owner_of
from sequencer.local.cluster import LocalCluster, Process
from sequencer.protocol.batch import ids_in
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.sdk.receipts import check_ack
from sequencer.wire.receipts import in_json
from tests.e2e_cluster import RawClient, connected, eventually, funded, listed, orders, settings


@pytest.mark.timeout(300)
def test_cluster__leader_killed__another_signs_and_repeats_get_the_first_answer(tmp_path: Path) -> None:
    asyncio.run(run(tmp_path))


async def run(folder: Path) -> None:
    async with LocalCluster(settings(folder, gateways=0)) as cluster:
        world = await funded(cluster)
        at, domain = cluster.deployment, world.domain
        first = cluster.leader
        assert first is not None
        client = await connected(cluster, first)

        options = await listed(client.ask)
        instrument = options[0]["number"]
        sure = orders(domain, world.accounts, instrument, 0, 40)
        client.submit([(raw, owner_of(number % 2)) for number, raw in enumerate(sure)])
        answers = await client.all_of(sure)
        doubtful = orders(domain, world.accounts, instrument, 40, 20)
        client.submit([(raw, owner_of(number % 2)) for number, raw in enumerate(doubtful)])
        await asyncio.sleep(0.004)
        first.kill()
        began = time.monotonic()

        async def another() -> Process | None:
            return cluster.leader if cluster.leader is not first else None

        second = await eventually(another, "another leader")
        assert time.monotonic() - began < 15
        again = await connected(cluster, second)
        every = sure + doubtful
        again.submit([(raw, owner_of(number % 2)) for number, raw in enumerate(every)])
        repeated = await again.all_of(every)
        assert repeated[: len(sure)] == answers
        third = await connected(cluster, second)
        third.submit([(raw, owner_of(number % 2)) for number, raw in enumerate(every)])
        assert await third.all_of(every) == repeated

        # Whoever heard an answer of the first leader's to a record in flight heard the same.
        for raw, (ok, body) in client.got.items():
            assert (ok, body) == again.got[raw]

        headers = {}
        key = address_of(public_key_of(receipt_key()))
        for raw, body in zip(every, repeated, strict=True):
            opened = check_ack(raw, json.loads(in_json(body)), at.chain_id, at.rollup, {key})
            headers[opened.header.tick] = opened.header
        assert {header.term for header in headers.values()} <= {1, 2}

        # The node that was killed follows again, and gives what the leader gives; so does the one that only reads.
        first.start()
        status = await again.ask("status")
        book = await again.ask("book", instrument=options[0]["instrument"], depth=5)
        for node in (first, *cluster.readers):
            other = await connected(cluster, node)

            async def level(other: RawClient = other) -> bool:
                return bool((await other.ask("status"))["log_end"] >= status["log_end"])

            await eventually(level, f"node {node.name} to be level")
            same = await other.ask("book", instrument=options[0]["instrument"], depth=5)
            assert (same["bids"], same["asks"]) == (book["bids"], book["asks"])

        # What both have signed is on L1.
        follower = Follower(cluster.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)

        async def posted() -> Any:
            await asyncio.to_thread(cluster.chain.mine, 1)
            batches = await asyncio.to_thread(lambda: list(follower.batches(0)))
            return batches if batches and batches[-1].tick >= max(headers) else None

        batches = await eventually(posted, "the batches to be posted")
        ids = [one for batch in batches for one in ids_in(batch.payload, batch.segments, batch.ticks)]
        for header in headers.values():
            assert ids[header.tick - 1] == header.id
