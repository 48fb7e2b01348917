"""The watcher: recomputes the root of every batch that l1_reading.py stores, reports a wrong one, and challenges it.

It needs nothing of the sequencer's. Its folder holds an archive of the payloads and its own snapshots, from which a
restart continues; with an empty folder it starts from genesis. A batch counts once its block is `confirmations` deep; a
deeper reorganisation or a roll-back takes the state back to the last remaining batch.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sequencer.engine.engine import ReplayError
from sequencer.engine.snapshots import load as load_snapshot
from sequencer.engine.snapshots import save as save_snapshot
from sequencer.genesis import genesis_state
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import (
    DeploymentError,
    FollowerError,
    L1Error,
)
from sequencer.l1.follower import Kept, PostedBatch
from sequencer.l1.inbox import ROLLUP
from sequencer.l1.rpc import Rpc, to_int
from sequencer.proof.alarms import Alarms
from sequencer.proof.archive import ARCHIVE_FILE, Archive, Row
from sequencer.proof.audit import FORM_KINDS, SEGMENT_KINDS, Fault
from sequencer.proof.challenger import Challenged, Challenger
from sequencer.proof.execution import Execution
from sequencer.proof.exit import marks_age_s
from sequencer.proof.l1_reading import L1Reading
from sequencer.proof.receipt_watch import ReceiptSources, ReceiptWatch
from sequencer.protocol import codec
from sequencer.protocol.params import Params
from sequencer.protocol.state import State

MARKS_LOOK_S = 60  # of the exchange's time between two looks at the ages of all marks
BATCHES_SHOWN = 30  # the newest, one each; of the others only the number

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """`late_s`: how long an inbox message may wait before it is an alarm; `lag_s`: how far the exchange's clock may
    stand behind the block that a batch is posted in; a snapshot after each `snapshot_batches`, or `snapshot_work` units
    of work (30 s by default), so that a restart or a roll-back executes no more than that again; but none within
    `snapshot_rest` times as long as the last one took.
    """

    confirmations: int = 1
    late_s: int = 3_600
    lag_s: int = 3_600
    snapshot_batches: int = 64
    snapshot_work: int = 3_000_000
    snapshot_rest: int = 10
    poll_s: float = 1.0


class Watcher:
    """Watches one deployment. `step` runs one pass, `run` until stopped; `status` may be read at any time.

    `kept`: asked for blobs before the beacon node. `receipts`: where receipts and headers come from.
    """

    def __init__(
        self,
        rpc: Rpc,
        deployment: Deployment,
        params: Params,
        folder: Path,
        config: WatchConfig | None = None,
        challenger: Challenger | None = None,
        progress: Progress = lambda _stage, _done, _total: None,
        kept: Kept | None = None,
        receipts: ReceiptSources | None = None,
    ) -> None:
        self.config = config or WatchConfig()
        self.deployment = deployment
        self.fault: Fault | None = None
        self.challenged: Challenged | None = None
        self._alarms = Alarms()
        self.alarms = self._alarms.newest
        self.error = ""
        self.status: dict[str, Any] = {}
        self._challenger = challenger
        self.progress = progress
        self._domain = codec.domain_separator(
            deployment.chain_id, bytes.fromhex(deployment.rollup.removeprefix("0x"))
        )
        self._params = params
        if "0x" + genesis_state(self._domain, params).root().hex() != deployment.genesis_root:
            raise DeploymentError("the parameters are not those that the Rollup was deployed with")
        self._snapshots = folder / "snapshots"
        self._archive = Archive(folder / ARCHIVE_FILE)
        self._archive.bind(f"{deployment.rollup} on chain {deployment.chain_id}")
        self.l1 = L1Reading(
            *(rpc, deployment, self.config.confirmations, kept, self._archive, self._alarms),
            lambda stage, done, total: self.progress(stage, done, total),
        )
        self._done: list[Row] = []  # the batches that the state holds
        self._snapshot_at = self._snapshot_work = 0
        self._snapshot_not_before_s = 0.0
        self._fault_row: Row | None = None
        self._against: tuple[Fault, PostedBatch, Callable[[], State]] | None = None
        self._late: dict[str, int] | None = None
        self._challenges: dict[str, Challenged] = {}  # of this run, by the batch's block and id
        self._times: dict[str, int] = {}  # of blocks with batches that are shown, by hash
        self._frozen_at = self._looked_at = 0
        self._marks_seen_at = self._marks_age_s = 0
        self.receipts: ReceiptWatch | None = None
        if receipts:
            self.receipts = ReceiptWatch(
                *(rpc, deployment, self._domain, folder, receipts, self._alarms),
                *(challenger, lambda: self.l1.head[1]),
            )
        self._run = self._execution(genesis_state(self._domain, params))
        standing = self._archive.standing()
        self._done = standing[: self._restore(standing)]
        self._publish()

    def _execution(self, state: State) -> Execution:
        if self.receipts is None:
            return Execution(state, self.l1.facts)
        return Execution(state, self.l1.facts, self.receipts.desk.observe)

    @property
    def state(self) -> State:
        """The state after the last batch that was found right."""
        return self._run.state

    @property
    def batches(self) -> int:
        """Number of batches found correct."""
        return len(self._done)

    # --- the loop ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens the endpoints of the peer, if there is one. Raises GossipError and L1Error."""
        if self.receipts is not None:
            self.receipts.start()

    def run(self, stop: threading.Event) -> None:
        """Runs a pass at each new head, or every `poll_s` without events, until `stop`.

        Retries when L1 does not answer.
        """
        self.l1.heads.start()
        try:
            while not stop.is_set():
                self.look()
                self.l1.heads.pause(stop, self.config.poll_s)
        finally:
            self.l1.heads.stop()

    def look(self) -> bool:
        """Runs `step`, and shows errors instead of raising them; False then, and when a batch cannot be read.

        No answer of a node may end the watching. Raises ReplayError: the folder's content has changed.
        """
        try:
            self.step()
        except ReplayError:
            raise
        except Exception as error:
            is_known = isinstance(error, (L1Error, OSError, sqlite3.Error))
            what = f"L1: {error}" if is_known else f"this look has failed: {error!r}"
            if what != self.error:
                is_for_people = not is_known or isinstance(error, FollowerError)
                self._alarms.add(what, logging.ERROR if is_for_people else logging.WARNING)
                if not is_known:
                    logger.exception("the watcher goes on looking")
            self.error = what
            self._publish()
            return False
        return not self.error

    def step(self) -> None:
        """One pass: reads new confirmed events, checks the batches, challenges a wrong one."""
        self.l1.mend()
        self.l1.walk_back()
        self.l1.read()
        if self.receipts is not None:
            self.receipts.read(self.l1.head[0])
        self._sync()
        self._look_at_receipts()
        if self.fault is None:
            self._check_late()
            self._check_unread()
        if self._challenger is not None:
            self._challenge(self._challenger)
            self._challenger.tend()
        self._look_around()
        self.error = "" if self.l1.unread is None else self.l1.unread.why
        self._publish()

    def close(self) -> None:
        """Writes a snapshot for the next start."""
        if self.receipts is not None:
            self.receipts.close()
        self._snapshot()
        self._archive.close()
        if self._challenger is not None:
            self._challenger.close()

    def _look_at_receipts(self) -> None:
        """Holds receipts that came after their batch against it, and asks L1 which are overdue."""
        if self.receipts is None:
            return
        late: dict[int, PostedBatch] = {}
        for tick in self.receipts.desk.late_ticks(self.state.globals.tick):
            low, high = 0, len(self._done)
            while low < high:  # the first batch that reaches the tick
                middle = (low + high) // 2
                if self._archive.batch(self._done[middle]).tick < tick:
                    low = middle + 1
                else:
                    high = middle
            if low < len(self._done):
                late[low] = self._archive.batch(self._done[low])
        self.receipts.look(list(late.values()), self.l1.head[1])

    # --- the state --------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Takes the state to the current batches, up to the first wrong one."""
        standing = self._archive.standing()
        common = 0
        for ours, theirs in zip(self._done, standing, strict=False):
            if ours != theirs:
                break
            common += 1
        if common < len(self._done):
            self._alarms.once(
                f"back {len(self._done)} {common}",
                f"batches {common + 1} to {len(self._done)} stand no more: on from batch {common}",
            )
            self._rewind(standing[:common])
        if self._fault_row is not None:
            if len(standing) > common and standing[common] == self._fault_row:
                return
            logger.info("the wrong batch %d stands no more", self._fault_row.batch_id)
            self.fault = self._fault_row = None
        for row in standing[common:]:
            if len(self.l1.messages) < row.inbox_count:
                return  # logs are still missing
            if not self._check(row):
                return
            self.progress("batches", len(self._done), len(standing))
            if self._is_snapshot_due():
                self._snapshot()

    def _check(self, row: Row) -> bool:
        """Checks the next batch; after a fault the state is taken back to the last correct one."""
        batch = self._archive.batch(row)
        batch_id = len(self._done) + 1
        fault = self._run.execute(batch, batch_id)
        if fault is None:
            self._done.append(row)
            if self.receipts is not None:
                self.receipts.desk.settle(batch)
            block = self.l1.rpc.block(batch.block_number)
            if block is not None and to_int(block["timestamp"]) - batch.time_s > self.config.lag_s:
                lag_s = to_int(block["timestamp"]) - batch.time_s
                self._alarms.once(
                    f"lag {row.number}",
                    f"batch {batch_id}: the exchange's clock is {lag_s} s behind the block's",
                )
            return True
        self.fault, self._fault_row, self.challenged = fault, row, None
        self._alarms.once(f"fault {row.number}", f"WRONG: {fault}")
        self._rewind(self._done)
        self._snapshot()  # challenges are built from here
        return False

    def _restore(self, rows: list[Row]) -> int:
        """Loads the newest snapshot at the end of one of `rows`, else genesis; returns the number of rows in it."""
        state, count = genesis_state(self._domain, self._params), 0
        for path in sorted(self._snapshots.glob("state-*.zst"), reverse=True):
            try:
                found, at = load_snapshot(path, self._domain)
            except ReplayError as error:
                logger.warning("snapshot left out: %s", error)
                continue
            if 0 < at <= len(rows) and rows[at - 1].post_root == found.root():
                state, count = found, at
                break
        self._run = self._execution(state)
        self._snapshot_at, self._snapshot_work = count, state.globals.work
        return count

    def _rewind(self, rows: list[Row]) -> None:
        """Rebuilds the state after `rows`, which were found correct."""
        count = self._restore(rows)
        for done, row in enumerate(rows[count:], start=count + 1):
            self._run.advance(self._archive.batch(row))
            self.progress("archive", done, len(rows))
        self._done = list(rows)
        if self.receipts is not None:
            self.receipts.desk.rewind(self.state.globals.seq)
        if rows and self.state.root() != rows[-1].post_root:
            raise ReplayError(
                "the folder's archive does not give the roots that it was found to give: remove it"
            )

    def state_for(self, fault: Fault) -> State:
        """State for a challenge: at the start of the fault's segment; for a header, after the batch."""
        assert self._fault_row is not None
        copy = State.from_preimages(self._domain, iter(list(self.state.preimages())))
        if fault.kind not in FORM_KINDS:
            segments = fault.segment if fault.kind in SEGMENT_KINDS else None
            Execution(copy, self.l1.facts).advance(self._archive.batch(self._fault_row), segments)
        return copy

    def _is_snapshot_due(self) -> bool:
        behind = self.state.globals.work - self._snapshot_work
        is_due = (
            len(self._done) - self._snapshot_at >= self.config.snapshot_batches
            or behind >= self.config.snapshot_work
        )
        return is_due and time.monotonic() >= self._snapshot_not_before_s

    def _snapshot(self) -> None:
        if len(self._done) > self._snapshot_at:
            begun = time.monotonic()
            save_snapshot(self._snapshots, self.state, len(self._done))
            self._snapshot_at, self._snapshot_work = len(self._done), self.state.globals.work
            now = time.monotonic()
            self._snapshot_not_before_s = now + self.config.snapshot_rest * (now - begun)

    # --- status and alarms ------------------------------------------------------------------------

    def _challenge(self, challenger: Challenger) -> None:
        """The next step against the wrong batch; for one that was rolled back, only the result of our challenge."""
        if self.fault is not None and self._fault_row is not None:
            of = self.fault
            self._against = (of, self._archive.batch(self._fault_row), lambda: self.state_for(of))
        elif not self._is_late_unread() and (self.challenged is None or self.challenged.state != "filed"):
            return
        assert self._against is not None
        fault, batch, state = self._against
        before = self.challenged
        self.challenged = challenger.challenge(fault, batch, state)
        self._challenges[f"{batch.block_number} {fault.batch_id}"] = self.challenged
        if before is None or self.challenged.state != before.state:
            logger.warning("challenge of batch %d: %s", fault.batch_id, self.challenged)

    def _is_late_unread(self) -> bool:
        """Whether the batch that cannot be read is the one to be challenged."""
        return (
            self.l1.unread is not None
            and self._against is not None
            and self._against[1].block_hash == self.l1.unread.batch.block_hash
            and self._against[0].batch_id == self.l1.unread.batch.batch_id
        )

    def _check_unread(self) -> None:
        """Reports that a batch cannot be read. It can then be challenged only for being posted too late."""
        unread = self.l1.unread
        if unread is None:
            return
        batch = unread.batch
        self._alarms.once(
            f"unread {batch.block_hash} {batch.batch_id}",
            f"batch {batch.batch_id} CANNOT BE READ, and may be wrong: {unread.why}",
            logging.ERROR,
        )
        is_next = len(self._done) == len(self._archive.standing()) == batch.batch_id - 1
        late = self._run.late(batch) if is_next else None
        if late is not None:
            self._against = (late, batch, lambda: self.state)

    def _check_late(self) -> None:
        """Raises the alarm for the inbox message that has waited longest, if it has waited too long."""
        self._late = None
        index = self.state.globals.inbox_count
        if index >= len(self.l1.messages):
            return
        block = self.l1.rpc.block(self.l1.messages[index].block_number)
        if block is None:
            return
        waited_s = self.l1.head[1] - to_int(block["timestamp"])
        if waited_s > self.config.late_s:
            self._late = {"index": index, "waited_s": waited_s}
            self._alarms.once(
                f"late {index}",
                f"inbox message {index} has waited {waited_s} s, more than {self.config.late_s}",
            )

    def _look_around(self) -> None:
        """Reads values that are only shown: whether the rollup is frozen, and when the newest batches were posted."""
        self._frozen_at = int(ROLLUP.read(self.l1.rpc, self.deployment.rollup, "frozen_at"))
        times = {}
        for _, row in shown(self._archive.standing()):
            time_s = self._times.get(row.block_hash)
            if time_s is None:
                block = self.l1.rpc.block(row.block_number)
                time_s = to_int(block["timestamp"]) if block else 0
            times[row.block_hash] = time_s
        self._times = times
        self._looked_at = int(time.time())

    def _look_at_marks(self) -> None:
        """From time to time: this reads all positions."""
        time_s = self.state.globals.time
        if not self._marks_seen_at <= time_s < self._marks_seen_at + MARKS_LOOK_S:
            self._marks_seen_at, self._marks_age_s = time_s, marks_age_s(self.state)

    def _publish(self) -> None:
        """Publishes a new `status`; readers keep the old one."""
        self._look_at_marks()
        g = self.state.globals
        standing = self._archive.standing()
        read_to = self._archive.get("cursor_number") or self.deployment.deploy_block - 1
        self.status = {
            "ok": self.fault is None and self._late is None and not self.error,
            "chain_id": self.deployment.chain_id,
            "rollup": self.deployment.rollup,
            "mode": "challenges" if self._challenger is not None else "alarms only",
            "l1_block": self.l1.head[0],
            "l1_time": self.l1.head[1],
            "looked_at": self._looked_at,
            "lag_blocks": max(self.l1.head[0] - read_to, 0),
            "lag_batches": len(standing) - len(self._done),
            "confirmations": self.config.confirmations,
            "frozen_at": self._frozen_at,
            "challenge_window_s": self.deployment.challenge_window_s,
            "batches_posted": len(standing),
            "batches_checked": len(self._done),
            "receipts": None if self.receipts is None else self.receipts.status(),
            "segments_checked": sum(row.segments for row in self._done),
            "records_checked": g.seq,
            "root": "0x" + self.state.root().hex(),
            "time": g.time,
            "marks_age_s": self._marks_age_s,
            "inbox_messages": len(self.l1.messages),
            "inbox_taken": g.inbox_count,
            "archive_bytes": self._archive.size_bytes(),
            "snapshot_batch": self._snapshot_at,
            "late": self._late,
            "unread": None if self.l1.unread is None else self.l1.unread.batch.batch_id,
            "fault": None if self.fault is None else as_json(self.fault),
            "challenge": None if self.challenged is None else asdict(self.challenged),
            "error": self.error,
            "alarms_raised": self._alarms.count,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "challenges": [asdict(one) for one in self._challenges.values()],
            "roll_backs": [
                {"batch": row.batch_id, "block": row.block_number}
                for row in self._archive.rows
                if row.is_rollback
            ],
            "batches": [self._verdict(number, row) for number, row in shown(standing)],
        }

    def _verdict(self, number: int, row: Row) -> dict[str, Any]:
        """Verdict on the `number`th current batch (1 is the first)."""
        verdict = "wrong" if row == self._fault_row else "not checked"
        if number <= len(self._done):
            verdict = "right"
        posted_at = self._times.get(row.block_hash, 0)
        return {
            "batch": row.batch_id,
            "verdict": verdict,
            "is_final": 0 < posted_at <= self.l1.head[1] - self.deployment.challenge_window_s,
            "posted_at": posted_at,
            "block": row.block_number,
            "segments": row.segments,
            "post_root": "0x" + row.post_root.hex(),
        }


def shown(standing: list[Row]) -> list[tuple[int, Row]]:
    """The newest current batches with their places, newest first."""
    return list(enumerate(standing, start=1))[: -BATCHES_SHOWN - 1 : -1]


def as_json(fault: Fault) -> dict[str, Any]:
    """A fault as one object."""
    return {
        "batch": fault.batch_id,
        "segment": fault.segment,
        "kind": str(fault.kind),
        "record": fault.record,
        "honest_root": "0x" + fault.honest_root.hex(),
        "claimed_root": "0x" + fault.claimed_root.hex(),
        "message": fault.message,
        "why": fault.why,
    }
