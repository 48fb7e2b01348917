"""The loop: durable before acknowledged, in order, and back to the log when the log refuses."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from sequencer.clock import ManualClock
from sequencer.engine.engine import CONTINUES_MAX, Engine, Submission, Tick, replay
from sequencer.log.interface import Entry, LogError, LogLost
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import State
from sequencer.queue.driver import Driver, DriverConfig
from sequencer.queue.intake import Intake
from tests.simulation.little import Little, deposit, genesis
from tests.simulation.world import MID


class GatedLog:
    """A log in memory whose appends wait for `gate`, and fail when `errors` has one for them."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = list(entries)
        self.gate = threading.Event()
        self.gate.set()
        self.errors: list[LogError | None] = []
        self.tried = 0
        self.rooms: list[int] = []  # that were asked for
        self.no_room: list[LogError | None] = []

    @property
    def end(self) -> int:
        return len(self.entries)

    def append(self, entry: Entry, expected_offset: int) -> bytes:
        self.tried += 1
        assert self.gate.wait(60)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        assert expected_offset == len(self.entries)
        self.entries.append(entry)
        return b""

    def tidy(self) -> None:
        assert self.entries

    def check_place(self) -> None:
        pass

    def try_room(self, size: int) -> None:
        self.rooms.append(size)
        error = self.no_room.pop(0) if self.no_room else None
        if error is not None:
            raise error

    def read(self, start: int) -> list[Entry]:  # type: ignore[override]
        return self.entries[start:]


class Rig:
    """A driver on a little exchange; what it told, in order."""

    def __init__(self, **config: float) -> None:
        self.little = Little()
        self.log = GatedLog(self.little.entries)
        self.ticks: list[Tick] = []
        self.lost: list[tuple[list[Submission], str]] = []
        self.intake = Intake()
        self.clock = ManualClock(self.little.now)
        self.driver = Driver(
            self.little.engine,
            self.log,  # type: ignore[arg-type]  # reads a list
            self.intake,
            self.clock,
            DriverConfig(tick_ms=1.0, **config),  # type: ignore[arg-type]
            self.ticks.append,
            self.on_lost,
        )
        self.refused: list[tuple[list[Submission], str]] = []
        self.driver.on_refused = lambda *told: self.refused.append(told)

    @property
    def engine(self) -> Engine:
        return self.little.engine

    async def on_lost(self, submissions: list[Submission], reason: str) -> None:
        self.lost.append((submissions, reason))
        self.driver.drop_system()
        self.engine.state = self.recovered()

    def recovered(self) -> State:
        state = genesis()
        for entry in self.log.entries:
            replay(state, entry)
        return state

    def offer(self, submission: Submission) -> Submission:
        assert self.driver.offer(submission) == 0
        return submission

    def told(self) -> list[Submission]:
        return [result.submission for tick in self.ticks for result in tick.results]


def play(test: Callable[[Rig], object], **config: float) -> None:
    async def run() -> None:
        rig = Rig(**config)
        try:
            await test(rig)  # type: ignore[misc]
        finally:
            rig.log.gate.set()
            rig.driver.close()

    asyncio.run(asyncio.wait_for(run(), 100))


def test_tick__is_told_only_when_it_is_durable() -> None:
    async def body(rig: Rig) -> None:
        rig.log.gate.clear()
        order = rig.offer(rig.little.rest(0, c.BUY, MID - 10))
        await rig.driver.tick()
        await asyncio.sleep(0.02)
        assert rig.log.tried == 1
        assert rig.ticks == []
        rig.log.gate.set()
        await rig.driver.flush()
        assert rig.told() == [order]
        assert rig.log.entries[-1] == rig.ticks[0].entry

    play(body)


def test_next_tick__is_applied_while_the_append_runs_and_told_after_it() -> None:
    async def body(rig: Rig) -> None:
        rig.log.gate.clear()
        first = rig.offer(rig.little.rest(0, c.BUY, MID - 10))
        await rig.driver.tick()
        second = rig.offer(rig.little.rest(1, c.BUY, MID - 11))
        seq = rig.engine.state.globals.seq
        behind = asyncio.create_task(rig.driver.tick())
        await asyncio.sleep(0.02)
        assert rig.engine.state.globals.seq > seq  # applied
        assert (rig.log.tried, rig.ticks) == (1, [])  # and behind the first in every other way
        rig.log.gate.set()
        await behind
        await rig.driver.flush()
        assert rig.told() == [first, second]
        assert rig.recovered().root() == rig.engine.state.root()

    play(body)


def test_refusal__of_a_tick_behind_another__waits_for_it() -> None:
    """Why it was refused may be what the tick before did, which must be durable before anybody hears of it."""

    async def body(rig: Rig) -> None:
        rig.log.gate.clear()
        rig.offer(rig.little.rest(0, c.BUY, MID - 10))
        await rig.driver.tick()
        rig.offer(rig.little.place(1, c.BUY, quantity=0))
        behind = asyncio.create_task(rig.driver.tick())
        await asyncio.sleep(0.02)
        assert rig.ticks == []
        rig.log.gate.set()
        await behind
        await rig.driver.flush()
        assert [tick.entry is None for tick in rig.ticks] == [False, True]
        assert rig.log.end == len(rig.little.entries) + 1

    play(body)


@pytest.mark.parametrize("lost_at", [0, 1, 2])
def test_log_error__loses_its_tick_and_the_one_applied_behind_it_and_no_other(lost_at: int) -> None:
    async def body(rig: Rig) -> None:
        rig.log.errors = [None] * lost_at + [LogError("disk is full")]
        for number in range(lost_at):
            rig.offer(rig.little.rest(number, c.BUY, MID - 10 - number))
            await rig.driver.tick()
        await rig.driver.flush()
        root = rig.engine.state.root()
        rig.log.gate.clear()
        lost = [rig.offer(rig.little.rest(2, c.SELL, MID + 10))]
        await rig.driver.tick()
        lost.append(rig.offer(rig.little.rest(3, c.SELL, MID + 11)))
        behind = asyncio.create_task(rig.driver.tick())
        await asyncio.sleep(0.02)
        rig.log.gate.set()
        await behind
        await rig.driver.flush()
        told = rig.lost + rig.refused
        assert len(rig.lost) == 1  # the state was taken back once
        assert [one for some, _ in told for one in some] == lost
        assert {reason for _, reason in told} == {"disk is full"}
        assert not set(map(id, rig.told())) & set(map(id, lost))
        assert rig.engine.state.root() == root == rig.recovered().root()

        for one in lost:  # their nonces are as good as before
            rig.offer(one)
        await rig.driver.tick()
        await rig.driver.flush()
        assert rig.told()[-2:] == lost
        assert rig.recovered().root() == rig.engine.state.root()
        assert rig.driver.metrics.last_error == ""

    play(body)


MAKERS = 9 * CONTINUES_MAX  # an order that meets them has two pauses


def with_makers(rig: Rig) -> Submission:
    """Many small orders rest; an order that takes them all."""
    little = rig.little
    for start in range(0, MAKERS, 96):
        little.run([little.rest(one % 3, c.SELL, MID, 1) for one in range(start, min(start + 96, MAKERS))])
    rig.log.entries = list(little.entries)
    rig.clock.set(little.now)
    return little.place(3, c.BUY, MID, MAKERS)


def test_order_of_many_records__lets_others_have_their_turns__and_is_told_whole() -> None:
    async def body(rig: Rig) -> None:
        big, cancel = with_makers(rig), rig.little.rest(0, c.BUY, MID - 10)
        rig.log.gate.clear()
        before = rig.offer(rig.little.rest(1, c.BUY, MID - 11))
        await rig.driver.tick()  # its append is under way
        rig.offer(big)
        rig.log.gate.set()
        told_meanwhile: list[list[Submission]] = []

        async def others() -> None:
            while True:
                await asyncio.sleep(0)
                if rig.engine.state.globals.taker is not None:
                    break
            rig.offer(cancel)
            while rig.engine.state.globals.taker is not None:
                told_meanwhile.append(rig.told())
                await asyncio.sleep(0.005)

        await asyncio.gather(others(), rig.driver.tick())
        assert rig.driver.metrics.pauses == MAKERS // 3 // CONTINUES_MAX - 1 == 2
        assert told_meanwhile  # somebody has had a turn while the order was on its way
        assert len(rig.intake) == 1
        await rig.driver.tick()
        await rig.driver.flush()
        assert rig.told() == [before, big, cancel]
        outcomes = rig.ticks[1].results[0].outcomes
        assert (len(outcomes), sum(len(one.fills) for one in outcomes)) == (MAKERS // 3, MAKERS)
        assert rig.recovered().root() == rig.engine.state.root()

    play(body)


def test_log_error__while_an_order_of_many_records_pauses__gives_the_tick_up() -> None:
    async def body(rig: Rig) -> None:
        big = with_makers(rig)
        rig.log.errors = [LogError("disk is full")]
        rig.log.gate.clear()
        lost = rig.offer(rig.little.rest(1, c.BUY, MID - 11))
        await rig.driver.tick()
        rig.offer(big)
        root = rig.recovered().root()

        class Pausing(Engine):
            def steps(self, *args: Any) -> Generator[None, None, Tick]:
                inner = rig.engine.steps(*args)
                next(inner)
                rig.log.gate.set()
                while not rig.lost:
                    yield
                return (yield from inner)

        rig.driver.engine = Pausing(rig.engine.state)
        await rig.driver.tick()
        rig.driver.engine = rig.engine
        assert [some for some, _ in rig.lost + rig.refused] == [[lost], [big]]
        assert rig.engine.state.root() == root
        rig.offer(big)
        await rig.driver.tick()
        await rig.driver.flush()
        assert rig.told() == [big]
        assert rig.recovered().root() == rig.engine.state.root()

    play(body)


def test_log_without_room__is_tried_at_each_tick__and_nothing_is_executed_before() -> None:
    async def body(rig: Rig) -> None:
        full = LogError("disk is full")
        rig.log.errors, rig.log.no_room = [full], [full, full]
        first = rig.offer(rig.little.rest(0, c.SELL, MID + 10))
        await rig.driver.tick()
        await rig.driver.flush()
        assert [some for some, _ in rig.lost] == [[first]]
        applied = rig.driver.applied
        for number in (1, 2):
            one = rig.offer(rig.little.rest(1, c.SELL, MID + 10 + number))
            rig.driver.offer_system([b"kept for later"])
            await rig.driver.tick()
            assert rig.refused[-1] == ([one], "disk is full")
            assert (rig.driver.applied, rig.log.tried) == (applied, 1)
        assert len(rig.lost) == 1
        assert min(rig.log.rooms) > len(first.raw)  # as much as was refused, at least
        good = rig.offer(rig.little.rest(2, c.SELL, MID + 12))
        await rig.driver.tick()
        await rig.driver.flush()
        assert rig.told() == [good]
        assert len(rig.ticks[-1].system) == 2  # nothing of L1's was lost
        assert not rig.driver.metrics.last_error

    play(body)


def test_log_that_is_lost__ends_the_loop_and_answers_nobody() -> None:
    async def body(rig: Rig) -> None:
        rig.log.errors = [LogLost("whether it is durable is unknown")]
        running = asyncio.create_task(rig.driver.run(0.01))
        rig.offer(rig.little.rest(0, c.BUY, MID - 10))
        with pytest.raises(LogLost, match="unknown"):
            await asyncio.wait_for(running, 60)
        assert rig.ticks == rig.lost == []

    play(body)


def test_end__gives_what_waits_its_tick_and_its_answer() -> None:
    async def body(rig: Rig) -> None:
        running = asyncio.create_task(rig.driver.run(5.0))
        await asyncio.sleep(0.01)
        orders = [rig.offer(rig.little.rest(number % 4, c.BUY, MID - 10 - number)) for number in range(20)]
        rig.driver.end()
        await asyncio.wait_for(running, 60)
        assert rig.told() == orders
        assert rig.log.end == len(rig.little.entries) + len(rig.ticks)

    play(body, tick_records=6)


def test_quiet_work__sees_the_state_where_the_log_ends() -> None:
    async def body(rig: Rig) -> None:
        seen: list[tuple[bytes, bytes]] = []
        rig.driver.when_quiet(
            lambda: True, lambda: seen.append((rig.engine.state.root(), rig.log.entries[-1].root))
        )
        for number in range(6):
            rig.offer(rig.little.rest(number % 4, c.BUY, MID - 10 - number))
            await rig.driver.tick()
        assert len(seen) == 6
        assert all(state == logged for state, logged in seen)

    play(body)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("full")])
def test_quiet_work__that_finds_no_room__is_put_off_and_does_not_stop_the_ticks(error: Exception) -> None:
    async def body(rig: Rig) -> None:
        calls: list[int] = []

        def work() -> None:
            calls.append(1)
            raise error

        rig.driver.when_quiet(lambda: True, work)
        for number in range(3):
            rig.offer(rig.little.rest(number, c.BUY, MID - 10 - number))
            await rig.driver.tick()
        await rig.driver.flush()
        assert (len(calls), len(rig.told())) == (1, 3)

    play(body)


def test_system_records__are_bounded_a_tick_and_keep_their_order() -> None:
    async def body(rig: Rig) -> None:
        deposits = [deposit(number % 4, amount=1_000 + number) for number in range(25)]
        rig.driver.offer_system(deposits)
        while rig.driver._system:
            await rig.driver.tick()
        await rig.driver.flush()
        assert [len(tick.system) for tick in rig.ticks] == [10, 10, 5]
        logged = [raw for entry in rig.log.entries[len(rig.little.entries) :] for raw in entry.raws()]
        assert [raw for raw in logged if raw[0] == Kind.DEPOSIT] == deposits

    play(body, system_records=10)


def test_collectors__are_asked_once_a_tick_with_the_time_of_it() -> None:
    async def body(rig: Rig) -> None:
        asked: list[int] = []

        def source(now_s: int) -> list[bytes]:
            asked.append(now_s)
            return []

        rig.driver.collect_from(source)
        await rig.driver.tick()
        rig.clock.set(rig.clock.now_s() + 5)
        await rig.driver.tick()
        assert asked == [rig.little.now, rig.little.now + 5]
        assert rig.ticks == []  # nothing came: no tick

    play(body)


def test_message__that_waits_for_marks__comes_again_each_tick_and_before_what_is_behind_it() -> None:
    async def body(rig: Rig) -> None:
        little = rig.little
        rig.offer(little.rest(1, c.SELL, MID))
        await rig.driver.tick()
        rig.offer(little.place(0, c.BUY, MID))
        await rig.driver.tick()
        state = little.state
        rig.clock.set(state.globals.time + state.params.risk_age_max_s + 1)
        count = state.globals.inbox_count
        message = codec.encode(Kind.FORCED_WITHDRAW, account=1, amount=5)
        rig.driver.offer_system([message])
        for _ in range(3):
            await rig.driver.tick()
            rig.driver.offer_system([deposit(1)])
        assert state.globals.inbox_count == count
        little.keeper.state = state
        rig.driver.offer_system(
            [raw for raw in little.keeper.pass_one(rig.clock.now_s()) if raw[0] in (Kind.FEED, Kind.SURFACE)]
        )
        await rig.driver.tick()
        await rig.driver.flush()
        assert state.globals.inbox_count == count + 4
        kinds = [raw[0] for raw in rig.log.entries[-1].raws() if raw[0] not in (Kind.FEED, Kind.SURFACE)]
        assert kinds == [Kind.TICK, Kind.RISK, Kind.FORCED_WITHDRAW, *[Kind.DEPOSIT] * 3]
        assert rig.recovered().root() == state.root()

    play(body)


def test_message__that_waits_for_marks__is_forgotten_with_the_state_that_it_waited_in() -> None:
    async def body(rig: Rig) -> None:
        rig.driver.offer_system([deposit(0)])
        rig.driver._held = [deposit(1)]
        rig.driver.drop_system()
        await rig.driver.tick()
        await rig.driver.flush()
        assert rig.ticks == []

    play(body)


def test_collecting__counts_from_the_first_arrival_also_while_a_tick_is_applied() -> None:
    async def test(rig: Rig) -> None:
        rig.driver.config = DriverConfig(tick_ms=200.0, tick_records=3)
        now_ns = rig.clock.monotonic_ns
        assert rig.driver._collects_s() == 0.2  # what wakes it is no submission

        def offer(waited_s: float) -> None:
            one = rig.little.orders(1)[0]
            one.arrived_ns = now_ns() - int(waited_s * 1e9)
            assert not rig.driver.offer(one)

        offer(0.15)
        assert 0.0 < rig.driver._collects_s() <= 0.05
        offer(0.0)  # the first counts
        assert 0.0 < rig.driver._collects_s() <= 0.05
        offer(0.0)  # and a tick that is full does not wait
        assert rig.driver._collects_s() == 0.0
        rig.intake.take(2)
        assert 0.15 < rig.driver._collects_s() <= 0.2
        rig.intake.take(1)
        offer(0.3)
        assert rig.driver._collects_s() == 0.0

    play(test)
