# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What a taker makes of a resting order that it meets
@license MIT
@notice Helpers of `matching.vy`; twin of what `sequencer/protocol/matching.py` decides order by order.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import entries
from . import margin
from . import pages
from . import params
from . import state

uses: margin
uses: state

# what becomes of a resting order that is met
FILLS: constant(uint256) = 0
DROPS: constant(uint256) = 1  # and its reserve is free
ENDS: constant(uint256) = 2  # the taker, and the order stays


@internal
@pure
def _reducible(account: entries.Account, instrument: uint256, side: uint256) -> uint256:
    """
    @notice Lots that an order of `side` can close of the account's position.
    """
    held: int256 = entries._held(account, instrument)
    if side == constants.BUY:
        held = unsafe_sub(0, held)
    return margin._bits(max(held, 0))


@internal
@pure
def _is_idle(account: entries.Account, instrument: uint256, side: uint256, entry: uint256) -> bool:
    """
    @notice Whether a resting order is reduce-only and its account holds nothing any more that it could close.
    """
    if (entry >> 104) & constants.FLAG_REDUCE_ONLY == 0:
        return False
    return self._reducible(account, instrument, side) == 0


@internal
@view
def _trading_fee(page: uint256, price: uint256, quantity: uint256, rate: uint256) -> uint256:
    """
    @notice Fee of a fill, 1e-6 USD: `rate` (a field of PARAMS) of the index, at most cap of the premium; rounded up. Below
            2^104.
    """
    part: uint256 = unsafe_mul(pages._index(page), state._param(rate))
    return margin._ceil_ppm(quantity, min(part, unsafe_mul(price, state._param(params.FEE_CAP_PPM))))


@internal
@view
def _is_dead(
    page: uint256, maker: entries.Account, instrument: uint256, side: uint256, price: uint256, entry: uint256
) -> bool:
    """
    @notice Whether a resting order is past its time, idle, or its reserve does not bear its fill.
    """
    expires: uint256 = (entry >> 72) & constants.U32_MAX
    if (expires != 0 and state.time >= expires) or self._is_idle(maker, instrument, side, entry):
        return True
    return not margin._is_backed(page, maker, instrument, side, price, entry)


@internal
@view
def _match(
    account: entries.Account, maker: entries.Account, instrument: uint256, side: uint256, wanted: uint256, entry: uint256
) -> (uint256, uint256, bool):
    """
    @notice What a taker that wants so many lots makes of a maker's order: FILLS, DROPS when the maker's limits forbid it, or
            ENDS when its own do; lots; whether the order leaves the book.
    """
    resting: uint256 = entry & constants.U40_MAX
    quantity: uint256 = min(wanted, resting)
    leaves: bool = quantity == resting
    if (entry >> 104) & constants.FLAG_REDUCE_ONLY != 0:
        closes: uint256 = self._reducible(maker, instrument, unsafe_sub(1, side))
        if closes <= quantity:  # closes > 0: it is not idle; what is left of it can close nothing, and must not stand in the book
            quantity = closes
            leaves = True
    delta: int256 = margin._lots(quantity)
    if side == constants.SELL:
        delta = unsafe_sub(0, delta)
    if not margin._can_hold(account, instrument, delta):
        return ENDS, 0, False
    if not margin._can_hold(maker, instrument, unsafe_sub(0, delta)):
        return DROPS, resting, True
    return FILLS, quantity, leaves
