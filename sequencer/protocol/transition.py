"""The state transition: `apply(state, raw) -> Outcome`. Total: any byte string has one defined outcome.

Twin: the verifier contracts. A record that does not hold is a no-op with a reason; it still takes its sequence number,
and costs its work (work.py).
"""

from sequencer.protocol import (
    amend,
    cash,
    forced,
    liquidation,
    market,
    matching,
    orders,
    queue,
    settlement,
    words,
    work,
)
from sequencer.protocol import constants as c
from sequencer.protocol.codec import Record, class_of, decode
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def apply(state: State, raw: bytes, signer: bytes | None = None) -> Outcome:
    """Applies one record. `signer`: what recovery yields, when the caller has done it already.

    The state's root afterwards is `state.root()`; it is the caller's choice after how many records to take it.
    """
    g = state.globals
    out = Outcome(g.seq)
    record = decode(raw, state.domain, signer)
    if isinstance(record, Record):
        out.reason = _apply(state, record, out)
    else:
        out.reason = record
    if g.seq < c.U40_MAX:
        g.seq += 1
    g.work = min(g.work + work.of(raw), c.U48_MAX)
    return out


def _apply(state: State, record: Record, out: Outcome) -> Reason:
    g = state.globals
    kind = record.kind
    if kind == Kind.CONTINUE:
        return matching.proceed(state, out)
    if g.taker is not None:
        return Reason.TAKER_PENDING
    if kind == Kind.TICK:
        return queue.tick(state, record)
    of_class = class_of(record.raw)
    if of_class < g.last_class:
        return Reason.CLASS_ORDER
    if kind in c.INBOX_KINDS:
        reason = _dispatch_message(state, record, out)
        if reason is not Reason.RISK_DUE:  # what L1 sends counts, whatever else became of it
            forced.count(g, record.raw)
    else:
        reason = _dispatch(state, record, out)
    if reason is Reason.OK:
        g.last_class = of_class
    return reason


def _dispatch_message(state: State, record: Record, out: Outcome) -> Reason:
    match record.kind:
        case Kind.DEPOSIT:
            return cash.deposit(state, record, out)
        case Kind.FORCED_WITHDRAW:
            return forced.withdraw(state, record, out)
        case Kind.FORCED_CANCEL_ALL:
            return forced.cancel_all(state, record)
        case Kind.FORCED_ORDER:
            return forced.order(state, record, out)
        case Kind.FORCED_LIQUIDATE:
            return forced.liquidate(state, record, out)
        case Kind.FORCED_BID:
            return forced.bid(state, record, out)
    return Reason.UNKNOWN_KIND


def _dispatch(state: State, record: Record, out: Outcome) -> Reason:
    match record.kind:
        case Kind.PLACE:
            return matching.place(state, record, out)
        case Kind.PLACE_IN_WORDS:
            return words.place(state, record, out)
        case Kind.AMEND:
            return amend.amend(state, record, out)
        case Kind.CANCEL:
            return orders.cancel(state, record, out)
        case Kind.CANCEL_ALL:
            return orders.cancel_all(state, record)
        case Kind.SET_SIGNER:
            return orders.set_signer(state, record)
        case Kind.SWEEP:
            return orders.sweep(state, record, out)
        case Kind.WITHDRAW:
            return cash.withdraw(state, record, out)
        case Kind.TRANSFER:
            return cash.transfer(state, record)
        case Kind.COLLECT:
            return cash.collect(state, out)
        case Kind.FEED:
            return market.feed(state, record)
        case Kind.SURFACE:
            return market.report_surface(state, record)
        case Kind.LIST:
            return market.list_instrument(state, record, out)
        case Kind.RISK:
            return market.risk(state, record)
        case Kind.FIX:
            return settlement.fix(state, record, out)
        case Kind.SETTLE:
            return settlement.settle(state, record, out)
        case Kind.LIQUIDATE:
            return liquidation.liquidate(state, record, out)
        case Kind.BID:
            return liquidation.bid(state, record, out)
    return Reason.UNKNOWN_KIND
