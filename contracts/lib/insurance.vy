# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title The insurance fund, and what happens beyond it
@license MIT
@notice Twin of `sequencer/protocol/insurance.py`. Cash in 1e-6 USD.
@custom:security Bounds: pool + fund + treasury <= 2^62; a deficit and an account's cash stay below 2^127.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import entries
from . import state

uses: state

CREDIT_RATIO_MAX: constant(uint256) = 2**16


@internal
def _charge(amount: uint256, fund_share_ppm: uint256):
    """
    @notice Moves a fee (<= pool), which the caller takes off the account, to the fund (its share, floor) and the treasury.
    """
    share: uint256 = unsafe_div(unsafe_mul(amount, fund_share_ppm), constants.PPM)
    state.treasury = unsafe_add(state.treasury, unsafe_sub(amount, share))  # the share is at most the whole
    repaid: uint256 = min(state.deficit, share)
    state.deficit = unsafe_sub(state.deficit, repaid)
    state.pool = unsafe_add(unsafe_sub(state.pool, amount), repaid)
    state.fund = unsafe_add(state.fund, unsafe_sub(share, repaid))


@internal
def _cover(account: entries.Account) -> entries.Account:
    """
    @notice An account without positions that owes money is brought to zero: by the fund, then by all (deficit).
    """
    covered: entries.Account = account
    if account.position_count != 0 or account.cash >= 0:
        return covered
    need: uint256 = convert(convert(unsafe_sub(0, account.cash), bytes32), uint256)
    paid: uint256 = min(state.fund, need)
    covered.cash = 0
    covered.order_floor = state.seq
    covered.reserved = 0
    state.fund = unsafe_sub(state.fund, paid)
    state.pool = unsafe_add(state.pool, paid)
    state.deficit = unsafe_add(state.deficit, unsafe_sub(need, paid))
    return covered


@internal
@view
def _payout(amount: uint256) -> uint256:
    """
    @notice What a withdrawal of `amount` (< 2^127) pays, floor; 0 when the pool cannot carry it.
    """
    if state.deficit == 0:
        return amount if amount <= state.pool else 0
    whole: uint256 = unsafe_add(state.pool, state.deficit)
    return unsafe_div(unsafe_mul(amount, state.pool), whole) if amount <= whole else 0


@internal
@view
def _credit(amount: uint256) -> uint256:
    """
    @notice What a deposit of `amount` (uint48) is credited, floor; into an empty pool with a deficit, the greatest ratio.
    """
    if state.deficit == 0:
        return amount
    most: uint256 = unsafe_mul(amount, CREDIT_RATIO_MAX)
    if state.pool == 0:
        return most
    return min(unsafe_div(unsafe_mul(amount, unsafe_add(state.pool, state.deficit)), state.pool), most)
