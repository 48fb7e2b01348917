# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What the feeds' reports make together: index, forward, variance of a strike; TWAP snapshots
@license MIT
@notice Twin of `sequencer/protocol/reports.py`, which has the rules, and of `_advance` in `market.py`.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import black76
from . import constants
from . import params
from . import state
from . import surface

uses: state

FIRST_REPORT: constant(uint256) = 1  # word of UNDERLYING and of EXPIRY
FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING


struct Fresh:
    # reports on an expiry that count now, by feed
    count: uint256
    forwards: uint256[5]  # reported, ticks
    indexes: uint256[5]  # that they go with, ticks; > 0
    remaining_s: uint256[5]  # from the report to expiry
    shapes: surface.Surface[5]


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
def _quorum() -> uint256:
    """
    @notice Fresh reports that an index or a mark needs: `feed_quorum`, or the majority of the configured feeds.
    """
    quorum: uint256 = state._param(params.FEED_QUORUM)
    if quorum != 0:
        return quorum
    return unsafe_add(self._feeds() >> 1, 1)


@internal
@view
def _feeds() -> uint256:
    """
    @notice Configured feeds, <= 5.
    """
    feeds: uint256 = 0
    for i: uint256 in range(constants.FEEDS_MAX):
        if state._feed_key(i) != 0:
            feeds = unsafe_add(feeds, 1)
    return feeds


@internal
@pure
def _sorted(given: uint256[5], count: uint256) -> uint256[5]:
    """
    @notice The first `count` <= 5 numbers, rising.
    """
    rising: uint256[5] = empty(uint256[5])
    for i: uint256 in range(count, bound=5):
        carried: uint256 = given[i]
        for j: uint256 in range(i, bound=4):
            other: uint256 = rising[j]
            if other > carried:
                rising[j] = carried
                carried = other
        rising[i] = carried
    return rising


@internal
@view
def _sure(given: uint256[5], count: uint256) -> (uint256, uint256):
    """
    @notice The two of the first `count` numbers, 1 <= count <= 5, that bound what is sure whichever feeds - quorum of
            them are lies; both the median where no feed is missing.
    """
    rising: uint256[5] = self._sorted(given, count)
    last: uint256 = unsafe_sub(count, 1)
    feeds: uint256 = self._feeds()
    lies: uint256 = unsafe_sub(feeds, min(self._quorum(), feeds))  # <= 4
    low: uint256 = min(unsafe_sub(last, min(lies, last)), last >> 1)
    return rising[low], rising[min(max(lies, count >> 1), last)]


@internal
@pure
def _is_within(low: uint256, high: uint256, spread_ppm: uint256) -> bool:
    """
    @notice Whether low <= high, both below 2^64, differ by at most a part of the lower.
    """
    return unsafe_mul(unsafe_sub(high, low), constants.PPM) <= unsafe_mul(spread_ppm, low)


@internal
@view
def _index(words: DynArray[uint256, state.LEAF_WORDS_MAX]) -> (uint256, uint256):
    """
    @notice Index of an underlying by its fresh reports, and the time since which a quorum has reported; both 0: fewer
            than the quorum, or they disagree.
    """
    age: uint256 = state._param(params.FEED_AGE_MAX_S)
    fresh: uint256[5] = empty(uint256[5])
    times: uint256[5] = empty(uint256[5])
    count: uint256 = 0
    for i: uint256 in range(constants.FEEDS_MAX):
        report: uint256 = words[unsafe_add(FIRST_REPORT, i)]
        times[i] = report >> 32
        if report & constants.U32_MAX == 0 or unsafe_add(report >> 32, age) < state.time:
            continue
        fresh[count] = report & constants.U32_MAX
        count = unsafe_add(count, 1)
    quorum: uint256 = self._quorum()  # 1..5
    if count < quorum:
        return 0, 0
    low: uint256 = 0
    high: uint256 = 0
    low, high = self._sure(fresh, count)
    if not self._is_within(low, high, state._param(params.FEED_SPREAD_MAX_PPM)):
        return 0, 0
    return min(max(words[0] & constants.U32_MAX, low), high), self._sorted(times, 5)[unsafe_sub(5, quorum)]


@internal
@view
def _have_reported(words: DynArray[uint256, state.LEAF_WORDS_MAX], age_s: uint256) -> bool:
    """
    @notice Whether a quorum of feeds has reported on an expiry, none of it longer than `age_s` ago.
    """
    count: uint256 = 0
    for i: uint256 in range(constants.FEEDS_MAX):
        time: uint256 = words[unsafe_add(FIRST_REPORT, i << 1)] & constants.U32_MAX  # 0: no report
        if time != 0 and unsafe_add(time, age_s) >= state.time:
            count = unsafe_add(count, 1)
    return count >= self._quorum()


@internal
@view
def _fresh_surfaces(words: DynArray[uint256, state.LEAF_WORDS_MAX], expires: uint256) -> Fresh:
    """
    @notice The reports on an expiry that are not older than `surface_age_max_s`, each of before `expires`.
    """
    age: uint256 = state._param(params.SURFACE_AGE_MAX_S)
    fresh: Fresh = empty(Fresh)
    for i: uint256 in range(constants.FEEDS_MAX):
        place: uint256 = unsafe_add(FIRST_REPORT, i << 1)
        first: uint256 = words[place]
        time: uint256 = first & constants.U32_MAX  # 0: no report yet
        if time == 0 or unsafe_add(time, age) < state.time:
            continue
        at: uint256 = fresh.count  # <= 4
        fresh.forwards[at] = (first >> 32) & constants.U32_MAX
        fresh.indexes[at] = (first >> 64) & constants.U32_MAX
        fresh.remaining_s[at] = unsafe_sub(expires, time)
        fresh.shapes[at] = self._shape(first, words[unsafe_add(place, 1)])
        fresh.count = unsafe_add(at, 1)
    return fresh


@internal
@view
def _forward(fresh: Fresh, index: uint256) -> uint256:
    """
    @notice Median of the forwards that the reports' ratios give at `index`, ticks; 0: they disagree.
    """
    moved: uint256[5] = empty(uint256[5])
    for i: uint256 in range(fresh.count, bound=5):
        reported: uint256 = fresh.indexes[i]
        numerator: uint256 = unsafe_add(unsafe_mul(unsafe_mul(2, index), fresh.forwards[i]), reported)  # < 2^66
        moved[i] = min(max(unsafe_div(numerator, unsafe_mul(2, reported)), 1), constants.U32_MAX)
    low: uint256 = 0
    high: uint256 = 0
    low, high = self._sure(moved, fresh.count)
    if not self._is_within(low, high, state._param(params.FEED_SPREAD_MAX_PPM)):
        return 0
    return unsafe_add(low, high) >> 1


@internal
@view
def _variance(fresh: Fresh, strike: uint256, forward: uint256, index: uint256, remaining_s: uint256) -> uint256:
    """
    @notice Median of the variances that the reports give a strike for `remaining_s`; 0: they disagree.
    """
    found: uint256[5] = empty(uint256[5])
    for i: uint256 in range(fresh.count, bound=5):
        variance: uint256 = surface._variance_e12(fresh.shapes[i], fresh.forwards[i], strike)
        found[i] = surface._at_time(variance, fresh.remaining_s[i], remaining_s)
    low: uint256 = 0
    high: uint256 = 0
    low, high = self._sure(found, fresh.count)
    if not self._is_within(low, high, state._param(params.VARIANCE_SPREAD_MAX_PPM)):
        cheap: uint256 = unsafe_mul(black76._price_e10(forward, strike, False, low), constants.PPM)  # < 2^81
        dear: uint256 = unsafe_mul(black76._price_e10(forward, strike, False, high), constants.PPM)
        bound: uint256 = unsafe_mul(unsafe_mul(state._param(params.MARK_SPREAD_MAX_PPM), index), black76.TICK_E10)
        if dear > unsafe_add(cheap, bound):  # bound < 2^91
            return 0
    return unsafe_add(low, high) >> 1


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
