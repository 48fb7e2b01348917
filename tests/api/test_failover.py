"""A gateway before several nodes: it finds the leader, sends again what was on its way, and reads from followers.

Long because every test plays the same nodes and gateway, which a fail-over takes apart in its own way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from exchange_fixture import (
    INSTRUMENT,
    KEYS,
    MAKER,
    NAMES,
    OWNERS,
    PATIENCE_S,
    TAKER,
    StandIn,
    signed,
)

from sequencer import errors
from sequencer.api.gateway import Gateway, Limits, serve
from sequencer.api.ipc import Connection, Health
from sequencer.api.ipc_server import IpcServer
from sequencer.api.link import LinkSettings
from sequencer.engine.engine import Submission
from sequencer.errors import NotLeader, OutcomeUnknown
from sequencer.protocol.constants import Kind
from sequencer.queue.outcomes import key_of
from sequencer.sdk.client import Client, PlacedOrder, Trader

QUICK = LinkSettings(ping_s=0.02, silent_s=5.0)


class Node:
    """A node of a cluster: its socket before an exchange that all nodes share, or before one of its own (`core`).

    `mute`: takes records, and no acknowledgement leaves. `claims`: says that it leads although it refuses.
    """

    def __init__(self, core: StandIn, path: Path, leads: bool = False, term: int = 1) -> None:
        self.core = core
        self.address = str(path)
        self.leads, self.term, self.claims = leads, term, False
        self.mute = False
        self.behind_s: float | None = 0.0
        self.asked: list[str] = []
        self.taken: list[bytes] = []
        self.server = IpcServer(self._on_submit, self._on_query, health=self._health, position=self._seq)
        if leads:
            core.server = self.server

    def lead(self, term: int) -> None:
        self.leads, self.term = True, term
        self.core.server = self.server

    def _seq(self) -> int:
        return self.core.engine.state.globals.seq

    def _health(self) -> Health:
        leads = self.leads or self.claims
        return Health(leads, "", leads, "leader", self.term, self._seq(), self.behind_s)

    def _on_submit(self, connection: Connection, items: list[tuple[int, bytes, bytes, str]]) -> None:
        self.taken += [raw for _, raw, _, _ in items]
        if self.mute:
            connection.send_acks = lambda _: True  # type: ignore[method-assign]
        if self.leads:
            self.core._on_submit(connection, items)
        else:
            body = errors.error_body(errors.Code.NOT_LEADER, "Not accepted: another leads.")
            connection.send_acks([(rid, False, body) for rid, *_ in items])

    def _on_query(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        self.asked.append(method)
        self.core._on_query(connection, rid, method, params)


def run(scenario: Callable[[Path], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with tempfile.TemporaryDirectory(prefix="fairstrike-") as folder:
            async with asyncio.timeout(2 * PATIENCE_S):
                await scenario(Path(folder))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


@contextlib.asynccontextmanager
async def gateway_of(
    *sequencers: str,
    followers: tuple[str, ...] = (),
    settings: LinkSettings = QUICK,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway on this loop, and where its WebSocket is."""
    gateway = Gateway(sequencers, limits=limits, settings=settings, followers=followers)
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(gateway, "127.0.0.1", 0, bound.set_result))
    try:
        yield gateway, f"ws://127.0.0.1:{await bound}/ws"
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # most of it is on this loop
            await asyncio.sleep(0.002)
    assert condition(), what


async def two_nodes(folder: Path) -> tuple[StandIn, Node, Node]:
    core = StandIn(folder)
    first, second = Node(core, folder / "a", leads=True), Node(core, folder / "b")
    await first.server.start(first.address)
    await second.server.start(second.address)
    return core, first, second


def orders_of(core: StandIn, account: int) -> list[int]:
    """Nonces of the account's resting orders, in the order in which they came."""
    return [
        order["seq"] for order in core.views.methods["orders"]({"account": account, "after": 0, "limit": 500})
    ]


def nonces(records: list[bytes]) -> list[int]:
    return [int.from_bytes((key_of(one) or b"")[4:], "big") for one in records]


async def place(maker: Trader, count: int) -> list[asyncio.Task[Any]]:
    tasks = [
        asyncio.create_task(maker.place(INSTRUMENT, "sell", "1600", "0.01", post_only=True))
        for _ in range(count)
    ]
    await asyncio.sleep(0)
    return tasks


# --- the leader moves ---------------------------------------------------------------------------


def test_leader_is_lost_with_records_applied_and_unanswered__each_is_acked_once_by_the_next() -> None:
    async def scenario(folder: Path) -> None:
        core, first, second = await two_nodes(folder)
        async with gateway_of(first.address, second.address) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                first.mute = True
                orders = await place(maker, 40)
                await until(lambda: len(orders_of(core, MAKER)) == 40, "all to be applied")
                assert not any(one.done() for one in orders)
                more = await place(maker, 10)
                second.lead(2)
                await first.server.close()
                acks = await asyncio.gather(*orders, *more)
        assert [ack.seq for ack in acks] == orders_of(core, MAKER)
        assert len({ack.seq for ack in acks}) == 50
        assert nonces(second.taken) == sorted(nonces(second.taken))
        await second.server.close()

    run(scenario)


def test_leader_that_refuses_since_it_leads_no_more__costs_its_records_time_alone() -> None:
    async def scenario(folder: Path) -> None:
        core, first, second = await two_nodes(folder)
        async with gateway_of(first.address, second.address) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                first.leads, first.claims = False, True  # it does not know yet, and its log refuses
                orders = await place(maker, 20)
                await until(lambda: len(first.taken) >= 20, "it to refuse them")
                first.claims = False
                more = await place(maker, 5)
                await until(lambda: gateway.links.leader is None, "nobody to lead")
                assert not core.views.methods["orders"]({"account": MAKER, "after": 0, "limit": 500})
                second.lead(2)
                acks = await asyncio.gather(*orders, *more)
        assert [ack.seq for ack in acks] == orders_of(core, MAKER)
        assert nonces(second.taken) == list(range(25))
        for node in (first, second):
            await node.server.close()

    run(scenario)


def test_same_node_leads_again_after_refusing__its_records_keep_their_order() -> None:
    async def scenario(folder: Path) -> None:
        core = StandIn(folder)
        node = Node(core, folder / "a", leads=True)
        await node.server.start(node.address)
        async with gateway_of(node.address) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                node.leads = False
                orders = await place(maker, 8)
                await until(lambda: gateway.links.leader is None, "nobody to lead")
                node.lead(2)
                acks = await asyncio.gather(*orders)
        assert [ack.seq for ack in acks] == orders_of(core, MAKER)
        assert nonces(node.taken)[-8:] == list(range(8))
        await node.server.close()

    run(scenario)


def test_two_say_that_they_lead__the_higher_term_does__and_the_lower_never_again() -> None:
    async def scenario(folder: Path) -> None:
        _, first, second = await two_nodes(folder)
        async with gateway_of(first.address, second.address) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            second.lead(7)
            await until(lambda: gateway.links.leader and gateway.links.leader.address == second.address, "b")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                await maker.place(INSTRUMENT, "sell", "1600", "0.01")
                assert not first.taken
                await second.server.close()
                await until(lambda: gateway.links.leader is None, "its loss")
                order = await place(maker, 1)
                await asyncio.sleep(0.2)  # several Pongs of the leader of the past
                assert gateway.links.leader is None
                assert not first.taken
                first.term = 8
                assert (await order[0]).rests
                assert first.taken
        await first.server.close()

    run(scenario)


# --- bounds -------------------------------------------------------------------------------------


def test_no_leader_comes__what_may_have_been_applied_is_unknown__the_rest_was_not_accepted() -> None:
    async def scenario(folder: Path) -> None:
        core, first, second = await two_nodes(folder)
        limits = Limits(retry_s=0.3)
        async with gateway_of(first.address, second.address, limits=limits) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                first.mute = True
                (lost,) = await place(maker, 1)
                await until(lambda: orders_of(core, MAKER), "it to be applied")
                await first.server.close()
                await until(lambda: gateway.links.leader is None, "nobody to lead")
                (new,) = await place(maker, 1)
                with pytest.raises(OutcomeUnknown, match="was lost"):
                    await lost
                with pytest.raises(NotLeader, match="no sequencer leads"):
                    await new
                second.lead(2)
                await until(lambda: gateway.links.leader, "the next")
                await asyncio.sleep(0.1)
                assert not second.taken  # what was given up is not sent
        await second.server.close()

    run(scenario)


def test_more_than_may_wait__is_refused_at_once() -> None:
    async def scenario(folder: Path) -> None:
        core, first, second = await two_nodes(folder)
        limits = Limits(retry_records=5)
        async with gateway_of(first.address, second.address, limits=limits) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                first.mute = True
                orders = await place(maker, 8)
                await until(lambda: len(orders_of(core, MAKER)) == 8, "all to be applied")
                await first.server.close()
                done, waiting = await asyncio.wait(orders, timeout=0.5)
                assert {type(one.exception()) for one in done} == {OutcomeUnknown}
                assert (len(done), len(waiting)) == (3, 5)
                taker = await Trader.open(client, KEYS[TAKER])
                with pytest.raises(NotLeader):
                    await taker.place(INSTRUMENT, "buy", "1", "0.01")
                second.lead(2)
                acks = await asyncio.gather(*orders[:5])
        assert [ack.seq for ack in acks] == orders_of(core, MAKER)[:5]
        await second.server.close()

    run(scenario)


# --- reading ------------------------------------------------------------------------------------


class Follower(Node):
    """Has an exchange of its own, and what the leader's took until `catch_up`. It always says that it is level."""

    def __init__(self, leader: Node, path: Path) -> None:
        super().__init__(StandIn(path), path)
        self.leader = leader
        self._records = 0

    def catch_up(self) -> None:
        for raw in self.leader.taken[self._records :]:
            self.core.engine.run(self.core.now, [], [Submission(raw, OWNERS[MAKER], None, 0)])
        self._records = len(self.leader.taken)


def test_client_reads_what_it_wrote__from_the_leader_until_the_follower_has_it() -> None:
    async def scenario(folder: Path) -> None:
        core = StandIn(folder)
        leader = Node(core, folder / "a", leads=True)
        follower = Follower(leader, folder / "f")
        await leader.server.start(leader.address)
        await follower.server.start(follower.address)
        async with gateway_of(leader.address, followers=(follower.address,)) as (gateway, url):
            await until(
                lambda: gateway.links.leader and all(one.is_ready for one in gateway.links.all), "both"
            )
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                leader.asked.clear()
                follower.asked.clear()
                await client.call("book", instrument=NAMES[0])
                assert (leader.asked, follower.asked) == ([], ["book"])
                for _ in range(5):
                    ack = await maker.place(INSTRUMENT, "sell", "1600", "0.01")
                    orders = await client.call("orders", account=MAKER)
                    assert orders[-1]["seq"] == ack.seq
                assert (leader.asked, follower.asked) == (["orders"] * 5, ["book"])
                async with await Client.connect(
                    url
                ) as other:  # has written nothing: it may read what is older
                    assert await other.call("orders", account=MAKER) == []
                follower.catch_up()
                link = next(one for one in gateway.links.all if one.is_follower)
                await until(lambda: link.seq == core.engine.state.globals.seq, "the follower's Pong")
                assert (await client.call("orders", account=MAKER))[-1]["seq"] == ack.seq
                assert follower.asked == ["book", "orders", "orders"]
                follower.behind_s = 3.0
                await until(lambda: not link.is_level, "it to say so")
                await client.call("orders", account=MAKER)
                assert len(leader.asked) == 6
                assert "outcome" not in follower.asked
        for node in (leader, follower):
            await node.server.close()

    run(scenario)


def test_follower_is_lost_with_queries_unanswered__the_leader_answers_them() -> None:
    async def scenario(folder: Path) -> None:
        core = StandIn(folder)
        leader, follower = Node(core, folder / "a", leads=True), Node(core, folder / "f")
        await leader.server.start(leader.address)
        await follower.server.start(follower.address)
        async with gateway_of(leader.address, followers=(follower.address,)) as (gateway, url):
            await until(
                lambda: gateway.links.leader and all(one.is_ready for one in gateway.links.all), "both"
            )
            async with await Client.connect(url) as client:
                follower.server._on_query = lambda *_: follower.asked.append("kept")
                asked = [asyncio.create_task(client.call("book", instrument=NAMES[0])) for _ in range(6)]
                await until(lambda: "kept" in follower.asked, "it to have one")
                await follower.server.close()
                assert all(one["bids"] == [] for one in await asyncio.gather(*asked))
                await leader.server.close()
                waiting = asyncio.create_task(client.call("book", instrument=NAMES[0]))
                await until(lambda: not gateway.ready, "the loss of both")
                await leader.server.start(leader.address)
                assert (await waiting)["asks"] == []
        await leader.server.close()

    run(scenario)


def test_events__come_from_one_node__and_subscribers_hear_of_the_gap_when_it_is_another() -> None:
    async def scenario(folder: Path) -> None:
        _, first, second = await two_nodes(folder)
        async with gateway_of(first.address, second.address) as (gateway, url):
            await until(lambda: gateway.links.source and len(gateway.links.all) == 2, "a source")
            async with await Client.connect(url) as client:
                maker = await Trader.open(client, KEYS[MAKER])
                events = await client.subscribe(f"book.{NAMES[0]}")
                await maker.place(NAMES[0], "sell", "1600", "0.01")
                second.lead(2)
                told: list[Any] = []
                async with asyncio.timeout(PATIENCE_S):
                    async for event in events:
                        told.append(event)
                        if event.is_gap:
                            break
                assert [one.is_gap for one in told] == [False, True]
                assert not first.server.is_heard(f"book.{NAMES[0]}")
                assert second.server.is_heard(f"book.{NAMES[0]}")
                await maker.place(NAMES[0], "sell", "1601", "0.01")
                async with asyncio.timeout(PATIENCE_S):
                    async for event in events:
                        assert not event.is_gap
                        break
        for node in (first, second):
            await node.server.close()

    run(scenario)


# --- processes ----------------------------------------------------------------------------------

SERVICE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import uvloop
from exchange_fixture import RealService

async def main():
    service = RealService(Path(sys.argv[2]))
    await service.start(sys.argv[3])
    print("up", flush=True)
    task = asyncio.create_task(service.service.driver.run())
    await asyncio.Event().wait()

uvloop.run(main())
"""


def sequencer(folder: Path, address: Path) -> subprocess.Popen[bytes]:
    """A sequencer's own service in a process of its own."""
    tests = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", SERVICE, tests, str(folder), str(address)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_leaders_process_is_stopped__its_silence_is_noticed__and_the_next_goes_on_from_its_log() -> None:
    async def scenario(folder: Path) -> None:
        a, b = folder / "a", folder / "b"
        processes = [await asyncio.to_thread(sequencer, folder / "data", a)]
        settings = LinkSettings(ping_s=0.05, silent_s=0.5)
        try:
            async with gateway_of(str(a), str(b), settings=settings) as (gateway, url):
                await until(lambda: gateway.links.leader, "a leader")
                async with await Client.connect(url, ping_s=60) as client:
                    maker = await Trader.open(client, KEYS[MAKER])
                    before = [await maker.place(INSTRUMENT, "sell", "1600", "0.01") for _ in range(3)]
                    os.kill(processes[0].pid, signal.SIGSTOP)
                    orders = await place(maker, 30)
                    began = time.monotonic()
                    await until(lambda: gateway.links.leader is None, "its silence to be noticed")
                    assert gateway.health()["accepts_orders"] is False
                    assert time.monotonic() - began >= 0.2  # not at the first Pong that is late
                    processes[0].kill()
                    processes.append(await asyncio.to_thread(sequencer, folder / "data", b))
                    acks = await asyncio.gather(*orders)
                    found = await client.call("orders", account=MAKER, limit=100)
                    assert [one["seq"] for one in found] == [ack.seq for ack in before + acks]
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()

    run(scenario)


def test_record_applied_by_a_sequencer_that_is_killed__is_not_reported_as_refused() -> None:
    """Its acknowledgement is lost with the process: the answer is that one, or that the record was applied."""

    async def scenario(folder: Path) -> None:
        a = folder / "a"
        processes = [await asyncio.to_thread(sequencer, folder / "data", a)]
        try:
            async with gateway_of(str(a)) as (gateway, url):
                await until(lambda: gateway.links.leader, "a leader")
                async with await Client.connect(url) as client:
                    maker = await Trader.open(client, KEYS[MAKER])
                    take_acks = gateway._take_acks
                    swallowed: list[object] = []
                    gateway._take_acks = lambda *_: swallowed.append(1)  # type: ignore[assignment]
                    (order,) = await place(maker, 1)
                    await until(lambda: swallowed, "its acknowledgement, which is lost")
                    processes[0].kill()
                    gateway._take_acks = take_acks  # type: ignore[method-assign]
                    processes.append(await asyncio.to_thread(sequencer, folder / "data", a))
                    (answer,) = await asyncio.gather(order, return_exceptions=True)
                    if isinstance(answer, OutcomeUnknown):
                        assert "it was applied as record" in str(answer)
                        seq = (await maker.outcome(answer))["seq"]
                    else:
                        assert isinstance(answer, PlacedOrder), answer
                        seq = answer.seq
                    found = await client.call("orders", account=MAKER)
                    assert [one["seq"] for one in found] == [seq]
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()

    run(scenario)


def test_cancel_all_sent_twice__is_answered_as_the_first_time() -> None:
    async def scenario(folder: Path) -> None:
        _, first, second = await two_nodes(folder)
        record = signed(Kind.CANCEL_ALL, KEYS[MAKER], account=MAKER, nonce_floor=0, nonce=0, expires=0)
        async with gateway_of(first.address, second.address) as (gateway, url):
            await until(lambda: gateway.links.leader, "a leader")
            async with await Client.connect(url) as client:
                ack = await client.submit(record)
                assert await client.submit(record) == ack
        for node in (first, second):
            await node.server.close()

    run(scenario)
