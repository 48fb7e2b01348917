"""AMEND: a resting order gets another size or price, under one signature and with one outcome.

Twin: `contracts/lib/amend.vy`. `quantity` is the order's total from here on, what has traded of it included: a fill
that comes first makes no more of it than its owner signed, and cannot turn a smaller size into a larger one.
"""

from sequencer.protocol import constants as c
from sequencer.protocol import insurance, matching, orders
from sequencer.protocol.auth import authorise, use_nonce
from sequencer.protocol.book import Order
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account, Taker
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def amend(state: State, record: Record, out: Outcome) -> Reason:
    """AMEND: less at the same price keeps its place; else a new order takes it, or the old one stays as it was."""
    number, instrument, flags, price, seq, new_price, quantity, nonce, expires, fee_max = record.fields
    if quantity == 0:
        return Reason.QUANTITY
    if new_price == 0:
        return Reason.PRICE
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    order = state.find_order(instrument, flags & c.FLAG_SIDE, price, seq)
    if order is None:
        return Reason.UNKNOWN_ORDER
    if order.account != number:
        return Reason.NOT_OWNER_OF_ORDER
    if order.flags != flags:  # they say what class the record is of
        return Reason.FLAGS
    if orders.has_ended(state, found, order):
        return Reason.ORDER_DEAD
    out.found = order.filled, order.quantity
    if quantity <= order.filled or (new_price == price and quantity <= order.filled + order.quantity):
        return _shrink(state, found, order, quantity, nonce, fee_max, out)
    account = found.clone()
    account.reserved -= order.reserve_rate * order.quantity
    account.orders -= 1
    left = quantity - order.filled
    taker = Taker(number, instrument, flags, new_price, left, order.expires, state.globals.seq, order.filled)
    state.trace_remove(order)
    reason = matching.enter(state, taker, account, nonce, fee_max, out, leaving=order)
    if reason is Reason.OK:
        out.amended = order
    return reason


def _shrink(
    state: State, account: Account, order: Order, quantity: int, nonce: int, fee_max: int, out: Outcome
) -> Reason:
    """Less of the order, in its place, or nothing if as much has traded. No state of queue, marks or margin forbids it.

    It pays what a place in a calm queue costs: a CANCEL comes once an order, this again and again. So what stays pays
    the whole of it, out of cash that is there or of the reserve that it frees (then no margin is used); what leaves
    can do so once, and pays out of cash that is there.
    """
    fee = state.params.sequencing_fee_min
    if fee > fee_max * c.FEE_MAX_UNIT:
        return Reason.FEE_ABOVE_MAX
    cash = max(account.cash, 0)
    if quantity <= order.filled:
        fee = min(fee, cash)
        use_nonce(account, nonce)
        orders.remove(state, account, order)
        out.removed.append(order)
    else:
        less = order.filled + order.quantity - quantity
        freed = order.reserve_rate * less
        if fee > max(cash, freed):
            out.needed, out.there = fee, max(cash, freed)
            return Reason.MARGIN
        use_nonce(account, nonce)
        account.reserved -= freed
        if less:
            state.shrink_order(order, less)
        out.rests = order.quantity
    out.fee = out.paid = min(fee, state.globals.pool)
    insurance.charge(state, account, out.fee, 0)
    state.put_account(order.account, account)
    out.amended = order
    return Reason.OK
