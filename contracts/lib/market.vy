# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title FEED, SURFACE, LIST, RISK: where the index, the surfaces, the instruments and their risk arrays come from
@license MIT
@notice Twin of `sequencer/protocol/market.py`.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import codec
from . import constants
from . import margin
from . import params
from . import queue
from . import reason
from . import risk_array
from . import state
from . import surface

uses: cmap
uses: queue
uses: state

FEED_TYPE: constant(bytes32) = keccak256("Feed(uint8 underlying,uint8 feed,uint32 time,uint32 price)")
SURFACE_TYPE: constant(bytes32) = keccak256(
    "Surface(uint8 underlying,uint8 feed,uint16 day,uint32 time,uint32 forward,uint32 index,int64 a,int64 b,int64 rho,int64 m,int64 sigma)"
)
FIRST_REPORT: constant(uint256) = 1  # word of UNDERLYING and of EXPIRY
FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING
STRIKE_MAX: constant(uint256) = 2**31 - 1


@internal
@view
def _is_feed(source: uint256, signer: uint256) -> bool:
    """
    @notice Whether `signer` is the feed of that number; a missing feed's key is 0, and so is nobody.
    """
    return signer != 0 and source < constants.FEEDS_MAX and state._feed_key(source) == signer


@internal
def _feed(domain: bytes32) -> uint256:
    """
    @notice FEED: one feed's index. The index is the median of the fresh reports (an even count: the mean of the middle two,
            floor).
    """
    number: uint256 = codec._field(1, 1)
    source: uint256 = codec._field(2, 1)
    time: uint256 = codec._field(3, 4)
    price: uint256 = codec._field(7, 4)
    digest: bytes32 = keccak256(abi_encode(FEED_TYPE, number, source, time, price))
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    key: uint256 = constants.KEY_UNDERLYING | number
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(key)
    if len(words) == 0 or not self._is_feed(source, signer):
        return reason.UNKNOWN_FEED
    stored: uint256 = state.stored
    if time <= words[unsafe_add(FIRST_REPORT, source)] >> 32 or time > state.time:
        return reason.FEED_TIME
    if price == 0:
        return reason.PRICE
    words[unsafe_add(FIRST_REPORT, source)] = price | (time << 32)
    head: uint256 = words[0]
    start: uint256 = (head >> 32) & constants.U32_MAX
    newest: uint256 = max(time, start)
    median: uint256 = self._median(words, newest)
    previous: uint256 = head & constants.U32_MAX
    cumulative: uint256 = (head >> 64) & constants.U64_MAX
    if start != 0 and newest != start:
        words = self._snapshots(words, newest)
        cumulative = unsafe_add(cumulative, unsafe_mul(previous, unsafe_sub(newest, start))) & constants.U64_MAX
    reference: uint256 = 0
    since: uint256 = 0
    reference, since = queue._watch_velocity(
        median, newest, previous, (head >> 128) & constants.U32_MAX, (head >> 160) & constants.U32_MAX
    )
    words[0] = median | (newest << 32) | (cumulative << 64) | (reference << 128) | (since << 160)
    state._store(key, stored, words)
    return reason.OK


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
def _report_surface(domain: bytes32) -> uint256:
    """
    @notice SURFACE: one feed's surface of a listed expiry. The one with the (lower) median at-the-money variance rules.
    """
    number: uint256 = codec._field(1, 1)
    source: uint256 = codec._field(2, 1)
    day: uint256 = codec._field(3, 2)
    time: uint256 = codec._field(5, 4)
    forward: uint256 = codec._field(9, 4)
    index: uint256 = codec._field(13, 4)
    first: uint256 = time | (forward << 32) | (index << 64) | (codec._field(17, 8) << 96) | (codec._field(25, 8) << 160)
    second: uint256 = codec._field(33, 8) | (codec._field(41, 8) << 64) | (codec._field(49, 8) << 128)
    shape: surface.Surface = self._shape(first, second)
    digest: bytes32 = keccak256(
        abi_encode(
            SURFACE_TYPE,
            number,
            source,
            day,
            time,
            forward,
            index,
            shape.a_e12,
            shape.b_e12,
            shape.rho_e12,
            shape.m_e12,
            shape.sigma_e12,
        )
    )
    if not self._is_feed(source, codec._signer(domain, digest, codec.BODY_124)):
        return reason.UNKNOWN_FEED
    key: uint256 = constants.KEY_EXPIRY | (number << 16) | day
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(key)
    if len(words) == 0:
        return reason.UNKNOWN_INSTRUMENT
    stored: uint256 = state.stored
    place: uint256 = unsafe_add(FIRST_REPORT, source << 1)
    last: uint256 = words[place] & constants.U32_MAX  # 0: no report yet
    if (last != 0 and time <= last) or time > state.time or time >= state._expiry_time(day):
        return reason.FEED_TIME
    if forward == 0 or index == 0 or time == 0 or not surface._is_valid(shape):
        return reason.SURFACE
    words[place] = first
    words[unsafe_add(place, 1)] = second
    chosen: uint256 = unsafe_add(self._chosen(words), 1)
    words[0] = (words[0] & ~(255 << 56)) | (chosen << 56)
    state._store(key, stored, words)
    return reason.OK


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


@internal
def _list_instrument() -> uint256:
    """
    @notice LIST: anyone may ask for what the rule in PARAMS allows: an expiry at 08:00 UTC, a strike on the grid around the
            index.
    """
    number: uint256 = codec._field(1, 1)
    day: uint256 = codec._field(2, 2)
    put: uint256 = codec._field(4, 1)
    strike: uint256 = codec._field(5, 4)
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_UNDERLYING | number)
    if len(words) == 0:
        return reason.NO_INDEX
    index: uint256 = words[0] & constants.U32_MAX
    if index == 0:
        return reason.NO_INDEX
    if put > 1 or strike == 0 or strike > STRIKE_MAX:
        return reason.LISTING_RULE
    time: uint256 = state.time
    latest: uint256 = unsafe_add(unsafe_div(time, constants.DAY_S), state._param(params.LISTING_DAYS_MAX))
    if state._expiry_time(day) <= unsafe_add(time, constants.TWAP_S) or day > latest:
        return reason.LISTING_RULE
    ratio: uint256 = state._param(params.STRIKE_RATIO_MAX)
    step: uint256 = max(state._param(params.STRIKE_STEP_TICKS), 1)  # > 0
    if strike % step != 0 or unsafe_mul(strike, ratio) < index or strike > unsafe_mul(index, ratio):
        return reason.LISTING_RULE
    terms: uint256 = (number << 48) | (day << 32) | (put << 31) | strike
    entry: uint256 = 0
    path: uint256 = 0
    entry, path = state._inline(constants.KEY_INSTRUMENT | terms)
    if path != 0:
        return reason.ALREADY_LISTED
    expiry_key: uint256 = constants.KEY_EXPIRY | (number << 16) | day
    words = state._load(expiry_key)
    expiry_stored: uint256 = state.stored
    row: uint256 = words[0] & constants.U16_MAX if expiry_stored != 0 else 0
    if row >= constants.PAGE_ROWS * constants.PAGES_PER_EXPIRY:
        return reason.EXPIRY_FULL
    if expiry_stored == 0:
        for _: uint256 in range(11):
            words.append(0)
    words[0] = unsafe_add(words[0], 1)  # row < 4096
    instrument: uint256 = (number << 28) | (day << 12) | row
    page_key: uint256 = constants.KEY_PAGE | (instrument >> 5)
    page: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(page_key)
    page_stored: uint256 = state.stored
    state._store(expiry_key, expiry_stored, words)
    state._store(page_key, page_stored, self._with_row(page, (put << 31) | strike))
    cmap._insert(constants.KEY_INSTRUMENT | terms, (1 << 32) | instrument)
    return reason.OK


@internal
@pure
def _with_row(
    page: DynArray[uint256, state.LEAF_WORDS_MAX], terms: uint256
) -> DynArray[uint256, state.LEAF_WORDS_MAX]:
    """
    @notice Words of a page, or of none, with one more row, which has no mark yet; its time is 0 until the next RISK.
    """
    head: uint256 = page[0] if len(page) != 0 else 0
    rows: uint256 = head & 255  # <= 31: the expiry counts them
    tables: uint256 = unsafe_add(rows, 7) >> 3
    position: uint256 = (rows & 7) << 5
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = [
        unsafe_add(head & ~((constants.U32_MAX << 8) | 255), unsafe_add(rows, 1))
    ]
    for i: uint256 in range(tables, bound=4):
        words.append(page[unsafe_add(1, i)])
    if position == 0:
        words.append(terms)
    else:
        words[tables] |= terms << position
    for i: uint256 in range(tables, bound=4):
        words.append(page[unsafe_add(unsafe_add(1, tables), i)])
    if position == 0:
        words.append(0)
    for i: uint256 in range(rows << 1, bound=62):
        words.append(page[unsafe_add(unsafe_add(1, tables << 1), i)])
    words.append(0)
    words.append(0)
    return words


@internal
def _risk() -> uint256:
    """
    @notice RISK: marks and scenario P&Ls of a page anew, from the fresh index and the expiry's surface; after FIX intrinsic
            at the settlement price, between expiry and FIX intrinsic at the index.
    """
    number: uint256 = codec._field(1, 1)
    day: uint256 = codec._field(2, 2)
    page_number: uint256 = codec._field(4, 1)
    if number >= 16 or page_number >= constants.PAGES_PER_EXPIRY:
        return reason.UNKNOWN_INSTRUMENT
    page_id: uint256 = (number << 23) | (day << 7) | page_number
    page: uint256 = state._page(page_id)
    if page == 0:
        return reason.UNKNOWN_INSTRUMENT
    stored: uint256 = state.stored
    time: uint256 = state.time
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_UNDERLYING | number)
    underlying: uint256 = words[0]
    words = state._load(constants.KEY_EXPIRY | (number << 16) | day)
    head: uint256 = words[0]
    index: uint256 = underlying & constants.U32_MAX
    is_settled: bool = (head >> 16) & 255 != 0
    forward: uint256 = index
    first: uint256 = 0
    second: uint256 = 0
    remaining: uint256 = 0
    at_report: uint256 = 0
    if is_settled:
        forward = (head >> 24) & constants.U32_MAX
    else:
        if unsafe_add((underlying >> 32) & constants.U32_MAX, state._param(params.FEED_AGE_MAX_S)) < time:
            return reason.NO_INDEX
        expires: uint256 = state._expiry_time(day)
        if time < expires:
            chosen: uint256 = (head >> 56) & 255
            if chosen == 0:
                return reason.NO_SURFACE
            place: uint256 = unsafe_sub(chosen << 1, 1)
            first = words[place]
            second = words[unsafe_add(place, 1)]
            reported: uint256 = (first >> 64) & constants.U32_MAX  # > 0
            forward = unsafe_mul(unsafe_mul(2, index), (first >> 32) & constants.U32_MAX)  # < 2^65
            forward = unsafe_div(unsafe_add(forward, reported), unsafe_mul(2, reported))
            forward = min(max(forward, 1), constants.U32_MAX)
            remaining = unsafe_sub(expires, time)
            at_report = unsafe_sub(expires, first & constants.U32_MAX)  # a report is of before
    words = self._risk_rows(page, forward, is_settled, self._shape(first, second), at_report, remaining)
    words[0] = (cmap._word_at(page) & 255) | (time << 8) | (index << 40) | (forward << 72)
    state._store(constants.KEY_PAGE | page_id, stored, words)
    return reason.OK


@internal
@view
def _risk_rows(
    page: uint256,
    forward: uint256,
    is_settled: bool,
    shape: surface.Surface,
    at_report: uint256,
    remaining: uint256,
) -> DynArray[uint256, state.LEAF_WORDS_MAX]:
    """
    @notice Words of a page with its rows anew; word 0 is the caller's. Nothing remains: variances are 0.
    """
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = [0]
    rows: uint256 = cmap._word_at(page) & 255
    tables: uint256 = unsafe_add(rows, 7) >> 3
    for i: uint256 in range(tables, bound=4):
        words.append(cmap._word_at(unsafe_add(page, unsafe_add(i, 1) << 5)))
    for _: uint256 in range(tables, bound=4):
        words.append(0)
    shocks: risk_array.Shocks = risk_array._shocks(
        state._param(params.PRICE_RANGE_PPM),
        state._param(params.VOL_UP_PPM),
        state._param(params.VOL_DOWN_PPM),
        state._param(params.EXTREME_RANGE_PPM),
        state._param(params.EXTREME_WEIGHT_PPM),
    )
    for row: uint256 in range(rows, bound=32):
        strike: uint256 = 0
        is_put: bool = False
        strike, is_put = margin._terms(page, row)
        mark: uint256 = 0
        pnl: uint256[2] = empty(uint256[2])
        if is_settled:
            mark, pnl = risk_array._settled(forward, strike, is_put)
        else:
            variance: uint256 = 0
            if remaining != 0:
                variance = surface._at_time(surface._variance_e12(shape, forward, strike), at_report, remaining)
            mark, pnl = risk_array._scenarios(forward, strike, is_put, variance, shocks)
        words[unsafe_add(unsafe_add(1, tables), row >> 3)] |= mark << ((row & 7) << 5)
        words.append(pnl[0])
        words.append(pnl[1])
    return words
