"""The loop: collect, apply, log, acknowledge. Ticks follow one another; a tick's fsync overlaps collecting the next.

Nothing is acknowledged before its tick is durable. When an append fails, the records that waited for it are refused
too, and the state is restored to that of the log. When this process has lost the log (LogLost), nothing is answered any
more: `run` ends with the error, and only a restart can determine what is durable.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from sequencer.clock import Clock, ClockStopped
from sequencer.engine.engine import Engine, Submission, Tick
from sequencer.log.interface import Entry, Log, LogError, LogLost
from sequencer.queue.intake import Intake
from sequencer.queue.receipts import Issuer, TickReceipts

QUIET_RETRY_S = 1.0
PLACE_NS = 1_000_000_000  # between checks of the log file's place
ROOM_BYTES = 65_536  # beyond the refused tick, before the next is tried

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """`tick_ms` to collect after the first arrival; at most `tick_records` submissions and `system_records` a tick."""

    tick_ms: float = 5.0
    tick_records: int = 512
    system_records: int = 8_192


@dataclass(slots=True)
class Metrics:
    """Counts since the start; the last tick's and append's durations in ms."""

    ticks: int = 0
    records: int = 0
    refused: int = 0
    apply_ms: float = 0.0
    append_ms: float = 0.0
    apply_s_total: float = 0.0
    apply_cpu_s_total: float = 0.0  # of the loop's thread
    append_s_total: float = 0.0
    log_errors: int = 0
    pauses: int = 0  # of ticks, for what waits while an order of many records is executed
    last_error: str = field(default="")
    clock_error: str = field(default="")  # why no tick begins


@dataclass(frozen=True, slots=True)
class TickTimes:
    """When a durable tick's submissions arrived, and when each stage of it ended; monotonic ns.

    `began`: it was taken from the queue; `applied`: executed; `appending`: the log had the tick before; `durable`: it
    has this one; `told`: acknowledgements are on their way.
    """

    arrived: list[int]
    began: int
    applied: int
    appending: int
    durable: int
    told: int


@dataclass(slots=True)
class _QuietWork:
    is_due: Callable[[], bool]
    work: Callable[[], Awaitable[None] | None]
    not_before_ns: int = 0


class Driver:
    """Runs ticks. `on_applied` gets each tick as the state stands after it, `on_tick` each durable one, `on_lost` the
    submissions of one that the log did not take.

    After a refusal of the log the state is taken back once; then, at each tick, the log is tried, and until it takes
    something `on_refused` gets what waited.

    `on_stopped` gets what waited while there is no time that can be trusted, `on_overdrawn` what a tick has put off and
    its account's rate does not let wait.

    `verified` says up to which offset signatures have been checked, for the log to keep.

    `pressure` says by how much what is acknowledged is ahead of what can be posted; the intake refuses by it.

    `issuer` gives each tick its header before it is logged, and signs it after.

    `applied` and `settled` count ticks: the state may be ahead of the log by those between.

    `on_timed`, where somebody measures, gets the times of each durable tick that submissions were in.
    """

    def __init__(
        self,
        engine: Engine,
        log: Log,
        intake: Intake,
        clock: Clock,
        config: DriverConfig,
        on_tick: Callable[[Tick], None],
        on_lost: Callable[[list[Submission], str], Awaitable[None]],
        issuer: Issuer | None = None,
    ) -> None:
        self.engine = engine
        self.issuer = issuer or Issuer(b"", None)
        self.log = log
        self.intake = intake
        self.clock = clock
        self.config = config
        self.metrics = Metrics()
        self.on_tick = on_tick
        self.on_applied: Callable[[Tick], None] = lambda _tick: None
        self.on_refused: Callable[[list[Submission], str], None] = lambda _submissions, _why: None
        self.on_stopped: Callable[[list[Submission], str], None] = lambda _submissions, _why: None
        self.on_timed: Callable[[TickTimes], None] | None = None
        self.on_overdrawn: Callable[[list[Submission]], None] = lambda _submissions: None
        self.pressure: Callable[[], int] = lambda: 0
        self.verified: Callable[[], int] = lambda: 0
        self.applied = 0
        self.settled = 0
        self._on_lost = on_lost
        self._system: list[bytes] = []
        self._held: list[bytes] = []  # L1's messages that wait for marks; they come before `_system`
        self._arrived = asyncio.Event()
        self._append: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._collectors: list[Callable[[int], list[bytes]]] = []
        self._generation = 0  # counts the states: a log error takes the state back
        self._quiet: list[_QuietWork] = []
        self._ending = False
        self._looked_ns = 0
        self._wanting_bytes = 0  # an append has failed, and none has succeeded since
        self._beats: Callable[[], bool] = lambda: False

    def collect_from(self, source: Callable[[int], list[bytes]]) -> None:
        """Requests system records from `source(now_s)` before each tick."""
        self._collectors.append(source)

    def beat_when(self, is_due: Callable[[], bool]) -> None:
        """Logs an empty tick when `is_due`."""
        self._beats = is_due

    def when_quiet(self, is_due: Callable[[], bool], work: Callable[[], Awaitable[None] | None]) -> None:
        """Runs `work` between ticks when it is due, with state and durable log at the same position.

        No tick begins before it has ended, awaited if need be. It is postponed, not fatal, when the disk has no room
        for it.
        """
        self._quiet.append(_QuietWork(is_due, work))

    def offer(self, submission: Submission) -> int:
        """Queues a submission; 0, or the code of the refusal (see Intake)."""
        code = self.intake.offer(submission)
        if not code:
            self._arrived.set()
        return code

    def offer_system(self, records: list[bytes]) -> None:
        """Queues system records for the head of the next tick."""
        self._system += records
        if records:
            self._arrived.set()

    @property
    def waiting_messages(self) -> int:
        """Number of inbox messages that wait for marks which nobody can renew yet."""
        return len(self._held)

    def drop_system(self) -> None:
        """Drops queued system records: the state for which they were made is gone."""
        self._system, self._held = [], []

    async def run(self, idle_s: float = 0.25) -> None:
        """Ticks until `end`: tick_ms after an arrival, and each `idle_s` for the keeper.

        Submissions that wait at the end still get their tick; on return all of it is durable and acknowledged.
        """
        while not self._ending:
            if not len(self.intake) and not self._system:
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), idle_s)
            await asyncio.sleep(self._collects_s())
            await self.tick()
        while len(self.intake):
            await self.tick()
        await self.flush()

    def _collects_s(self) -> float:
        """Seconds to go on collecting: what has come while the tick before was applied has waited that long already."""
        oldest_ns = self.intake.oldest_ns
        if len(self.intake) >= self.config.tick_records:
            return 0.0
        waited_s = 0.0 if oldest_ns is None else (self.clock.monotonic_ns() - oldest_ns) * 1e-9
        return max(0.0, self.config.tick_ms / 1000 - waited_s)

    def wake(self) -> None:
        """Has `run` tick soon: the clock may go again."""
        self._arrived.set()

    def end(self) -> None:
        """Ends `run`. Submissions from now on may get no tick."""
        self._ending = True
        self._arrived.set()

    async def tick(self) -> None:
        """Runs one tick with the waiting submissions, if any."""
        async with self._one_at_a_time:
            if self._append is not None and self._append.done():
                await self._settle()  # detects a lost log at once
            await self._do_quiet_work()
            try:
                now_s = self.clock.now_s()
            except ClockStopped as error:
                if not self.metrics.clock_error:
                    is_start = not self.metrics.ticks  # L1 has a moment to say its time
                    logger.log(logging.INFO if is_start else logging.CRITICAL, "the ticks stop: %s", error)
                self.metrics.clock_error = str(error)
                self.on_stopped(self.intake.take(len(self.intake)), str(error))
                return
            if self.metrics.clock_error:
                is_start = not self.metrics.ticks
                logger.log(
                    logging.INFO if is_start else logging.WARNING, "the ticks go on: the time is %d", now_s
                )
                self.metrics.clock_error = ""
            self._look_at_place()
            if self._wanting_bytes:
                await (
                    self._settle()
                )  # the state may still be being restored: nothing is executed on the lost one
                if not await self._has_room():
                    self.on_refused(self.intake.take(len(self.intake)), self.metrics.last_error)
                    return
            most = self.config.system_records
            system, self._system = self._held + self._system[:most], self._system[most:]
            for source in self._collectors:
                system += source(now_s)
            self.intake.pressure = self.pressure()
            submissions = self.intake.take(self.config.tick_records)
            beats = self._beats()
            if not system and not submissions and not beats:
                return
            generation = self._generation
            began = self.clock.monotonic_ns()
            spent = time.thread_time()
            tick = await self._apply(now_s, system, submissions, beats)
            if tick is None:
                await self._settle()
                self.on_refused(submissions, self.metrics.last_error)
                return
            self._held = tick.waiting
            applied = self.clock.monotonic_ns()
            took_s = (applied - began) * 1e-9
            for result in tick.results:
                if result.undone:
                    self.intake.charge(result.submission, result.undone)
            if tick.put_off:
                left = {id(one) for one in tick.put_off}
                submissions = [one for one in submissions if id(one) not in left]
                self.on_overdrawn(self.intake.put_off(tick.put_off))
            self.metrics.apply_ms = took_s * 1e3
            self.metrics.apply_s_total += took_s
            self.metrics.apply_cpu_s_total += time.thread_time() - spent
            self.applied += 1
            tick.receipts = self.issuer.seal(tick)
            self.on_applied(tick)
            await self._settle()
            if generation != self._generation:  # the previous tick was lost, and this one depends on it
                self.on_refused(submissions, self.metrics.last_error)
                return
            self._append = asyncio.create_task(self._make_durable(tick, submissions, began, applied))

    async def _apply(
        self, now_s: int, system: list[bytes], submissions: list[Submission], beats: bool
    ) -> Tick | None:
        """The tick, with a turn of the event loop at each pause of a long order. None: its state is gone meanwhile."""
        generation = self._generation
        steps = self.engine.steps(now_s, system, submissions, beats)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                tick: Tick = end.value
                return tick
            self.metrics.pauses += 1
            await asyncio.sleep(0)
            if generation != self._generation:  # the log has refused the tick before
                return None

    async def _do_quiet_work(self) -> None:
        for one in self._quiet:
            now_ns = self.clock.monotonic_ns()
            if now_ns < one.not_before_ns or not one.is_due():
                continue
            await self._settle()
            try:
                waiting = one.work()
                if waiting is not None:
                    await waiting
            except (OSError, sqlite3.Error) as error:  # a full disk: only the log matters, this can wait
                one.not_before_ns = now_ns + int(QUIET_RETRY_S * 1e9)
                self.metrics.last_error = str(error)
                logger.error("put off: %s", error)

    async def on_log_thread(self, work: Callable[..., T], *args: object) -> T:
        """Runs `work` on the log's thread, behind what was appended before."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def followed(self, tick: Tick) -> None:
        """A tick that another node has logged, and that is in this node's log, was applied here: as one of its own."""
        self.applied += 1
        self.on_applied(tick)
        if tick.entry is not None:
            self.metrics.ticks += 1
            self.metrics.records += tick.entry.records
        self.settled += 1
        self.on_tick(tick)

    async def flush(self) -> None:
        """Returns when everything applied is durable and acknowledged."""
        async with self._one_at_a_time:
            await self._settle()

    def _look_at_place(self) -> None:
        """Raises LogLost when the log's file was moved, also without a write."""
        now_ns = self.clock.monotonic_ns()
        if now_ns - self._looked_ns >= PLACE_NS:
            self._looked_ns = now_ns
            self.log.check_place()

    async def _has_room(self) -> bool:
        """Whether the log accepts writes again: nothing is executed before, so that nothing has to be undone."""
        size = self._wanting_bytes + ROOM_BYTES
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self.log.try_room, size)
        except LogLost:
            raise
        except LogError as error:
            self.metrics.last_error = error.reason
            return False
        logger.warning("the log takes ticks again")
        self._wanting_bytes = 0
        return True

    async def _settle(self) -> None:
        append, self._append = self._append, None
        if append is not None:
            await append

    async def _make_durable(
        self, tick: Tick, submissions: list[Submission], began: int, applied: int
    ) -> None:
        appending = durable = self.clock.monotonic_ns()
        if tick.entry is not None:
            entry = msgspec.structs.replace(tick.entry, verified=self.verified())
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._executor, self._append_and_sign, entry, tick.receipts
                )
            except LogLost as error:
                self.metrics.log_errors += 1
                self.metrics.last_error = error.reason
                raise
            except LogError as error:
                self.metrics.log_errors += 1
                self.metrics.last_error = error.reason
                self._generation += 1
                self._wanting_bytes = max(1, sum(map(len, tick.entry.raws())))
                logger.critical(
                    "the log refuses: %s: nothing is acknowledged before it takes ticks again", error.reason
                )
                await self._on_lost(submissions, error.reason)
                self.settled = self.applied  # records that depended on it are lost with it
                return
            self._executor.submit(self.log.tidy)
            durable = self.clock.monotonic_ns()
            took_s = (durable - appending) * 1e-9
            self.metrics.append_ms = took_s * 1e3
            self.metrics.append_s_total += took_s
            self.metrics.last_error = ""
            self.metrics.ticks += 1
            self.metrics.records += tick.entry.records
        self.settled += 1
        self.on_tick(tick)
        if self.on_timed is not None and submissions:
            arrived = [one.arrived_ns for one in submissions]
            told = self.clock.monotonic_ns()
            self.on_timed(TickTimes(arrived, began, applied, appending, durable, told))

    def _append_and_sign(self, entry: Entry, made: TickReceipts | None) -> None:
        """On the log's thread. A header that is signed is durable."""
        self.log.append(entry, self.log.end)
        if made is not None:
            self.issuer.sign(made)

    def close(self) -> None:
        """Ends the log's thread."""
        self._executor.shutdown(wait=True)
