"""Checks a batch of L1 record by record: the watcher's judgement, without its network.

An `Audit` owns the state after the correct batches so far, takes the next batch as posted on L1, and returns the first
provable error: a `Fault`. It uses only posted data, nothing of the sequencer's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sequencer.engine.signed import signers_of
from sequencer.l1.follower import PostedBatch
from sequencer.log.interface import LoggedSegment
from sequencer.protocol import batch as batches
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

MESSAGES_AHEAD = 256  # messages searched ahead to name a skipped one


class FaultKind(StrEnum):
    """Kinds of faults of a batch."""

    ORDER = "order"  # not the next batch: its id or its first sequence number
    BOUNDS = (
        "bounds"  # a segment that is empty, ends before it begins, or past the payload; the last before it
    )
    RECORD = "record"  # a record that is cut off by its segment's end
    WEIGHT = "weight"  # a segment too heavy to be executed in one transaction
    ROOT = "root"  # a segment's root is not what its records give
    POST_ROOT = "post_root"  # its last 8 bits, which only the header has
    INBOX = "inbox"  # an inbox record that is not L1's next message
    RECORDS = "records"  # the header's number of records
    TIME = "time"  # the header's time
    INBOX_COUNT = "inbox_count"  # the header's number of inbox messages
    TICK = "tick"  # the header's number of ticks: a false one moves the ids of their headers
    WORK = "work"  # the header's work: a false one exceeds the budget
    LATE = "late"  # posted long after the deadline of an inbox message that no batch had taken


FORM_KINDS = frozenset({FaultKind.BOUNDS, FaultKind.RECORD, FaultKind.WEIGHT})
SEGMENT_KINDS = frozenset({FaultKind.ROOT, FaultKind.POST_ROOT})


@dataclass(frozen=True, slots=True)
class Fault:
    """A wrong batch and the place of the fault.

    `segment` and `record` count inside the batch; `record` is the first of the segment unless a single record is wrong.
    A claimed root has 31 bytes where it is in a payload. `message`: index of the inbox message for which the batch was
    too late.
    """

    batch_id: int
    segment: int
    kind: FaultKind
    record: int
    honest_root: bytes
    claimed_root: bytes
    why: str
    message: int | None = None

    def __str__(self) -> str:
        return f"batch {self.batch_id}, segment {self.segment}, {self.kind}: {self.why}"


class Audit:
    """Checks batches in order.

    `message(i)`: record of inbox message i on L1, None beyond its end. `segments`: of the last batch checked, as (root
    after it, all 32 bytes; records; GLOBAL's work after it). `begun`: for each TICK in
    it, whether a tick began, which a refused one does not. `observe` is called with each record's outcome, of wrong
    batches too.
    """

    def __init__(
        self,
        state: State,
        message: Callable[[int], bytes | None],
        observe: Callable[[bytes, Outcome], None] = lambda _raw, _out: None,
    ) -> None:
        self.state = state
        self._observe = observe
        self.segments: list[LoggedSegment] = []
        self.begun: list[bool] = []
        self._message = message
        self._inbox: tuple[int, int, str] | None = None  # segment, record, what is wrong

    def check(self, batch: PostedBatch, batch_id: int, inbox_hash: bytes) -> Fault | None:
        """Applies a batch. `batch_id`: the next id; `inbox_hash`: the Inbox's after `batch.inbox_count`.

        After a fault the state is inside the batch and unusable.
        """
        state = self.state
        first_seq = state.globals.seq

        def fault(kind: FaultKind, segment: int, record: int, why: str) -> Fault:
            return Fault(batch.batch_id, segment, kind, record, state.root(), batch.post_root, why)

        if batch.batch_id != batch_id:
            return fault(FaultKind.ORDER, 0, 0, f"it stands where batch {batch_id} is next")
        if batch.first_seq != first_seq:
            why = f"it begins at seq {batch.first_seq}, the state stands at {first_seq}"
            return fault(FaultKind.ORDER, 0, 0, why)
        wrong_form = check_form(batch, state.root())
        if wrong_form is not None:
            return wrong_form
        self._inbox, self.segments, self.begun = None, [], []
        record = 0
        segments = batches.decode(batch.payload, batch.segments, batch.ticks)
        named = signers_of([raw for segment in segments for raw in segment.records], state.domain)
        for number, segment in enumerate(segments):
            found = self._segment(batch, number, segment, record, named)
            if found is not None:
                return found
            record += len(segment.records)
        last = len(segments) - 1
        g = state.globals
        if state.root() != batch.post_root:
            return fault(FaultKind.POST_ROOT, last, record - 1, "the post-root is not what the records give")
        for kind, held, claimed in (
            (FaultKind.RECORDS, g.seq - first_seq, batch.records),
            (FaultKind.TIME, g.time, batch.time_s),
            (FaultKind.INBOX_COUNT, g.inbox_count, batch.inbox_count),
            (FaultKind.WORK, g.work, batch.work),
            (FaultKind.TICK, g.tick, batch.tick),
        ):
            if held != claimed:
                return fault(kind, last, record - 1, f"the header says {claimed}, the records give {held}")
        if g.inbox_hash != inbox_hash:
            where = self._inbox or (last, record - 1, "GLOBAL's inbox hash is not the Inbox's")
            return fault(FaultKind.INBOX, *where)
        return None

    def advance(self, batch: PostedBatch, segments: int | None = None) -> None:
        """Applies the records of a batch, or of its first `segments`, and judges nothing."""
        taken = batches.decode(batch.payload, batch.segments, batch.ticks)[:segments]
        raws = [raw for segment in taken for raw in segment.records]
        for raw, signer in zip(raws, signers_of(raws, self.state.domain), strict=True):
            apply(self.state, raw, signer)

    def _segment(
        self,
        batch: PostedBatch,
        number: int,
        segment: batches.Segment,
        first_record: int,
        named: Iterator[bytes | None],
    ) -> Fault | None:
        state = self.state
        outs: list[Outcome] = []
        for place, raw in enumerate(segment.records, start=first_record):
            if raw[0] in c.INBOX_KINDS and self._inbox is None and (wrong := self._wrong_message(raw)):
                # The running hash at the end shows whether it can be proved wrong.
                self._inbox = (number, place, wrong)
            out = apply(state, raw, next(named))
            self._observe(raw, out)
            if raw[0] == Kind.TICK:
                self.begun.append(out.reason is Reason.OK)
            outs.append(out)
        root = state.root()
        if root[: c.ELEMENT_BYTES] == segment.root:
            self.segments.append((root, list(segment.records), state.globals.work))
            return None
        told = [
            name_of(raw) + ("" if out.reason is Reason.OK else f" refused {out.reason.name}")
            for raw, out in zip(segment.records, outs, strict=True)
        ]
        why = f"the root is not what the records give ({', '.join(told)})"
        return Fault(batch.batch_id, number, FaultKind.ROOT, first_record, root, segment.root, why)

    def _wrong_message(self, raw: bytes) -> str:
        """Why `raw` is not the inbox's next message; empty when it is."""
        index = self.state.globals.inbox_count
        expected = self._message(index)
        if raw == expected:
            return ""
        if expected is None:
            return f"L1 has no inbox message {index}"
        for later in range(index + 1, index + MESSAGES_AHEAD):
            known = self._message(later)
            if known is None:
                break
            if known == raw:
                return f"message {later} is taken where {index} is next"
        return f"the record is not inbox message {index}"


def check_form(batch: PostedBatch, root: bytes) -> Fault | None:
    """The first segment whose bounds, records or weight no honest sequencer posts. `root`: before the batch."""
    first = batches.tables(batch.segments, batch.ticks) * c.ELEMENT_BYTES
    area = batch.payload[first:]
    begin = record = 0
    for number in range(batch.segments):
        element, place = divmod(number, batches.OFFSETS_PER_ELEMENT)
        at = (batch.segments + element) * c.ELEMENT_BYTES + 3 * place
        end = int.from_bytes(batch.payload[at : at + 3], "big") * c.ELEMENT_BYTES
        claimed = batch.payload[number * c.ELEMENT_BYTES : (number + 1) * c.ELEMENT_BYTES]

        def fault(
            kind: FaultKind, why: str, where: tuple[int, int, bytes] = (number, record, claimed)
        ) -> Fault:
            return Fault(batch.batch_id, where[0], kind, where[1], root, where[2], why)

        if not begin < end <= len(area):
            why = f"it spans bytes {begin} to {end} of the {len(area)} of the records"
            return fault(FaultKind.BOUNDS, why)
        records = list(batches.split(area[begin:end]))
        layout = c.LAYOUT.get(records[-1][0])
        if layout is not None and len(records[-1]) != layout[0]:
            return fault(FaultKind.RECORD, f"its last record, {name_of(records[-1])}, is cut off")
        weight = sum(map(batches.weight, records))
        if weight > c.SEGMENT_WEIGHT_MAX:
            return fault(FaultKind.WEIGHT, f"its records weigh {weight}, at most {c.SEGMENT_WEIGHT_MAX}")
        if number == batch.segments - 1 and end != len(area):
            return fault(FaultKind.BOUNDS, f"it is the last and ends at byte {end} of {len(area)}")
        begin = end
        record += len(records)
    return None


def name_of(raw: bytes) -> str:
    """Name of a record's kind."""
    return Kind(raw[0]).name if raw and raw[0] in c.LAYOUT else "unknown kind"
