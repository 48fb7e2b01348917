"""Recovery after a roll-back on L1: returns to the last remaining batch and re-executes every later record. The same
after a forged signature, from the batch on that would have contained it.

The log is the commit point. It is rewritten in one transaction, which also marks the roll-back as answered; batches,
withdrawal proofs and snapshots follow it, and a start completes what a crash has interrupted.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from sequencer.engine.engine import CONTINUE, ReplayError, replay
from sequencer.engine.signed import is_signed, signers_of
from sequencer.engine.snapshots import discard, newest
from sequencer.l1.follower import RolledBack
from sequencer.log.interface import Control, Cut, Entry, LoggedSegment, Redone
from sequencer.log.sqlite import SqliteLog
from sequencer.protocol import batch, codec, receipts
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Fill
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply
from sequencer.queue.receipts import Issuer
from sequencer.rollup.batcher import Batcher, Cursor
from sequencer.rollup.withdrawals import Withdrawals

# A no-op wherever no order is pending: takes the place of a record that cannot be applied.
HOLE: Final = CONTINUE
# Kinds that an account's key signs and that are acknowledged to it.
TRADERS_KINDS: Final = frozenset(
    kind for kind, layout in codec.LAYOUTS.items() if layout.signed and layout.fields[0][0] == "account"
)
FILLS_KEPT: Final = 10_000
# Reasons of a re-executed record whose signature was forged.
BY_NOBODY: Final = frozenset({Reason.BAD_SIGNATURE, Reason.SCOPE, Reason.SIGNER_EXPIRED, Reason.UNKNOWN_FEED})

logger = logging.getLogger(__name__)


class WrongRollBack(ReplayError):
    """L1 has rolled back a batch that this code reproduces: code and Arbiter disagree, and posting again would not
    help.
    """

    def __init__(self, batch_id: int) -> None:
        super().__init__(
            f"batch {batch_id} was rolled back, and executing it again gives the same: nothing is posted any more"
        )
        self.batch_id = batch_id


@dataclass(slots=True)
class Report:
    """What became of the records after the last batch that stands.

    `refused`: (sequence number, reason) of those that hold no more; `replaced`: ticks and inbox messages that were not
    what they must be; `inserted`: CONTINUEs, each of which moves what follows on by one. `redone`: traders' records
    that hold no more or stand elsewhere now; `fills`: the last ones, with their times; `first_seq`: of the first
    record.
    """

    batch_id: int
    epoch: int = 0
    records: int = 0
    refused: list[tuple[int, Reason]] = field(default_factory=list)
    replaced: int = 0
    inserted: int = 0
    first_seq: int = 0
    redone: list[Redone] = field(default_factory=list)
    fills: deque[tuple[int, Fill]] = field(default_factory=lambda: deque(maxlen=FILLS_KEPT))

    def summary(self) -> str:
        """Its numbers, for the log."""
        return (
            f"{self.records} records executed again, {len(self.refused)} of them hold no more, "
            f"{self.replaced} replaced, {self.inserted} inserted"
        )


class Reexecution:
    """Applies logged ticks again. `inbox`: L1's messages from the first on, which count more than the log's; None: the
    log's are L1's.
    """

    def __init__(self, state: State, inbox: Sequence[bytes] | None, report: Report) -> None:
        self.state = state
        self.report = report
        self._inbox = inbox
        self._order = (0, 0, b"")  # the last record but CONTINUE: its number before and now
        self._ahead = 0  # shift of sequence numbers
        self._old_seq = 0  # of the record that is executed again
        self._segments: list[LoggedSegment] = []
        self._records: list[bytes] = []
        self._weight = 0
        self.leaves: list[bytes] = []  # of the tick's receipts, as it is now
        self._holds = True  # every signed record of the tick

    def entry(self, old: Entry, kept: int = 0) -> Entry:
        """The tick as it must be. Its first `kept` segments are in a remaining batch."""
        state = self.state
        if not old.segments:
            g = state.globals
            return replace(old, first_seq=g.seq, time=g.time, root=state.root(), control=self._control(old))
        first_seq = old.first_seq if kept else state.globals.seq
        self._segments, self._holds = old.segments[:kept], True
        self.leaves = []
        self._old_seq = old.first_seq + sum(len(records) for _, records, _ in self._segments)
        again = old.segments[kept:]
        named = signers_of([raw for _, records, _ in again for raw in records], state.domain)
        for _, records, _ in again:
            for raw in records:
                self._again(raw, next(named))
                self._old_seq += 1
            self._close()
        self._proceed()
        self._close()
        holds = self._holds and (old.holds or not kept)
        return Entry(
            first_seq, state.globals.time, state.root(), self._segments, old.labels, old.verified, holds
        )

    def _control(self, old: Entry) -> Control | None:
        """What an entry without segments says now: batches that are made again may end elsewhere."""
        made_again = isinstance(old.control, Cut) and old.control.batch_id >= self.report.batch_id
        return None if made_again else old.control

    def _again(self, raw: bytes, signer: bytes | None) -> None:
        g = self.state.globals
        if raw[0] == Kind.CONTINUE:
            if self._ahead and g.taker is None:  # it was acknowledged to nobody: the numbers match again
                self._ahead -= 1
                return
            self._put(raw)
            return
        self._proceed()
        wanted = raw
        if raw[0] == Kind.TICK and len(raw) == len(_TICK):
            wanted = codec.encode(Kind.TICK, time=max(g.time, int.from_bytes(raw[1:5], "big")))
        elif raw[0] in c.INBOX_KINDS:
            # What counts in the header must count in GLOBAL. A message that is not applied here comes again from L1.
            inbox, counts = self._inbox, g.last_class == c.CLASS_SYSTEM
            if inbox is None:
                wanted = raw if counts else HOLE
            else:
                wanted = inbox[g.inbox_count] if counts and g.inbox_count < len(inbox) else HOLE
        self.report.replaced += wanted != raw
        self._order = (self._old_seq, self.state.globals.seq, raw)
        place, reason = self._put(wanted, signer if wanted == raw else None)
        if raw[0] in TRADERS_KINDS and (reason or place != self._old_seq):
            self.report.redone.append(Redone(self._old_seq, place, raw, reason))
        self.report.records += 1

    def _proceed(self) -> None:
        """Inserts CONTINUEs for an order that now needs more fills than a record has: nothing else may come before."""
        while self.state.globals.taker is not None:
            self._put(CONTINUE)
            self._ahead += 1
            self.report.inserted += 1

    def _put(self, raw: bytes, signer: bytes | None = None) -> tuple[int, Reason]:
        """Applies a record, `signer` as of `apply`; returns its sequence number, and whether it holds."""
        weight = batch.weight(raw)
        if self._weight + weight > c.SEGMENT_WEIGHT_MAX:
            self._close()
        g = self.state.globals
        seq, spent = g.seq, g.work
        out = apply(self.state, raw, signer)
        if out.reason is Reason.RISK_DUE:
            # A batch counts the messages in it, and this one has not: it comes again.
            raw = HOLE
            g.seq, g.work = seq, spent
            out = apply(self.state, raw)
            self.report.replaced += 1
        self._records.append(raw)
        self.leaves.append(receipts.leaf(seq, raw, out.reason, receipts.outcome_hash(out)))
        self._weight += weight
        self._holds = self._holds and (out.reason is Reason.OK or not is_signed(raw))
        if out.reason is not Reason.OK and raw[0] != Kind.CONTINUE:
            self.report.refused.append((seq, out.reason))
        self.report.fills += ((self.state.globals.time, fill) for fill in out.fills)
        if out.failed:  # an order over several records has changed: it has traded nothing
            old_seq, place, order = self._order
            kept = [one for one in self.report.fills if one[1].taker_seq != place]
            self.report.fills.clear()
            self.report.fills += kept
            self.report.redone = [one for one in self.report.redone if one.place != place]
            self.report.redone.append(Redone(old_seq, place, order, out.failed))
        return seq, out.reason

    def _close(self) -> None:
        if self._records:
            self._segments.append((self.state.root(), self._records, self.state.globals.work))
            self._records, self._weight = [], 0


_TICK: Final = codec.encode(Kind.TICK, time=0)


class Recovery:
    """Takes the stores of one sequencer back.

    `is_half`: the log is ahead of the other stores; `follow` is to be called before anything is built on them.
    `issuer(n)`: gives headers to what is executed again after n more roll-backs of L1.
    `checkpoint` hears of each step just passed, for tests that crash there.
    """

    checkpoint: Callable[[str], None] = staticmethod(lambda _step: None)

    def __init__(
        self,
        snapshots: Path,
        log: SqliteLog,
        batcher: Batcher,
        withdrawals: Withdrawals,
        issuer: Callable[[int], Issuer] = lambda _more: Issuer(b"", None),
    ) -> None:
        self._issuer = issuer
        self._snapshots = snapshots
        self._log = log
        self._batcher = batcher
        self._withdrawals = withdrawals
        self.epoch = 0  # number of answered roll-backs
        self.is_half = False
        self.take_note()

    def fresh(self, events: Sequence[RolledBack]) -> list[RolledBack]:
        """Roll-backs of L1 that have not been answered."""
        answered = self._log.answered()
        return [one for one in events if one.key not in answered]

    def rewrite(
        self, genesis: State, events: Sequence[RolledBack], inbox: Sequence[bytes]
    ) -> tuple[State, Report]:
        """Rewrites the log from the last batch that stands on; the state at its end.

        Raises WrongRollBack; ReplayError when the records before do not give that batch's root; LogError. Then
        nothing has changed.
        """
        report = Report(min(one.batch_id for one in events))
        is_as_logged = self._batcher.is_as_logged(report.batch_id)
        state = self._redo(genesis, report, [one.key for one in events], inbox, is_as_logged)
        logger.warning("batch %d was rolled back: %s", report.batch_id, report.summary())
        return state, report

    def undo_forged(self, genesis: State, seq: int) -> tuple[State, Report]:
        """Executes again from the batch on that holds record `seq`, whose signature is none; nothing of it is on L1.

        A record that no key of its account has signed holds no more, and keeps its place. Raises as `rewrite` does.
        """
        report = Report(self._batcher.holding(seq) or self._batcher.cursor.batch_id)
        state = self._redo(genesis, report, [], None, False)
        logger.critical(
            "record %d was forged: batch %d is made again: %s", seq, report.batch_id, report.summary()
        )
        return state, report

    def forged(self, genesis: State) -> int | None:
        """The record in the log that no key of its account has signed, and that was executed; None: there is none.

        For a log that does not replay: whatever else is wrong with it is not told here.
        """
        state, offset = newest(self._snapshots, self._log, genesis, self._log.verified())
        for entry in self._log.read(offset):
            for root, records, spent in entry.segments:
                suspect = None
                for raw, signer in zip(records, signers_of(records, state.domain), strict=True):
                    out = apply(state, raw, signer)
                    if suspect is None and out.reason in BY_NOBODY:
                        suspect = out.seq
                if state.root() != root or state.globals.work != spent:
                    return suspect
        return None

    def _redo(
        self,
        genesis: State,
        report: Report,
        keys: list[str],
        inbox: Sequence[bytes] | None,
        is_as_logged: bool,
    ) -> State:
        """Rewrites the log from the report's batch on; returns the state at its end."""
        start = self._batcher.start_of(report.batch_id)
        state = self._state_at(genesis, start)
        report.first_seq = state.globals.seq
        issuer = self._issuer(len(keys))
        issuer.resume(self._log, start.offset + (start.segment > 0))

        def entries() -> Iterator[Entry]:
            run = Reexecution(state, inbox, report)
            kept, is_same = start.segment, True
            for old in self._log.read(start.offset):
                again = run.entry(old, kept)
                is_same = is_same and replace(again, control=None) == replace(old, heads=[], control=None)
                # L1 has the header of a tick that a batch which stands has begun.
                heads = old.heads if kept else self._heads(issuer, again, run)
                kept = 0
                yield replace(again, heads=heads)
            if is_same and is_as_logged:
                raise WrongRollBack(report.batch_id)
            self.checkpoint("executed again")

        report.epoch = self._log.rewrite(
            start.offset, entries(), report.batch_id, keys, report.redone, report.first_seq
        )
        self.epoch, self.is_half = report.epoch, True
        self.checkpoint("log rewritten")
        return state

    def _heads(self, issuer: Issuer, entry: Entry, run: Reexecution) -> list[bytes]:
        """The header of a tick as it is now. An entry of several is another member's batch: nobody signs those."""
        if batch.ticks_in(entry.raws()) != 1:
            return []
        return [receipts.stored(issuer.header(entry, run.state.globals.tick, run.leaves).header)]

    def cut(self, batch_id: int, events: Sequence[RolledBack]) -> int:
        """Takes all stores back to the start of `batch_id`, for good; returns the number of records removed. Raises
        LogError.

        For a follower of other members' batches: its own records in their place are not on L1. Old ticks are kept as
        evidence.
        """
        start = self._batcher.start_of(batch_id)
        kept: list[Entry] = []
        lost = 0
        for place, old in enumerate(self._log.read(start.offset)) if start.offset < self._log.end else ():
            lost += old.records
            if place == 0 and start.segment:
                segments = old.segments[: start.segment]
                kept = [
                    Entry(
                        *(old.first_seq, old.time, segments[-1][0], segments, old.labels),
                        holds=old.holds,
                        heads=old.heads,
                    )
                ]
                lost -= kept[0].records
        keys = [one.key for one in events]
        self.epoch = self._log.rewrite(start.offset, kept, batch_id, keys, first_seq=start.seq, is_cut=True)
        self.is_half = True
        self.follow()
        return lost

    def take_note(self) -> None:
        """The log has a roll-back that another node has written: `follow` is due."""
        last = self._log.rolled_back()
        self.epoch = last.epoch if last else 0
        self.is_half = last is not None and not last.is_done

    def follow(self) -> None:
        """Brings the other stores to the log's position; may be called again."""
        last = self._log.rolled_back()
        if last is None or last.is_done:
            return
        self._batcher.forget(last.batch_id)
        self.checkpoint("batches forgotten")
        self._withdrawals.forget(last.batch_id)
        self.checkpoint("proofs forgotten")
        discard(self._snapshots, last.offset)
        self.checkpoint("snapshots discarded")
        self._log.roll_back_done(last.epoch)
        self.is_half = False
        self.checkpoint("done")

    def _state_at(self, genesis: State, start: Cursor) -> State:
        state, offset = newest(self._snapshots, self._log, genesis, start.offset)
        for entry in self._log.read(offset):
            if offset == start.offset:
                if start.segment:
                    kept = entry.segments[: start.segment]
                    replay(state, Entry(entry.first_seq, entry.time, entry.root, kept))
                break
            replay(state, entry)
            offset += 1
        root = self._batcher.post_root(start.batch_id - 1)
        if root is not None and state.root() != root:
            raise ReplayError(
                f"batch {start.batch_id - 1} stands on L1 with a root that its records do not give"
            )
        return state
