"""What order reserves, exits and liquidations rest on: facts of IM over options as Black-76 prices them."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import margin, risk_array
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.state import State

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import DOMAIN, examples, params

DAY = 86_400
YEAR = 31_536_000
FORWARDS = (5_000_000, 300_000)
DAYS = (0.25, 1, 7, 30, 180)
STEPS = range(-9, 10, 2)  # strikes, in 2 % of the forward
IV = 0.55


def variance(days: float) -> int:
    return int(IV * IV * days * DAY / YEAR * 1e12)


@cache
def world() -> State:
    """Calls and puts of ten strikes of five expiries of both underlyings, thirty rows or less a page."""
    state = State(DOMAIN, params(), (0, 1))
    for underlying, forward in enumerate(FORWARDS):
        for day, days in enumerate(DAYS):
            page = state.pages[underlying << 23 | day << 7] = Page()
            page.index, page.forward, page.time = forward, forward, 1
            shocks, left = state.shocks[underlying], state.shocks[underlying].left(int(days * DAY))
            for step in STEPS:
                strike = forward * (50 + step) // 50
                for put in (False, True):
                    page.terms.append(put << 31 | strike)
                    page.rows.append(risk_array.scenarios(forward, strike, put, variance(days), shocks, left))
            page.marked = len(page.terms)
    return state


INSTRUMENTS = [
    (underlying << 23 | day << 7) << 5 | row
    for underlying in (0, 1)
    for day in range(len(DAYS))
    for row in range(2 * len(STEPS))
]
SHORT_OR_LONG = st.integers(-30_000, 30_000).filter(bool)
PORTFOLIOS = st.dictionaries(st.sampled_from(INSTRUMENTS), SHORT_OR_LONG, max_size=8)
LONGS = st.dictionaries(st.sampled_from(INSTRUMENTS), st.integers(1, 30_000), max_size=8)


def account_of(positions: dict[int, int]) -> Account:
    account = Account(bytes(20))
    account.positions = {instrument: lots for instrument, lots in sorted(positions.items()) if lots}
    margin.refresh(world(), account)
    return account


def im(positions: dict[int, int]) -> int:
    return margin.initial(world(), account_of(positions))


def plus(positions: dict[int, int], instrument: int, lots: int) -> dict[int, int]:
    return {**positions, instrument: positions.get(instrument, 0) + lots}


@settings(max_examples=examples(150), deadline=None)
@given(LONGS)
def test_longs_alone__hold_at_most_their_value(positions: dict[int, int]) -> None:
    account = account_of(positions)
    assert 0 <= margin.initial(world(), account) <= account.sums.value
    assert margin.free(world(), account) >= account.cash - account.reserved


@settings(max_examples=examples(150), deadline=None)
@given(PORTFOLIOS, st.sampled_from(INSTRUMENTS), st.integers(1, 30_000))
def test_a_short__adds_at_most_its_risk(positions: dict[int, int], instrument: int, lots: int) -> None:
    page = world().pages[instrument >> 5]
    most = lots * margin.short_risk(world(), page, instrument)
    assert im(plus(positions, instrument, -lots)) <= im(positions) + most


def least_in_between(positions: dict[int, int]) -> int:
    """The lowest P&L of both sets at forty moves inside the range, by the integer core; 1e-6 USD, underlyings apart."""
    state, total = world(), 0
    for underlying, forward in enumerate(FORWARDS):
        held = {one: lots for one, lots in positions.items() if one >> 28 == underlying and lots}
        shocks, worst = state.shocks[underlying], 0
        for half in range(2):
            for place in range(-20, 21):
                moved = forward * (1_000_000 + shocks.third_ppm * 3 * place // 20) // 1_000_000
                pnl = 0
                for instrument, lots in held.items():
                    page = state.pages[instrument >> 5]
                    strike, put = page.terms[instrument & 31] & 0x7FFF_FFFF, page.terms[instrument & 31] >> 31
                    pnl += lots * (fair(moved, strike, put, instrument >> 12 & 0xFFFF, underlying, half)
                                   - page.rows[instrument & 31][0])  # fmt: skip
                worst = min(worst, pnl)
        total += worst
    return total


@cache
def fair(forward: int, strike: int, put: int, day: int, underlying: int, half: int) -> int:
    """Mark after the horizon with the volatility up (0) or down (1), ticks."""
    left = world().shocks[underlying].left(int(DAYS[day] * DAY))[half]
    shocked = variance(DAYS[day]) * left * left // 10**12
    still = replace(world().shocks[underlying], price_range_ppm=0)
    return risk_array.scenarios(forward, strike, bool(put), shocked, still, (0, 0))[0]


def portfolio(random: Random) -> dict[int, int]:
    return {
        random.choice(INSTRUMENTS): random.choice((-1, 1)) * random.randint(1, 30_000)
        for _ in range(random.randint(1, 8))
    }


@pytest.mark.parametrize("seed", range(examples(3)))
def test_im__is_at_least_the_loss_at_any_move_inside_the_range(seed: int) -> None:
    random = Random(seed)
    for _ in range(15):
        positions = portfolio(random)
        roundings = 2 * sum(map(abs, positions.values()))  # of marks and rows to ticks
        assert im(positions) >= -least_in_between(positions) - roundings


@pytest.mark.parametrize("seed", range(examples(3)))
def test_a_long__adds_at_most_its_mark_to_the_loss(seed: int) -> None:
    """What a maker's buy needs: IM may rise by more, where longs are bent in two places; the loss may not."""
    random = Random(seed)
    for _ in range(10):
        positions = portfolio(random)
        instrument, lots = random.choice(INSTRUMENTS), random.randint(1, 30_000)
        mark = world().pages[instrument >> 5].rows[instrument & 31][0]
        before, after = least_in_between(positions), least_in_between(plus(positions, instrument, lots))
        assert -after <= -before + lots * mark


def test_longs_bent_in_two_places__may_hold_more_together_than_apart() -> None:
    """The bound of a sum knows less than the sum of the bounds; RISK says so; reserves do not rest on it."""
    random, more = Random(1), 0
    for _ in range(300):
        one, other = portfolio(random), {random.choice(INSTRUMENTS): random.randint(1, 30_000)}
        together = one
        for instrument, lots in other.items():
            together = plus(together, instrument, lots)
        more += im(together) > im(one) + account_of(other).sums.value
    print(f"{more} of 300 rise by more than the mark of the long")
    assert 0 < more < 60


def test_shares_of_a_portfolio__hold_their_share() -> None:
    """A bid takes fraction/256 of every position: what is taken of IM is that part."""
    random = Random(2)
    for _ in range(100):
        positions = {one: lots // 256 * 256 or 256 for one, lots in portfolio(random).items()}
        part = random.randint(1, 255)
        left = {one: lots - lots * part // 256 for one, lots in positions.items()}
        assert im(left) == pytest.approx(im(positions) * (256 - part) / 256, abs=10)
