"""The engine: one tick at a time, from waiting submissions to segments with roots.

It applies first and leaves out what is a no-op, so that a refusal comes before the log and costs neither a sequence
number nor a byte on L1; what stays is logged, and only then acknowledged. No clock, no I/O: time comes with the tick.
"""

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any

from mypy_extensions import mypyc_attr

from sequencer.engine.signed import is_signed, signers_of
from sequencer.log.interface import Entry, LoggedSegment
from sequencer.protocol import batch, codec, forced, plans, receipts
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Global
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

CONTINUE = codec.encode(Kind.CONTINUE)
PLACE_NONCE_AT = 19
_FEED = bytes([Kind.FEED])
_SURFACE = bytes([Kind.SURFACE])
_ORDERS = frozenset(bytes([kind]) for kind in (Kind.PLACE, Kind.PLACE_IN_WORDS, Kind.AMEND))
_FLAGS_AT = 9  # of all three
_INBOX = frozenset(bytes([kind]) for kind in c.INBOX_KINDS)
_REPORTS = frozenset({_FEED, _SURFACE})
_FEED_AT = 2  # of both
# Of FOK and post-only orders that do not hold, what a tick may execute: nobody pays for it, and all others wait for it.
UNDONE_MAX = 2 * c.PLAN_RECORDS_MAX
CONTINUES_MAX = 128  # records of one order between pauses: some milliseconds
# What a submission cannot be, whoever vouches for it: what only L1 says, and a tick inside the tick.
_SYSTEM_ALONE = _INBOX | {bytes([Kind.TICK]), bytes([Kind.CONTINUE])}


class Submission:
    """A record that waits for its tick. `reply` is handed back with the result; `arrived_ns` orders and ages it.

    `label`: what its owner calls the order; no part of the record.
    """

    __slots__ = ("arrived_ns", "label", "of_class", "raw", "reply", "signer")

    def __init__(
        self,
        raw: bytes,
        signer: bytes | None,
        reply: object = None,
        arrived_ns: int = 0,
        of_class: int = 0,
        label: str = "",
    ) -> None:
        self.raw = raw
        self.signer = signer
        self.reply = reply
        self.arrived_ns = arrived_ns
        self.of_class = of_class
        self.label = label


class Result:
    """What became of a submission. `outcomes`: the record's, then those of its CONTINUEs; a refusal has one.

    If the last of them has `failed`, all of them are undone: only records of L1's or of another leader are logged so.
    `why`: what there is to say of a refusal, made while the state was as the record has found it. `undone`: records of
    a FOK or post-only order that did not hold, and that have been left out.
    """

    __slots__ = ("outcomes", "submission", "undone", "why")

    def __init__(
        self, submission: Submission, outcomes: list[Outcome], why: object = None, undone: int = 0
    ) -> None:
        self.submission = submission
        self.outcomes = outcomes
        self.why = why
        self.undone = undone

    @property
    def reason(self) -> Reason:
        """OK, or why it was refused or undone."""
        return self.outcomes[0].reason or self.outcomes[-1].failed


class Tick:
    """An applied tick: `entry` is None when nothing in it held, and then the state is as before.

    `told`: what is to be said of it once it is durable, made while the state was as it left it. `waiting`: messages of
    L1 whose marks nobody can renew yet, to come again. `leaves`: of its receipts, one a logged record; `receipts`: of
    queue/receipts.py. `put_off`: submissions for the next tick, as this one has done enough for nothing.
    """

    __slots__ = ("entry", "leaves", "number", "put_off", "receipts", "results", "system", "told", "waiting")

    def __init__(
        self,
        number: int,
        entry: Entry | None,
        results: list[Result],
        system: list[Result] | None = None,
        waiting: list[bytes] | None = None,
        leaves: list[bytes] | None = None,
        put_off: list[Submission] | None = None,
    ) -> None:
        self.number = number
        self.entry = entry
        self.results = results
        self.system = system or []
        self.waiting = waiting or []
        self.told: object = None
        self.leaves = leaves or []
        self.receipts: Any = None
        self.put_off = put_off or []


@mypyc_attr(allow_interpreted_subclasses=True)
class Engine:
    """Owns the state; the single writer."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.sweeps: Callable[[int], list[bytes]] = lambda _time: []  # SWEEPs of the orders that are dead now
        self.explain: Callable[[State, bytes, bytes | None, Reason, Outcome], object] = _no_words
        self._segments: list[tuple[int, list[bytes], int]] = []  # place among the noted roots, records, work
        self._records: list[bytes] = []
        self._leaves: list[bytes] = []  # of the tick's receipts
        self._weight = 0
        self._undone: dict[int, int] = {}  # records of this tick that did not hold, by account
        self._put_off: list[Submission] = []

    def run(
        self, time: int, system: list[bytes], submissions: list[Submission], is_kept: bool = False
    ) -> Tick:
        """Applies a tick at `time` (seconds, not before the last one's): system records, then submissions by class.

        One in which nothing held is left out as a whole, unless `is_kept`: then its TICK stays.
        """
        steps = self.steps(time, system, submissions, is_kept)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                tick: Tick = end.value
                return tick

    def steps(
        self, time: int, system: list[bytes], submissions: list[Submission], is_kept: bool = False
    ) -> Generator[None, None, Tick]:
        """As `run`, but an order of many records pauses after each CONTINUES_MAX of them.

        Nobody else's record can come in between (the transition lets only CONTINUE follow); what can go on are the
        acknowledgements of the ticks before, queries, and the queue. Whoever gives up at a pause needs another state.
        """
        state = self.state
        state.map.roots()  # none that a tick has left which did not end
        first_seq = state.globals.seq
        before = state.globals.copy()
        self._segments, self._records, self._weight = [], [], 0
        self._leaves = []
        self._undone, self._put_off = {}, []
        time = max(time, state.globals.time)
        taken_over: list[Result] = []
        while state.globals.taker is not None:  # of the last batch of a leader that is gone
            if len(taken_over) % CONTINUES_MAX == CONTINUES_MAX - 1:
                yield
            taken_over.append(Result(Submission(CONTINUE, None), [self._try(CONTINUE, None)]))
            if taken_over[-1].outcomes[-1].failed:  # one order, and nothing of it has happened
                taken_over = [
                    Result(taken_over[0].submission, [out for one in taken_over for out in one.outcomes])
                ]
        self._try(codec.encode(Kind.TICK, time=time), None)
        kept = int(is_kept) + len(taken_over)
        system_results = taken_over
        waiting: list[bytes] = []
        for raw in sorted(system, key=self._system_order):
            if waiting and raw[:1] in _INBOX:  # the inbox goes on in its order
                waiting.append(raw)
                continue
            result = Result(Submission(raw, None), [self._try(raw, None)])
            if result.reason is Reason.RISK_DUE:
                marked = self._mark(raw)
                system_results += marked
                kept += len(marked)
                result.outcomes = [self._try(raw, None)]
                if result.reason is Reason.RISK_DUE:
                    waiting.append(raw)
                    continue
            system_results.append(result)
            kept += _is_kept(raw, result.outcomes[0])
            yield from self._continue(result)
        submissions.sort(key=_class)
        before_takers = bisect_right(submissions, c.CLASS_CANCEL, key=_class)
        results: list[Result] = []
        yield from self._submit_all(submissions[:before_takers], results)
        for raw in self.sweeps(time):  # what has died in this tick must not stand in a taker's way
            system_results.append(Result(Submission(raw, None), [self._try(raw, None)]))
            kept += system_results[-1].reason is Reason.OK
        yield from self._submit_all(submissions[before_takers:], results)
        kept += sum(result.reason is Reason.OK for result in results)
        labels = [
            _label(one.submission) for one in results if one.submission.label and one.reason is Reason.OK
        ]
        number = state.globals.tick
        if not kept:
            state.globals = before
            return Tick(number, None, results, system_results, waiting, put_off=self._put_off)
        self._close()
        roots = state.map.roots()
        segments: list[LoggedSegment] = [(roots[at], records, work) for at, records, work in self._segments]
        # what does not hold is left out
        entry = Entry(first_seq, time, state.root(), segments, labels, holds=True)
        return Tick(
            number, entry, results, system_results, waiting, leaves=self._leaves, put_off=self._put_off
        )

    def _submit_all(self, submissions: list[Submission], results: list[Result]) -> Iterator[None]:
        for one in submissions:
            result = self._submit(one)
            if result is None:
                continue
            results.append(result)
            if result.outcomes[-1].pending:
                yield from self._continue(result)

    def _submit(self, submission: Submission) -> Result | None:
        if submission.raw[:1] in _SYSTEM_ALONE:
            return Result(submission, [_refused(self.state.globals.seq, Reason.UNKNOWN_KIND)])
        raw = submission.raw
        if raw[:1] in _ORDERS and len(raw) > _FLAGS_AT and plans.is_atomic(raw[_FLAGS_AT]):
            return self._submit_atomic(submission)
        result = Result(submission, [self._try(raw, submission.signer)])
        if result.reason is not Reason.OK:
            self._explain(result, result.reason)
        return result

    def _explain(self, result: Result, reason: Reason) -> None:
        """Says why a submission was refused, by what its last outcome says was needed and there."""
        submission = result.submission
        if submission.reply is not None:
            result.why = self.explain(
                self.state, submission.raw, submission.signer, reason, result.outcomes[-1]
            )

    def _submit_atomic(self, submission: Submission) -> Result | None:
        """A FOK or post-only order: all its records, or a refusal that leaves no more behind than any other.

        The transition makes one that fails late pay for its records; nobody has to log them, so that nobody pays. What
        is executed for nothing is bounded instead: a tick that has had PLAN_RECORDS_MAX such records of an account, or
        UNDONE_MAX in all, leaves such an order to the next (None).
        """
        state, raw = self.state, submission.raw
        if self._weight + batch.weight(raw) > c.SEGMENT_WEIGHT_MAX:
            self._close()
        segments, records, count, weight = (
            len(self._segments),
            self._records,
            len(self._records),
            self._weight,
        )
        leaves = len(self._leaves)
        result = Result(submission, [self._try(raw, submission.signer)])
        first = result.outcomes[0]
        if not first.pending:
            if first.reason is not Reason.OK:
                self._explain(result, first.reason)
            return result
        number = int.from_bytes(raw[1:5], "big")
        assert state.undo is not None  # of the order's plan, which is open
        before, account = Global.from_words(state.undo.global_words), state.undo.accounts[number]
        of_account, of_all = self._undone.get(number, 0), sum(self._undone.values())
        is_put_off = of_account >= c.PLAN_RECORDS_MAX or of_all >= UNDONE_MAX
        can_fill = not is_put_off and self._can_fill()
        if can_fill:
            while result.outcomes[-1].pending:  # at most PLAN_RECORDS_MAX
                result.outcomes.append(self._try(CONTINUE, None))
            if not result.outcomes[-1].failed:
                return result
        else:
            state.rewind(number)
        failed = result.outcomes[-1].failed or Reason.FOK_UNFILLED
        state.put_account(number, account)
        state.globals = before
        del self._segments[segments:], records[count:]
        self._records, self._weight = records, weight
        del self._leaves[leaves:]
        if is_put_off:
            self._put_off.append(submission)
            return None
        result.undone = len(result.outcomes)
        if can_fill:
            self._undone[number] = of_account + result.undone
        self._explain(result, failed)
        result.outcomes = [_refused(first.seq, failed)]
        return result

    def _can_fill(self) -> bool:
        """Whether a pending FOK finds as many lots as it still wants, dead ones counted, in what a plan can meet."""
        taker = self.state.globals.taker
        assert taker is not None
        if taker.flags & c.FLAG_POST_ONLY:
            return True
        most = c.STEPS_MAX * c.PLAN_RECORDS_MAX
        crossing = self.state.crossing(taker.instrument, taker.flags & c.FLAG_SIDE, taker.price)
        lots = 0
        for order in islice(crossing, most):
            lots += order.quantity
            if lots >= taker.quantity:
                return True
        return False

    def _mark(self, raw: bytes) -> list[Result]:
        """RISK for the pages that a message of L1 waits for; those that held."""
        out = []
        for page_id in forced.pages_to_mark(self.state, raw):
            where = {"underlying": page_id >> 23, "day": page_id >> 7 & 0xFFFF, "page": page_id & 127}
            risk = codec.encode(Kind.RISK, **where)
            result = Result(Submission(risk, None), [self._try(risk, None)])
            if result.reason is Reason.OK:
                out.append(result)
        return out

    def _system_order(self, raw: bytes) -> tuple[int, int]:
        """By class; prices, then surfaces of what is listed, come before L1's messages, which may need their marks."""
        is_surface = raw[:1] == _SURFACE and int.from_bytes(raw[1:2] + raw[3:5], "big") in self.state.expiries
        return class_of(raw), 0 if raw[:1] == _FEED else 1 if is_surface else 2

    def _continue(self, result: Result) -> Iterator[None]:
        while result.outcomes[-1].pending:
            if len(result.outcomes) % CONTINUES_MAX == 0:
                yield
            result.outcomes.append(self._try(CONTINUE, None))

    def _try(self, raw: bytes, signer: bytes | None) -> Outcome:
        """Applies `raw`; keeps it in the open segment when it holds, else gives its sequence number and work back."""
        weight = batch.weight(raw)
        if self._weight + weight > c.SEGMENT_WEIGHT_MAX:
            self._close()
        spent = self.state.globals.work
        out = apply(self.state, raw, signer)
        if _is_kept(raw, out):
            self._records.append(raw)
            # now: a later record of the tick may fill what this one rests
            self._leaves.append(receipts.leaf(out.seq, raw, out.reason, receipts.outcome_hash(out)))
            self._weight += weight
        else:
            self.state.globals.seq, self.state.globals.work = out.seq, spent
        return out

    def _close(self) -> None:
        """Ends the open segment. Its root is hashed with the others, at the end of the tick."""
        if self._records:
            self._segments.append((self.state.mark(), self._records, self.state.globals.work))
            self._records, self._weight = [], 0


def _is_kept(raw: bytes, out: Outcome) -> bool:
    """Whether a record is logged: when it holds; L1's when it counts in the inbox, which it may without holding."""
    return out.reason is Reason.OK or (raw[:1] in _INBOX and out.reason is not Reason.RISK_DUE)


def _no_words(_state: State, _raw: bytes, _signer: bytes | None, _reason: Reason, _out: Outcome) -> None:
    """Where nobody waits for the words of refusals."""


def _refused(seq: int, reason: Reason) -> Outcome:
    out = Outcome(seq)
    out.reason = reason
    return out


def class_of(raw: bytes) -> int:
    """Class of a record's bytes inside its tick; what is malformed goes last, to be refused."""
    layout = c.LAYOUT.get(raw[0]) if raw else None
    if layout is None or len(raw) != layout[0]:
        return c.CLASS_TAKER
    return codec.class_of(raw)


def _class(submission: Submission) -> int:
    return submission.of_class


def _label(submission: Submission) -> tuple[int, int, str]:
    """Of a PLACE: account, nonce, label."""
    return *account_and_nonce(submission.raw), submission.label


def account_and_nonce(raw: bytes) -> tuple[int, int]:
    """Of a PLACE, by which its label is found."""
    nonce_at = PLACE_NONCE_AT
    return int.from_bytes(raw[1:5], "big"), int.from_bytes(raw[nonce_at : nonce_at + 4], "big")


def replay(
    state: State,
    entry: Entry,
    observe: Callable[[bytes, Outcome], None] | None = None,
    is_verified: bool = False,
) -> None:
    """Applies a logged tick to `state`; `observe` hears what each record did.

    `is_verified`: its signatures have been checked before. If its signed records have held then, they hold under
    anybody who may sign them, and no signer is recovered, which costs as much as all else.

    Raises ReplayError when the root after it, or the work after a segment, differs from the logged one.
    """
    if state.globals.seq != entry.first_seq:
        raise ReplayError(f"log goes on at seq {entry.first_seq}, the state stands at {state.globals.seq}")
    named = None if is_verified and entry.holds else signers_of(list(entry.raws()), state.domain)
    for _, records, work in entry.segments:
        for raw in records:
            out = apply(state, raw, _entitled(state, raw) if named is None else next(named))
            if observe is not None:
                observe(raw, out)
        if state.globals.work != work:
            raise ReplayError(f"work differs after seq {state.globals.seq - 1}")
    if state.root() != (entry.segments[-1][0] if entry.segments else entry.root):
        raise ReplayError(f"root differs after seq {state.globals.seq - 1}")


def _entitled(state: State, raw: bytes) -> bytes | None:
    """Somebody who may sign this record: its feed, or its account's owner, who may whatever a session key may."""
    if raw[:1] in _REPORTS:
        keys = state.params.feed_keys
        return keys[raw[_FEED_AT]] if len(raw) > _FEED_AT and raw[_FEED_AT] < len(keys) else None
    if is_signed(raw):
        account = state.account(int.from_bytes(raw[1:5], "big"))
        return None if account is None else account.owner
    return None


class ReplayError(Exception):
    """The state that records produce is not the one that was committed to: wrong data or wrong code."""
