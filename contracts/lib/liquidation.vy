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
from . import insurance
from . import margin
from . import pages
from . import params
from . import reason
from . import state

uses: auth
uses: forced
uses: insurance
uses: margin
uses: state

BID_TYPE: constant(bytes32) = keccak256(
    "Bid(uint32 account,uint32 target,uint16 fraction,int64 cashMax,uint32 nonce,uint32 expires)"
)


@internal
def _liquidate(is_forced: bool) -> uint256:
    """
    @notice LIQUIDATE and FORCED_LIQUIDATE: anyone may start the auction of an account with equity < MM, and end it once equity is IM again. All
            its orders die already when equity < MM + reserved. An account with nothing but debts is covered at once.
    """
    account: entries.Account = state._account(codec._field(1, 4))
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    sums: margin.Sums = margin._refresh(account)
    if sums.is_stale:
        return forced._unless_due(account, forced.OF_ACCOUNT) if is_forced else reason.RISK_STALE
    equity: int256 = margin._equity(account, sums)
    if account.auction_start != 0:
        if equity < sums.risk:
            return reason.UNHEALTHY
        account.auction_start = 0
    else:
        needed: int256 = margin._maintenance(sums)
        if equity >= unsafe_add(needed, margin._lots(account.reserved)):
            return reason.HEALTHY
        account.order_floor = state.seq
        account.reserved = 0
        if equity < needed:
            if account.position_count != 0:
                account.auction_start = max(state.time, 1)
            account = insurance._cover(account)
    state._put_account(account)
    return reason.OK


@internal
@view
def _discount_ppm(auction_start: uint256) -> uint256:
    """
    @notice Discount of an auction now, ppm of the portfolio's IM; floor.
    """
    duration: uint256 = state._param(params.AUCTION_DURATION_S)  # > 0
    elapsed: uint256 = min(unsafe_sub(state.time, auction_start), duration)  # nothing is held while time is 0
    return unsafe_div(unsafe_mul(state._param(params.AUCTION_DISCOUNT_MAX_PPM), elapsed), duration)


@internal
def _bid(domain: bytes32) -> uint256:
    """
    @notice BID: `account` takes a slice of `target`'s portfolio and pays at most `cash_max` (negative: receives at least).
            What it takes of IM, less the discount, is the price; the target pays a fee to the fund out of what equity it has
            left; the bidder must meet IM afterwards.
    """
    number: uint256 = codec._field(1, 4)
    target_number: uint256 = codec._field(5, 4)
    fraction: uint256 = codec._field(9, 2)
    cash_max: int256 = codec._signed_field(11)
    nonce: uint256 = codec._field(19, 4)
    expires: uint256 = codec._field(23, 4)
    digest: bytes32 = keccak256(abi_encode(BID_TYPE, number, target_number, fraction, cash_max, nonce, expires))
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    why: uint256 = 0
    buyer: entries.Account = empty(entries.Account)
    why, buyer = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, expires)
    if why != reason.OK:
        return why
    if target_number == number:
        return reason.UNKNOWN_ACCOUNT
    target: entries.Account = state._account(target_number)
    if target.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    if buyer.auction_start != 0:
        return reason.UNHEALTHY
    if target.auction_start == 0:
        return reason.NO_AUCTION
    sums: margin.Sums = margin._refresh(target)
    sums_of_buyer: margin.Sums = margin._refresh(buyer)  # for what it reads
    if sums.is_stale:
        return reason.RISK_STALE
    equity: int256 = margin._equity(target, sums)
    if equity >= sums.risk:
        return reason.HEALTHY
    if fraction == 0 or fraction > (state._param(params.AUCTION_FRACTION_MAX) if equity > 0 else 256):
        return reason.FRACTION
    buyer.nonce_floor, buyer.nonce_bitmap = auth._use_nonce(buyer.nonce_floor, buyer.nonce_bitmap, nonce)
    return self._take_over(target, buyer, sums.risk, fraction, cash_max)


@internal
def _take_over(
    target: entries.Account, bidder: entries.Account, risk: int256, fraction: uint256, cash_max: int256
) -> uint256:
    """
    @notice Moves fraction/256 of every position (towards zero) from `target`, whose IM is `risk`, and settles.
    """
    seller: entries.Account = target
    buyer: entries.Account = bidder
    worth: int256 = 0
    has_moved: bool = False
    for i: uint256 in range(target.position_count, bound=64):
        instrument: uint256 = target.positions[i] >> 64
        held: int256 = entries._quantity(target.positions[i])
        lots: uint256 = margin._bits(held if held > 0 else unsafe_sub(0, held))
        part: int256 = margin._lots(unsafe_mul(lots, fraction) >> 8)
        if part == 0:
            continue
        if held < 0:
            part = unsafe_sub(0, part)
        if not margin._can_hold(buyer, instrument, part):
            return reason.POSITION_LIMIT
        seller = margin._move(seller, instrument, unsafe_sub(0, part))
        buyer = margin._move(buyer, instrument, part)
        mark: int256 = margin._lots(pages._mark(state._page(instrument >> 5), instrument & 31))
        worth = unsafe_add(worth, unsafe_mul(part, mark))
        has_moved = True
    sums: margin.Sums = margin._refresh(seller)
    if not has_moved or risk < sums.risk:
        return reason.FRACTION
    taken: uint256 = margin._bits(unsafe_sub(risk, sums.risk))  # < 2^83
    discount: uint256 = unsafe_mul(taken, self._discount_ppm(target.auction_start))
    pay: int256 = unsafe_sub(worth, margin._lots(unsafe_div(discount, constants.PPM)))
    if pay > cash_max:
        return reason.CASH_MAX
    buyer.cash = unsafe_sub(buyer.cash, pay)
    seller.cash = unsafe_add(seller.cash, pay)
    fee: uint256 = unsafe_div(unsafe_mul(taken, state._param(params.LIQUIDATION_FEE_PPM)), constants.PPM)
    fee = min(min(fee, margin._bits(max(margin._equity(seller, sums), 0))), state.pool)
    sums_of_buyer: margin.Sums = margin._refresh(buyer)
    if sums_of_buyer.is_stale:
        return reason.RISK_STALE
    if margin._free(buyer, sums_of_buyer) < 0:
        return reason.MARGIN
    insurance._charge(fee, constants.PPM)
    seller.cash = unsafe_sub(seller.cash, margin._lots(fee))
    seller = insurance._cover(seller)
    if margin._equity(seller, sums) >= sums.risk:
        seller.auction_start = 0
    state._put_account(buyer)
    state._put_account(seller)
    return reason.OK
