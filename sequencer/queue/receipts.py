"""Receipts of ticks: the header that a batch commits to, the signature under it, and each record's path to it.

A header is made when its tick has been applied, and stands in the tick's log entry; it is signed once the entry is
durable, never before. The same tick has the same header and the same signature, however often it is signed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from sequencer.engine.engine import ReplayError, Result, Tick
from sequencer.log.interface import Entry, Ticks
from sequencer.protocol import receipts
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.receipts import Header

NO_PARENT: Final = bytes(receipts.ID_BYTES)  # of the first header of a log
_SECOND_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Lead:
    """Whose ticks these are: epoch of `Sequencers`, term inside the member's cluster, roll-backs of `Rollup`."""

    epoch: int = 0
    term: int = 0
    roll_backs: int = 0


@dataclass(slots=True)
class TickReceipts:
    """A tick's header and tree; `head` is its signed header in bytes, empty until it is durable."""

    header: Header
    levels: Sequence[Sequence[bytes]]
    head: bytes = b""

    def of(self, result: Result) -> bytes:
        """The receipt of a submission's records: signed header, and place and path of each.

        Several: an order that took CONTINUEs. Empty: nobody signs here.
        """
        if not self.head:
            return b""
        first = self.header.first_seq
        out = self.head
        for outcome in result.outcomes:
            out += receipts.item(outcome.seq - first, self.levels)
        return out


class Issuer:
    """Makes the headers of a log's ticks, one after the other, and signs those that are durable.

    `key` None: headers are made, as batches commit to them, and nobody signs them. `lead` says whose ticks these are.
    """

    def __init__(self, domain: bytes, key: bytes | None, lead: Callable[[], Lead] = Lead) -> None:
        self._domain = domain
        self._key = key
        self._lead = lead
        self._parent = NO_PARENT
        self._last_ns = 0

    @property
    def signs(self) -> bool:
        """Whether acknowledgements carry receipts."""
        return self._key is not None

    @property
    def address(self) -> bytes:
        """Of the key that signs; empty: nobody does."""
        return b"" if self._key is None else address_of(public_key_of(self._key))

    def resume(self, log: Ticks, offset: int | None = None) -> None:
        """Goes on behind the entry before `offset`, by default behind the last."""
        self._parent, self._last_ns = NO_PARENT, 0
        for at in reversed(range(log.end if offset is None else offset)):
            entry = next(iter(log.read(at)))
            heads = [head for head in entry.heads if head]  # a TICK that is refused has none
            if heads:
                head = heads[-1]
                self._parent = receipts.id_of(head)
                if len(head) != receipts.ID_BYTES:
                    self._last_ns = receipts.load(head).time_ns
            if heads or (entry.records and not entry.heads):  # else no tick has begun in it
                return

    def seal(self, tick: Tick) -> TickReceipts | None:
        """Gives an applied tick its header; None: nothing of it is logged."""
        entry = tick.entry
        if entry is None:
            return None
        made = self.header(entry, tick.number, tick.leaves)
        tick.entry = msgspec.structs.replace(entry, heads=[receipts.stored(made.header)])
        return made

    def header(self, entry: Entry, number: int, leaves: Sequence[bytes]) -> TickReceipts:
        """Header and tree of tick `number`; the next follows it."""
        lead = self._lead()
        levels = receipts.tree(leaves)
        header = Header(
            epoch=lead.epoch,
            term=lead.term,
            roll_backs=lead.roll_backs,
            tick=number,
            parent=self._parent,
            first_seq=entry.first_seq,
            records=len(leaves),
            records_root=levels[-1][0],
            state_root=entry.root,
            time_ns=self._time_ns(entry.time),
        )
        self._parent, self._last_ns = header.id, header.time_ns
        return TickReceipts(header, levels)

    def adopt(self, tick: Tick, signs: bool = True) -> TickReceipts | None:
        """Receipts of a tick that another node has logged, as that node gives them; None: it has none to give.

        `signs`: that node has the key of this one. Raises ReplayError when the header is not the tick's.
        """
        heads = [] if tick.entry is None else [head for head in tick.entry.heads if head]
        if not heads:
            return None
        head = heads[-1]
        if len(head) == receipts.ID_BYTES:  # of another member's tick, as L1 has it
            self._parent = head
            return None
        assert tick.entry is not None
        header, levels = receipts.load(head), receipts.tree(tick.leaves)
        own = (header.parent, header.records_root, header.state_root, header.tick)
        if own != (self._parent, levels[-1][0], tick.entry.root, tick.number):
            raise ReplayError(f"the header of tick {tick.number} is not that of its records")
        self._parent, self._last_ns = header.id, header.time_ns
        made = TickReceipts(header, levels)
        if signs:
            self.sign(made)
        return made

    def sign(self, made: TickReceipts) -> None:
        """Signs a durable tick's header."""
        if self._key is not None:
            made.head = receipts.pack(made.header, made.header.sign(self._domain, self._key))

    def _time_ns(self, time_s: int) -> int:
        """The machine's clock while it is in the tick's second; never that of the header before, or earlier."""
        now_ns = time.time_ns()
        if now_ns // _SECOND_NS != time_s:
            now_ns = time_s * _SECOND_NS
        return max(now_ns, self._last_ns + 1)
