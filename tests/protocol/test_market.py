"""FEED, SURFACE, LIST, RISK: the index and its integral, surfaces, the listing rule, marks.

Long because the tests build on one market, from feed to mark.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import market, risk_array
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Page, Underlying
from sequencer.protocol.market import _advance
from sequencer.protocol.params import BTC, ETH
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, FAR, INDEX, NEAR, TODAY, Exchange, examples

DATA = Path(os.environ.get("FAIRSTRIKE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def index(exchange: Exchange) -> int:
    return exchange.state.underlyings[0].index


# --- index ---------------------------------------------------------------------------------------------


def index_time(exchange: Exchange) -> int:
    return exchange.state.underlyings[0].time


def test_index__is_the_median_of_the_feeds() -> None:
    exchange = Exchange(**CALM)
    exchange.feed(10_000, 0)
    assert (index(exchange), index_time(exchange)) == (0, 0)  # one of three is no quorum
    exchange.feed(9_000, 2)
    assert index(exchange) == 0  # two that are far apart are none either
    exchange.feed(10_300, 1)
    assert (index(exchange), index_time(exchange)) == (10_000, exchange.state.globals.time)


def test_index__first_of_an_even_number_that_agree__is_the_lower() -> None:
    exchange = Exchange(**CALM)
    exchange.feed(10_050, 0)
    exchange.feed(10_000, 1)
    assert index(exchange) == 10_000


@pytest.mark.parametrize(
    ("honest", "liar", "expected"),
    [
        (1_001_000, 1_005_000, 1_001_000),  # it moves to the nearer of the two
        (
            1_005_000,
            1_001_000,
            1_001_000,
        ),  # and the nearer may be the liar's: it holds back, it does not lead away
        (1_003_000, 998_100, 1_000_000),  # between the two it stands
        (999_000, 999_000, 999_000),
        (995_000, 999_900, 999_900),
        (1_010_000, 1_004_000, 1_000_000),  # further apart than feed_spread_max_ppm: none
        (1_000_000, 1, 1_000_000),
        (1_000_000, c.U32_MAX, 1_000_000),
    ],
)
def test_index__of_an_even_number__is_not_led_by_one_of_two(honest: int, liar: int, expected: int) -> None:
    exchange = Exchange(**CALM)
    exchange.feed(1_000_000)
    exchange.tick(exchange.state.params.feed_age_max_s + 1)  # the third is silent from here on
    exchange.feed(honest, 0)
    assert index(exchange) == 1_000_000
    exchange.feed(liar, 1)
    assert index(exchange) == expected


def test_index__by_one_feed_of_two_that_walks__stays_where_the_other_is() -> None:
    """However small its steps: the index lies between the two, or stands."""
    exchange = Exchange(**CALM)
    exchange.feed(1_000_000)
    exchange.tick(exchange.state.params.feed_age_max_s + 1)
    for step in range(1, 200):
        exchange.tick(1)
        exchange.feed(1_000_000, 0)
        exchange.feed(1_000_000 - 500 * step, 1)
        assert index(exchange) == 1_000_000


def test_index__of_too_few_or_of_feeds_that_disagree__stands_and_ages() -> None:
    exchange = Exchange(**CALM)
    exchange.feed(1_000_000)
    then, age = exchange.state.globals.time, exchange.state.params.feed_age_max_s
    exchange.tick(age + 1)
    exchange.feed(2_000_000, 0)
    assert (index(exchange), index_time(exchange)) == (1_000_000, then)
    exchange.feed(1_000_000, 1)
    assert (index(exchange), index_time(exchange)) == (1_000_000, then)
    exchange.feed(1_000_001, 2)
    assert (index(exchange), index_time(exchange)) == (1_000_001, then + age + 1)


def test_index__forgets_a_feed_older_than_feed_age_max() -> None:
    exchange = Exchange(**CALM)
    for source, price in enumerate((100_000, 100_100, 100_300)):
        exchange.feed(price, source)
    exchange.tick(180)
    exchange.feed(100_200, 2)
    assert index(exchange) == 100_100  # 180 s old is still fresh
    exchange.tick(1)
    exchange.feed(100_400, 2)
    assert index(exchange) == 100_100
    exchange.feed(100_600, 1)
    assert index(exchange) == 100_400  # without the first: the nearer of two


def test_index__is_of_the_time_since_which_a_quorum_has_reported() -> None:
    exchange = Exchange(**CALM)
    exchange.tick(1_000)
    newest = exchange.state.globals.time
    exchange.feed(100_000, 0)
    exchange.feed(100_000, 1, time=newest - 50)
    assert index_time(exchange) == newest - 50
    exchange.feed(100_100, 2, time=newest - 20)
    assert index_time(exchange) == newest - 20
    exchange.tick(1)
    exchange.feed(100_100, 0)
    assert index_time(exchange) == newest - 20  # one feed that says more makes nothing fresher
    exchange.feed(9_999, 1, time=newest - 49)
    assert (index(exchange), index_time(exchange)) == (100_100, newest - 20)


def test_index__of_an_old_report__does_not_count() -> None:
    exchange = Exchange(**CALM)
    exchange.tick(1_000)
    newest = exchange.state.globals.time
    exchange.feed(100_000, 0)
    exchange.feed(100_000, 1)
    assert exchange.feed(9_999, 2, time=newest - 500).reason is Reason.OK
    assert (index(exchange), index_time(exchange)) == (100_000, newest)


def test_feed__not_newer_or_ahead_of_time__is_refused() -> None:
    exchange = Exchange()
    now = exchange.state.globals.time
    assert exchange.feed(100, time=now + 1).reason is Reason.FEED_TIME
    assert exchange.feed(100, time=0).reason is Reason.FEED_TIME
    assert exchange.feed(100, time=now).reason is Reason.OK
    assert exchange.feed(101, time=now).reason is Reason.FEED_TIME
    exchange.tick(1)
    assert exchange.feed(0).reason is Reason.PRICE


def test_feed__of_a_stranger_or_an_unknown_number__is_refused() -> None:
    exchange = Exchange()
    fields = {"underlying": 0, "feed": 0, "time": exchange.state.globals.time, "price": 1}
    assert exchange.apply(exchange.signed(Kind.FEED, "feed 1", **fields)).reason is Reason.UNKNOWN_FEED
    for wrong in ({"feed": 3}, {"feed": 255}, {"underlying": 2}, {"underlying": 255}):
        raw = exchange.signed(Kind.FEED, "feed 0", **{**fields, **wrong})
        assert exchange.apply(raw).reason is Reason.UNKNOWN_FEED


# --- integral and snapshots ----------------------------------------------------------------------------


class NaiveIndex:
    """The index as a step function, and its integral by summing the steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []  # time, index from then on

    def integral(self, until: int) -> int:
        total = 0
        for (begin, price), (end, _) in zip(self.steps, [*self.steps[1:], (until, 0)], strict=True):
            total += price * max(min(end, until) - begin, 0)
        return total


GAPS = st.one_of(
    st.integers(1, 4_000), st.sampled_from([1_800, 3_600, 27_000, 28_800, 86_400]), st.integers(1, 6 * 86_400)
)


@settings(max_examples=examples(150))
@given(st.integers(1, 2**31), st.lists(st.tuples(GAPS, st.integers(1, 2**32 - 1)), min_size=1, max_size=25))
def test_snapshots__after_any_gaps__are_the_integral_at_the_bounds(
    start: int, steps: list[tuple[int, int]]
) -> None:
    underlying, naive = Underlying(), NaiveIndex()
    time = start
    for gap, price in steps:
        _advance(underlying, time)
        underlying.index = price
        naive.steps.append((time, price))
        day = time // c.DAY_S
        for one in range(max(day - c.SNAPSHOT_DAYS + 1, 0), day + 1):
            snapshot = underlying.snapshots[one % c.SNAPSHOT_DAYS]
            for bound, has, cumulative in (
                (expiry_time(one) - c.TWAP_S, snapshot.has_start, snapshot.cumulative_start),
                (expiry_time(one), snapshot.has_end, snapshot.cumulative_end),
            ):
                taken = start < bound <= time
                assert (snapshot.day == one and has) == taken
                if taken:
                    assert cumulative == naive.integral(bound) % 2**64
        assert underlying.cumulative == naive.integral(time) % 2**64
        time += gap


# --- listing -------------------------------------------------------------------------------------------


@pytest.fixture
def listed() -> Exchange:
    exchange = Exchange(**CALM)
    exchange.feeds(INDEX)
    return exchange


def ask(exchange: Exchange, **fields: int) -> Reason:
    return exchange.system(
        Kind.LIST, **{"underlying": 0, "day": FAR, "put": 0, "strike": INDEX, **fields}
    ).reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, Reason.OK),
        ({"put": 1}, Reason.OK),
        ({"put": 2}, Reason.LISTING_RULE),
        ({"strike": 0}, Reason.LISTING_RULE),
        ({"strike": INDEX + 1}, Reason.LISTING_RULE),
        ({"strike": 16 * INDEX}, Reason.OK),
        ({"strike": 16 * INDEX + 50_000}, Reason.LISTING_RULE),
        ({"strike": 350_000}, Reason.OK),
        ({"strike": 300_000}, Reason.LISTING_RULE),
        ({"strike": 2**31}, Reason.LISTING_RULE),
        ({"strike": 2**32 - 1}, Reason.LISTING_RULE),
        ({"day": TODAY}, Reason.LISTING_RULE),
        ({"day": TODAY + 1}, Reason.OK),
        ({"day": TODAY + 400}, Reason.OK),
        ({"day": TODAY + 401}, Reason.LISTING_RULE),
        ({"day": 0}, Reason.LISTING_RULE),
        ({"day": 65_535}, Reason.LISTING_RULE),
        ({"underlying": 1}, Reason.NO_INDEX),
        ({"underlying": 2}, Reason.NO_INDEX),
        ({"underlying": 255}, Reason.NO_INDEX),
    ],
)
def test_list__is_ruled_by_params(listed: Exchange, fields: dict[str, int], reason: Reason) -> None:
    assert ask(listed, **fields) is reason


@pytest.mark.parametrize(
    ("usd", "step_usd"),
    [
        (400_000, 5_000), (399_999, 2_500), (200_000, 2_500), (80_000, 1_000), (79_999, 500), (40_000, 500),
        (39_999, 250), (4_000, 50), (3_999, 25), (2_000, 25), (1_999, 10), (800, 10), (799, 5), (200, 2.5),
        (199, 1), (80, 1), (79, 1), (1, 1),
    ],
)  # fmt: skip
def test_strike_step__is_round_and_as_coarse_as_the_strike_is_high(usd: int, step_usd: float) -> None:
    for one in (BTC, ETH):
        assert market.strike_step(usd * 100, one) == step_usd * 100


def test_strike_step__of_any_parameters__divides_into_round_numbers() -> None:
    for ppm in (0, 1, 12_500, 10**6, c.U32_MAX):
        for least in (1, 7, c.U32_MAX):
            one = replace(BTC, strike_step_ppm=ppm, strike_step_min_ticks=least)
            for strike in (1, 2, 9, 10, 99, 10**6, 2**31 - 1):
                bound = strike * ppm // c.PPM
                steps = [10**n * k // 10 for n in range(15) for k in (10, 25, 50) if 10**n * k // 10 <= bound]
                assert market.strike_step(strike, one) == max(least, *steps, 1)


def test_list__takes_the_strikes_that_a_venue_lists() -> None:
    """Of recorded chains, every strike; at one step of 500 USD one in nine of ETH's within a fifth of the index."""
    chain = DATA / "deribit-chain-6h" / "chain_202601.parquet"
    if not chain.is_file():
        pytest.skip(f"no recorded chain at {chain} (set FAIRSTRIKE_DATA)")
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow does not import here", exc_type=ImportError
    )
    table = parquet.read_table(
        chain, columns=["currency", "expiry_datetime", "strike", "index_price"]
    ).to_pydict()
    for name, one, least in (("BTC", BTC, 700), ("ETH", ETH, 800)):
        rows = [row for row in zip(*table.values(), strict=True) if row[0] == name]
        every = {(day, round(strike * 100)) for _, day, strike, _ in rows}
        near = {
            (day, round(strike * 100)) for _, day, strike, index in rows if abs(strike / index - 1) <= 0.2
        }
        assert len(near) > least
        assert all(strike % market.strike_step(strike, one) == 0 for _, strike in every)


def test_list__of_the_same_terms__happens_once(listed: Exchange) -> None:
    assert ask(listed) is Reason.OK
    assert ask(listed) is Reason.ALREADY_LISTED


def test_list__up_to_half_an_hour_before_expiry__and_no_later(listed: Exchange) -> None:
    listed.tick_at(expiry_time(NEAR) - c.TWAP_S - 1)
    assert ask(listed, day=NEAR) is Reason.OK
    listed.tick(1)
    assert ask(listed, day=NEAR, put=1) is Reason.LISTING_RULE


def test_list__fills_pages_of_32_rows_in_order(listed: Exchange) -> None:
    numbers = [listed.list(FAR, INDEX + 50_000 * i, put) for i in range(20) for put in (0, 1)]
    first = FAR << 12
    assert numbers == [first + i for i in range(40)]
    assert [len(page.terms) for page in listed.state.pages.values()] == [32, 8]


def test_list__of_a_full_expiry__is_refused(listed: Exchange) -> None:
    listed.list()
    listed.state.expiries[FAR].listed = 4_096
    assert ask(listed, put=1) is Reason.EXPIRY_FULL


# --- surfaces ------------------------------------------------------------------------------------------


def test_surface__of_an_expiry_that_is_not_listed__is_refused(listed: Exchange) -> None:
    assert listed.surface(FAR).reason is Reason.UNKNOWN_INSTRUMENT


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({}, Reason.OK),
        ({"forward": 0}, Reason.SURFACE),
        ({"index": 0}, Reason.SURFACE),
        ({"sigma": 0}, Reason.SURFACE),
        ({"b": -1}, Reason.SURFACE),
        ({"rho": 10**12 + 1}, Reason.SURFACE),
        ({"rho": -(10**12)}, Reason.OK),
        ({"a": -(2**63)}, Reason.SURFACE),
        ({"m": 2**63 - 1}, Reason.SURFACE),
    ],
)
def test_surface__out_of_its_bounds__is_refused(
    listed: Exchange, shape: dict[str, int], reason: Reason
) -> None:
    listed.list()
    assert listed.surface(FAR, **shape).reason is reason


def test_surface__not_newer_ahead_of_time_or_after_expiry__is_refused(listed: Exchange) -> None:
    listed.list(NEAR)
    now = listed.state.globals.time
    assert listed.surface(NEAR, time=now + 1).reason is Reason.FEED_TIME
    assert listed.surface(NEAR, time=now).reason is Reason.OK
    assert listed.surface(NEAR, time=now).reason is Reason.FEED_TIME
    listed.tick_at(expiry_time(NEAR) + 5)
    assert listed.surface(NEAR).reason is Reason.FEED_TIME


def test_surface__with_a_forward_too_far_from_its_index__is_refused(listed: Exchange) -> None:
    listed.list()
    for source, forward, reason in (
        (0, INDEX * 5 // 4, Reason.OK),
        (1, INDEX * 5 // 4 + 1, Reason.SURFACE),
        (1, INDEX * 3 // 4, Reason.OK),
        (2, INDEX * 3 // 4 - 1, Reason.SURFACE),
        (2, 1, Reason.SURFACE),
        (2, c.U32_MAX, Reason.SURFACE),
    ):
        assert listed.surface(FAR, source, forward=forward).reason is reason


# --- marks ---------------------------------------------------------------------------------------------


def test_risk__of_a_fresh_page__is_the_risk_arrays(listed: Exchange) -> None:
    call, put = listed.list(), listed.list(put=1)
    assert listed.surface(FAR).reason is Reason.OK
    assert listed.risk(call).reason is Reason.OK
    page, shocks = listed.state.pages[call >> 5], listed.state.shocks[0]
    assert (page.time, page.index, page.forward) == (listed.state.globals.time, INDEX, INDEX)
    for row, is_put in ((call & 31, False), (put & 31, True)):
        assert page.rows[row] == risk_array.scenarios(
            INDEX, INDEX, is_put, 30_000_000_000, shocks, shocks.left(expiry_time(FAR) - page.time)
        )


def test_risk__moves_the_reported_forwards_with_the_index__rounded_half_up(listed: Exchange) -> None:
    call = listed.list()
    listed.surface(FAR, forward=INDEX + 50_001, index=INDEX + 1)
    listed.feeds(INDEX // 2)
    listed.risk(call)
    assert listed.state.pages[call >> 5].forward == 2_525_000  # 2,524,999.995 + 0.5


def row_of(exchange: Exchange, page: Page, variance: int) -> tuple[int, tuple[int, ...]]:
    """Of the call at INDEX."""
    shocks = exchange.state.shocks[0]
    left = shocks.left(expiry_time(FAR) - page.time)
    return risk_array.scenarios(page.forward, INDEX, False, variance, shocks, left)


def test_risk__by_the_median_of_forwards_and_variances__follows_no_single_feed(listed: Exchange) -> None:
    call = listed.list()
    for source, (forward, a) in enumerate(((INDEX + 1_000, 3), (INDEX, 1), (INDEX - 3_000, 2))):
        listed.surface(FAR, source, forward=forward, a=a * 10**10)
    assert listed.risk(call).reason is Reason.OK
    page = listed.state.pages[call >> 5]
    assert page.forward == INDEX
    assert page.rows[0] == row_of(listed, page, 2 * 10**10)


def test_risk__below_the_quorum_of_fresh_surfaces__is_refused(listed: Exchange) -> None:
    call, age = listed.list(), listed.state.params.surface_age_max_s
    listed.surface(FAR, 1)
    assert listed.risk(call).reason is Reason.NO_SURFACE
    listed.tick(age)
    listed.surface(FAR, 0)
    listed.feeds(INDEX)
    listed.tick_at(listed.state.expiries[FAR].reports[1].time + age + 1)
    assert listed.risk(call).reason is Reason.NO_SURFACE
    listed.surface(FAR, 2)
    assert listed.risk(call).reason is Reason.OK


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, Reason.OK),
        ({"a": 36_000_000_000}, Reason.OK),  # a fifth more variance
        ({"a": 36_000_000_001}, Reason.FEEDS_DISAGREE),
        ({"a": 25_000_000_000}, Reason.OK),
        ({"a": 24_999_999_999}, Reason.FEEDS_DISAGREE),
        ({"forward": INDEX + INDEX // 200}, Reason.OK),
        ({"forward": INDEX + INDEX // 200 + 1}, Reason.FEEDS_DISAGREE),
        ({"forward": INDEX - INDEX // 100}, Reason.FEEDS_DISAGREE),
    ],
)
def test_risk__of_two_feeds_that_disagree__has_no_marks(
    listed: Exchange, changes: dict[str, int], reason: Reason
) -> None:
    call = listed.list()
    listed.surface(FAR, 0)
    listed.surface(FAR, 1, **changes)
    before = listed.state.pages[call >> 5].words()
    assert listed.risk(call).reason is reason
    assert (listed.state.pages[call >> 5].words() == before) == (reason is not Reason.OK)
    listed.surface(FAR, 2)
    assert listed.risk(call).reason is Reason.OK


def test_risk__of_two_feeds_that_differ_where_nothing_is_at_stake__has_marks(listed: Exchange) -> None:
    """In a far wing twice the variance moves the price by less than mark_spread_max_ppm of the index."""
    call = listed.list(FAR, 3 * INDEX)
    listed.surface(FAR, 0)
    listed.surface(FAR, 1, a=60_000_000_000)
    assert listed.risk(call).reason is Reason.OK
    assert listed.mark(call) < INDEX // 1_000
    listed.list(FAR, INDEX)
    assert listed.risk(call).reason is Reason.FEEDS_DISAGREE


def test_risk__of_two_feeds_that_agree__is_at_their_mean(listed: Exchange) -> None:
    call = listed.list()
    listed.surface(FAR, 0, forward=INDEX + 1_001, a=30_000_000_001)
    listed.surface(FAR, 1, a=33_000_000_000)
    assert listed.risk(call).reason is Reason.OK
    page = listed.state.pages[call >> 5]
    assert page.forward == INDEX + 500
    assert page.rows[0] == row_of(listed, page, 31_500_000_000)


def test_risk__without_page_surface_or_fresh_index__is_refused(listed: Exchange) -> None:
    assert listed.risk(FAR << 12).reason is Reason.UNKNOWN_INSTRUMENT
    call = listed.list()
    assert listed.risk(call).reason is Reason.NO_SURFACE
    listed.surface(FAR)
    listed.tick(180)
    assert listed.risk(call).reason is Reason.OK
    listed.tick(1)
    assert listed.risk(call).reason is Reason.NO_INDEX


@pytest.mark.parametrize(
    "fields", [{"underlying": 16}, {"underlying": 255}, {"page": 128}, {"page": 255}, {"page": 1}]
)
def test_risk__of_a_page_that_cannot_be__is_refused(listed: Exchange, fields: dict[str, int]) -> None:
    """Page 128 of a day has the number of page 0 of the next one."""
    listed.list(FAR)
    listed.list(FAR + 1)
    for day in (FAR, FAR - 1):
        out = listed.system(Kind.RISK, **{"underlying": 0, "day": day, "page": 0, **fields})
        assert out.reason is Reason.UNKNOWN_INSTRUMENT


def test_risk__between_expiry_and_fix__is_intrinsic_at_the_index(listed: Exchange) -> None:
    call, put = listed.list(NEAR, INDEX - 50_000), listed.list(NEAR, INDEX + 50_000, put=1)
    listed.surface(NEAR)
    listed.tick_at(expiry_time(NEAR))
    listed.feeds(INDEX + 7)
    assert listed.risk(call).reason is Reason.OK
    assert (listed.mark(call), listed.mark(put)) == (50_007, 49_993)


def test_risk__after_fix__is_the_settlement_value_with_nothing_at_risk(listed: Exchange) -> None:
    call = listed.list(NEAR, INDEX - 50_000)
    listed.expire(NEAR, INDEX)
    listed.tick(10_000)  # needs no fresh index
    assert listed.risk(call).reason is Reason.OK
    mark, pnl = listed.state.pages[call >> 5].rows[0]
    assert mark == intrinsic(listed.state.expiries[NEAR].settlement, INDEX - 50_000, False)
    assert pnl == (0,) * 16
