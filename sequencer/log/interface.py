"""What a log is: ticks appended durably, fenced by their offset, before anything is acknowledged."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from sequencer.protocol import receipts
from sequencer.protocol.batch import NO_ID, Segment, ticks_in


class LogError(Exception):
    """The log did not take an append: nothing of that tick is durable. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"log: {reason}")
        self.reason = reason


class LogLost(LogError):
    """Not to be written by this process any more: another has, or nobody can say whether the tick is durable.

    Only a new start, which reads the log, can go on.
    """


LoggedSegment = tuple[bytes, list[bytes], int]


class Redone(msgspec.Struct, frozen=True, array_like=True):
    """An acknowledged record that a roll-back has changed: `seq` as it was acknowledged, `place` where it stands now.

    `reason`: Reason.OK where it holds, at another place; else why it is a no-op.
    """

    seq: int
    place: int
    record: bytes
    reason: int


class Term(msgspec.Struct, frozen=True, array_like=True, tag="term"):
    """Node `node` leads from here on, in term `number` of its cluster."""

    number: int
    node: str


class Cut(msgspec.Struct, frozen=True, array_like=True, tag="cut"):
    """Batch `batch_id` ends before segment `segment` of the entry at `offset`."""

    batch_id: int
    offset: int
    segment: int


class Staged(msgspec.Struct, frozen=True, array_like=True, tag="staged"):
    """The entry is to replace another if a TurnBack follows; until then it counts for nothing. `control`: what it says
    then.
    """

    control: Term | Cut | None = None


class TurnBack(msgspec.Struct, frozen=True, array_like=True, tag="turn_back"):
    """Commit point of roll-back `epoch`, to the start of batch `batch_id`: the last `staged` staged entries replace
    those from `offset` on. They are as many, unless `is_cut`: then the log ends behind them.

    `events`: keys of the L1 events that it answers. `redone`, `first_seq`: see `SqliteLog.rewrite`.
    """

    epoch: int
    batch_id: int
    offset: int
    staged: int
    events: list[str]
    redone: list[Redone]
    first_seq: int
    is_cut: bool


Control = Term | Cut | Staged | TurnBack


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One tick. `first_seq`: of its first record; `time`: the exchange's, seconds; `root`: the state's after it.

    `segments`: the root after each, its records, and GLOBAL's work after it. `labels` of orders: account, nonce,
    label. `verified`: the offset before which every signature had been checked when this was written. `holds`: every
    signed record in it has held, so that a replay need not recover who signed it, once that has been checked.
    `heads`: for each tick that begins in it, what its header says (`protocol.receipts.stored`), or, of a tick that
    another has posted, the header's id alone, or nothing of a TICK that was refused and begins none; empty: nobody
    has signed any.

    `control`: what the entry says besides. One with Term or Cut has no segments; `first_seq`, `time` and `root` are
    those of the state there, as after a tick without records. One with Staged or TurnBack has a place in the log, and
    no offset: no reader of offsets sees it.
    """

    first_seq: int
    time: int
    root: bytes
    segments: list[LoggedSegment]
    labels: list[tuple[int, int, str]] = []
    verified: int = 0
    holds: bool = False
    heads: list[bytes] = []
    control: Control | None = None

    @property
    def records(self) -> int:
        """How many records the tick has."""
        return sum(len(records) for _, records, _ in self.segments)

    def raws(self) -> Iterator[bytes]:
        """The records in order."""
        for _, records, _ in self.segments:
            yield from records

    def batch_segments(self) -> list[Segment]:
        """As the batch's segments."""
        return [Segment(root, tuple(records)) for root, records, _ in self.segments]

    def ids(self) -> list[list[bytes]]:
        """For each segment the ids of the headers of the ticks that begin in it."""
        heads = iter(self.heads)
        return [
            [receipts.id_of(head) for _ in range(ticks_in(records)) if (head := next(heads, NO_ID))]
            for _, records, _ in self.segments
        ]


class RollBack(msgspec.Struct, frozen=True):
    """A roll-back that the log has been rewritten for. `is_done`: the other stores have followed."""

    epoch: int
    batch_id: int
    offset: int
    is_done: bool


class Stream(Protocol):
    """A replicated stream of which the log is the local journal: message n is the body of the entry at place n."""

    def append(self, place: int, bodies: Sequence[bytes]) -> None:
        """Appends `bodies` as the messages from number `place` on, all or none of them.

        Raises LogError: certainly not appended. LogLost: another message is there, or nobody can say.
        """
        ...

    def check(self) -> None:
        """Raises LogError while nothing would be appended."""
        ...


class Ticks(Protocol):
    """What can be read of every backend. Offsets count from 0 the entries that stand, ticks and what Term and Cut say;
    places count all that was ever written.
    """

    def read(self, start: int) -> Iterator[Entry]:
        """Entries from offset `start` on."""
        ...

    def read_hashed(self, start: int) -> Iterator[tuple[Entry, bytes]]:
        """As `read`, each with the chain hash after it."""
        ...

    @property
    def end(self) -> int:
        """Offset of the next append."""
        ...

    def hash_before(self, offset: int) -> bytes:
        """Chain hash of the entry before `offset`. Raises LogError when there is none."""
        ...


def end_seq(log: Ticks) -> int:
    """The sequence number after the whole log."""
    if not log.end:
        return 0
    entry = next(iter(log.read(log.end - 1)))
    return entry.first_seq + entry.records


class Log(Ticks, Protocol):
    """What every backend offers to its one writer."""

    def append(self, entry: Entry, expected_offset: int) -> bytes:
        """Makes `entry` durable at `expected_offset`; its chain hash.

        Raises LogError, and then nothing was written; LogLost, and then this writer has to stand down.
        """
        ...

    def tidy(self) -> None:
        """What may wait until an append has been answered; to be called after it, on the same thread. Never raises."""
        ...

    def check_place(self) -> None:
        """Raises LogLost when what is written would not be found again."""
        ...

    def try_room(self, size: int) -> None:
        """Whether the log would take an entry of `size` bytes. Raises as `append`."""
        ...
