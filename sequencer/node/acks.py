"""Acknowledgements: a submission is refused at once, or answered when its tick is durable."""

import asyncio
from collections.abc import Callable

from sequencer import errors, refusals
from sequencer.api.ipc import Connection
from sequencer.clock import Clock
from sequencer.engine.engine import Result, Submission, Tick
from sequencer.engine.events import Events
from sequencer.engine.views import QueryError
from sequencer.node.gate import Gate
from sequencer.node.roll_backs import RollBacks
from sequencer.protocol.constants import Kind, Reason
from sequencer.queue.driver import Driver
from sequencer.queue.outcomes import Outcomes
from sequencer.queue.receipts import TickReceipts
from sequencer.rollup.vouched import Claim
from sequencer.wire.labels import LABEL_LIMIT, checked_label
from sequencer.wire.receipts import with_receipt


class Reply:
    """Receives the answer to a submission: request `rid` of `connection`."""

    __slots__ = ("connection", "rid")

    def __init__(self, connection: Connection, rid: int) -> None:
        self.connection = connection
        self.rid = rid


class TickOutput:
    """Acknowledgements, refusals (their number: `refused`) and events of a tick, sent once it is durable.

    `accepted`: whom a receipt is for, and which of its replies gets it.
    """

    __slots__ = ("accepted", "events", "refused", "replies")

    def __init__(
        self,
        replies: dict[Connection, list[tuple[int, bool, bytes]]],
        accepted: list[tuple[Connection | None, int, Result]],
        events: list[tuple[str, int, bytes]],
        refused: int,
    ) -> None:
        self.replies = replies
        self.accepted = accepted
        self.events = events
        self.refused = refused


class Acks:
    """Takes records from gateways, and answers each once: refused at once, or when its tick is durable."""

    def __init__(
        self,
        clock: Clock,
        driver: Driver,
        events: Events,
        outcomes: Outcomes,
        gate: Gate,
        roll_backs: RollBacks,
    ) -> None:
        self._clock = clock
        self._driver = driver
        self._events = events
        self._outcomes = outcomes
        self._gate = gate
        self._roll_backs = roll_backs
        self._repeats: dict[bytes, list[Reply]] = {}  # of records whose tick is not durable yet
        self.durable_seq = driver.engine.state.globals.seq  # records below it are durable

    def take(self, connection: Connection, items: list[tuple[int, bytes, bytes, str]]) -> None:
        """Queues a gateway's records, (rid, raw, signer, label) each, or refuses them at once."""
        closed = self._gate.refusal()
        if closed is not None:
            connection.send_acks([(rid, False, closed) for rid, *_ in items])
            return
        now_ns = self._clock.monotonic_ns()
        state = self._driver.engine.state
        refused: list[tuple[int, bool, bytes]] = []
        answered: list[tuple[int, bool, bytes]] = []  # records that come again: as the first time
        for rid, raw, signer, label in items:
            if label and not _may_have_label(raw, label):
                body = QueryError("label", f"absent but for an order, and of {LABEL_LIMIT}", label).body()
                refused.append((rid, False, body))
                continue
            if (again := self._outcomes.answer(raw)) is not None:
                if again[0] < self.durable_seq:
                    answered.append((rid, True, again[1]))
                else:
                    self._repeats.setdefault(raw, []).append(Reply(connection, rid))
                continue
            reason = self._stranger(raw, signer)
            if reason:
                refused.append((rid, False, refusals.explain(state, raw, signer, reason)))
                continue
            # After a forgery the engine recovers signers by itself, at the orders' cost.
            named = None if self._roll_backs.forged else signer
            code = self._driver.offer(Submission(raw, named, Reply(connection, rid), now_ns, label=label))
            if code:
                refused.append((rid, False, self._driver.intake.why(code, raw, now_ns)))
        if refused or answered:
            connection.send_acks(refused + answered)

    def _stranger(self, raw: bytes, signer: bytes) -> Reason:
        """Why a signer may not act for the account or feed that the record names; checked before the record takes queue
        space.
        """
        state = self._driver.engine.state
        if raw[0] in (Kind.FEED, Kind.SURFACE):
            return Reason.OK if signer in state.params.feed_keys else Reason.UNKNOWN_FEED
        account = state.accounts.get(int.from_bytes(raw[1:5], "big"))
        if account is None:
            return Reason.UNKNOWN_ACCOUNT
        if signer == account.owner or any(signer == key for key, _, _ in account.signers):
            return Reason.OK
        return Reason.BAD_SIGNATURE

    def made(self, tick: Tick, is_heard: Callable[[str], bool]) -> TickOutput:
        """Acknowledgements, refusals and events of a tick, built from the state just after it: when the tick is
        durable, the next one may be applied already.
        """
        self._events.observe(tick.system + tick.results)
        replies: dict[Connection, list[tuple[int, bool, bytes]]] = {}
        accepted: list[tuple[Connection | None, int, Result]] = []
        for result in tick.results:
            ok = result.reason is Reason.OK
            reply = result.submission.reply
            to = reply.connection if isinstance(reply, Reply) else None
            if ok:
                accepted.append((to, len(replies.get(to, ())) if to is not None else 0, result))
                body = self._events.ack(result, tick.number)
                self._outcomes.note(result.submission.raw, result.outcomes[0].seq, body)
            else:
                body = result.why if isinstance(result.why, bytes) else errors.refusal(result.reason)
            if isinstance(reply, Reply):
                replies.setdefault(reply.connection, []).append((reply.rid, ok, body))
        events = self._events.events([result for _, _, result in accepted] + tick.system, is_heard)
        return TickOutput(replies, accepted, events, len(tick.results) - len(accepted))

    def send(self, tick: Tick, output: TickOutput) -> None:
        """Acknowledges and refuses the records of a durable tick."""
        made = tick.receipts
        if isinstance(made, TickReceipts) and made.head:
            for connection, place, result in output.accepted:
                receipt = made.of(result)
                self._outcomes.seal(result.submission.raw, receipt)
                if connection is not None:
                    rid, ok, body = output.replies[connection][place]
                    output.replies[connection][place] = rid, ok, with_receipt(body, receipt)
        if tick.entry is not None:
            self.durable_seq = tick.entry.first_seq + tick.entry.records
        for connection, items in output.replies.items():
            connection.send_acks(items)
        for raw in [raw for raw in self._repeats if self._is_durable(raw)]:
            again = self._outcomes.answer(raw)
            for waiting in self._repeats.pop(raw):
                if again is not None:
                    waiting.connection.send_acks([(waiting.rid, True, again[1])])
        for result in tick.results:
            reply = result.submission.reply
            if isinstance(reply, asyncio.Future) and not reply.done():
                reply.set_result(result)
        self._driver.metrics.refused += output.refused

    def _is_durable(self, raw: bytes) -> bool:
        again = self._outcomes.answer(raw)
        return again is None or again[0] < self.durable_seq

    def resume(self, seq: int) -> None:
        """The state was taken back to the log, or the log was rewritten: it goes on with record `seq`."""
        self.durable_seq = seq
        repeats, self._repeats = self._repeats, {}
        body = errors.error_body(errors.Code.NOT_READY, "Not accepted: the log did not take it; send again.")
        for replies in repeats.values():
            for reply in replies:
                reply.connection.send_acks([(reply.rid, False, body)])

    # --- refusals without a tick ------------------------------------------------------------------

    def depose(self, why: str, error: Exception) -> None:
        """Another sequencer leads: refuses the waiting submissions."""
        body = errors.error_body(errors.Code.NOT_LEADER, f"Not accepted: {why}.")
        _refuse(self._driver.intake.take(len(self._driver.intake)), body, error)

    def on_stopped(self, submissions: list[Submission], why: str) -> None:
        """Refuses submissions: the clock gives no time for a tick."""
        body = errors.error_body(errors.Code.NOT_READY, f"Not accepted: {why}; send again later.")
        _refuse(submissions, body, RuntimeError(why))

    def on_overdrawn(self, submissions: list[Submission]) -> None:
        """Refuses FOK and post-only orders of accounts that had too many undone."""
        what = "too many of the account's FOK and post-only orders over several records have failed"
        body = errors.error_body(errors.Code.RATE_LIMITED, f"Not accepted: {what}; send again later.")
        _refuse(submissions, body, RuntimeError(what))

    def on_refused(self, submissions: list[Submission], reason: str) -> None:
        """Refuses submissions while the log accepts no writes."""
        why = f"Not accepted: the log is unavailable ({reason}); send again later."
        body = errors.error_body(errors.Code.NOT_READY, why, reason=reason)
        _refuse(submissions, body, RuntimeError(reason))


def claims(tick: Tick) -> list[Claim]:
    """A durable tick's records whose signers a gateway named, with that gateway's connection."""
    return [
        Claim(
            result.outcomes[0].seq,
            one.raw,
            one.signer,
            one.reply.connection if isinstance(one.reply, Reply) else None,
        )
        for result in tick.results
        if (one := result.submission).signer is not None and result.reason is Reason.OK
    ]


def _may_have_label(raw: bytes, label: str) -> bool:
    """Whether a gateway may send this label with this record."""
    try:
        return bool(checked_label(label)) and raw[0] in (Kind.PLACE, Kind.PLACE_IN_WORDS)
    except ValueError:
        return False


def _refuse(submissions: list[Submission], body: bytes, error: Exception) -> None:
    """Answers submissions that no tick has taken."""
    for submission in submissions:
        reply = submission.reply
        if isinstance(reply, Reply):
            reply.connection.send_acks([(reply.rid, False, body)])
        elif isinstance(reply, asyncio.Future) and not reply.done():
            reply.set_exception(error)
