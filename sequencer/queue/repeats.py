"""Acknowledgements made again at a start, so that a record that comes again has the answer that it had the first time.

What a start executes anyway is heard (`Repeats`): an acknowledgement is made of it by the code that made the first, at
the same moment, the end of its tick. Older ones come from the snapshot. The receipt follows from the tick's header,
which the log keeps; it is signed when it is asked for, and the signature is the same under the same key (RFC 6979).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sequencer.engine.engine import CONTINUE, Result, Submission, account_and_nonce
from sequencer.engine.events import Acknowledging, Labels
from sequencer.engine.snapshots import Told
from sequencer.history.history import History
from sequencer.log.interface import Entry, Ticks, end_seq
from sequencer.protocol import receipts
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.receipts import Header
from sequencer.protocol.state import State
from sequencer.queue.outcomes import KEPT, Ack, key_of
from sequencer.queue.receipts import Issuer, TickReceipts
from sequencer.wire.names import instrument_name
from sequencer.wire.receipts import with_receipt, without_receipt
from sequencer.wire.rows import OwnFill

TOLD: Final = 16_384  # acknowledgements that a snapshot holds; with their receipts at most some 16 MB
_STORED_BYTES: Final = receipts.HEAD_BYTES + receipts.NODE_BYTES  # of a header whose tick was made here
_SIGNED_HEAD: Final = receipts.HEAD_BYTES + receipts.SIGNATURE_BYTES
_TICK: Final = bytes([Kind.TICK])
_PLACES: Final = frozenset({Kind.PLACE, Kind.PLACE_IN_WORDS})

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Leaves:
    """A logged tick: its header and its leaves, of which the receipts are made when one is asked for."""

    header: Header
    leaves: list[bytes] = field(default_factory=list)
    made: TickReceipts | None = None
    is_broken: bool = False  # the header is not that of these records: a roll-back has cut the tick


class _Labels(dict[int, str]):
    """Labels of orders by sequence number."""

    def label(self, seq: int) -> str:
        """See Labels."""
        return self.get(seq, "")


class _Names:
    """Names for acknowledgements of a state that is being replayed."""

    def __init__(self) -> None:
        self.ledger: Labels = _Labels()
        self.state: State
        self._known: dict[int, str] = {}

    def name(self, instrument: int) -> str:
        """Name of a listed instrument, remembered."""
        found = self._known.get(instrument)
        if found is None:
            found = self._known[instrument] = instrument_name(self.state, instrument)
        return found


class Repeats(Acknowledging):
    """Listens to a replay of the log (`engine.snapshots.Listener`).

    `made`: by sequence number the signed records that were heard, each with its acknowledgement, or None when it has
    not held; at most those of the last KEPT numbers, and TOLD that a snapshot has.
    """

    def __init__(self, log: Ticks, history: History, issuer: Issuer) -> None:
        self._naming = _Names()
        super().__init__(self._naming)
        self.made: dict[int, tuple[bytes, Ack | None]] = {}
        self._log = log
        self._history = history
        self._issuer = issuer
        self._first_seq = end_seq(log) - KEPT
        self._entry: Entry
        self._state: State
        self._labels: Labels | None = None  # the ledger's
        self._tick = 0  # the number of the one whose records are heard
        self._leaves: _Leaves | None = None
        self._results: list[Result] = []  # of the tick, those that are answered
        self._last: Result | None = None  # the order that CONTINUEs go on with

    # --- what a snapshot has ----------------------------------------------------------------------

    def begin(self, offset: int, told: Told | None) -> None:
        """See Listener."""
        self.made.clear()
        if told is None or not told.answers:
            return
        if told.log_hash != self._log.hash_before(offset):
            logger.warning("the acknowledgements in the snapshot at %d are not of this log", offset)
            return
        is_same = told.signer == self._issuer.address
        heads = {} if is_same else self._heads(told.answers[0][1], offset)
        for raw, seq, ack in told.answers:
            self.made[seq] = raw, ack if is_same else self._signed_anew(ack, heads)

    def _heads(self, first_seq: int, offset: int) -> dict[bytes, Header]:
        """Headers of the ticks before log entry `offset`, from record `first_seq` on, by what receipts say of them."""
        out: dict[bytes, Header] = {}
        for at in reversed(range(offset)):
            entry = next(iter(self._log.read(at)))
            for head in entry.heads:
                if len(head) == _STORED_BYTES:
                    out[head[: receipts.HEAD_BYTES]] = receipts.load(head)
            if entry.first_seq <= first_seq:
                break
        return out

    def _signed_anew(self, ack: bytes, heads: dict[bytes, Header]) -> Ack:
        """An acknowledgement with a receipt of today's key: another key has signed the first."""
        body, receipt = without_receipt(ack)
        header = heads.get(receipt[: receipts.HEAD_BYTES])
        if header is None or not self._issuer.signs:
            return body
        return partial(_with_items, self._issuer, body, header, receipt[_SIGNED_HEAD:])

    # --- what is executed -------------------------------------------------------------------------

    def wants(self, entry: Entry) -> bool:
        """See Listener: of more there is no answer, however many come."""
        return entry.first_seq + entry.records > self._first_seq

    def open(self, state: State, entry: Entry, labels: Labels | None) -> None:
        """See Listener."""
        self._entry, self._state, self._labels, self._naming.state = entry, state, labels, state
        self._tick = state.globals.tick
        self._own.clear()
        self._results, self._last = [], None
        heads = [head for head in entry.heads if head]
        is_one = self._issuer.signs and len(heads) == 1 and len(heads[0]) == _STORED_BYTES
        self._leaves = _Leaves(receipts.load(heads[0])) if is_one else None

    def hear(self, raw: bytes, out: Outcome, fills: Sequence[OwnFill]) -> None:
        """See Listener."""
        if self._leaves is not None:
            # now: a later record of the tick may fill what this one rests
            leaf = receipts.leaf(out.seq, raw, out.reason, receipts.outcome_hash(out))
            self._leaves.leaves.append(leaf)
        if fills:
            self._own[out.seq] = list(fills)
        if raw == CONTINUE:
            if self._last is not None:
                self._last.outcomes.append(out)
                self._last = self._last if out.pending else None
            return
        self._last = None
        if raw[:1] == _TICK:
            self._answer()  # the entry is another member's batch, of several ticks
            self._tick = self._state.globals.tick
        elif key_of(raw) is not None:
            result = Result(Submission(raw, None), [out])
            self._results.append(result)
            self._last = result if out.pending else None

    def close(self) -> None:
        """See Listener."""
        self._answer()

    def _answer(self) -> None:
        """Acknowledges what was heard of a tick, as the state stands after it."""
        results, self._results = self._results, []
        if results:
            self._naming.ledger = self._known_labels(results) if self._labels is None else self._labels
            self._find_trades([one for one in results if not self._is_whole(one)])
        for result in results:
            raw, first, last = result.submission.raw, result.outcomes[0], result.outcomes[-1]
            if first.reason is not Reason.OK:
                self.made[first.seq] = raw, None
            elif not last.pending and not last.failed and self._is_whole(result):
                self.made[first.seq] = raw, self._receipted(self.ack(result, self._tick), result)
        self._own.clear()

    def _known_labels(self, results: list[Result]) -> Labels:
        """Labels of orders in a tick that the history has taken in before this start."""
        out, named = _Labels(), {}
        if self._entry.labels:
            named = {(account, nonce): label for account, nonce, label in self._entry.labels}
        for result in results:
            raw, first = result.submission.raw, result.outcomes[0]
            if raw[0] in _PLACES and named:
                out[first.seq] = named.get(account_and_nonce(raw), "")
            elif first.amended is not None and first.reason is Reason.OK:
                out[first.seq] = out[first.amended.seq] = self._history.amended_label(first.seq)
        return out

    def _is_whole(self, result: Result) -> bool:
        """Whether all of its trades are in `_own`."""
        count = own = 0
        for out in result.outcomes:
            if out.fills:
                count += len(out.fills)
                own += sum([one.is_taker for one in self._own.get(out.seq, ())])
        return count == own

    def _find_trades(self, results: list[Result]) -> None:
        """Looks up the trades of these in the history, which has taken them in before this start."""
        trading = [out for result in results for out in result.outcomes if out.fills]
        if not trading:
            return
        rows = self._history.takers(trading[0].seq, trading[-1].seq)
        for out in trading:
            of_record = rows.get(out.seq, [])
            if len(of_record) == len(out.fills):
                pairs = zip(of_record, out.fills, strict=True)
                self._own[out.seq] = [OwnFill(row, True, fill) for row, fill in pairs]

    def _receipted(self, body: bytes, result: Result) -> Ack:
        if (tick := self._leaves) is None:
            return body
        first_seq = tick.header.first_seq
        places = [out.seq - first_seq for out in result.outcomes]
        return partial(_with_receipt, self._issuer, body, tick, places)


def _with_receipt(issuer: Issuer, body: bytes, tick: _Leaves, places: list[int]) -> bytes:
    """The acknowledgement with its receipt; without one when the tick is not as its header says."""
    if tick.made is None and not tick.is_broken:
        levels = receipts.tree(tick.leaves)
        tick.is_broken = levels[-1][0] != tick.header.records_root
        if not tick.is_broken:
            tick.made = TickReceipts(tick.header, levels)
            issuer.sign(tick.made)
    if tick.made is None:
        return body
    items = b"".join(receipts.item(at, tick.made.levels) for at in places)
    return with_receipt(body, tick.made.head + items)


def _with_items(issuer: Issuer, body: bytes, header: Header, items: bytes) -> bytes:
    made = TickReceipts(header, ())
    issuer.sign(made)
    return with_receipt(body, made.head + items)
