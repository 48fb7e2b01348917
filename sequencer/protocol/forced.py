"""FORCED_WITHDRAW, FORCED_CANCEL_ALL, FORCED_ORDER, FORCED_LIQUIDATE, FORCED_BID: done through L1, past the sequencer.

L1 has checked that the owner asks, so that they bear neither signature nor nonce; the rest are the rules of the kinds
that they force. Nobody needs a right to FORCED_LIQUIDATE.

Marks that are too old refuse a record that counts (RISK_STALE), or are counted with caution, only where RISK cannot
renew them; where it can, the record is none at all (RISK_DUE), so that who withholds RISK cannot serve a message with a
refusal, nor have an account valued low.
"""

from sequencer.protocol import cash, freshness, liquidation, market, matching, orders
from sequencer.protocol import constants as c
from sequencer.protocol.codec import Record, inbox_hash
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Global, Taker
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def count(g: Global, raw: bytes) -> None:
    """The next message of the L1 inbox has come, whatever becomes of it: one that did not count would stop the rest."""
    g.inbox_hash = inbox_hash(g.inbox_hash, raw)
    g.inbox_count = min(g.inbox_count + 1, c.U40_MAX)


def pages_to_mark(state: State, raw: bytes) -> list[int]:
    """Old pages that stand between a forced record and its outcome, in ascending order: RISK_DUE asks for them."""
    number = int.from_bytes(raw[1:5], "big")
    numbers = [number]
    if raw[0] == Kind.FORCED_BID:
        numbers.append(int.from_bytes(raw[5:9], "big"))
    accounts = [state.accounts[one] for one in numbers if one in state.accounts]
    found = {page_id for account in accounts for page_id in freshness.unfit_pages(state, account)}
    if raw[0] == Kind.FORCED_ORDER:
        instrument = int.from_bytes(raw[5:9], "big")
        page = state.pages.get(instrument >> 5)
        if page is not None and market.is_old(state, page, instrument):
            found.add(instrument >> 5)
    return sorted(found)


def _unless_due(state: State, pages: list[int]) -> Reason:
    """RISK_STALE, or RISK_DUE when RISK can renew all of `pages`."""
    return Reason.RISK_DUE if all(market.is_markable(state, one) for one in pages) else Reason.RISK_STALE


def withdraw(state: State, record: Record, out: Outcome) -> Reason:
    """FORCED_WITHDRAW: as WITHDRAW; amount 0 = all that is free, min(cash, free margin)."""
    number, amount = record.fields
    found = state.account(number)
    if found is None:
        return Reason.UNKNOWN_ACCOUNT
    account = cash.pay(state, found, amount or None, is_forced=True)
    if isinstance(account, Reason):
        return account
    return cash.pay_out(state, number, account, found.cash - account.cash, out)


def cancel_all(state: State, record: Record) -> Reason:
    """FORCED_CANCEL_ALL: every older order of the account is dead from here; nonces stay."""
    (number,) = record.fields
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    orders.end_all(state, number, account)
    return Reason.OK


def order(state: State, record: Record, out: Outcome) -> Reason:
    """FORCED_ORDER: as PLACE, in the order of its checks; what is left after three steps waits for CONTINUE."""
    number, instrument, flags, price, quantity, expires, fee_max = record.fields
    reason = matching.check_form(flags, price, quantity)
    if reason:
        return reason
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    if expires and state.globals.time >= expires:
        return Reason.EXPIRED
    taker = Taker(number, instrument, flags, price, quantity, expires, state.globals.seq)
    reason = matching.enter(state, taker, account, None, fee_max, out)
    if reason is Reason.RISK_STALE:
        page = state.page_of(instrument)
        is_its_own = market.is_old(state, page, instrument)
        reason = _unless_due(
            state, [instrument >> 5] if is_its_own else freshness.unfit_pages(state, account)
        )
    return reason


def liquidate(state: State, record: Record, out: Outcome) -> Reason:
    """FORCED_LIQUIDATE: as LIQUIDATE, which refuses old marks only where RISK can renew them."""
    reason = liquidation.liquidate(state, record, out)
    return Reason.RISK_DUE if reason is Reason.RISK_STALE else reason


def bid(state: State, record: Record, out: Outcome) -> Reason:
    """FORCED_BID: as BID; of the target's old pages it waits for the first, if RISK can renew it."""
    number, target, fraction, cash_max = record.fields
    found = state.account(number)
    if found is None:
        return Reason.UNKNOWN_ACCOUNT
    reason = liquidation.take_over(state, (number, target), found, fraction, cash_max, None, out)
    if reason is Reason.RISK_STALE:
        reason = _unless_due(state, freshness.unfit_pages(state, found))
    return reason
