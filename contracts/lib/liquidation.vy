# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title LIQUIDATE and BID: an account below its maintenance margin is auctioned, portfolio by the slice
@license MIT
@notice Twin of `sequencer/protocol/liquidation.py`.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import auth
from . import codec
from . import constants
from . import entries
from . import forced
from . import freshness
from . import insurance
from . import margin
from . import pages
from . import params
from . import reason
from . import state

uses: auth
uses: forced
uses: freshness
uses: insurance
uses: margin
uses: state

BID_TYPE: constant(bytes32) = keccak256(
    "Bid(uint32 account,uint32 target,uint16 fraction,int64 cashMax,uint32 nonce,uint32 expires)"
)


@internal
def _liquidate(is_forced: bool) -> uint256:
    """
    @notice LIQUIDATE and FORCED_LIQUIDATE: anyone may start the auction of an account with equity < MM, end it once equity is IM again, and have
            its hole measured anew meanwhile. All its orders die already when equity < MM + reserved. An account with nothing but debts is covered
            at once.
    """
    account: entries.Account = state._account(codec._field(1, 4))
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    sums: margin.Sums = margin._cautious(account)
    if sums.is_stale and forced._renews(account, forced.ANY_OF_ACCOUNT):
        return reason.RISK_DUE if is_forced else reason.RISK_STALE
    equity: int256 = margin._equity(account, sums)
    if account.auction_start != 0:
        hole: uint256 = insurance._hole_of(account.hole, unsafe_add(account.cash, sums.worth))
        if equity < sums.risk and hole == account.hole:
            return reason.UNHEALTHY
        account = self._mark(account, sums)
    else:
        needed: int256 = margin._maintenance(sums)
        if equity >= unsafe_add(needed, margin._lots(account.reserved)):
            return reason.HEALTHY
        account.order_floor = state.seq
        account.reserved = 0
        if equity < needed and account.position_count != 0:
            account.auction_start = max(state.time, 1)
            account = self._mark(account, sums)
        account = insurance._cover(account)
    state._put_account(account)
    return reason.OK


@internal
def _mark(account: entries.Account, sums: margin.Sums) -> entries.Account:
    """
    @notice Recognises the hole of an account under auction, at the marks, the last ones where they are old; out of it when
            equity is IM again. When its hole closes, the clock starts anew.
    """
    marked: entries.Account = account
    marked.hole = insurance._hole_of(account.hole, unsafe_add(account.cash, sums.worth))
    insurance._recognise(account.hole, marked.hole)
    if account.hole != 0 and marked.hole == 0:
        marked.auction_start = max(state.time, 1)
    if margin._equity(account, sums) >= sums.risk:
        marked.auction_start = 0
    return marked


@internal
@view
def _elapsed_s(auction_start: uint256) -> uint256:
    """
    @notice Seconds that the clock of an auction has run, at most the duration.
    """
    # nothing is held while time is 0
    return min(unsafe_sub(state.time, auction_start), state._param(params.AUCTION_DURATION_S))


@internal
@view
def _discount_ppm(auction_start: uint256) -> uint256:
    """
    @notice Discount that the clock of an auction allows now, ppm of the portfolio's IM; floor.
    """
    most: uint256 = unsafe_mul(state._param(params.AUCTION_DISCOUNT_MAX_PPM), self._elapsed_s(auction_start))
    return unsafe_div(most, state._param(params.AUCTION_DURATION_S))  # > 0


@internal
def _bid(domain: bytes32) -> uint256:
    """
    @notice BID: `account` takes a slice of `target`'s portfolio and pays at most `cash_max` (negative: receives at least).
    """
    number: uint256 = codec._field(1, 4)
    target: uint256 = codec._field(5, 4)
    fraction: uint256 = codec._field(9, 2)
    cash_max: int256 = codec._signed_field(11)
    nonce: uint256 = codec._field(19, 4)
    expires: uint256 = codec._field(23, 4)
    digest: bytes32 = keccak256(abi_encode(BID_TYPE, number, target, fraction, cash_max, nonce, expires))
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    why: uint256 = 0
    buyer: entries.Account = empty(entries.Account)
    why, buyer = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, expires)
    if why != reason.OK:
        return why
    buyer.nonce_floor, buyer.nonce_bitmap = auth._use_nonce(buyer.nonce_floor, buyer.nonce_bitmap, nonce)
    return self._take_over(target, buyer, fraction, cash_max, False)


@internal
def _forced_bid() -> uint256:
    """
    @notice FORCED_BID: as BID, of an owner whom L1 has checked.
    """
    buyer: entries.Account = state._account(codec._field(1, 4))
    if buyer.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    return self._take_over(codec._field(5, 4), buyer, codec._field(9, 2), codec._signed_field(11), True)


@internal
def _take_over(
    target_number: uint256, buyer: entries.Account, fraction: uint256, cash_max: int256, is_forced: bool
) -> uint256:
    """
    @notice A bid that `buyer` may make. Its nonce, if there is one, is used already, which counts when the bid holds.
    """
    if target_number == buyer.number:
        return reason.UNKNOWN_ACCOUNT
    target: entries.Account = state._account(target_number)
    if target.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    if buyer.auction_start != 0:
        return reason.UNHEALTHY
    if target.auction_start == 0:
        return reason.NO_AUCTION
    sums: margin.Sums = margin._refresh(buyer)
    if sums.is_stale:
        return forced._unless_due(buyer, forced.ALL_OF_ACCOUNT) if is_forced else reason.RISK_STALE
    sums = margin._cautious(target)
    if is_forced and sums.is_stale and forced._renews(target, forced.FIRST_OF_ACCOUNT):
        return reason.RISK_DUE
    equity: int256 = margin._equity(target, sums)
    if equity >= sums.risk:
        return reason.HEALTHY
    fraction_max: uint256 = 256
    if equity > 0 and self._elapsed_s(target.auction_start) < state._param(params.AUCTION_DURATION_S):
        fraction_max = state._param(params.AUCTION_FRACTION_MAX)
    if fraction == 0 or fraction > fraction_max:
        return reason.FRACTION
    return self._cut(target, buyer, equity, sums.risk, fraction, cash_max)


@internal
def _cut(
    target: entries.Account,
    bidder: entries.Account,
    equity: int256,
    risk: int256,
    fraction: uint256,
    cash_max: int256,
) -> uint256:
    """
    @notice Moves ceil(|q| x fraction / 256) of every position with a fresh mark that the bidder can hold from `target`, with this equity and
            IM, and settles. The discount is at most the part of the equity that is taken of the IM, the fee to the fund at
            most what the discount leaves of it.
    """
    seller: entries.Account = target
    buyer: entries.Account = bidder
    worth: int256 = 0
    has_moved: bool = False
    unfit: uint256 = freshness._unfit_positions(target)
    for i: uint256 in range(target.position_count, bound=64):
        instrument: uint256 = target.positions[i] >> 64
        held: int256 = entries._quantity(target.positions[i])
        lots: uint256 = margin._bits(held if held > 0 else unsafe_sub(0, held))
        part: int256 = margin._lots(unsafe_add(unsafe_mul(lots, fraction), 255) >> 8)
        if held < 0:
            part = unsafe_sub(0, part)
        page: uint256 = state._page(instrument >> 5)
        if (unfit >> i) & 1 == 1 or not margin._can_hold(buyer, instrument, part):
            continue
        seller = margin._move(seller, instrument, unsafe_sub(0, part))
        buyer = margin._move(buyer, instrument, part)
        mark: int256 = margin._lots(pages._mark(page, instrument & 31))
        worth = unsafe_add(worth, unsafe_mul(part, mark))
        has_moved = True
    if not has_moved:
        return reason.POSITION_LIMIT
    sums: margin.Sums = margin._cautious(seller)
    if risk < sums.risk:
        return reason.FRACTION
    taken: uint256 = margin._bits(unsafe_sub(risk, sums.risk))  # < 2^83
    share: uint256 = 0
    if equity > 0:
        share = unsafe_div(unsafe_mul(taken, margin._bits(equity)), margin._bits(risk))  # equity < risk
    discount: uint256 = unsafe_div(unsafe_mul(taken, self._discount_ppm(target.auction_start)), constants.PPM)
    discount = min(discount, share)
    fee: uint256 = unsafe_div(unsafe_mul(taken, state._param(params.LIQUIDATION_FEE_PPM)), constants.PPM)
    fee = min(min(fee, unsafe_sub(share, discount)), state.pool)
    pay: int256 = unsafe_sub(worth, margin._lots(discount))
    if pay > cash_max:
        return reason.CASH_MAX
    buyer.cash = unsafe_sub(buyer.cash, pay)
    seller.cash = unsafe_sub(unsafe_add(seller.cash, pay), margin._lots(fee))
    bought: margin.Sums = margin._refresh(buyer)
    if bought.is_stale:
        return reason.RISK_STALE
    if margin._free(buyer, bought) < 0:
        return reason.MARGIN
    insurance._charge(fee, constants.PPM)
    if seller.position_count != 0:
        seller = self._mark(seller, sums)
    else:
        seller = insurance._cover(seller)
        seller.auction_start = 0
    state._put_account(buyer)
    state._put_account(seller)
    return reason.OK
