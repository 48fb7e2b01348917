"""Risk arrays: scenarios against double precision, roundings, corners, and the size of every intermediate."""

import math
import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from sequencer.market import quant
from sequencer.protocol import black76, risk_array, surface
from sequencer.protocol.black76 import PRICE_MAX, W_MAX
from sequencer.protocol.risk_array import PNL_MAX, PNL_MIN, Shocks

SHOCKS = Shocks()
MONTH = SHOCKS.vol_reference_s
LEFT = SHOCKS.left(MONTH)
HARSHEST = Shocks(900_000, 900_000, 1_000_000, 1_000_000, 900_000, 0, 1, 1_000_000)
MOVES = (-0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15)

prices = st.one_of(st.integers(0, PRICE_MAX), st.integers(1_000_000, 20_000_000))
variances = st.one_of(st.integers(0, W_MAX), st.integers(0, 43).map(lambda power: 1 << power))
shock_sets = st.builds(
    Shocks,
    st.integers(0, 900_000),
    st.integers(0, 900_000),
    st.integers(0, 1_000_000),
    st.integers(0, 1_000_000),
    st.integers(0, 900_000),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 1_000_000),
)
seconds = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 10**7))


def reference_ticks(forward: float, strike: float, is_put: bool, variance: float) -> float:
    sign = -1 if is_put else 1
    stdev = math.sqrt(variance)
    d1 = math.log(forward / strike) / stdev + stdev / 2
    return float(sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - stdev))))


def reference_pnl(forward: int, strike: int, is_put: bool, variance_e12: int) -> list[float]:
    """The 16 scenarios of the default shocks a month before expiry, by their definition; ticks, unrounded."""
    variance = variance_e12 / 1e12
    mark = reference_ticks(forward, strike, is_put, variance)
    time = math.floor(math.sqrt(1 - 21_600 / MONTH) * 1e6) / 1e6  # of the standard deviation
    pnl = []
    for volatility, extreme in ((1.3, -0.45), (0.75, 0.45)):
        left = math.floor(volatility * time * 1e6) / 1e6
        pnl += [
            reference_ticks(forward * (1 + move), strike, is_put, variance * left**2) - mark for move in MOVES
        ]
        pnl.append(0.35 * (reference_ticks(forward * (1 + extreme), strike, is_put, variance) - mark))
    return pnl


def test_scenarios__of_many_options__agree_with_double_precision_to_half_a_tick() -> None:
    generator = random.Random(16)
    for _ in range(1_500):
        forward = generator.randint(100_000, 12_000_000)
        strike = int(forward * math.exp(generator.uniform(-1, 1)))
        variance_e12 = int(math.exp(generator.uniform(math.log(1e7), math.log(1e12))))
        is_put = generator.random() < 0.5
        mark, pnl = risk_array.scenarios(forward, strike, is_put, variance_e12, SHOCKS, LEFT)
        assert mark == black76.to_ticks(black76.price_e10(forward, strike, is_put, variance_e12))
        expected = reference_pnl(forward, strike, is_put, variance_e12)
        assert len(pnl) == len(expected) == risk_array.SCENARIOS
        for found, exact in zip(pnl, expected, strict=True):
            assert abs(found - exact) <= 0.500001


@given(prices, prices, variances, shock_sets, seconds)
@settings(deadline=None, max_examples=300)
def test_scenarios__over_the_full_ranges__fit_their_types(
    forward: int, strike: int, variance_e12: int, shocks: Shocks, remaining: int
) -> None:
    assert risk_array.is_valid(shocks)
    left = shocks.left(remaining)
    call, put = risk_array.scenarios_pair(forward, strike, variance_e12, shocks, left)
    assert call == risk_array.scenarios(forward, strike, False, variance_e12, shocks, left)
    assert put == risk_array.scenarios(forward, strike, True, variance_e12, shocks, left)
    for mark, pnl in (call, put):
        assert 0 <= mark <= PRICE_MAX
        assert all(PNL_MIN <= value <= PNL_MAX for value in pnl)


@given(st.integers(0, 2**30), st.integers(0, 2**30), variances)
@settings(deadline=None)
def test_scenarios__of_call_less_put__are_those_of_the_forward(
    forward: int, strike: int, variance_e12: int
) -> None:
    (_, call), (_, put) = risk_array.scenarios_pair(forward, strike, variance_e12, SHOCKS, LEFT)
    moves = [-150, -100, -50, 0, 50, 100, 150, -157.5, -150, -100, -50, 0, 50, 100, 150, 157.5]  # thousandths
    for one, other, move in zip(call, put, moves, strict=True):
        assert abs(one - other - forward * move / 1_000) <= 1.001


@pytest.mark.parametrize(
    ("is_put", "mark", "pnl"),
    [
        (
            False,
            1_000,
            (
                -1_000,
                -1_000,
                -500,
                0,
                500,
                1_000,
                1_500,
                -350,
                -1_000,
                -1_000,
                -500,
                0,
                500,
                1_000,
                1_500,
                1_575,
            ),
        ),
        (True, 0, (500, *(0,) * 6, 1_225, 500, *(0,) * 7)),
    ],
)
def test_scenarios__of_an_expired_option__are_of_its_intrinsic_value(
    is_put: bool, mark: int, pnl: tuple[int, ...]
) -> None:
    assert risk_array.scenarios(10_000, 9_000, is_put, 0, SHOCKS, LEFT) == (mark, pnl)


def test_scenarios__at_half_a_tick__round_away_from_zero() -> None:
    shocks = replace(SHOCKS, extreme_range_ppm=100_000, extreme_weight_ppm=500_000)
    assert risk_array.scenarios(10_010, 0, False, 0, shocks, LEFT)[1][7::8] == (-501, 501)


def test_scenarios__beyond_int32__are_clamped() -> None:
    _, pnl = risk_array.scenarios(PRICE_MAX, 0, False, 0, HARSHEST, LEFT)
    assert pnl[6] == PNL_MAX
    assert pnl[0] == PNL_MIN


def test_settled__has_the_intrinsic_value_and_nothing_at_risk() -> None:
    assert risk_array.settled(5_000, 4_000, False) == (1_000, (0,) * 16)
    assert risk_array.settled(5_000, 4_000, True) == (0, (0,) * 16)


@pytest.mark.parametrize(
    "change",
    [
        {"price_range_ppm": 900_001},
        {"price_range_ppm": -1},
        {"vol_up_ppm": 1_000_001},
        {"vol_down_ppm": 900_001},
        {"extreme_range_ppm": 2_000_000},
        {"extreme_weight_ppm": 1_000_001},
        {"extreme_weight_ppm": -(2**255)},
        {"horizon_s": -1},
        {"vol_reference_s": 0},
        {"vol_power_ppm": 1_000_001},
    ],
)
def test_shocks__out_of_bounds__are_invalid_but_do_not_raise(change: dict[str, int]) -> None:
    assert risk_array.is_valid(SHOCKS)
    assert not risk_array.is_valid(replace(SHOCKS, **change))


@pytest.mark.parametrize(
    ("days", "up", "down"), [(7, 0.4643, 0.3869), (30, 0.3, 0.25), (180, 0.1753, 0.1461), (0.5, 1.0, 0.8539)]
)
def test_left__shrinks_the_shocks_with_the_time_to_expiry(days: float, up: float, down: float) -> None:
    """Thirty days are the reference; what shrinks is the shock, not the volatility; bounded above."""
    shocks = replace(SHOCKS, horizon_s=0)
    found = shocks.left(int(days * 86_400))
    assert found == (pytest.approx((1 + up) * 1e6, abs=100), pytest.approx((1 - down) * 1e6, abs=100))


def test_left__takes_the_horizon_off__and_nothing_is_left_of_less() -> None:
    assert SHOCKS.left(SHOCKS.horizon_s) == SHOCKS.left(0) == (0, 0)
    still = replace(SHOCKS, vol_up_ppm=0, vol_down_ppm=0)
    assert still.left(4 * SHOCKS.horizon_s) == (866_025, 866_025)  # the root of three quarters
    assert max(SHOCKS.left(SHOCKS.horizon_s + 1)) < 2_000_000 // 100


@given(seconds, shock_sets)
@settings(deadline=None, max_examples=300)
def test_left__over_the_full_ranges__keeps_the_bounds_of_a_shock(remaining: int, shocks: Shocks) -> None:
    up, down = shocks.left(remaining)
    assert 0 <= down <= up <= 2_000_000
    assert down <= 1_000_000
    if remaining > shocks.horizon_s:
        time = math.isqrt((remaining - shocks.horizon_s) * 10**12 // remaining)
        exact = math.exp(shocks.vol_power_ppm / 1e6 * math.log(shocks.vol_reference_s / remaining))
        for found, sign, shock, most in (
            (up, 1, shocks.vol_up_ppm, 1e6),
            (down, -1, shocks.vol_down_ppm, 9e5),
        ):
            assert found == pytest.approx((1e6 + sign * min(shock * exact, most)) * time / 1e6, abs=3)


# -------------------------------------------------------------------------------------- size of intermediates


class Counted(int):
    """An integer whose arithmetic asserts what other languages need: |x| < 2^127, no negative division."""

    greatest = 0


def _counted(name: str) -> Any:
    plain = getattr(int, name)

    def operation(self: int, *others: int) -> Any:
        if name in ("__floordiv__", "__rfloordiv__"):
            assert min(self, others[0]) >= 0, "division of a negative number"
        result = plain(int(self), *(int(other) for other in others))
        assert -(2**127) < result < 2**127, f"{name}({self}, {others}) exceeds 127 bits"
        Counted.greatest = max(Counted.greatest, abs(result))
        return Counted(result)

    return operation


for _name in ("add", "sub", "mul", "floordiv", "lshift", "rshift"):
    setattr(Counted, f"__{_name}__", _counted(f"__{_name}__"))
    setattr(Counted, f"__r{_name}__", _counted(f"__r{_name}__"))
for _name in ("neg", "abs"):
    setattr(Counted, f"__{_name}__", _counted(f"__{_name}__"))


@pytest.mark.pure  # compiled code computes with integers of its own
def test_integer_core__over_its_full_ranges__stays_below_two_to_the_127(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (black76, surface, risk_array):
        monkeypatch.setattr(module, "isqrt", lambda n: Counted(math.isqrt(n)))
    generator = random.Random(127)
    corners = [0, 1, 2, PRICE_MAX - 1, PRICE_MAX]
    limit, one = surface.PARAMETER_MAX_E12, surface.ONE_E12
    for turn in range(1_500):
        wide = turn % 3 == 0
        forward, strike = (
            Counted(generator.choice(corners) if wide else generator.getrandbits(generator.randint(1, 32)))
            for _ in "fk"
        )
        variance = Counted(generator.choice([0, 1, W_MAX, min(W_MAX, 1 << generator.randint(0, 44))]))
        is_put = generator.random() < 0.5
        shocks = HARSHEST if turn % 2 else SHOCKS
        left = shocks.left(Counted(generator.choice([0, 1, 86_400, 2**32 - 1])))
        risk_array.scenarios(forward, strike, is_put, variance, shocks, left)
        black76.price_e10(forward, strike, is_put, variance)
        black76.greeks(
            forward, strike, is_put, variance, Counted(generator.choice([0, 1, 86_400, 2**32 - 1]))
        )
        svi = surface.Surface(
            Counted(generator.choice([-limit, 0, limit])),
            Counted(generator.choice([0, one, limit])),
            Counted(generator.choice([-one, 0, one])),
            Counted(generator.choice([-limit, 0, limit])),
            Counted(generator.choice([1, limit])),
        )
        surface.variance_e12(svi, forward, strike)
        surface.at_time(variance, Counted(generator.choice([0, 1, 2**32 - 1])), Counted(2**32 - 1))
    for x in range(71):  # Hart's rational is largest at its end, just above 7.07
        black76.hart_ratio_q56(Counted(black76.HART_SPLIT_Q56 * x // 70 - (x == 70)))
    assert 2**120 < Counted.greatest < 2**127


# --------------------------------------------------------------------------------------- the same, for people


def test_price_option__of_the_worked_example__is_what_the_documentation_says() -> None:
    found = quant.price_option("call", "46219.79", Decimal(48_000), "67.48%", 115_180)
    assert found == quant.price_option("C", Decimal("46219.79"), "48000", Decimal("0.6748"), 115_180)
    variance_e12 = quant.total_variance_e12("0.6748", 115_180)
    assert variance_e12 == round(0.6748**2 * 115_180 / 31_536_000 * 1e12)
    exact = reference_ticks(4_621_979, 4_800_000, False, variance_e12 / 1e12)
    assert float(found["mark"]) == pytest.approx(exact / 100, abs=1e-8)
    assert found["mark"] == Decimal("183.6228068549")
    assert found["mark_ticks"] == round(exact) == 18_362
    assert (min(found["scenarios"]), max(found["scenarios"])) == (Decimal("-183.62"), Decimal("6592.28"))
    assert [int(value * 100) for value in found["scenarios"]] == list(
        risk_array.scenarios(4_621_979, 4_800_000, False, variance_e12, SHOCKS, SHOCKS.left(115_180))[1]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("straddle", "1", "1", "1", 1),
        ("call", "-1", "1", "1", 1),
        ("call", "42949672.96", "1", "1", 1),
        ("call", "nan", "1", "1", 1),
        ("call", "1", "one", "1", 1),
        ("call", "1", "1", "-0.1", 1),
        ("call", "1", "1", "10", 31_536_000),
        ("call", "1", "1", "1", -1),
        ("call", "1", "1", "1", 2**32),
    ],
)
def test_price_option__out_of_range__raises_value_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"must|not a number|exceeds"):
        quant.price_option(*arguments)


def test_scenarios__of_a_call_and_its_put__are_computed_once_and_not_kept_for_ever() -> None:
    """A memo, bounded: what is in it is what would be computed, and a RISK that comes again costs next to nothing."""
    memo = risk_array._valued
    shocks = Shocks()
    left = shocks.left(86_400)

    def page() -> list[risk_array.Row]:
        strikes = (4_000_000 + 50_000 * (row // 2) for row in range(32))
        return [
            risk_array.scenarios(5_000_000, strike, bool(row & 1), 10**10, shocks, left)
            for row, strike in enumerate(strikes)
        ]

    memo.cache_clear()
    rows = page()
    assert (memo.cache_info().misses, memo.cache_info().hits) == (16, 16)
    assert page() == rows
    assert (memo.cache_info().misses, memo.cache_info().hits) == (16, 48)
    memo.cache_clear()
    assert page() == rows
    for strike in range(1, risk_array.VALUED_KEPT + 100):
        risk_array.scenarios(5, strike, False, 0, shocks, left)
    assert memo.cache_info().currsize == risk_array.VALUED_KEPT
