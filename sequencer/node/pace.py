"""When batches, heartbeats and snapshots are due, and how far acknowledgements may be ahead of L1."""

from collections.abc import Awaitable, Callable, Iterator

from sequencer.clock import Clock
from sequencer.engine.engine import Tick
from sequencer.engine.snapshots import Aside, Told
from sequencer.l1.poster import Posted
from sequencer.log.interface import Cut
from sequencer.node import brake
from sequencer.node.settings import ServiceConfig
from sequencer.protocol import constants as c
from sequencer.protocol.constants import INBOX_KINDS, Kind, Reason
from sequencer.queue.driver import Driver
from sequencer.rollup.batcher import Batcher, Planned
from sequencer.rollup.l1_link import L1Link
from sequencer.rollup.rollback import Recovery
from sequencer.rollup.vouched import BACKLOG_MAX, Vouched
from sequencer.rollup.withdrawals import Withdrawals

TABLE_BYTES = 35  # of a segment, a little more than its root and its offset
BATCHES_AHEAD_MAX = 4  # the poster's number in flight
SNAPSHOT_RECORDS = 200_000  # at the latest; a start executes as many in seconds
IDLE_KINDS = frozenset({Kind.FEED, Kind.SURFACE, Kind.RISK, Kind.LIST})  # nobody waits for them
LOOK_NS = 20_000_000  # that what L1 has confirmed is not looked at again
BEATS = 4  # batches in takeover_s, at least


class Pace:
    """Builds batches and snapshots when they are due, and tracks the backlog and what L1 has confirmed.

    `worker` is None while nothing is posted. `last_posted`: the last batch that L1 is known to have. `announce`: makes
    the end of a batch durable in the log before the batch is stored, so that every node that reads the log has the same
    batches; None where one node alone does.
    """

    def __init__(
        self,
        config: ServiceConfig,
        clock: Clock,
        driver: Driver,
        batcher: Batcher,
        withdrawals: Withdrawals,
        recovery: Recovery,
        vouched: Vouched,
        replayed: int,
    ) -> None:
        self.worker: L1Link | None = None
        self.told: Callable[[], Callable[[], Told] | None] = lambda: None  # for `snapshots`
        self.announce: Callable[[Cut], Awaitable[None]] | None = None
        self.last_posted = 0
        self._tick_posted = (0, 0)  # of a batch
        self.snapshots = Aside(config.folder / "snapshots")
        self._config = config
        self._clock = clock
        self._driver = driver
        self._log = driver.log
        self._batcher = batcher
        self._withdrawals = withdrawals
        self._recovery = recovery
        self._vouched = vouched
        self._in_blobs = config.in_blobs
        self._is_asked = False  # for batches of all logged ticks
        self._is_waited_for = True  # users' records are in the log and in no batch
        self._unbatched_bytes = 0
        self._batched_ns = self._built_ns = clock.monotonic_ns()
        self._is_beating = False
        self._proved = (0, clock.monotonic_ns())  # the next batch id on L1, and when it last changed
        self._work_posted = (
            0,
            batcher.cursor.work,
        )  # GLOBAL's after the last batch that L1 is known to have
        self._proved_until_ns = 0  # orders are taken until then, without another look
        self._snapshot_at = self._log.end - replayed
        self._unsaved_records = 0  # since the last snapshot, or the start

    def settle(self, tick: Tick) -> None:
        """Counts a durable tick."""
        if tick.entry is None:
            return
        self._unsaved_records += tick.entry.records
        segments = tick.entry.segments
        records_bytes = sum([len(raw) for _, records, _ in segments for raw in records])
        self._unbatched_bytes += records_bytes + TABLE_BYTES * len(segments) + c.ELEMENT_BYTES  # its id
        self._is_waited_for = self._is_waited_for or is_waited_for(tick)

    # --- batches ----------------------------------------------------------------------------------

    def batch_due(self) -> bool:
        """Whether to build batches from all logged ticks."""
        if self._recovery.is_half:
            return False
        if self._is_asked:
            return True
        if self._is_behind() or not self._batcher.waiting():
            return False
        age_s = (self._clock.monotonic_ns() - self._batched_ns) * 1e-9
        interval_s = self._config.batch_interval_s if self._is_waited_for else self._idle_interval_s()
        return age_s >= interval_s or self._is_silent()

    def _idle_interval_s(self) -> float:
        """Seconds between batches that hold prices and marks only."""
        return max(self._config.batch_interval_s, self._config.idle_interval_s)

    def _is_silent(self) -> bool:
        """Whether there has been no batch for so long that the others may consider the leader silent."""
        standing = self.worker.standing if self.worker is not None else None
        if standing is None or not standing.leads:
            return False
        if not self._is_beating:  # the silence before this start
            self._is_beating = True
            self._built_ns -= max(0, standing.head_time_s - standing.silent_since) * 10**9
        return self._clock.monotonic_ns() - self._built_ns >= standing.takeover_s * 10**9 // BEATS

    def heartbeat_due(self) -> bool:
        """Whether an empty tick is needed, so that a batch can be built."""
        return not self._recovery.is_half and self._is_silent() and self._batcher.waiting() == 0

    def batch_full(self) -> bool:
        """Whether the logged ticks fill a batch."""
        is_full = self._unbatched_bytes >= self._batcher.payload_bytes or self._batcher.is_work_full(
            self._driver.engine.state.globals.work
        )
        return is_full and not self._recovery.is_half and not self._is_behind()

    def _is_behind(self) -> bool:
        """Whether batches wait for L1: in blobs further ticks then stay in the log, to fill a larger batch later."""
        if not self._in_blobs or self.worker is None:
            return False
        stored, there = self._batcher.cursor.batch_id - 1, max(self.last_posted, self.worker.next_on_l1 - 1)
        return stored - there >= BATCHES_AHEAD_MAX

    def make_full_batches(self) -> Awaitable[None] | None:
        """Stores full batches as they fill, so that no tick waits for many at once."""
        return self._run(self._full_batches())

    def _full_batches(self) -> Iterator[Planned]:
        planned = self._batcher.plan(False)
        while planned is not None:
            yield planned
            built = self._batcher.store(planned)
            self._built_ns = self._clock.monotonic_ns()
            self._unbatched_bytes -= len(built.payload)
            if self._unbatched_bytes >= 0 and not self.batch_full():
                break  # what is left need not be read to be counted
            planned = self._batcher.plan(False)
        else:
            self._unbatched_bytes = self._batcher.left_bytes
        self._wake()

    def request_batches(self) -> None:
        """Requests batches of all logged ticks at the next tick."""
        self._is_asked = True

    def make_batches(self, whatever_there_is: bool = True) -> Awaitable[None] | None:
        """Stores batches up to the log's end, and proofs of the withdrawals in the last, whose root is the state's."""
        return self._run(self._batches(whatever_there_is))

    def _batches(self, whatever_there_is: bool) -> Iterator[Planned]:
        last = None
        while (planned := self._batcher.plan(whatever_there_is)) is not None:
            yield planned
            last = self._batcher.store(planned)
            self._built_ns = self._clock.monotonic_ns()
        if last is not None:
            self._withdrawals.prove(self._driver.engine.state, last.batch_id, last.post_root)
        self._batched_ns = self._clock.monotonic_ns()
        self._is_asked = self._is_waited_for = False
        self._unbatched_bytes = 0
        self._wake()

    def _run(self, steps: Iterator[Planned]) -> Awaitable[None] | None:
        """Goes through the batches that are about to be stored; each is announced before."""
        if self.announce is not None:
            return self._announce_each(steps, self.announce)
        for _ in steps:
            pass
        return None

    @staticmethod
    async def _announce_each(steps: Iterator[Planned], announce: Callable[[Cut], Awaitable[None]]) -> None:
        for planned in steps:
            await announce(Cut(planned.batch.batch_id, planned.offset, planned.segment))

    def followed(self, cut: Cut) -> None:
        """Another node has ended a batch there: stores the same. Raises LogLost."""
        built = self._batcher.follow(cut.batch_id, cut.offset, cut.segment)
        if built is not None:
            self._withdrawals.prove(self._driver.engine.state, built.batch_id, built.post_root)
            self._batched_ns = self._built_ns = self._clock.monotonic_ns()
            self._unbatched_bytes = 0

    def _wake(self) -> None:
        if self.worker is not None:
            self.worker.wake()

    def verified(self) -> None:
        """More signatures are verified: a batch may have waited for them."""
        worker = self.worker
        if worker is None or not worker.unverified:
            return
        if self._batcher.start_of(worker.unverified + 1).seq <= self._vouched.seq:
            worker.wake()

    def posted(self, batches: list[Posted]) -> None:
        """L1 has these batches."""
        self.last_posted = max(self.last_posted, *(one.batch_id for one in batches))

    def rolled_back(self, last_batch: int, is_on_l1: bool) -> None:
        """Rebuilds everything after `last_batch`; `is_on_l1`: L1 has rolled it back too."""
        self.last_posted = last_batch if is_on_l1 else min(self.last_posted, last_batch)
        self._unbatched_bytes = 0
        self._snapshot_at = self._log.end - self._config.snapshot_ticks  # those behind the batch are gone
        self._is_asked = True

    # --- snapshots --------------------------------------------------------------------------------

    def snapshot_due(self) -> bool:
        """Whether a snapshot is due."""
        is_due = self._log.end - self._snapshot_at >= self._config.snapshot_ticks
        is_due = is_due or self._unsaved_records >= SNAPSHOT_RECORDS
        return is_due and not self.snapshots.is_busy

    def snapshot(self) -> None:
        """Writes a snapshot of the state, which is at the log's end. After a failed one the next is tried."""
        self.snapshots.begin(self._driver.engine.state, self._log.end, self.told())
        self._snapshot_at, self._unsaved_records = self._log.end, 0

    # --- backlog and confirmations ------------------------------------------------------------------

    def proof(self) -> brake.Proof | None:
        """What L1 has confirmed of the acknowledged records (brake.py); None while nothing is posted."""
        worker = self.worker
        if worker is None:
            return None
        now_ns, there = self._clock.monotonic_ns(), worker.next_on_l1
        waits = self._batcher.waiting() > 0 or self._batcher.cursor.batch_id > max(
            there, self.last_posted + 1
        )
        if there != self._proved[0] or not waits:
            self._proved = there, now_ns
        standing = worker.standing
        balance, needed = worker.can_pay(self._unbatched_bytes)
        return brake.Proof(
            standing.takeover_s if standing else 0,
            worker.unseen_s(),
            (now_ns - self._proved[1]) * 1e-9,
            balance,
            needed,
            worker.last_error,
        )

    def unproved(self) -> str:
        """Why nothing may be acknowledged before L1 has confirmed more; empty when it may. As of LOOK_NS ago at most,
        where it may: each frame of a gateway asks, and half of `takeover_s` is what it is about.
        """
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._proved_until_ns:
            return ""
        proof = self.proof()
        why = brake.why_not(proof) if proof is not None else ""
        self._proved_until_ns = 0 if why else now_ns + LOOK_NS
        return why

    def work_waiting(self) -> int:
        """Units of work that are acknowledged, or about to be, and not on L1."""
        if self.last_posted != self._work_posted[0]:
            self._work_posted = self.last_posted, self._batcher.work_after(self.last_posted)
        return self._driver.engine.state.globals.work - self._work_posted[1]

    def tick_posted(self) -> int:
        """The last tick that L1 is known to have; 0: none."""
        if self.last_posted != self._tick_posted[0]:
            self._tick_posted = self.last_posted, self._batcher.start_of(self.last_posted + 1).tick
        return self._tick_posted[1]

    def pressure(self) -> int:
        """Work waiting for L1 as a multiple of L1's capacity in `work_lag_s`; likewise signatures waiting for their
        check.
        """
        at, backlog = self._config.deployment, self._vouched.backlog
        unchecked = backlog // BACKLOG_MAX
        self._driver.intake.signatures = backlog if unchecked else 0
        if at is None or self.worker is None:
            return unchecked
        most = at.work_max + at.work_per_s * self._config.work_lag_s
        return max(unchecked, self.work_waiting() // most)


def is_waited_for(tick: Tick) -> bool:
    """Whether a durable tick holds more than prices: a record that a user sent, or one that closes positions."""
    for result in tick.results + tick.system:
        kind = result.submission.raw[0]
        if kind not in IDLE_KINDS and (result.reason is Reason.OK or kind in INBOX_KINDS):
            return True
    return False
