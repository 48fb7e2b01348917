# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Which marks are too old to lend on
@license MIT
@notice Twin of `sequencer/protocol/freshness.py`, which has the reasons.
@custom:security Prices and times are below 2^32, so that sums and products with ppm stay below 2^65.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import entries
from . import params
from . import pages
from . import state

uses: state

MARKED_FOR_GOOD: constant(uint256) = constants.U32_MAX  # a page's time once its expiry is fixed


@internal
def _is_old(underlying: uint256, page: uint256) -> bool:
    """
    @notice Whether a page's marks are too old by themselves: their age, or the index since then.
    """
    index: uint256 = state._underlying(underlying) & constants.U32_MAX
    time: uint256 = pages._time(page)
    if time == MARKED_FOR_GOOD:
        return False
    if unsafe_add(time, state._param(params.RISK_AGE_MAX_S)) < state.time:
        return True
    of_page: uint256 = pages._index(page)
    distance: uint256 = unsafe_sub(max(of_page, index), min(of_page, index))
    return unsafe_mul(distance, constants.PPM) > unsafe_mul(state._param(params.MARK_MOVE_MAX_PPM), index)


@internal
def _unfit_positions(account: entries.Account) -> uint256:
    """
    @notice The account's positions on pages that are old, or behind others that are not: bit i for position i.
    """
    newest: uint256 = 0
    found: uint256 = 0
    for i: uint256 in range(account.position_count, bound=64):
        page: uint256 = state._page(account.positions[i] >> 69)
        time: uint256 = pages._time(page)
        if self._is_old((account.positions[i] >> 92) & 15, page):
            found |= 1 << i
        elif time != MARKED_FOR_GOOD:
            newest = max(newest, time)
    skew: uint256 = state._param(params.MARK_SKEW_MAX_S)
    for i: uint256 in range(account.position_count, bound=64):
        if unsafe_add(pages._time(state._page(account.positions[i] >> 69)), skew) < newest:
            found |= 1 << i
    return found
