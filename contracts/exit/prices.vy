# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title At what positions are closed
@license MIT
@notice At prices that the exit state holds, the same for everybody who has the instrument: the mark of its row; once
        its expiry has passed, the intrinsic value at the expiry's price. That price is the settlement price if FIX has
        set it (some holders may have been paid at it), else what FIX would set, if both snapshots stand, else the index.
@custom:security Nothing is reported, waited for or chosen: who brings about the freeze, and who proves, have one price.
        Positions of an instrument sum to zero while its expiry is not fixed, and what is fixed has one price: the values
        of all accounts sum to pool + deficit at any marks.
@custom:kill Nobody has any privilege.
"""

from lib import black76
from lib import constants
from lib import state

from . import pinned
from . import reader

uses: pinned
uses: reader
uses: state

KNOWN: constant(uint256) = 2**32  # added to a price that is fixed: 0 is a price too
UNDERLYINGS_MAX: constant(uint256) = 16  # 4 bits of an instrument
WITNESS_AT: constant(uint256) = 132
FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING


event Fixed:
    underlying: indexed(uint256)
    day: indexed(uint256)
    price: uint256


# expiry -> KNOWN + price, 0: not fixed. Written by fix, once.
_prices: HashMap[uint256, uint256]


@external
def fix(underlying: uint256, day: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]) -> uint256:
    """
    @notice Fixes the price of an expiry that the exit state's time has passed, once.
    @param witness EXPIRY leaf; UNDERLYING leaf, unless FIX has settled the expiry.
    @return The price, ticks.
    """
    return self._fix(underlying, day)


@internal
def _fix(underlying: uint256, day: uint256) -> uint256:
    reader._read(pinned.root, WITNESS_AT, 68)
    # Both become part of a map key.
    assert underlying < UNDERLYINGS_MAX and day <= constants.U16_MAX, "exit: no such expiry"
    expiry: uint256 = (underlying << 16) | day
    assert self._prices[expiry] == 0, "exit: fixed already"
    assert self._has_passed(day), "exit: not expired in the exit state"
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_EXPIRY | expiry)
    assert len(words) != 0, "exit: no such expiry"
    price: uint256 = (words[0] >> 24) & constants.U32_MAX
    if (words[0] >> 16) & 255 == 0:
        words = state._load(constants.KEY_UNDERLYING | underlying)  # exists: the expiry does
        price = words[0] & constants.U32_MAX
        snapshot: uint256 = words[unsafe_add(FIRST_SNAPSHOT, day & 3)]  # day % SNAPSHOT_DAYS
        if snapshot >> 130 == day and (snapshot >> 128) & 3 == 3:
            # as FIX (settlement.vy): half up
            elapsed: uint256 = unsafe_sub(snapshot >> 64, snapshot) & constants.U64_MAX
            price = min((2 * elapsed + constants.TWAP_S) // (2 * constants.TWAP_S), constants.U32_MAX)
    reader._read_all(WITNESS_AT)

    self._prices[expiry] = KNOWN + price
    log Fixed(underlying=underlying, day=day, price=price)
    return price


@internal
@view
def _has_passed(day: uint256) -> bool:
    """
    @notice Whether what expires on `day` (uint16) had expired at the exit state's time: FIX and SETTLE are for it alone.
    """
    return state._expiry_time(day) <= pinned.time


@internal
def _value(number: uint256) -> int256:
    """
    @notice What an account comes to with its positions closed, 1e-6 USD; reads its leaf and its pages.
    @param number Of an account; the caller has bounded it.
    """
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_ACCOUNT | number)
    value: int256 = reader._signed(words[1])
    first: uint256 = 4 + ((words[0] >> 8) & 255)  # after the signers
    for i: uint256 in range(words[0] & 255, bound=64):
        position: uint256 = words[first + i]
        page: uint256 = state._page(position >> 69)
        row: uint256 = (position >> 64) & 31
        price: uint256 = 0
        if self._has_passed((position >> 76) & constants.U16_MAX):
            known: uint256 = self._prices[position >> 76]
            assert known != 0, "exit: expiry is not fixed"
            strike: uint256 = 0
            is_put: bool = False
            strike, is_put = reader._terms(page, row)
            price = black76._intrinsic(known - KNOWN, strike, is_put)
        else:
            price = reader._mark(page, row)
        value += unsafe_mul(reader._lots(position), reader._signed(price))  # < 2^76
    return value


@external
@view
@reentrant
def price(underlying: uint256, day: uint256) -> (bool, uint256):
    """
    @notice Whether an expiry is fixed, and at which price, ticks.
    """
    if underlying >= UNDERLYINGS_MAX or day > constants.U16_MAX:
        return False, 0
    known: uint256 = self._prices[(underlying << 16) | day]
    return known != 0, known & constants.U32_MAX
