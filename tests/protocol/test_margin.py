"""Portfolio margin: kept sums equal fresh ones, the definition, roundings, limits of a portfolio."""

import sys
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import freshness, margin
from sequencer.protocol.entries import NEVER, Account, Page
from sequencer.protocol.state import State

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import DOMAIN, examples, params

I32 = st.one_of(st.sampled_from([-(2**31), 2**31 - 1, 0]), st.integers(-100_000, 100_000))
ROWS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.lists(I32, min_size=16, max_size=16)), min_size=8, max_size=8
)
LOTS = st.one_of(
    st.integers(-1_000, 1_000), st.sampled_from([c.POSITION_LOTS_MAX, -c.POSITION_LOTS_MAX])
).filter(bool)

PUT = 1 << 31
PAGES = (8, 9, 1 << 7 | 8, 1 << 23 | 8)  # two of one expiry, one of another, one of another underlying
TERMS = ((5_000, 5_000 | PUT), (5_000, 6_000), (5_000, 5_000 | PUT), (300 | PUT, 300))


def world(
    rows: list[tuple[int, list[int]]], index: int = 5_000_000, time: int = 100
) -> tuple[State, list[int]]:
    """Four pages of two instruments each; a call and a put of one strike on three of them."""
    state = State(DOMAIN, params(), (0, 1))
    for underlying in state.underlyings.values():
        underlying.index = index
    for page_id, terms in zip(PAGES, TERMS, strict=True):
        page = state.pages[page_id] = Page()
        page.index, page.forward, page.time = index, index + 7, time + (page_id & 127)
        page.rows = [(mark, tuple(pnl)) for mark, pnl in rows[:2]]
        page.terms = list(terms)
        page.marked = 2
        rows = rows[2:]
    return state, [page_id << 5 | row for page_id in PAGES for row in (0, 1)]


def naive(state: State, account: Account) -> tuple[int, int, int, int]:
    """(equity, IM, MM, free) by the definition, with exact fractions."""
    value = sum(q * state.pages[i >> 5].rows[i & 31][0] for i, q in account.positions.items())
    im = 0
    for underlying in (0, 1):
        held = {i: q for i, q in account.positions.items() if i >> 28 == underlying}
        im += naive_floor(state, held, underlying) - naive_worst(state, held, underlying)
    mm = ceil(Fraction(im * state.params.maintenance_ppm, c.PPM))
    equity = account.cash + value
    return equity, im, mm, equity - im - account.reserved


def naive_floor(state: State, held: dict[int, int], underlying: int) -> int:
    net: dict[tuple[int, bool], int] = {}
    gross = 0
    for instrument, q in held.items():
        page = state.pages[instrument >> 5]
        side = instrument >> 12, page.terms[instrument & 31] >= PUT
        net[side] = net.get(side, 0) - q * page.index
        gross += max(-q, 0) * page.index
    shorts = sum(
        max(0, net.get((expiry, False), 0), net.get((expiry, True), 0))
        for expiry in sorted({expiry for expiry, _ in net})
    )
    own = state.params.underlyings[underlying]
    return ceil(Fraction(max(shorts * own.short_floor_ppm, gross * state.params.short_gross_ppm), c.PPM))


def naive_worst(state: State, held: dict[int, int], underlying: int) -> int:
    """The least of sum q x P&L: at the scenarios, and where the longs' prolonged chords cross; t from move to move."""
    third = state.params.underlyings[underlying].price_range_ppm // 3
    net, longs = [0] * 16, [0] * 16
    value, steepest = 0, [Fraction(0), Fraction(0)]
    for instrument, q in held.items():
        page = state.pages[instrument >> 5]
        terms = page.terms[instrument & 31]
        mark, pnl = page.rows[instrument & 31]
        mates = [
            lots
            for other, lots in held.items()
            if other >> 5 == instrument >> 5 and page.terms[other & 31] == terms ^ PUT and lots < 0
        ]
        lots = max(0, q + sum(mates))
        net = [total + q * one for total, one in zip(net, pnl, strict=True)]
        longs = [total + lots * one for total, one in zip(longs, pnl, strict=True)]
        value += lots * mark
        steepest[terms < PUT] += Fraction(lots * page.forward * third, c.PPM)
    outer = -ceil(steepest[0]), ceil(steepest[1])
    worst = min(0, *net)
    for start in (0, 8):
        values = longs[start : start + 7]
        chords = [outer[0], *(b - a for a, b in pairwise(values)), outer[1]]
        for k in range(6):
            before, chord, after = chords[k : k + 3]
            if after <= before:
                continue
            t = max(Fraction(0), min(Fraction(after - chord, after - before), Fraction(1)))
            shorts = values[k] - net[start + k], values[k + 1] - net[start + k + 1]
            found = values[k] + before * t - (shorts[0] + (shorts[1] - shorts[0]) * t)
            worst = min(worst, max(floor(found), -value - max(shorts)))
    return worst


@settings(max_examples=examples(100))
@given(
    ROWS, st.dictionaries(st.integers(0, 7), LOTS), st.integers(-(10**15), 10**15), st.integers(0, 2**64 - 1)
)
def test_margin__equals_its_definition(
    rows: list[tuple[int, list[int]]], held: dict[int, int], cash: int, reserved: int
) -> None:
    state, instruments = world(rows)
    account = Account(bytes(20))
    account.cash, account.reserved = cash, reserved
    account.positions = {instruments[i]: q for i, q in held.items()}
    margin.refresh(state, account)
    answer = (
        margin.equity(account),
        margin.initial(state, account),
        margin.maintenance(state, account),
        margin.free(state, account),
    )
    assert answer == naive(state, account)


@settings(max_examples=examples(100))
@given(ROWS, st.lists(st.tuples(st.integers(0, 7), LOTS), max_size=20), st.integers(0, 19))
def test_move__step_by_step__keeps_the_sums_that_a_fresh_look_gives(
    rows: list[tuple[int, list[int]]], moves: list[tuple[int, int]], remarked: int
) -> None:
    state, instruments = world(rows)
    account = Account(bytes(20))
    margin.refresh(state, account)
    for step, (index, delta) in enumerate(moves):
        instrument = instruments[index]
        page = state.pages[instrument >> 5]
        if step == remarked:
            page.rows = [(mark // 2, pnl) for mark, pnl in page.rows]
            page.time += 7
            state.epoch += 1
        if not margin.can_hold(account, instrument, delta):
            continue
        margin.move(account, page, instrument, delta)
        margin.refresh(state, account)
        fresh = account.clone()
        fresh.epoch = NEVER
        margin.refresh(state, fresh)
        assert account.sums == fresh.sums
        assert 0 not in account.positions.values()


@settings(max_examples=examples(100))
@given(
    st.dictionaries(st.integers(0, 200), st.integers(1, 5), max_size=70),
    st.integers(0, 220),
    st.sampled_from([1, -1, c.POSITION_LOTS_MAX, -c.POSITION_LOTS_MAX, c.POSITION_LOTS_MAX + 1]),
)
def test_can_hold__is_the_limits_and_nothing_else(held: dict[int, int], one: int, delta: int) -> None:
    """Positions as instrument x 16, so that every second is on a page of its own."""
    account = Account(bytes(20))
    for instrument, lots in held.items():
        if margin.can_hold(account, instrument * 16, lots):
            account.positions[instrument * 16] = lots
    after = dict(account.positions)
    after[one * 16] = after.get(one * 16, 0) + delta
    allowed = (
        abs(after[one * 16]) <= c.POSITION_LOTS_MAX
        and len(after) <= c.POSITIONS_MAX
        and len({instrument >> 5 for instrument in after}) <= c.PAGES_MAX
    )
    assert margin.can_hold(account, one * 16, delta) == allowed


def test_can_hold__at_64_positions__lets_only_those_change() -> None:
    account = Account(bytes(20))
    for instrument in range(64):
        assert margin.can_hold(account, instrument, 1)
        account.positions[instrument] = 1
    assert not margin.can_hold(account, 64, 1)
    assert margin.can_hold(account, 63, c.POSITION_LOTS_MAX - 1)
    assert not margin.can_hold(account, 63, c.POSITION_LOTS_MAX)
    assert margin.can_hold(account, 63, -c.POSITION_LOTS_MAX - 1)
    assert not margin.can_hold(account, 63, -c.POSITION_LOTS_MAX - 2)


def test_can_hold__at_16_pages__refuses_the_17th_only() -> None:
    account = Account(bytes(20))
    for page in range(16):
        account.positions[page << 5] = 1
    assert not margin.can_hold(account, 16 << 5, 1)
    assert margin.can_hold(account, 15 << 5 | 31, 1)


def test_is_stale__rests_on_the_oldest_page() -> None:
    state, instruments = world([(1, [0] * 16)] * 8)
    account = Account(bytes(20))
    account.positions = {instruments[0]: 1, instruments[2]: -1}
    margin.refresh(state, account)
    state.globals.time = 108 + state.params.risk_age_max_s
    assert not margin.is_stale(state, account)
    state.globals.time += 1
    assert margin.is_stale(state, account)
    margin.move(account, state.pages[8], instruments[0], -1)
    margin.refresh(state, account)
    assert not margin.is_stale(state, account)


def test_is_stale__when_the_index_has_moved_since_a_page_was_marked() -> None:
    state, instruments = world([(1, [0] * 16)] * 8, index=1_000_000)
    account = Account(bytes(20))
    account.positions = {instruments[0]: 1, instruments[6]: -1}
    for underlying, limit in ((0, 1_005_025), (0, 995_025), (1, 1_005_025)):
        for index, is_stale in ((limit, False), (limit + (1 if limit > 10**6 else -1), True)):
            state.underlyings[underlying].index = index
            margin.refresh(state, account)
            assert margin.is_stale(state, account) is is_stale
            assert bool(freshness.unfit_pages(state, account)) is is_stale
        state.underlyings[underlying].index = 1_000_000


def test_is_stale__when_another_page_was_marked_later() -> None:
    state, instruments = world([(1, [0] * 16)] * 8)
    account = Account(bytes(20))
    account.positions = {instruments[0]: 1, instruments[4]: -1, instruments[6]: -1}
    state.pages[PAGES[3]].time += 1_000  # of another underlying: nothing offsets between them
    for late, is_stale in ((60, False), (61, True)):
        state.pages[PAGES[2]].time = state.pages[PAGES[0]].time + late
        account.epoch = NEVER
        margin.refresh(state, account)
        assert margin.is_stale(state, account) is is_stale
        assert freshness.pages_apart(state, account) == ([], [PAGES[0]] if is_stale else [])
    state.pages[PAGES[2]].time = c.MARKED_FOR_GOOD
    account.epoch = NEVER
    margin.refresh(state, account)
    assert not margin.is_stale(state, account)


@pytest.mark.parametrize(
    ("index", "late", "hedges"), [(0, 0, True), (5_000, 60, True), (5_001, 0, False), (0, 61, False)]
)
def test_cautious__old_pages__hedge_each_other_when_they_were_marked_together(
    index: int, late: int, hedges: bool
) -> None:
    state, instruments = world([(100, [-50] * 8 + [50] * 8)] * 8, index=1_000_000)
    account = Account(bytes(20))
    account.cash = 10_000
    account.positions = {instruments[0]: 3, instruments[4]: -3}
    early, other = state.pages[PAGES[0]], state.pages[PAGES[2]]
    other.index, other.time = early.index + index, early.time + late
    state.globals.time = early.time + late + state.params.risk_age_max_s + 1
    equity, risk, worth = margin.cautious(state, account)
    apart = []
    for instrument, lots in account.positions.items():
        leg = Account(bytes(20))
        leg.positions = {instrument: lots}
        margin.refresh(state, leg)
        apart.append(margin.initial(state, leg))
    margin.refresh(state, account)
    together = margin.initial(state, account)
    assert together < sum(apart)
    assert (risk, worth) == (0, 10_000)
    assert equity == worth - (together if hedges else sum(apart))


def test_is_stale__without_positions__never() -> None:
    state, _ = world([(1, [0] * 16)] * 8)
    account = Account(bytes(20))
    margin.refresh(state, account)
    state.globals.time = c.U32_MAX
    assert not margin.is_stale(state, account)


def test_initial__of_a_hedged_short__is_the_gross_floor_alone() -> None:
    row = (100, [5] * 16)
    state, instruments = world([row] * 8, index=333)
    account = Account(bytes(20))
    account.positions = {instruments[2]: 7, instruments[3]: -7}
    margin.refresh(state, account)
    assert margin.initial(state, account) == ceil(7 * 333 / 10_000)


@pytest.mark.parametrize(
    ("side", "price", "covered", "rate"),
    [
        (c.BUY, 250, False, 250),
        (c.SELL, 250, False, 1_000 + 400 + 51 - 250),
        (c.SELL, 5_000, False, 0),
        (c.SELL, 250, True, 750),
        (c.SELL, 1_500, True, 0),
    ],
)
def test_reserve_rate__is_the_worst_of_a_fill(side: int, price: int, covered: bool, rate: int) -> None:
    state, _ = world([(1_000, [-300] * 15 + [400])] * 8, index=5_001)
    assert margin.reserve_rate(state, state.pages[8], 8 << 5, side, price, covered) == rate


def test_reserve_rate__with_a_makers_fee__adds_its_cap_rounded_up() -> None:
    state, _ = world([(1_000, [0] * 16)] * 8)
    state.params = params(maker_fee_ppm=1)
    assert margin.reserve_rate(state, state.pages[8], 8 << 5, c.BUY, 251, False) == 251 + 32


def test_reserve_rate__of_the_greatest_price__fits_32_bits() -> None:
    state, _ = world([(2**32 - 1, [2**31 - 1] * 16)] * 8, index=2**32 - 1)
    state.params = params(maker_fee_ppm=1)
    assert margin.reserve_rate(state, state.pages[8], 8 << 5, c.BUY, 2**32 - 1, False) == 2**32 - 1
    assert margin.reserve_rate(state, state.pages[8], 8 << 5, c.SELL, 1, False) == 2**32 - 1
