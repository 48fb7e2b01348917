"""SVI surface in integers: the formula in double precision, the clamps, the bounds, the passage of time."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import surface
from sequencer.protocol.black76 import PRICE_MAX, W_MAX, W_MIN
from sequencer.protocol.surface import Surface

LIMIT = surface.PARAMETER_MAX_E12
USUAL = Surface(10**9, 2 * 10**10, -3 * 10**11, 10**10, 10**11)

surfaces = st.builds(
    Surface,
    a_e12=st.integers(-LIMIT, LIMIT),
    b_e12=st.integers(0, LIMIT),
    rho_e12=st.integers(-surface.ONE_E12, surface.ONE_E12),
    m_e12=st.integers(-LIMIT, LIMIT),
    sigma_e12=st.integers(1, LIMIT),
)


def reference(svi: Surface, k: float) -> float:
    a, b, rho, m, sigma = (
        getattr(svi, name) / 1e12 for name in ("a_e12", "b_e12", "rho_e12", "m_e12", "sigma_e12")
    )
    return a + b * (rho * (k - m) + math.hypot(k - m, sigma))


@given(surfaces, st.integers(1, PRICE_MAX), st.integers(1, PRICE_MAX))
@settings(deadline=None, max_examples=300)
def test_variance__of_any_valid_surface__is_the_clamped_formula(
    svi: Surface, forward: int, strike: int
) -> None:
    assert surface.is_valid(svi)
    found = surface.variance_e12(svi, forward, strike)
    expected = max(W_MIN, min(reference(svi, math.log(strike / forward)) * 1e12, W_MAX))
    assert W_MIN <= found <= W_MAX
    assert abs(found - expected) <= 3 + 3 * svi.b_e12 / 1e12 + 1e-14 * W_MAX


@pytest.mark.parametrize(("forward", "strike"), [(0, 1), (1, 0), (0, 0)])
def test_variance__without_forward_or_strike__is_that_at_the_money(forward: int, strike: int) -> None:
    at_the_money = surface.variance_e12(USUAL, 4_621_979, 4_621_979)
    assert at_the_money == pytest.approx(reference(USUAL, 0.0) * 1e12, abs=3)
    assert surface.variance_e12(USUAL, forward, strike) == at_the_money


def test_variance__where_the_formula_turns_negative__is_the_least() -> None:
    assert surface.variance_e12(replace(USUAL, a_e12=-LIMIT), 1_000, 1_000) == W_MIN


@pytest.mark.parametrize(
    "change",
    [
        {"a_e12": LIMIT + 1},
        {"a_e12": -LIMIT - 1},
        {"b_e12": -1},
        {"b_e12": LIMIT + 1},
        {"rho_e12": surface.ONE_E12 + 1},
        {"rho_e12": -surface.ONE_E12 - 1},
        {"m_e12": LIMIT + 1},
        {"m_e12": -LIMIT - 1},
        {"sigma_e12": 0},
        {"sigma_e12": LIMIT + 1},
        {"sigma_e12": -(2**63)},
        {"a_e12": 2**63 - 1},
    ],
)
def test_is_valid__with_one_parameter_out_of_bounds__is_false(change: dict[str, int]) -> None:
    assert surface.is_valid(USUAL)
    assert not surface.is_valid(replace(USUAL, **change))


@given(st.integers(W_MIN, W_MAX), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
@settings(deadline=None)
def test_at_time__with_time_left__scales_the_variance(variance: int, report_s: int, now_s: int) -> None:
    found = surface.at_time(variance, report_s, now_s)
    assert found == max(W_MIN, min(variance * now_s // report_s, W_MAX))
    assert surface.at_time(variance, report_s, report_s) == variance


@pytest.mark.parametrize(("report_s", "now_s"), [(0, 5), (5, 0), (0, 0)])
def test_at_time__with_no_time_left__is_expired(report_s: int, now_s: int) -> None:
    assert surface.at_time(10**10, report_s, now_s) == 0


@given(surfaces)
@settings(deadline=None, max_examples=300)
def test_is_sound__of_a_valid_surface__holds_the_least_variance_and_both_wings(svi: Surface) -> None:
    b, rho, sigma = svi.b_e12 / 1e12, svi.rho_e12 / 1e12, svi.sigma_e12 / 1e12
    least = svi.a_e12 / 1e12 + b * sigma * math.sqrt(1 - rho * rho)
    steepest = b * (1 + abs(rho))
    if abs(least) > 1e-9 and abs(steepest - 2) > 1e-9:
        assert surface.is_sound(svi) == (least > 0 and steepest < 2)


def test_is_sound__at_its_bounds__holds_to_the_unit() -> None:
    steep = replace(USUAL, b_e12=16 * 10**11, rho_e12=25 * 10**10)  # 1.6 (1 + 0.25) = 2
    assert surface.is_sound(steep)
    assert not surface.is_sound(replace(steep, b_e12=steep.b_e12 + 1))
    assert not surface.is_sound(replace(steep, rho_e12=-steep.rho_e12 - 1))
    deep = replace(USUAL, a_e12=-surface.bend_e12(USUAL))
    assert surface.is_sound(deep)
    assert not surface.is_sound(replace(deep, a_e12=deep.a_e12 - 1))
