# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title The insurance fund, and what happens beyond it
@license MIT
@notice Twin of `sequencer/protocol/insurance.py`. Cash in 1e-6 USD.
@custom:security Bounds: pool + fund + treasury <= 2^62; holes < 2^64; a deficit and an account's cash stay within 2^127.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import entries
from . import margin
from . import state

uses: state

CREDIT_RATIO_MAX: constant(uint256) = 2**16


@internal
def _charge(amount: uint256, fund_share_ppm: uint256):
    """
    @notice Turns a fee (a claim, <= pool), which the caller takes off the account, into money: of the fund (its share,
            floor) and of the treasury.
    """
    paid: uint256 = self._payout(amount)
    self._take(amount, paid)
    share: uint256 = unsafe_div(unsafe_mul(paid, fund_share_ppm), constants.PPM)
    state.treasury = unsafe_add(state.treasury, unsafe_sub(paid, share))  # the share is at most the whole
    repaid: uint256 = min(margin._bits(max(state.deficit, 0)), share)
    state.deficit = unsafe_sub(state.deficit, margin._lots(repaid))
    state.pool = unsafe_add(state.pool, repaid)
    state.fund = unsafe_add(state.fund, unsafe_sub(share, repaid))


@internal
def _take(amount: uint256, paid: uint256):
    """
    @notice Takes what a claim of `amount` (< 2^127), which an account has given up, pays out of the pool.
    """
    state.pool = unsafe_sub(state.pool, paid)  # paid <= pool
    state.deficit = unsafe_sub(state.deficit, margin._lots(unsafe_sub(amount, paid)))


@internal
def _bring(amount: uint256) -> uint256:
    """
    @notice Brings `amount` of money (< 2^64) into the pool; the claim for it.
    """
    credited: uint256 = self._credit(amount)
    state.pool = unsafe_add(state.pool, amount)
    state.deficit = unsafe_add(state.deficit, margin._lots(unsafe_sub(credited, amount)))
    return credited


@internal
@view
def _hole_of(hole: uint256, equity: int256) -> uint256:
    """
    @notice The hole of an account of this equity, which is now `hole`; at most what `holes` has room for (2^64, where the
            Vault holds 2^62).
    """
    room: uint256 = unsafe_sub(constants.U64_MAX, unsafe_sub(state.holes, hole))  # holes is the sum of all
    return min(margin._bits(max(unsafe_sub(0, equity), 0)), room)


@internal
def _recognise(before: uint256, hole: uint256):
    """
    @notice An account's hole is now `hole`. Without any, what the pool holds beyond the accounts' cash is the fund's.
    """
    state.holes = unsafe_add(unsafe_sub(state.holes, before), hole)
    if state.holes != 0 or state.deficit >= 0:
        return
    surplus: uint256 = min(margin._bits(unsafe_sub(0, state.deficit)), state.pool)
    state.deficit = unsafe_add(state.deficit, margin._lots(surplus))
    state.pool = unsafe_sub(state.pool, surplus)
    state.fund = unsafe_add(state.fund, surplus)


@internal
def _cover(account: entries.Account) -> entries.Account:
    """
    @notice An account without positions has no hole, and one that owes money is brought to zero: by the fund, then by all.
    """
    covered: entries.Account = account
    if account.position_count != 0 or (account.cash >= 0 and account.hole == 0):
        return covered
    if account.cash < 0:
        need: uint256 = margin._bits(unsafe_sub(0, account.cash))
        paid: uint256 = min(state.fund, need)
        covered.cash = 0
        covered.order_floor = state.seq
        covered.reserved = 0
        state.fund = unsafe_sub(state.fund, paid)
        state.pool = unsafe_add(state.pool, paid)
        state.deficit = unsafe_add(state.deficit, margin._lots(unsafe_sub(need, paid)))
    covered.hole = 0
    self._recognise(account.hole, 0)
    return covered


@internal
@view
def _payout(amount: uint256) -> uint256:
    """
    @notice What a claim of `amount` (< 2^127) pays, floor; 0 when the pool cannot carry it.
    """
    backed: uint256 = min(state.fund, state.holes)
    held: uint256 = unsafe_add(state.pool, backed)
    short: int256 = unsafe_add(state.deficit, margin._lots(unsafe_sub(state.holes, backed)))
    whole: uint256 = held
    paid: uint256 = amount
    if short > 0:
        whole = unsafe_add(held, margin._bits(short))
        paid = unsafe_div(unsafe_mul(amount, held), whole)  # < 2^(127 + 63)
    return paid if amount <= whole and paid <= state.pool else 0


@internal
@view
def _credit(amount: uint256) -> uint256:
    """
    @notice What money of `amount` (< 2^64) is credited, floor; into an empty pool with a deficit, the greatest ratio.
    """
    if state.deficit <= 0:
        return amount
    most: uint256 = unsafe_mul(amount, CREDIT_RATIO_MAX)
    if state.pool == 0:
        return most
    whole: uint256 = unsafe_add(state.pool, margin._bits(state.deficit))
    return min(unsafe_div(unsafe_mul(amount, whole), state.pool), most)
