"""LIQUIDATE and BID: an account below its maintenance margin is auctioned, portfolio by the slice.

The discount rises from nothing by auction_discount_max_ppm of the portfolio's IM over auction_duration_s. A bid takes
fraction/256 of every position (towards zero) and pays their marks less the discount on the IM that it takes off the
target; the price may be negative.
"""

from sequencer.protocol import constants as c
from sequencer.protocol import insurance, margin
from sequencer.protocol.auth import authorise, use_nonce
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def liquidate(state: State, record: Record) -> Reason:
    """LIQUIDATE: anyone may start the auction of an account with equity < MM, and end it once equity is IM again.

    All its orders die already when equity < MM + reserved: their reserve is no longer there, and fills could take
    the equity below nothing. An account with nothing but debts is covered at once.
    """
    (number,) = record.fields
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    margin.refresh(state, account)
    if margin.is_stale(state, account):
        return Reason.RISK_STALE
    g = state.globals
    if account.auction_start:
        if margin.equity(account) < margin.initial(state, account):
            return Reason.UNHEALTHY
        account.auction_start = 0
    else:
        equity, needed = margin.equity(account), margin.maintenance(state, account)
        if equity >= needed + account.reserved:
            return Reason.HEALTHY
        account.order_floor = g.seq
        account.reserved = 0
        if equity < needed:
            if account.positions:
                account.auction_start = max(g.time, 1)
            insurance.cover(state, account)
    state.put_account(number, account)
    return Reason.OK


def discount_ppm(state: State, account: Account) -> int:
    """Discount of an auction now, ppm of the portfolio's IM; floor."""
    params = state.params
    elapsed = min(state.globals.time - account.auction_start, params.auction_duration_s)
    return params.auction_discount_max_ppm * elapsed // params.auction_duration_s


def bid(state: State, record: Record, out: Outcome) -> Reason:
    """BID: `account` takes a slice of `target`'s portfolio and pays at most `cash_max` (negative: receives at least).

    `taken` is the target's IM before less after: fraction/256 of it but for parts that round to nothing; a bid that
    would raise it is refused. pay = marks - floor(taken x discount). The target pays a fee to the fund, floor(taken x
    liquidation_fee), out of what equity it has left. The bidder must meet IM afterwards.
    """
    number, target_number, fraction, cash_max, nonce, expires = record.fields
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    target = state.account(target_number)
    if target is None or target_number == number:
        return Reason.UNKNOWN_ACCOUNT
    if found.auction_start:
        return Reason.UNHEALTHY
    if target.auction_start == 0:
        return Reason.NO_AUCTION
    margin.refresh(state, target)
    margin.refresh(state, found)
    if margin.is_stale(state, target):
        return Reason.RISK_STALE
    equity, risk = margin.equity(target), margin.initial(state, target)
    if equity >= risk:
        return Reason.HEALTHY
    if not 0 < fraction <= (state.params.auction_fraction_max if equity > 0 else 256):
        return Reason.FRACTION
    seller, buyer = target.clone(), found.clone()
    use_nonce(buyer, nonce)
    value = 0
    moved = False
    for instrument, held in sorted(target.positions.items()):
        part = abs(held) * fraction // 256
        if part == 0:
            continue
        delta = part if held > 0 else -part
        page = state.page_of(instrument)
        if not margin.can_hold(buyer, instrument, delta):
            return Reason.POSITION_LIMIT
        margin.move(seller, page, instrument, -delta)
        margin.move(buyer, page, instrument, delta)
        value += delta * page.rows[instrument & 31][0]
        moved = True
    margin.refresh(state, seller)
    taken = risk - margin.initial(state, seller)
    if not moved or taken < 0:
        return Reason.FRACTION
    pay = value - taken * discount_ppm(state, target) // c.PPM
    if pay > cash_max:
        return Reason.CASH_MAX
    buyer.cash -= pay
    seller.cash += pay
    fee = taken * state.params.liquidation_fee_ppm // c.PPM
    fee = max(0, min(fee, margin.equity(seller), state.globals.pool))
    margin.refresh(state, buyer)
    if margin.is_stale(state, buyer):
        return Reason.RISK_STALE
    if margin.free(state, buyer) < 0:
        return Reason.MARGIN
    insurance.charge(state, seller, fee, c.PPM)
    insurance.cover(state, seller)
    if margin.equity(seller) >= margin.initial(state, seller):
        seller.auction_start = 0
    state.put_account(number, buyer)
    state.put_account(target_number, seller)
    out.amount = pay
    out.fee = fee
    out.number = target_number
    return Reason.OK
