"""FEED, SURFACE, LIST, RISK: the index and its integral, surfaces, the listing rule, marks."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import risk_array
from sequencer.protocol.black76 import intrinsic
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Underlying
from sequencer.protocol.market import _advance
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, FAR, INDEX, NEAR, TODAY, Exchange, examples


def index(exchange: Exchange) -> int:
    return exchange.state.underlyings[0].index


# --- index ---------------------------------------------------------------------------------------------


def test_index__is_the_median_of_the_feeds() -> None:
    exchange = Exchange(**CALM)
    exchange.feed(100, 0)
    assert index(exchange) == 100
    exchange.feed(205, 1)
    assert index(exchange) == 152  # two: the mean, floor
    exchange.feed(9_999, 2)
    assert index(exchange) == 205


def test_index__forgets_a_feed_older_than_feed_age_max() -> None:
    exchange = Exchange(**CALM)
    for source, price in enumerate((100, 200, 300)):
        exchange.feed(price, source)
    exchange.tick(180)
    exchange.feed(1_000, 2)
    assert index(exchange) == 200  # 180 s old is still fresh
    exchange.tick(1)
    exchange.feed(1_001, 2)
    assert index(exchange) == 1_001


def test_index__from_a_late_report__keeps_the_newest_time() -> None:
    exchange = Exchange(**CALM)
    exchange.tick(1_000)
    exchange.feed(100, 0)
    newest = exchange.state.globals.time
    assert exchange.feed(300, 1, time=newest - 50).reason is Reason.OK
    assert exchange.state.underlyings[0].time == newest
    assert index(exchange) == 200
    assert exchange.feed(9_999, 2, time=newest - 500).reason is Reason.OK  # not fresh: does not count
    assert index(exchange) == 200


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


def test_surface__with_the_lower_median_variance__rules(listed: Exchange) -> None:
    listed.list()
    expiry = listed.state.expiries[FAR]
    chosen = []
    for source, a in enumerate((3 * 10**10, 10**10, 2 * 10**10)):
        listed.surface(FAR, source, a=a)
        chosen.append(expiry.chosen)
    assert chosen == [0, 1, 2]


# --- marks ---------------------------------------------------------------------------------------------


def test_risk__of_a_fresh_page__is_the_risk_arrays(listed: Exchange) -> None:
    call, put = listed.list(), listed.list(put=1)
    assert listed.surface(FAR).reason is Reason.OK
    assert listed.risk(call).reason is Reason.OK
    page = listed.state.pages[call >> 5]
    assert (page.time, page.index, page.forward) == (listed.state.globals.time, INDEX, INDEX)
    for row, is_put in ((call & 31, False), (put & 31, True)):
        assert page.rows[row] == risk_array.scenarios(
            INDEX, INDEX, is_put, 30_000_000_000, listed.state.shocks
        )


def test_risk__moves_the_reported_forward_with_the_index__rounded_half_up(listed: Exchange) -> None:
    call = listed.list()
    listed.surface(FAR, forward=INDEX + 1, index=2 * INDEX)
    listed.risk(call)
    assert listed.state.pages[call >> 5].forward == 2_500_001  # 2,500,000.5


def test_risk__of_an_extreme_forward__stays_in_32_bits(listed: Exchange) -> None:
    call = listed.list()
    listed.surface(FAR, forward=2**32 - 1, index=1)
    assert listed.risk(call).reason is Reason.OK
    assert listed.state.pages[call >> 5].forward == 2**32 - 1
    listed.tick(1)
    listed.surface(FAR, forward=1, index=2**32 - 1)
    assert listed.risk(call).reason is Reason.OK
    assert listed.state.pages[call >> 5].forward == 1


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
