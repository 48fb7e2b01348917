"""The loop: collect, apply, log, acknowledge. One tick after the other; the log's fsync of a tick overlaps the next one's collecting.

Nothing is acknowledged before its tick is durable. When the log refuses, what waited on it is refused too, and the state is
taken back to what the log holds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sequencer.clock import Clock
from sequencer.engine import Engine, Submission, Tick
from sequencer.intake import Intake
from sequencer.log import Log, LogError


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """`tick_ms` to collect after the first arrival; at most `tick_records` a tick."""

    tick_ms: float = 5.0
    tick_records: int = 512


@dataclass(slots=True)
class Metrics:
    """Counts since the start; the last tick's and append's durations in ms."""

    ticks: int = 0
    records: int = 0
    refused: int = 0
    apply_ms: float = 0.0
    append_ms: float = 0.0
    apply_s_total: float = 0.0
    append_s_total: float = 0.0
    log_errors: int = 0
    last_error: str = field(default="")


class Driver:
    """Runs ticks. `on_tick` gets each durable tick, `on_refused` the submissions of one that the log did not take."""

    def __init__(
        self,
        engine: Engine,
        log: Log,
        intake: Intake,
        clock: Clock,
        config: DriverConfig,
        on_tick: Callable[[Tick], None],
        on_lost: Callable[[list[Submission], str], Awaitable[None]],
    ) -> None:
        self.engine = engine
        self.log = log
        self.intake = intake
        self.clock = clock
        self.config = config
        self.metrics = Metrics()
        self.on_tick = on_tick
        self._on_lost = on_lost
        self._system: list[bytes] = []
        self._arrived = asyncio.Event()
        self._append: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._collectors: list[Callable[[int], list[bytes]]] = []
        self._generation = 0  # counts the states: a log error takes the state back
        self._quiet: list[tuple[Callable[[], bool], Callable[[], None]]] = []

    def collect_from(self, source: Callable[[int], list[bytes]]) -> None:
        """Asks `source(now_s)` for system records before each tick."""
        self._collectors.append(source)

    def when_quiet(self, is_due: Callable[[], bool], work: Callable[[], None]) -> None:
        """Runs `work` between ticks, when it is due, with the state and the durable log at the same place."""
        self._quiet.append((is_due, work))

    def offer(self, submission: Submission) -> int:
        """Queues a submission; 0, or the code of the refusal (see Intake)."""
        code = self.intake.offer(submission)
        if not code:
            self._arrived.set()
        return code

    def offer_system(self, records: list[bytes]) -> None:
        """Queues system records for the next tick's head."""
        self._system += records
        if records:
            self._arrived.set()

    def drop_system(self) -> None:
        """Forgets queued system records: the state that they were meant for is gone."""
        self._system = []

    async def run(self, idle_s: float = 0.25) -> None:
        """Ticks until cancelled: as soon as something has arrived and tick_ms have passed, and each `idle_s` for the keeper."""
        wait_s = self.config.tick_ms / 1000
        while True:
            if not len(self.intake) and not self._system:
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), idle_s)
                except TimeoutError:
                    pass
            if len(self.intake) < self.config.tick_records:
                await asyncio.sleep(wait_s)
            else:
                await asyncio.sleep(0)
            await self.tick()

    async def tick(self) -> None:
        """One tick with what waits, if anything does."""
        async with self._one_at_a_time:
            for is_due, work in self._quiet:
                if is_due():
                    await self._settle()
                    work()
            now_s = self.clock.now_s()
            system, self._system = self._system, []
            for source in self._collectors:
                system += source(now_s)
            submissions = self.intake.take(self.config.tick_records)
            if not system and not submissions:
                return
            generation = self._generation
            began = self.clock.monotonic_ns()
            tick = self.engine.run(now_s, system, submissions)
            took_s = (self.clock.monotonic_ns() - began) * 1e-9
            self.metrics.apply_ms = took_s * 1e3
            self.metrics.apply_s_total += took_s
            await self._settle()
            if generation != self._generation:  # the tick before was lost, and this one stood on it
                await self._on_lost(submissions, self.metrics.last_error)
                return
            self._append = asyncio.create_task(self._make_durable(tick, submissions))

    async def flush(self) -> None:
        """Returns when all that was applied is durable and acknowledged."""
        async with self._one_at_a_time:
            await self._settle()

    async def _settle(self) -> None:
        append, self._append = self._append, None
        if append is not None:
            await append

    async def _make_durable(self, tick: Tick, submissions: list[Submission]) -> None:
        if tick.entry is not None:
            began = self.clock.monotonic_ns()
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._executor, self.log.append, tick.entry, self.log.end
                )
            except LogError as error:
                self.metrics.log_errors += 1
                self.metrics.last_error = error.reason
                self._generation += 1
                await self._on_lost(submissions, error.reason)
                return
            took_s = (self.clock.monotonic_ns() - began) * 1e-9
            self.metrics.append_ms = took_s * 1e3
            self.metrics.append_s_total += took_s
            self.metrics.ticks += 1
            self.metrics.records += tick.entry.records
        self.on_tick(tick)

    def close(self) -> None:
        """Ends the log's thread."""
        self._executor.shutdown(wait=True)
