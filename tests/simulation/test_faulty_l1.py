"""A sequencer process behind an L1 that misbehaves: it says what is wrong, and goes on by itself when it is over."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sequencer.contracts import load
from sequencer.errors import Code
from sequencer.l1.abi import Contract
from sequencer.l1.fees import GWEI
from sequencer.l1.follower import Follower
from sequencer.l1.sequencers import standing
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.proof.replay import replay as replay_posted
from sequencer.rollup.l1_messages import L1Config
from tests.simulation import faulty_l1
from tests.simulation.faulty_l1 import MALFORMED, Fault, FaultyL1
from tests.simulation.kill import posts
from tests.simulation.test_outage import TRADERS, Orders, trading
from tests.simulation.world import Client, Node, World

TOLD_S = 60.0  # until what is wrong is told: a silence is one after the timeout of a request
GOES_ON_S = float(os.environ.get("FAIRSTRIKE_GOES_ON_S", "60"))  # 10 on a machine that does nothing else
NODE_CHAINS = [pytest.param(name, marks=pytest.mark.node) for name in ("anvil", "hardhat")]
SEQUENCERS = Contract(load("Sequencers").abi)


@pytest.fixture(scope="module", params=["pyevm", *NODE_CHAINS])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    built = World.build(tmp_path_factory.mktemp("faulty"), TRADERS, chain=request.param)
    yield built
    built.stop()


class Scene:
    """A running node behind the proxy."""

    def __init__(self, world: World, node: Node, client: Client, proxy: FaultyL1, orders: Orders) -> None:
        self.world, self.node, self.client, self.proxy, self.orders = world, node, client, proxy, orders

    async def through(
        self, fault: Fault, says: str | None, meanwhile: Callable[["Scene"], Any] | None = None
    ) -> dict[str, Any]:
        """The fault comes, is told, and goes; the status after it."""
        self.proxy.fault = fault
        await self.orders.send(2)
        told: dict[str, Any] = {}
        if says is not None:
            told = await self.client.until(
                lambda one: says in one["l1_error"] and one["l1_error"], TOLD_S, f"{says!r} to show"
            )
        else:
            await asyncio.sleep(0.3)
        if meanwhile is not None:
            await meanwhile(self)
        self.proxy.fault = None
        await self.goes_on()
        return told

    async def goes_on(self) -> None:
        """Before GOES_ON_S orders are taken, all of them is posted, and nothing is wrong."""
        until = time.monotonic() + GOES_ON_S
        while (codes := await self.orders.send(2)) != [0, 0]:
            assert time.monotonic() < until, codes
            await asyncio.sleep(0.05)
        seq = (await self.client.ask("status"))["batches_stored"]
        status = await self.client.until(
            lambda one: one["batches_posted"] == one["batches_stored"] >= seq and not one["l1_error"],
            until - time.monotonic(),
            "all to be posted",
        )
        assert status["accepts_orders"]
        assert status["l1_restarts"] == 0
        assert self.node.is_alive


@contextlib.asynccontextmanager
async def running(world: World, folder: str, **options: Any) -> AsyncIterator[Scene]:
    """A node of this world with a folder of its own; at the end L1 has each batch once, and a replay agrees."""
    with faulty_l1.faulty(world.chain.url) as proxy:
        node = world.start_node(l1=proxy.url, socket=world.folder / f"{folder}.sock", **options)
        client = await node.connect()
        assert client is not None, world.log_tail()
        try:
            yield Scene(world, node, client, proxy, await trading(world, client))
            client.close()
            assert await asyncio.to_thread(node.terminate) == 0
        finally:
            node.process.kill()
            node.process.wait()
    assert set(posts(world).values()) == {1}
    at = world.deployment
    at_l1 = Follower(world.chain.rpc, at.inbox, at.rollup, at.deploy_block, 0)
    replay_posted(at_l1.batches(at.deploy_block), world.domain, world.params)


# what only shows where there is something to read of
SILENT = ("receipts of another transaction", "receipts without a block", "receipts that are true")


def test_answers__of_every_malformed_kind__are_told_and_end_nothing(world: World) -> None:
    """Before, 14 of 31 ended what looks at L1: orders went on, and nothing was posted until a restart."""

    async def play() -> None:
        async with running(world, "malformed") as scene:
            await scene.goes_on()
            for kind, fault in MALFORMED.items():
                try:
                    await scene.through(fault, None if kind in SILENT else "")
                except AssertionError as error:
                    raise AssertionError(kind) from error

    asyncio.run(play())


LINES: dict[str, tuple[Fault, str]] = {
    "silence": (faulty_l1.silence, "no answer"),
    "lost answers": (faulty_l1.lost_answer, "no answer"),
    "late answers": (faulty_l1.late(20), "no answer"),
    "a drip": (faulty_l1.drip, "no answer"),
    "half a body": (faulty_l1.truncated, "IncompleteRead"),
    "429": (faulty_l1.status("429 Too Many Requests"), "HTTP 429"),
    "403": (faulty_l1.status("403 Forbidden"), "HTTP 403"),
    "other words": (faulty_l1.refuses("FeeTooLow, whatever that is"), "FeeTooLow, whatever that is"),
    "unknown words": (faulty_l1.refuses("the moon is in the wrong house"), "the wrong house"),
    "words of what it has taken": (faulty_l1.refuses("not now", takes=True), ""),
    "rates": (faulty_l1.batch_limit(0, "rate limit: 25 requests per second", 429), "rate limit"),
    "a dear base fee": (faulty_l1.fees(base_wei=600 * GWEI), ""),
    "a dear tip": (faulty_l1.fees(tip_wei=450 * GWEI), ""),
    "block times behind": (faulty_l1.block_times(-3_600), "ahead of L1"),
    "block times ahead": (faulty_l1.block_times(3_600), ""),
}
UNTOLD = ("words of what it has taken", "a dear tip", "block times ahead", "a dear base fee")


def test_lines_words_limits_and_fees__are_told_and_pass(world: World) -> None:
    async def play() -> None:
        async with running(world, "lines") as scene:
            await scene.goes_on()
            for name, (fault, says) in LINES.items():
                try:
                    await scene.through(fault, None if name in UNTOLD else says)
                except AssertionError as error:
                    raise AssertionError(name) from error

    asyncio.run(play())


def test_providers_limits__hold_nothing_up(world: World) -> None:
    async def play() -> None:
        async with running(world, "limits") as scene:
            for fault in (
                faulty_l1.logs_limit(3),
                faulty_l1.batch_limit(1),
                faulty_l1.batch_limit(4, "batch too large", -32600),
            ):
                scene.proxy.fault = fault
                await scene.goes_on()

    asyncio.run(play())


@pytest.mark.parametrize("jump_s", [3_600, 86_400, -3_600])
def test_clock__off_for_three_seconds__stops_the_ticks_and_is_in_no_record(world: World, jump_s: int) -> None:
    """Before, a day ahead for a moment ended every option, and an hour kept all batches from L1 for an hour."""

    async def play() -> None:
        shift = world.folder / f"shift{jump_s}"
        shift.write_text("0")
        async with running(world, f"clock{jump_s}", clock=shift) as scene:
            await scene.goes_on()
            before = await scene.client.ask("status")
            shift.write_text(str(jump_s))
            told = await scene.client.until(lambda one: one["clock_error"], TOLD_S, "the jump to show")
            assert f"the machine's clock has jumped by {jump_s:+d} s" in told["clock_error"]
            assert await scene.orders.send(3) == [Code.NOT_READY] * 3
            assert told["clock_error"] in told["refuses_because"]
            await asyncio.sleep(2)
            shift.write_text("0")
            await scene.goes_on()
            after = await scene.client.ask("status")
            assert after["clock_error"] == ""
            assert 0 <= after["time"] - before["time"] < 60
            assert after["instruments"] == before["instruments"]

    asyncio.run(play())


def test_clock__wrong_from_the_start__takes_no_order_until_it_is_right(world: World) -> None:
    async def play() -> None:
        shift = world.folder / "shift"
        shift.write_text("0")
        async with running(world, "late", clock=shift) as scene:
            await scene.goes_on()
        shift.write_text("7200")
        node = world.start_node(socket=world.folder / "again.sock", clock=shift)
        client = await node.connect()
        assert client is not None
        told = await client.until(
            lambda one: "ahead of L1" in one["clock_error"], TOLD_S, "the clock to show"
        )
        assert not told["accepts_orders"]
        client.close()
        node.kill()

    asyncio.run(play())


def test_leader_that_started_alone__while_l1_is_silent__stops_before_another_can_lead(
    tmp_path: Path,
) -> None:
    """Before, it acknowledged 99 of 99 orders while another had joined and led: it had read once that it was alone."""
    takeover_s = 12
    world = World.build(tmp_path, TRADERS, takeover_s=takeover_s)

    async def play() -> None:
        with faulty_l1.faulty(world.chain.url) as proxy:
            node = world.start_node(l1=proxy.url)
            client = await node.connect()
            assert client is not None, world.log_tail()
            orders = await trading(world, client)
            assert await orders.send(2) == [0, 0]
            proxy.fault = faulty_l1.silence
            silent_s = time.monotonic()
            at, rpc = world.deployment, world.chain.rpc
            other = Wallet(rpc, devnet_signer(1), at)
            await asyncio.to_thread(
                other.transact, "join", at.sequencers, SEQUENCERS.encode("join"), 10**18, 500_000
            )
            last_s = silent_s
            while time.monotonic() < silent_s + takeover_s:
                if await orders.send(1) == [0]:
                    last_s = time.monotonic()
                await asyncio.sleep(0.05)
            assert last_s - silent_s < takeover_s / 2 + 1
            assert await orders.send(20) == [Code.NOT_READY] * 20
            told = await client.ask("status")
            assert "L1 has not said for" in told["refuses_because"]
            while not (await asyncio.to_thread(_leads, world, other)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            proxy.fault = None
            assert await asyncio.to_thread(node.process.wait, 10) == 1
            client.close()

    try:
        asyncio.run(play())
    finally:
        world.stop()


def _leads(world: World, other: Wallet) -> bool:
    """Takes over as soon as L1 lets it."""
    world.chain.mine()
    now = standing(world.chain.rpc, world.deployment, other.address)
    if now.head_time_s < now.takes_over_at:
        return False
    data = SEQUENCERS.encode("take_over")
    other.transact("take_over", world.deployment.sequencers, data, 0, 500_000)
    return True


def test_l1_process__that_dies_of_the_unforeseen__is_loud_and_starts_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = tmp_path / "left"
    left.write_text("2")
    command = (sys.executable, "-m", "tests.simulation.nonsense", str(left))
    monkeypatch.setattr("sequencer.rollup.l1_link.COMMAND", command)

    async def play() -> None:
        with faulty_l1.faulty(world.chain.url) as proxy:
            l1 = L1Config(poll_s=0.05)
            url = proxy.url + "/v3/sEcReTkEy123"
            config = ServiceConfig(tmp_path / "s", world.params, world.deployment, url, l1)
            service = Service(config, None, devnet_signer(0))
            await service.start(str(tmp_path / "s.sock"))
            until = time.monotonic() + 2 * GOES_ON_S  # with its first start
            told: set[str] = set()
            status: dict[str, Any] = {"inbox_count": 0, "l1_error": "?"}
            while status["inbox_count"] < TRADERS or status["l1_error"]:
                assert time.monotonic() < until, told
                told.add(status["l1_error"])
                await asyncio.sleep(0.02)
                status = service.answers.answer("status", {})
            await service.stop()
            assert (status["l1_restarts"], status["l1_error"]) == (2, "")
            assert any("the L1 process has ended (TypeError" in one for one in told)
            assert not any("sEcReTkEy123" in one for one in told)

    asyncio.run(play())
    loud = [one for one in caplog.records if one.levelname == "CRITICAL"]
    assert len(loud) == 2
    assert "Traceback" in loud[0].getMessage()
    assert "sEcReTkEy123" not in caplog.text


def test_key__out_of_ether__acknowledges_nothing_more(world: World) -> None:
    """Before, 41 orders were acknowledged that could not be posted."""

    async def play() -> None:
        async with running(world, "empty") as scene:
            await scene.goes_on()
            scene.proxy.fault = faulty_l1.balance(10**12)
            await scene.client.until(lambda one: not one["accepts_orders"], TOLD_S, "the brake")
            assert await scene.orders.send(40) == [Code.NOT_READY] * 40
            status = await scene.client.ask("status")
            assert "the sequencer's key has 0.000001 ETH" in status["refuses_because"]
            assert "0.000001 ETH" in status["l1_error"]
            scene.proxy.fault = None
            await scene.goes_on()

    asyncio.run(play())
