"""FEED, SURFACE, LIST, RISK: where the index, the surfaces, the instruments and their risk arrays come from."""

from sequencer.protocol import constants as c
from sequencer.protocol import freshness, reports, risk_array, surface, work
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Expiry, Page, Snapshot, SurfaceReport, Underlying
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.params import UnderlyingParams
from sequencer.protocol.queue import watch_velocity
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.surface import Surface


def feed(state: State, record: Record) -> Reason:
    """FEED: one feed's index. The index moves when the fresh reports make one (`reports.index_of`), else it only ages.

    Its time is that from which on a quorum has reported: what one feed says last makes nothing fresh.
    """
    number, source, time, price = record.fields
    underlying = state.underlying(number)
    if underlying is None or not _is_feed(state, source, record.signer):
        return Reason.UNKNOWN_FEED
    if time <= underlying.reports[source][1] or time > state.globals.time:
        return Reason.FEED_TIME
    if price == 0:
        return Reason.PRICE
    underlying.reports[source] = (price, time)
    index = reports.index_of(underlying, state.params, state.globals.time)
    if index:
        _advance(underlying, reports.quorum_time([time for _, time in underlying.reports], state.params))
        previous, underlying.index = underlying.index, index
        watch_velocity(state, underlying, previous)
    state.touch(c.KEY_UNDERLYING | number, underlying)
    return Reason.OK


def _is_feed(state: State, source: int, signer: bytes | None) -> bool:
    keys = state.params.feed_keys
    return signer is not None and source < len(keys) and keys[source] == signer


def _advance(underlying: Underlying, time: int) -> None:
    """Integrates the index up to `time`; takes the TWAP snapshots of the bounds (07:30, 08:00 UTC) that it passes."""
    start, index = underlying.time, underlying.index
    if time <= start:
        return
    underlying.time = time
    if start == 0:
        return
    for day in range(max(start // c.DAY_S, time // c.DAY_S - c.SNAPSHOT_DAYS + 1), time // c.DAY_S + 1):
        end_bound = expiry_time(day)
        start_bound = end_bound - c.TWAP_S
        for bound, is_end in ((start_bound, False), (end_bound, True)):
            if not start < bound <= time:
                continue
            slot = day % c.SNAPSHOT_DAYS
            snapshot = underlying.snapshots[slot]
            if snapshot.day != day:
                snapshot = underlying.snapshots[slot] = Snapshot(day)
            cumulative = (underlying.cumulative + index * (bound - start)) & c.U64_MAX
            if is_end:
                snapshot.cumulative_end, snapshot.has_end = cumulative, True
            else:
                snapshot.cumulative_start, snapshot.has_start = cumulative, True
    underlying.cumulative = (underlying.cumulative + index * (time - start)) & c.U64_MAX


def report_surface(state: State, record: Record) -> Reason:
    """SURFACE: one feed's surface of a listed expiry."""
    number, source, day, time, forward, index, a, b, rho, m, sigma = record.fields
    if not _is_feed(state, source, record.signer):
        return Reason.UNKNOWN_FEED
    key = number << 16 | day
    expiry = state.expiry(key)
    if expiry is None:
        return Reason.UNKNOWN_INSTRUMENT
    last = expiry.reports[source]
    if (last is not None and time <= last.time) or time > state.globals.time or time >= expiry_time(day):
        return Reason.FEED_TIME
    shape = Surface(a, b, rho, m, sigma)
    if forward == 0 or index == 0 or time == 0 or not surface.is_valid(shape) or not surface.is_sound(shape):
        return Reason.SURFACE
    if abs(forward - index) * c.PPM > state.params.forward_range_ppm * index:
        return Reason.SURFACE
    expiry.reports[source] = SurfaceReport(time, forward, index, shape)
    state.touch(c.KEY_EXPIRY | key, expiry)
    return Reason.OK


def list_instrument(state: State, record: Record, out: Outcome) -> Reason:
    """LIST: anyone may ask for what the rule in PARAMS allows: an expiry at 08:00 UTC, a strike on the grid."""
    number, day, put, strike = record.fields
    underlying = state.underlying(number)
    if underlying is None or underlying.index == 0:
        return Reason.NO_INDEX
    params, time = state.params, state.globals.time
    if put > 1 or not 0 < strike < 2**31:
        return Reason.LISTING_RULE
    if expiry_time(day) <= time + c.TWAP_S or day > time // c.DAY_S + params.listing_days_max:
        return Reason.LISTING_RULE
    ratio, index = params.strike_ratio_max, underlying.index
    if strike % strike_step(strike, params.of(number)) or strike * ratio < index or strike > index * ratio:
        return Reason.LISTING_RULE
    terms = number << 48 | day << 32 | put << 31 | strike
    if state.instrument(terms) is not None:
        return Reason.ALREADY_LISTED
    key = number << 16 | day
    expiry = state.expiry(key)
    row = expiry.listed if expiry else 0
    if row >= c.PAGE_ROWS * c.PAGES_PER_EXPIRY:
        return Reason.EXPIRY_FULL
    if expiry is None:
        expiry = state.new_expiry(key)
    expiry.listed = row + 1
    instrument = number << 28 | day << 12 | row
    page_id = instrument >> 5
    page = state.page(page_id)
    if page is None:
        page = state.new_page(page_id)
    page.terms.append(put << 31 | strike)
    page.rows.append((0, (0,) * c.SCENARIOS))
    state.epoch += 1
    state.touch(c.KEY_EXPIRY | key, expiry)
    state.touch(c.KEY_PAGE | page_id, page)
    state.put_instrument(terms, instrument)
    out.number = instrument
    return Reason.OK


def strike_step(strike: int, params: UnderlyingParams) -> int:
    """Step (ticks) of the grid on which a strike must lie: coarser the higher it is, as venues list them.

    The greatest of 1, 2.5 and 5 times a power of ten (2.5 ticks are 2) that is at most `strike_step_ppm` of the
    strike, and at least `strike_step_min_ticks`. It looks at the strike alone, so that no move of the index changes
    what may be listed beside what is.
    """
    bound = strike * params.strike_step_ppm // c.PPM
    power = 1
    while power * 10 <= bound:
        power *= 10
    step = next((one for one in (5 * power, 5 * power // 2, power) if one <= bound), 1)
    return max(step, params.strike_step_min_ticks)


def risk(state: State, record: Record) -> Reason:
    """RISK: marks and scenario P&Ls of a page anew, from the fresh index and the expiry's fresh surfaces.

    After FIX: intrinsic at the settlement price. Between expiry and FIX: intrinsic at the index.
    """
    number, day, page_number = record.fields
    page_id = number << 23 | day << 7 | page_number
    page = state.page(page_id) if number < c.UNDERLYINGS_MAX and page_number < c.PAGES_PER_EXPIRY else None
    if page is None:
        return Reason.UNKNOWN_INSTRUMENT
    time = state.globals.time
    underlying, expiry = state.underlying(number), state.expiry(number << 16 | day)
    assert underlying is not None  # a page has both
    assert expiry is not None
    if not expiry.settled and underlying.time + state.params.feed_age_max_s < time:
        return Reason.NO_INDEX
    # The rows cost as much when the feeds disagree on the last.
    state.globals.work += work.RISK_ROW * len(page.terms)
    if expiry.settled:
        page.rows = [risk_array.settled(expiry.settlement, *_terms(terms)) for terms in page.terms]
        page.forward = expiry.settlement
        page.variances = {}
    else:
        if time >= expiry_time(day):
            forward, variances = underlying.index, {_terms(terms)[0]: 0 for terms in page.terms}
        else:
            found = _from_surfaces(state, underlying.index, expiry, day, page)
            if isinstance(found, Reason):
                return found
            forward, variances = found
        shocks = state.shocks[number]
        left = shocks.left(max(expiry_time(day) - time, 0))
        page.rows = risk_array.rows(forward, page.terms, variances, shocks, left)
        page.forward = forward
        page.variances = variances
    page.index = underlying.index
    page.time = c.MARKED_FOR_GOOD if expiry.settled else time
    page.marked = len(page.terms)
    state.epoch += 1
    state.touch(c.KEY_PAGE | page_id, page)
    return Reason.OK


def _from_surfaces(
    state: State, index: int, expiry: Expiry, day: int, page: Page
) -> tuple[int, dict[int, int]] | Reason:
    """Forward of an expiry that is still to come, and the variance of each strike of a page, or why there is none."""
    params, time = state.params, state.globals.time
    fresh = reports.fresh_surfaces(expiry, params, time)
    if len(fresh) < reports.quorum(params):
        return Reason.NO_SURFACE
    forward = reports.forward_of(fresh, index, params)
    if forward == 0:
        return Reason.FEEDS_DISAGREE
    variances = reports.variances_of(fresh, page.terms, forward, index, expiry_time(day), time, params)
    if 0 in variances.values():
        return Reason.FEEDS_DISAGREE
    return forward, variances


def is_old(state: State, page: Page, instrument: int) -> bool:
    """Whether an instrument has no mark that can carry new risk: none since it was listed, or one that is too old."""
    return instrument & 31 >= page.marked or freshness.is_old(state, instrument >> 5, page)


def is_markable(state: State, page_id: int) -> bool:
    """Whether RISK can mark an old page, or could not long ago: the word on who is to blame for its age.

    A settled expiry always. Of others neither the index nor, before expiry, a quorum of surfaces may be so old that
    nobody's marks can be fresh: older than they may be for RISK, and risk_age_max_s.
    """
    underlying, expiry = state.underlying(page_id >> 23), state.expiry(page_id >> 7)
    assert underlying is not None  # a page has both
    assert expiry is not None
    time, params = state.globals.time, state.params
    if expiry.settled:
        return True
    if time < expiry_time(page_id >> 7 & 0xFFFF):
        oldest = time - params.surface_age_max_s - params.risk_age_max_s
        if sum(one is not None and one.time >= oldest for one in expiry.reports) < reports.quorum(params):
            return False
    return underlying.time + params.feed_age_max_s + params.risk_age_max_s >= time


def _terms(word: int) -> tuple[int, bool]:
    """(strike in ticks, is put)."""
    return word & 0x7FFF_FFFF, bool(word >> 31)
