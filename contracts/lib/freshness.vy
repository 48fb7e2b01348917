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
    @notice The account's positions on pages that are old, or behind others of their underlying that are not: bit i for
            position i.
    """
    newest: uint256[16] = empty(uint256[16])  # by underlying
    found: uint256 = 0
    for i: uint256 in range(account.position_count, bound=64):
        page: uint256 = state._page(account.positions[i] >> 69)
        time: uint256 = pages._time(page)
        number: uint256 = (account.positions[i] >> 92) & 15
        if self._is_old(number, page):
            found |= 1 << i
        elif time != MARKED_FOR_GOOD:
            newest[number] = max(newest[number], time)
    skew: uint256 = state._param(params.MARK_SKEW_MAX_S)
    for i: uint256 in range(account.position_count, bound=64):
        time: uint256 = pages._time(state._page(account.positions[i] >> 69))
        if unsafe_add(time, skew) < newest[(account.positions[i] >> 92) & 15]:
            found |= 1 << i
    return found


@internal
def _underlyings_apart(account: entries.Account) -> uint256:
    """
    @notice Underlyings whose pages that the account's positions stand on were not marked together, but at two indices or
            two times: bit n for underlying n. Of an account on old pages alone.
    """
    found: uint256 = 0
    low: uint256 = 0
    high: uint256 = 0
    oldest: uint256 = 0
    newest: uint256 = 0
    last: uint256 = max_value(uint256)
    skew: uint256 = state._param(params.MARK_SKEW_MAX_S)
    move_ppm: uint256 = state._param(params.MARK_MOVE_MAX_PPM)
    for i: uint256 in range(account.position_count, bound=64):
        page: uint256 = state._page(account.positions[i] >> 69)
        index: uint256 = pages._index(page)
        time: uint256 = pages._time(page)
        number: uint256 = (account.positions[i] >> 92) & 15
        if number != last:
            last = number
            low = index
            high = index
            oldest = time
            newest = time
        low = min(low, index)
        high = max(high, index)
        oldest = min(oldest, time)
        newest = max(newest, time)
        is_far: bool = unsafe_mul(unsafe_sub(high, low), constants.PPM) > unsafe_mul(move_ppm, low)
        if is_far or unsafe_sub(newest, oldest) > skew:
            found |= 1 << number
    return found
