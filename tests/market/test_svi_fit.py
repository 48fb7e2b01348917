"""Surfaces fitted to known smiles, to hostile points, and to a recorded chain."""

import os
import random
import time
from math import exp, hypot, log, sqrt
from pathlib import Path
from statistics import median

import pytest

from sequencer.market.svi_fit import (
    FitError,
    SmilePoint,
    fit,
    flat,
    forward_of,
    implied_volatility,
    later,
    variance,
)
from sequencer.market.tape import START_S, YEAR_S, expiry_s, generate_tape, load_tape, parse_instrument
from sequencer.protocol.surface import ONE_E12, Surface, is_sound, is_valid, variance_at_e12

DATA = Path(os.environ.get("FAIRSTRIKE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
FORWARD = 40_000.0
SMILES = {  # (a, b, rho, m, sigma), years
    "one day": ((0.0005, 0.02, 0.1, 0.0, 0.03), 1 / 365),
    "one week": ((0.001, 0.05, 0.0, 0.0, 0.05), 7 / 365),
    "one quarter": ((0.02, 0.1, -0.3, 0.02, 0.15), 0.25),
    "one year": ((0.1, 0.2, -0.5, 0.1, 0.3), 1.0),
}


def smile(
    parameters: tuple[float, ...], years: float, noise: float = 0.0, count: int = 21
) -> list[SmilePoint]:
    a, b, rho, m, sigma = parameters
    dice = random.Random(5)
    points = []
    for position in range(count):
        k = sqrt(years) * (-1.2 + 2.4 * position / (count - 1))
        w = a + b * (rho * (k - m) + hypot(k - m, sigma))
        points.append(SmilePoint(FORWARD * exp(k), sqrt(w / years) + noise * dice.gauss(0, 1)))
    return points


def errors(surface: Surface, points: list[SmilePoint], years: float) -> list[float]:
    return [abs(implied_volatility(surface, log(p.strike / FORWARD), years) - p.iv) for p in points]


@pytest.mark.parametrize("name", SMILES)
def test_a_known_surface_is_found_again(name: str) -> None:
    parameters, years = SMILES[name]
    result = fit(smile(parameters, years), FORWARD, years)
    assert max(errors(result.surface, smile(parameters, years), years)) < 5e-5
    assert not result.is_flat
    found = (
        result.surface.a_e12,
        result.surface.b_e12,
        result.surface.rho_e12,
        result.surface.m_e12,
        result.surface.sigma_e12,
    )
    for value, true in zip(found, parameters, strict=True):
        assert abs(value / ONE_E12 - true) < 0.002


@pytest.mark.parametrize("name", SMILES)
def test_noise_of_half_a_point_is_smoothed(name: str) -> None:
    parameters, years = SMILES[name]
    result = fit(smile(parameters, years, noise=0.005), FORWARD, years)
    assert max(errors(result.surface, smile(parameters, years), years)) < 0.008


def test_absurd_volatilities_do_not_bend_the_smile() -> None:
    parameters, years = SMILES["one week"]
    clean = smile(parameters, years)
    wild = [
        *clean,
        SmilePoint(FORWARD * 0.99, 0.0, 50.0),
        SmilePoint(FORWARD * 1.01, 5.0, 50.0),
        SmilePoint(FORWARD * 1.02, float("nan")),
        SmilePoint(FORWARD * 1.03, 2.4),
        SmilePoint(FORWARD * 0.985, 1.1, 0.5),
    ]
    result = fit(wild, FORWARD, years)
    assert result.points == 22  # the clean ones, and the one that only the weights can lower
    assert max(errors(result.surface, clean, years)) < 0.01


def test_below_five_strikes_the_smile_is_flat_at_the_median() -> None:
    points = [SmilePoint(FORWARD * (1 + i / 100), 0.6 + i / 50) for i in (0, 1, 2, 2, 2)]
    result = fit(points, FORWARD, 0.1)
    assert result.is_flat
    assert result.points == 3
    assert result.surface == flat(0.64, 0.1)
    assert implied_volatility(result.surface, 0.7, 0.1) == pytest.approx(0.64, abs=1e-9)


@pytest.mark.parametrize(
    ("points", "forward", "years", "message"),
    [
        ([], 1.0, 1.0, "no point"),
        ([SmilePoint(1.0, 0.0)], 1.0, 1.0, "no point"),
        ([SmilePoint(1.0, 0.5, 0.0)], 1.0, 1.0, "no point"),
        ([SmilePoint(1.0, 0.5)], 0.0, 1.0, "forward 0.0 and years 1.0"),
        ([SmilePoint(1.0, 0.5)], 1.0, 0.0, "years 0.0 must be above 0"),
    ],
)
def test_without_a_usable_point_there_is_no_fit(
    points: list[SmilePoint], forward: float, years: float, message: str
) -> None:
    with pytest.raises(FitError, match=message):
        fit(points, forward, years)


@pytest.mark.parametrize("seed", range(40))
def test_any_points_give_a_surface_of_the_protocol(seed: int) -> None:
    dice = random.Random(seed)
    years = 10 ** dice.uniform(-6, 0.5)
    spread = 10 ** dice.uniform(-6, 0.7)
    points = [
        SmilePoint(FORWARD * exp(dice.gauss(0, spread)), dice.uniform(0, 5), dice.choice((1e-9, 1.0, 1e6)))
        for _ in range(dice.randrange(1, 40))
    ]
    surface = fit(points, FORWARD, years).surface
    assert is_valid(surface)
    deepest = surface.m_e12 / ONE_E12 - (
        surface.rho_e12 * surface.sigma_e12 / ONE_E12 / sqrt(max(ONE_E12**2 - surface.rho_e12**2, 1))
    )
    assert variance(surface, deepest) >= -1e-9  # a + b sigma sqrt(1 - rho^2) >= 0, up to rounding
    assert surface.b_e12 * (ONE_E12 + abs(surface.rho_e12)) <= 2.001 * ONE_E12**2  # Lee


def test_the_float_variance_is_the_protocols() -> None:
    surface = Surface(20 * 10**9, 10**11, -3 * 10**11, 2 * 10**10, 15 * 10**10)
    for k in (-1.0, -0.2, 0.0, 0.3, 2.0):
        assert variance(surface, k) * 1e12 == pytest.approx(variance_at_e12(surface, round(k * 1e12)), abs=3)


def test_a_fit_takes_less_than_three_milliseconds_as_a_rule() -> None:
    points = smile(*SMILES["one quarter"], noise=0.005)
    taken = []
    for _ in range(15):
        start = time.process_time()
        fit(points, FORWARD, 0.25)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.006  # twice the 3 ms of the budget, for slow machines


def test_forward_comes_from_prices_and_their_volatilities() -> None:
    tape = generate_tape(1)
    day = START_S // 86_400 + 83
    trades = [trade for trade in tape.trades if trade.day == day]
    forward = forward_of(trades, 4_700_000)
    remaining_s = expiry_s(day) - START_S
    assert forward / 4_700_000 - 1 == pytest.approx(0.06 * remaining_s / YEAR_S, abs=0.001)
    assert forward_of([], 4_700_000) == 4_700_000


@pytest.mark.tape
def test_forwards_of_the_recorded_tape_rise_with_time_to_expiry() -> None:
    if not DATA.is_dir():
        pytest.skip(f"no recorded data in {DATA} (set FAIRSTRIKE_DATA)")
    tape = load_tape(DATA)
    ratios = []
    for day in sorted({instrument.day for instrument in tape.instruments}):
        ratios.append(forward_of([t for t in tape.trades if t.day == day], 10**7) / 10**7)
    assert ratios == sorted(ratios)
    assert ratios[0] == pytest.approx(1.0, abs=0.0005)
    assert 1.08 < ratios[-1] < 1.09  # 30 December 2022, as its future stood


@pytest.mark.tape
def test_fits_of_the_recorded_tape_foretell_the_next_hours_volatilities() -> None:
    if not DATA.is_dir():
        pytest.skip(f"no recorded data in {DATA} (set FAIRSTRIKE_DATA)")
    tape = load_tape(DATA)
    now = START_S + 5 * 3_600
    misses = []
    for day in sorted({trade.day for trade in tape.trades_until(now)})[1:]:
        trades = [trade for trade in tape.trades_until(now) if trade.day == day]
        forward, years = forward_of(trades, 4_700_000), (expiry_s(day) - now) / YEAR_S
        result = fit([SmilePoint(t.strike_ticks, t.iv_e6 / 1e6) for t in trades], forward, years)
        for trade in tape.trades_between(now, now + 3_600):
            if trade.day == day:
                known = implied_volatility(result.surface, log(trade.strike_ticks / forward), years)
                misses.append(abs(known - trade.iv_e6 / 1e6))
    assert len(misses) > 50
    assert median(misses) < 0.03


@pytest.mark.tape
def test_a_recorded_chain_is_fitted_inside_its_spreads() -> None:
    folder = DATA / "deribit-quotes-2023-04-17"
    if not folder.is_dir():
        pytest.skip(f"no recorded data in {folder} (set FAIRSTRIKE_DATA)")
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    names = ["timestamp", "instrument_name", "underlying_price", "bid_iv", "ask_iv"]
    rows = (
        parquet.read_table(folder / "btc_5m_options_data.parquet", columns=names).slice(0, 1_000).to_pylist()
    )
    start = rows[0]["timestamp"]
    chain: dict[int, list[tuple[float, float, float, float]]] = {}
    for row in rows:
        instrument = parse_instrument(row["instrument_name"])
        strike, forward = instrument.strike_ticks / 100, row["underlying_price"]
        quoted = (row["bid_iv"] or 0) > 0 and (row["ask_iv"] or 0) > 0
        if row["timestamp"] < start + 60_000 and quoted and (strike < forward) == instrument.is_put:
            cell = (strike, forward, row["bid_iv"] / 100, row["ask_iv"] / 100)
            chain.setdefault(instrument.day, []).append(cell)
    misses, inside = [], 0
    for day, cells in chain.items():
        years = (expiry_s(day) - start / 1000) / YEAR_S
        points = [
            SmilePoint(strike, (bid + ask) / 2, 1 / (ask - bid + 0.01)) for strike, _, bid, ask in cells
        ]
        surface = fit(points, cells[0][1], years).surface
        for strike, forward, bid, ask in cells:
            miss = abs(implied_volatility(surface, log(strike / forward), years) - (bid + ask) / 2)
            misses.append(miss)
            inside += miss <= (ask - bid) / 2
    assert len(misses) > 200
    assert median(misses) < 0.003  # measured: 0.0015 at a median spread of 0.018
    assert inside > 0.9 * len(misses)


@pytest.mark.parametrize("name", SMILES)
def test_later__has_the_same_volatilities_with_less_time_left(name: str) -> None:
    parameters, years = SMILES[name]
    then_s = round(years * YEAR_S)
    surface = fit(smile(parameters, years), FORWARD, years).surface
    for left_s in (then_s, then_s - 1, then_s // 2, then_s // 10):
        now = later(surface, then_s, left_s)
        assert is_valid(now)
        assert is_sound(now)
        for k in (-1.0, -0.3, 0.0, 0.2, 0.9):
            at = k * sqrt(years)
            before = implied_volatility(surface, at, then_s / YEAR_S)
            assert implied_volatility(now, at, left_s / YEAR_S) == pytest.approx(before, abs=1e-5)
    assert later(surface, then_s, then_s) == surface
