"""CANCEL, CANCEL_ALL, SET_SIGNER, SWEEP: what an account does with its orders and keys, short of placing one."""

from sequencer.protocol import auth, insurance, margin
from sequencer.protocol import constants as c
from sequencer.protocol.auth import authorise, use_nonce
from sequencer.protocol.book import Order
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.matching import is_idle
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State, instrument_expiry_time


def cancel(state: State, record: Record, out: Outcome) -> Reason:
    """CANCEL: takes one resting order out, named by its key."""
    number, instrument, side, price, seq, nonce, expires = record.fields
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    order = state.find_order(instrument, side, price, seq)
    if order is None:
        return Reason.UNKNOWN_ORDER
    if order.account != number:
        return Reason.NOT_OWNER_OF_ORDER
    use_nonce(found, nonce)
    remove(state, found, order)
    state.put_account(number, found)
    out.removed.append(order)
    return Reason.OK


def cancel_all(state: State, record: Record) -> Reason:
    """CANCEL_ALL: every older order of the account is dead from here; its reserve is free. May raise the nonce floor.

    `nonce_floor` may lie at most NONCE_WINDOW above the present floor: a slip must not use up an account's nonces.
    """
    number, nonce_floor, nonce, expires = record.fields
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    if nonce_floor > found.nonce_floor + c.NONCE_WINDOW or nonce_floor == c.U32_MAX:
        return Reason.NONCE_WINDOW
    use_nonce(found, nonce)
    auth.raise_floor(found, nonce_floor)
    end_all(state, number, found)
    return Reason.OK


def end_all(state: State, number: int, account: Account) -> None:
    """Every order of `account` that stands is dead from here; its reserve is free."""
    account.order_floor = state.globals.seq
    account.reserved = 0
    state.put_account(number, account)


def set_signer(state: State, record: Record) -> Reason:
    """SET_SIGNER: the owner grants, changes or removes a session key."""
    number, signer, scope, signer_expires, nonce, expires = record.fields
    found = authorise(state, number, record.signer, c.SCOPE_OWNER, nonce, expires)
    if isinstance(found, Reason):
        return found
    assert isinstance(signer, bytes)
    reason = auth.set_signer(state, number, found, signer, scope, signer_expires)
    if reason is Reason.OK:
        use_nonce(found, nonce)
    return reason


def sweep(state: State, record: Record, out: Outcome) -> Reason:
    """SWEEP: anyone may have a dead order taken out.

    Its account pays the record that its owner has left to others: what the leaf held, out of cash that is there.
    """
    instrument, side, price, seq = record.fields
    order = state.find_order(instrument, side, price, seq)
    if order is None:
        return Reason.UNKNOWN_ORDER
    owner = state.owner(order.account)
    if not is_dead(state, owner, order):
        return Reason.ORDER_ALIVE
    remove(state, owner, order)
    out.fee = min(state.params.order_hold, max(owner.cash, 0), state.globals.pool)
    insurance.charge(state, owner, out.fee, 0)
    state.put_account(order.account, owner)
    out.removed.append(order)
    return Reason.OK


def is_dead(state: State, owner: Account, order: Order) -> bool:
    """Whether a resting order can trade no more: it has ended, or is not backed at the last marks."""
    if has_ended(state, owner, order):
        return True
    if order.side == c.BUY:
        return False
    return not margin.is_backed(state, state.page_of(order.instrument), owner, order)


def has_ended(state: State, owner: Account, order: Order) -> bool:
    """Whether it is dead at whatever marks: cancelled by floor, past its time or its instrument's, idle."""
    time = state.globals.time
    return (
        order.seq < owner.order_floor
        or 0 < order.expires <= time
        or time >= instrument_expiry_time(order.instrument)
        or is_idle(owner, order)
    )


def remove(state: State, owner: Account, order: Order) -> None:
    """Takes `order` out and frees its reserve, unless CANCEL_ALL has freed it, and what its leaf holds."""
    if order.seq >= owner.order_floor:
        owner.reserved -= order.reserve_rate * order.quantity
    owner.orders -= 1
    state.remove_order(order)
