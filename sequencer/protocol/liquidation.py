"""LIQUIDATE and BID: an account below its maintenance margin is auctioned, portfolio by the slice.

The auction's clock allows a discount that rises from nothing by auction_discount_max_ppm of the portfolio's IM over
auction_duration_s; equity / IM bounds it. So a bid that takes a part of the IM is paid at most that part of the equity:
equity / IM never falls by it, and what a bidder gains its target has lost. Without equity there is no discount: others
would pay it.
"""

from dataclasses import dataclass

from sequencer.protocol import constants as c
from sequencer.protocol import freshness, insurance, margin, market
from sequencer.protocol.auth import authorise, use_nonce
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


def liquidate(state: State, record: Record, out: Outcome) -> Reason:
    """LIQUIDATE: anyone may start the auction of an account with equity < MM, end it once equity is IM again, and have
    its hole measured anew meanwhile. Marks that RISK can renew must be; other old ones count with caution.

    All its orders die already when equity < MM + reserved: their reserve is no longer there, and fills could take
    the equity below nothing. An account with nothing but debts is covered at once.
    """
    (number,) = record.fields
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    equity, risk, worth = margin.cautious(state, account)
    if any(market.is_markable(state, one) for one in freshness.unfit_pages(state, account)):
        return Reason.RISK_STALE
    g = state.globals
    if account.auction_start:
        if equity < risk and insurance.hole_of(g, account, worth) == account.hole:
            return Reason.UNHEALTHY
        _mark(state, account, worth, equity >= risk)
    else:
        needed = -(-risk * state.params.maintenance_ppm // c.PPM)
        if equity >= needed + account.reserved:
            return Reason.HEALTHY
        account.order_floor = g.seq
        account.reserved = 0
        out.ended = number
        if equity < needed and account.positions:
            account.auction_start = max(g.time, 1)
            _mark(state, account, worth, has_recovered=False)
        insurance.cover(state, account)
    state.put_account(number, account)
    return Reason.OK


def _mark(state: State, account: Account, worth: int, has_recovered: bool) -> None:
    """Recognises the hole of an account under auction, whose equity is `worth` at the last marks; ends the auction.

    When a hole closes, the clock starts anew: at once nobody should be paid for its having run meanwhile.
    """
    g = state.globals
    hole = insurance.hole_of(g, account, worth)
    if account.hole and not hole:
        account.auction_start = max(g.time, 1)
    insurance.recognise(g, account, hole)
    if has_recovered:
        account.auction_start = 0


def elapsed_s(state: State, account: Account) -> int:
    """Seconds that the clock of an auction has run, at most the duration."""
    return min(state.globals.time - account.auction_start, state.params.auction_duration_s)


def discount_ppm(state: State, account: Account) -> int:
    """Discount that the clock of an auction allows now, ppm of the portfolio's IM; floor."""
    params = state.params
    return params.auction_discount_max_ppm * elapsed_s(state, account) // params.auction_duration_s


def bid(state: State, record: Record, out: Outcome) -> Reason:
    """BID: `account` takes a slice of `target`'s portfolio for at most `cash_max` (negative: receives at least)."""
    number, target, fraction, cash_max, nonce, expires = record.fields
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    return take_over(state, (number, target), found, fraction, cash_max, nonce, out)


def take_over(
    state: State,
    numbers: tuple[int, int],
    found: Account,
    fraction: int,
    cash_max: int,
    nonce: int | None,
    out: Outcome,
) -> Reason:
    """A bid that its account, the first of `numbers`, may make on the second; `nonce` is used when it holds."""
    number, target_number = numbers
    target = state.account(target_number)
    if target is None or target_number == number:
        return Reason.UNKNOWN_ACCOUNT
    if found.auction_start:
        return Reason.UNHEALTHY
    if target.auction_start == 0:
        return Reason.NO_AUCTION
    margin.refresh(state, found)
    if margin.is_stale(state, found):
        return Reason.RISK_STALE
    unfit = freshness.unfit_pages(state, target)
    if nonce is None and unfit and market.is_markable(state, unfit[0]):
        return Reason.RISK_DUE
    taken = cut(state, target, found, fraction)
    if isinstance(taken, Reason):
        return taken
    if taken.pay > cash_max:
        return Reason.CASH_MAX
    seller, buyer = taken.seller, taken.buyer
    if margin.is_stale(state, buyer):
        return Reason.RISK_STALE
    if margin.free(state, buyer) < 0:
        out.there = margin.free(state, found)
        out.needed = out.there - margin.free(state, buyer)
        return Reason.MARGIN
    if nonce is not None:
        use_nonce(buyer, nonce)
    insurance.charge(state, seller, taken.fee, c.PPM)
    if seller.positions:
        _mark(state, seller, taken.worth - taken.fee, taken.equity - taken.fee >= taken.risk)
    else:
        if insurance.cover(state, seller):
            out.ended = target_number
        seller.auction_start = 0
    state.put_account(number, buyer)
    state.put_account(target_number, seller)
    out.amount = taken.pay
    out.fee = taken.fee
    out.number = target_number
    out.moved = taken.moved
    return Reason.OK


@dataclass(slots=True)
class Slice:
    """What a bid takes: copies of both accounts when it is paid, what for (1e-6 USD), and the fee still to be paid.

    equity, risk, worth: the seller's then, with caution, and its equity at the last marks. moved: (instrument, lots,
    mark), from the seller to the buyer.
    """

    seller: Account
    buyer: Account
    pay: int
    fee: int
    equity: int
    risk: int
    worth: int
    moved: list[tuple[int, int, int]]


def cut(state: State, target: Account, bidder: Account, fraction: int) -> Slice | Reason:
    """The slice of `target`'s portfolio that a bid of so many 256ths moves to `bidder`, or why there is none.

    Of every position with a fresh mark that the bidder can hold, ceil(|q| x fraction / 256). taken = the target's IM
    before less after; a bid that would raise it is refused. pay = marks - min(floor(taken x discount), floor(taken x
    equity / IM)), and without equity the marks. The fee to the fund, floor(taken x liquidation_fee), comes out of what
    the discount leaves of that part of the equity. A solvent account is sold by auction_fraction_max / 256 at most
    while the clock runs.
    """
    params = state.params
    equity, risk, _ = margin.cautious(state, target)
    if equity >= risk:
        return Reason.HEALTHY
    unfit = freshness.unfit_pages(state, target)
    by_parts = equity > 0 and elapsed_s(state, target) < params.auction_duration_s
    if not 0 < fraction <= (params.auction_fraction_max if by_parts else 256):
        return Reason.FRACTION
    seller, buyer = target.clone(), bidder.clone()
    value = 0
    moved: list[tuple[int, int, int]] = []
    for instrument, held in sorted(target.positions.items()):
        part = -(-abs(held) * fraction // 256)
        delta = part if held > 0 else -part
        page = state.page_of(instrument)
        if instrument >> 5 in unfit or not margin.can_hold(buyer, instrument, delta):
            continue
        margin.move(seller, page, instrument, -delta)
        margin.move(buyer, page, instrument, delta)
        mark = page.rows[instrument & 31][0]
        value += delta * mark
        moved.append((instrument, delta, mark))
    if not moved:
        return Reason.POSITION_LIMIT
    margin.refresh(state, buyer)
    left, risk_left, worth = margin.cautious(state, seller)
    taken = risk - risk_left
    if taken < 0:
        return Reason.FRACTION
    share = taken * equity // risk if equity > 0 else 0  # equity < risk
    discount = min(taken * discount_ppm(state, target) // c.PPM, share)
    fee = min(taken * params.liquidation_fee_ppm // c.PPM, share - discount, state.globals.pool)
    pay = value - discount
    buyer.cash -= pay
    seller.cash += pay
    return Slice(seller, buyer, pay, fee, left + pay, risk_left, worth + pay, moved)
