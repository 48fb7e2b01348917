# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title FIX and SETTLE: an expiry's price by TWAP, and positions turned into cash at it
@license MIT
@notice Twin of `sequencer/protocol/settlement.py`.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import black76
from . import codec
from . import constants
from . import entries
from . import insurance
from . import margin
from . import pages
from . import reason
from . import state

uses: insurance
uses: state

FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING


@internal
def _fix() -> uint256:
    """
    @notice FIX: settlement price = (cumulative at 08:00 - cumulative at 07:30) / 1800 s, rounded half up, in ticks.
    """
    number: uint256 = codec._field(1, 1)
    day: uint256 = codec._field(2, 2)
    key: uint256 = constants.KEY_EXPIRY | (number << 16) | day
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(key)
    if len(words) == 0:
        return reason.UNKNOWN_INSTRUMENT
    stored: uint256 = state.stored
    if (words[0] >> 16) & 255 != 0:
        return reason.ALREADY_SETTLED
    if state.time < state._expiry_time(day):
        return reason.NOT_EXPIRED
    underlying: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_UNDERLYING | number)
    snapshot: uint256 = underlying[unsafe_add(FIRST_SNAPSHOT, day & 3)]  # day % SNAPSHOT_DAYS
    if snapshot >> 130 != day or (snapshot >> 128) & 3 != 3:
        return reason.NO_SNAPSHOT
    elapsed: uint256 = unsafe_sub(snapshot >> 64, snapshot) & constants.U64_MAX
    price: uint256 = unsafe_div(unsafe_add(unsafe_mul(2, elapsed), constants.TWAP_S), unsafe_mul(2, constants.TWAP_S))
    price = min(price, constants.U32_MAX)
    words[0] = (words[0] & ~(constants.U40_MAX << 16)) | (1 << 16) | (price << 24)
    state._store(key, stored, words)
    return reason.OK


@internal
def _settle() -> uint256:
    """
    @notice SETTLE: pays an account's positions of a fixed expiry their intrinsic value; exact, no rounding.
    """
    number: uint256 = codec._field(1, 1)
    day: uint256 = codec._field(2, 2)
    expiry: uint256 = (number << 16) | day
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_EXPIRY | expiry)
    if len(words) == 0:
        return reason.UNKNOWN_INSTRUMENT
    account: entries.Account = state._account(codec._field(4, 4))
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    if (words[0] >> 16) & 255 == 0:
        return reason.NOT_SETTLED
    settlement: uint256 = (words[0] >> 24) & constants.U32_MAX
    kept: uint256 = 0
    held: uint256 = account.position_count
    paid: int256 = 0
    for i: uint256 in range(held, bound=64):
        position: uint256 = account.positions[i]
        if position >> 76 != expiry:
            account.positions[kept] = position  # kept <= i
            kept = unsafe_add(kept, 1)
            continue
        page: uint256 = state._page(position >> 69)
        strike: uint256 = 0
        is_put: bool = False
        strike, is_put = pages._terms(page, (position >> 64) & 31)
        intrinsic: uint256 = black76._intrinsic(settlement, strike, is_put)
        paid = unsafe_add(paid, unsafe_mul(entries._quantity(position), margin._lots(intrinsic)))  # < 2^82
    if kept == held:
        return reason.NOTHING_TO_SETTLE
    account.position_count = kept
    account.cash = unsafe_add(account.cash, paid)
    account = insurance._cover(account)
    if kept == 0:
        account.auction_start = 0
    state._put_account(account)
    return reason.OK
