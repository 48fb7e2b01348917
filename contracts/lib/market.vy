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
from . import pages
from . import params
from . import queue
from . import reason
from . import reports
from . import risk_array
from . import state
from . import surface
from . import work

uses: cmap
uses: pages
uses: queue
uses: reports
uses: state

FEED_TYPE: constant(bytes32) = keccak256("Feed(uint8 underlying,uint8 feed,uint32 time,uint32 price)")
SURFACE_TYPE: constant(bytes32) = keccak256(
    "Surface(uint8 underlying,uint8 feed,uint16 day,uint32 time,uint32 forward,uint32 index,int64 a,int64 b,int64 rho,int64 m,int64 sigma)"
)
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
    @notice FEED: one feed's index. The index moves when the fresh reports make one, else it only ages.
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
    if time <= words[unsafe_add(reports.FIRST_REPORT, source)] >> 32 or time > state.time:
        return reason.FEED_TIME
    if price == 0:
        return reason.PRICE
    words[unsafe_add(reports.FIRST_REPORT, source)] = price | (time << 32)
    index: uint256 = 0
    newest: uint256 = 0
    index, newest = reports._index(words)
    if index != 0:
        head: uint256 = words[0]
        start: uint256 = (head >> 32) & constants.U32_MAX
        newest = max(newest, start)
        previous: uint256 = head & constants.U32_MAX
        cumulative: uint256 = (head >> 64) & constants.U64_MAX
        if start != 0 and newest != start:
            words = reports._snapshots(words, newest)
            cumulative = unsafe_add(cumulative, unsafe_mul(previous, unsafe_sub(newest, start))) & constants.U64_MAX
        reference: uint256 = 0
        since: uint256 = 0
        reference, since = queue._watch_velocity(
            index, newest, previous, (head >> 128) & constants.U32_MAX, (head >> 160) & constants.U32_MAX
        )
        words[0] = index | (newest << 32) | (cumulative << 64) | (reference << 128) | (since << 160)
    state._store(key, stored, words)
    return reason.OK


@internal
def _report_surface(domain: bytes32) -> uint256:
    """
    @notice SURFACE: one feed's surface of a listed expiry.
    """
    number: uint256 = codec._field(1, 1)
    source: uint256 = codec._field(2, 1)
    day: uint256 = codec._field(3, 2)
    time: uint256 = codec._field(5, 4)
    forward: uint256 = codec._field(9, 4)
    index: uint256 = codec._field(13, 4)
    first: uint256 = time | (forward << 32) | (index << 64) | (codec._field(17, 8) << 96) | (codec._field(25, 8) << 160)
    second: uint256 = codec._field(33, 8) | (codec._field(41, 8) << 64) | (codec._field(49, 8) << 128)
    shape: surface.Surface = reports._shape(first, second)
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
    place: uint256 = unsafe_add(reports.FIRST_REPORT, source << 1)
    last: uint256 = words[place] & constants.U32_MAX  # 0: no report yet
    if (last != 0 and time <= last) or time > state.time or time >= state._expiry_time(day):
        return reason.FEED_TIME
    if forward == 0 or index == 0 or time == 0 or not surface._is_valid(shape) or not surface._is_sound(shape):
        return reason.SURFACE
    distance: uint256 = unsafe_sub(forward, index) if forward >= index else unsafe_sub(index, forward)
    if unsafe_mul(distance, constants.PPM) > unsafe_mul(state._param(params.FORWARD_RANGE_PPM), index):  # < 2^64
        return reason.SURFACE
    words[place] = first
    words[unsafe_add(place, 1)] = second
    state._store(key, stored, words)
    return reason.OK


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
    step: uint256 = self._strike_step(strike, state._params_of(number))  # > 0
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
    state._store(page_key, page_stored, pages._with_row(page, (put << 31) | strike))
    cmap._insert(constants.KEY_INSTRUMENT | terms, (1 << 32) | instrument)
    return reason.OK


@internal
@pure
def _strike_step(strike: uint256, word: uint256) -> uint256:
    """
    @notice Step of the grid on which a strike must lie, ticks: the greatest of 1, 2.5 and 5 times a power of ten that is at
            most `strike_step_ppm` of the strike, and at least `strike_step_min_ticks`. 1 at least.
    @param word Fields of the underlying.
    """
    bound: uint256 = unsafe_div(unsafe_mul(strike, params._of(word, params.STRIKE_STEP_PPM)), constants.PPM)  # < 2^44
    power: uint256 = 1
    for _: uint256 in range(13):  # 10^13 is below 2^44
        if unsafe_mul(power, 10) > bound:
            break
        power = unsafe_mul(power, 10)
    step: uint256 = unsafe_mul(5, power)
    if step > bound:
        step = step >> 1
    if step > bound:
        step = power
    return max(step, params._of(word, params.STRIKE_STEP_MIN_TICKS))


@internal
def _risk() -> uint256:
    """
    @notice RISK: marks and scenario P&Ls of a page anew, from the fresh index and the expiry's fresh surfaces; after FIX
            intrinsic at the settlement price, between expiry and FIX intrinsic at the index.
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
    fresh: reports.Fresh = empty(reports.Fresh)
    remaining_s: uint256 = 0
    if not is_settled and unsafe_add((underlying >> 32) & constants.U32_MAX, state._param(params.FEED_AGE_MAX_S)) < time:
        return reason.NO_INDEX
    rows: uint256 = cmap._word_at(page) & 255
    state.work = unsafe_add(state.work, unsafe_mul(work.RISK_ROW, rows))
    expires: uint256 = state._expiry_time(day)
    if is_settled:
        forward = (head >> 24) & constants.U32_MAX
    elif time < expires:
        fresh = reports._fresh_surfaces(words, expires)
        if fresh.count < reports._quorum():
            return reason.NO_SURFACE
        forward = reports._forward(fresh, index)
        if forward == 0:
            return reason.FEEDS_DISAGREE
        remaining_s = unsafe_sub(expires, time)
    words = pages._risk_rows(number, page, forward, is_settled, fresh, index, remaining_s)
    if len(words) == 0:
        return reason.FEEDS_DISAGREE
    marked_at: uint256 = constants.U32_MAX if is_settled else time  # for good
    words[0] = rows | (marked_at << 8) | (index << 40) | (forward << 72) | (rows << 104)
    state._store(constants.KEY_PAGE | page_id, stored, words)
    return reason.OK
