"""FORCED_WITHDRAW, FORCED_CANCEL_ALL, FORCED_ORDER: what an owner does through L1, past the sequencer.

L1 has checked that the owner asks, so that they bear neither signature nor nonce; the rest are the rules of the kinds
that they force. FORCED_LIQUIDATE is LIQUIDATE (liquidation.py): nobody needs a right to it.
"""

from sequencer.protocol import cash, matching, orders
from sequencer.protocol import constants as c
from sequencer.protocol.codec import Record, inbox_hash
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Global, Taker
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def count(g: Global, raw: bytes) -> None:
    """The next message of the L1 inbox has come, whatever becomes of it: one that did not count would stop the rest."""
    g.inbox_hash = inbox_hash(g.inbox_hash, raw)
    g.inbox_count = min(g.inbox_count + 1, c.U40_MAX)


def withdraw(state: State, record: Record, out: Outcome) -> Reason:
    """FORCED_WITHDRAW: as WITHDRAW; amount 0 = all that is free, min(cash, free margin)."""
    number, amount = record.fields
    found = state.account(number)
    if found is None:
        return Reason.UNKNOWN_ACCOUNT
    account = cash.pay(state, found, amount or None)
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
    return matching.enter(state, taker, account, None, fee_max, out)
