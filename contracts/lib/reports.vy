# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What feeds have reported: median index, TWAP snapshots, the surface that rules
@license MIT
@notice Helpers of `market.vy`; twin of what `sequencer/protocol/market.py` computes from an UNDERLYING's and an EXPIRY's
        words.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import params
from . import state
from . import surface

uses: state

FIRST_REPORT: constant(uint256) = 1  # word of UNDERLYING and of EXPIRY
FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING


@internal
@pure
def _shape(first: uint256, second: uint256) -> surface.Surface:
    """
    @notice Surface in the two words of a report.
    """
    return surface.Surface(
        a_e12=convert(convert(first << 96, bytes32), int256) >> 192,
        b_e12=convert(convert(first << 32, bytes32), int256) >> 192,
        rho_e12=convert(convert(second << 192, bytes32), int256) >> 192,
        m_e12=convert(convert(second << 128, bytes32), int256) >> 192,
        sigma_e12=convert(convert(second << 64, bytes32), int256) >> 192,
    )


@internal
@view
def _median(words: DynArray[uint256, state.LEAF_WORDS_MAX], newest: uint256) -> uint256:
    """
    @notice Median of an underlying's reports that are fresh at `newest`; the newest one always is.
    """
    age: uint256 = state._param(params.FEED_AGE_MAX_S)
    oldest: uint256 = unsafe_sub(newest, age) if newest > age else 0
    fresh: uint256[5] = empty(uint256[5])  # rising
    count: uint256 = 0
    for i: uint256 in range(constants.FEEDS_MAX):
        report: uint256 = words[unsafe_add(FIRST_REPORT, i)]
        carried: uint256 = report & constants.U32_MAX
        if carried == 0 or report >> 32 < oldest:
            continue
        for j: uint256 in range(count, bound=4):
            other: uint256 = fresh[j]
            if other > carried:
                fresh[j] = carried
                carried = other
        fresh[count] = carried
        count = unsafe_add(count, 1)
    middle: uint256 = count >> 1  # <= 2
    if count & 1 == 1:
        return fresh[middle]
    below: uint256 = fresh[unsafe_sub(middle, 1)] if middle > 0 else 0
    return unsafe_add(below, fresh[middle]) >> 1


@internal
@pure
def _snapshots(
    given: DynArray[uint256, state.LEAF_WORDS_MAX], time: uint256
) -> DynArray[uint256, state.LEAF_WORDS_MAX]:
    """
    @notice Words of an underlying with the TWAP snapshots of the bounds (07:30, 08:00 UTC) that it passes up to `time`.
    """
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = given
    index: uint256 = words[0] & constants.U32_MAX
    start: uint256 = (words[0] >> 32) & constants.U32_MAX
    cumulative: uint256 = (words[0] >> 64) & constants.U64_MAX
    last: uint256 = unsafe_div(time, constants.DAY_S)
    first: uint256 = unsafe_div(start, constants.DAY_S)
    if unsafe_add(first, 3) < last:  # SNAPSHOT_DAYS - 1
        first = unsafe_sub(last, 3)
    for i: uint256 in range(4):
        day: uint256 = unsafe_add(first, i)
        if day > last:
            break
        for is_end: uint256 in range(2):
            bound: uint256 = state._expiry_time(day)
            if is_end == 0:
                bound = unsafe_sub(bound, constants.TWAP_S)
            if start >= bound or bound > time:
                continue
            place: uint256 = unsafe_add(FIRST_SNAPSHOT, day & 3)  # day % SNAPSHOT_DAYS
            word: uint256 = words[place]
            if word >> 130 != day:
                word = day << 130
            now: uint256 = unsafe_add(cumulative, unsafe_mul(index, unsafe_sub(bound, start))) & constants.U64_MAX
            if is_end == 0:
                word = ((word >> 64) << 64) | now | (1 << 128)
            else:
                word = (word & ~(constants.U64_MAX << 64)) | (now << 64) | (1 << 129)
            words[place] = word
    return words


@internal
@pure
def _chosen(words: DynArray[uint256, state.LEAF_WORDS_MAX]) -> uint256:
    """
    @notice Feed whose report is the (lower) median of an expiry's by at-the-money variance, then by number.
    """
    ranks: uint256[5] = empty(uint256[5])  # variance << 8 | feed, rising
    count: uint256 = 0
    for i: uint256 in range(constants.FEEDS_MAX):
        place: uint256 = unsafe_add(FIRST_REPORT, i << 1)
        if words[place] & constants.U32_MAX == 0:
            continue
        shape: surface.Surface = self._shape(words[place], words[unsafe_add(place, 1)])
        carried: uint256 = (surface._atm_variance_e12(shape) << 8) | i
        for j: uint256 in range(count, bound=4):
            other: uint256 = ranks[j]
            if other > carried:
                ranks[j] = carried
                carried = other
        ranks[count] = carried
        count = unsafe_add(count, 1)
    return ranks[unsafe_sub(count, 1) >> 1 if count > 0 else 0] & 255
