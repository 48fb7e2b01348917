"""Integer Black-76 against double precision, on a recorded chain and on a synthetic grid, and its laws.

`python tests/protocol/test_black76.py` writes tests/vectors/black76.json anew.
"""

import json
import os
import random
from datetime import datetime
from decimal import Decimal, localcontext
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfcx, ndtr

from sequencer.protocol import black76, risk_array, surface

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FAIRSTRIKE_DATA", ROOT.parent / "shared" / "data"))
CHAIN = DATA / "deribit-chain-6h" / "chain_202601.parquet"
VECTORS = ROOT / "tests" / "vectors" / "black76.json"

YEAR_S = 365 * 86_400
ERROR_MAX_USD = 1e-4
MARK_ERROR_MEDIAN_MAX_COIN = 2.5e-5
ONE = float(black76.ONE_Q56)

prices = st.one_of(
    st.integers(0, black76.PRICE_MAX),
    st.integers(0, 32).map(lambda power: min(1 << power, black76.PRICE_MAX)),
    st.integers(1_000_000, 20_000_000),
)
variances = st.one_of(
    st.integers(0, black76.W_MAX),
    st.integers(0, 43).map(lambda power: 1 << power),
    st.integers(10**7, 10**12),
)


def reference_usd(forward: Any, strike: Any, is_put: Any, variance: Any) -> Any:
    """Black-76 in double precision, vectorised: USD, total variance as a number."""
    sign = np.where(is_put, -1.0, 1.0)
    stdev = np.sqrt(variance)
    d1 = np.log(forward / strike) / stdev + stdev / 2
    return sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - stdev)))


def computed_usd(forward: Any, strike: Any, is_put: Any, variance_e12: Any) -> Any:
    """The integer core over arrays of ticks and variances, as USD."""
    rows = zip(forward.tolist(), strike.tolist(), is_put.tolist(), variance_e12.tolist(), strict=True)
    return np.array([black76.price_e10(*row) for row in rows]) / 1e10


def rounded(values: Any, scale: float) -> Any:
    return np.floor(values * scale + 0.5).astype(np.int64)


def noise_e10(low: int) -> int:
    """What rounding and Hart's algorithm may add to a price, 1e-10 USD: 1e-14 of min(forward, strike)."""
    return 2 + low * black76.TICK_E10 // 10**14


# ----------------------------------------------------------------------------------------- against the market


def read_chain() -> dict[str, Any]:
    """The recorded chain as arrays, rows with more than a day to run; skips where there is none."""
    if not CHAIN.exists():
        pytest.skip(f"no recorded chain at {CHAIN} (set FAIRSTRIKE_DATA); the synthetic grid stands in")
    parquet = pytest.importorskip(
        "pyarrow.parquet",
        reason="pyarrow does not import here; the synthetic grid stands in",
        exc_type=ImportError,
    )
    columns = [
        "timestamp",
        "expiry_datetime",
        "underlying",
        "strike",
        "option_type",
        "implied_volatility",
        "mark_price",
    ]
    table = parquet.read_table(CHAIN, columns=columns).to_pydict()
    moments = {
        text: datetime.fromisoformat(text).timestamp()
        for text in {*table["timestamp"], *table["expiry_datetime"]}
    }
    seconds = np.array(
        [
            moments[end] - moments[now]
            for now, end in zip(table["timestamp"], table["expiry_datetime"], strict=True)
        ]
    )
    live = seconds > 86_400
    chain = {name: np.array(table[name])[live] for name in columns[2:]}
    chain["is_put"] = chain["option_type"] == "put"
    chain["variance"] = chain["implied_volatility"] ** 2 * seconds[live] / YEAR_S
    return chain


def test_price__of_every_recorded_option__agrees_with_double_precision_and_with_the_venues_mark() -> None:
    chain = read_chain()
    forward, strike = rounded(chain["underlying"], 100), rounded(chain["strike"], 100)
    is_put, variance = chain["is_put"], chain["variance"]
    price = computed_usd(forward, strike, is_put, rounded(variance, 1e12))

    error = np.abs(price - reference_usd(forward / 100, strike / 100, is_put, variance))
    assert len(error) > 150_000
    assert error.max() < ERROR_MAX_USD

    mark_error = np.abs(price / chain["underlying"] - chain["mark_price"])  # the venue divides by the forward
    assert np.median(mark_error) <= MARK_ERROR_MEDIAN_MAX_COIN


def test_price__on_a_synthetic_grid_of_the_same_ranges__agrees_with_double_precision() -> None:
    generator = np.random.default_rng(76)
    count = 30_000
    forward = rounded(np.exp(generator.uniform(np.log(2_000), np.log(110_000), count)), 100)
    strike = rounded(forward / 100 * np.exp(generator.uniform(-2, 2, count)), 100)
    seconds = np.exp(generator.uniform(np.log(86_400), np.log(YEAR_S), count))
    volatility = np.exp(generator.uniform(np.log(0.1), np.log(2.5), count))
    is_put = generator.random(count) < 0.5
    variance = volatility**2 * seconds / YEAR_S
    variance_e12 = rounded(variance, 1e12)
    price = computed_usd(forward, strike, is_put, variance_e12)

    as_given = np.abs(price - reference_usd(forward / 100, strike / 100, is_put, variance))
    assert as_given.max() < ERROR_MAX_USD
    arithmetic_alone = np.abs(price - reference_usd(forward / 100, strike / 100, is_put, variance_e12 / 1e12))
    assert arithmetic_alone.max() < 1e-8


def test_stdev__of_small_variances__is_as_exact_as_its_unit() -> None:
    """sqrt(variance) by the integer root of 2^160 times the variance; the error is below 2^-55."""
    for variance in [*range(1, 3_000), *(10**exponent for exponent in range(4, 14))]:
        exact_q80 = isqrt(variance * 2**160 // 10**12)
        short_q80 = exact_q80 - (black76.stdev_q56(variance) << 24)
        assert -1 <= short_q80 < 2 << 24
        assert short_q80 << 36 < exact_q80
        assert short_q80 << 39 < exact_q80 or variance < 100


@pytest.mark.parametrize("stdev", [1e-6, 1e-4, 0.01, 0.5, 2.0, 4.0, 8.0])
def test_time_value__at_every_standard_deviation__agrees_with_double_precision(stdev: float) -> None:
    generator = random.Random(stdev)
    for _ in range(500):
        distance = generator.uniform(0, min(32.0, stdev * (stdev / 2 + 9)))
        d1 = stdev / 2 - distance / stdev
        expected = float(ndtr(d1) - np.exp(distance) * ndtr(d1 - stdev))
        found = black76.time_value_q56(int(distance * ONE), int(stdev * ONE)) / ONE
        assert abs(found - expected) < (1e-13 if stdev <= 2 else 1e-9)


# -------------------------------------------------------------------------------------------------- functions


def test_normal_cdf__against_double_precision__errs_below_2e_15() -> None:
    points = np.linspace(-10.5, 10.5, 4_001)
    found = np.array([black76.normal_cdf_q56(int(point * ONE)) for point in points]) / ONE
    assert np.abs(found - ndtr(points)).max() < 2e-15


def test_hart_ratio__against_scaled_erfc__errs_as_its_docstring_says() -> None:
    points = np.linspace(0, 32, 8_001)
    found = np.array([black76.hart_ratio_q56(int(point * ONE)) for point in points]) / ONE
    error = np.abs(found - erfcx(points / np.sqrt(2)) / 2)
    assert error[points <= 3].max() < 2.1e-15
    assert error[points <= 5].max() < 4e-12
    assert error.max() < 5e-10


def test_exp_neg__against_double_precision__errs_below_2e_16() -> None:
    points = np.linspace(0, 60, 6_001)
    found = np.array([black76.exp_neg_q56(int(point * ONE)) for point in points]) / ONE
    assert np.abs(found - np.exp(-points)).max() < 2e-16


@given(st.integers(1, black76.PRICE_MAX), st.integers(1, black76.PRICE_MAX))
@settings(deadline=None)
def test_ln_ratio__of_any_two_prices__is_right_and_antisymmetric(a: int, b: int) -> None:
    found = black76.ln_ratio_q56(a, b)
    assert found == -black76.ln_ratio_q56(b, a)
    with localcontext(prec=50):
        error = Decimal(found) / black76.ONE_Q56 - Decimal(a).ln() + Decimal(b).ln()
    assert abs(error) < 4e-16


# ------------------------------------------------------------------------------------------------------- laws


@given(prices, prices, variances)
@settings(deadline=None, max_examples=300)
def test_price__of_call_less_put__is_forward_less_strike_exactly(
    forward: int, strike: int, variance_e12: int
) -> None:
    call = black76.price_e10(forward, strike, False, variance_e12)
    put = black76.price_e10(forward, strike, True, variance_e12)
    assert call - put == (forward - strike) * black76.TICK_E10
    assert max(forward - strike, 0) * black76.TICK_E10 <= call <= forward * black76.TICK_E10
    assert max(strike - forward, 0) * black76.TICK_E10 <= put <= strike * black76.TICK_E10
    assert 0 <= black76.to_ticks(call) <= black76.PRICE_MAX
    assert 0 <= black76.to_ticks(put) <= black76.PRICE_MAX


@given(st.integers(1_000, 10**9), st.integers(1_000, 10**9), st.integers(1, 10**6), variances)
@settings(deadline=None, max_examples=300)
def test_price__at_a_higher_strike__is_no_more_for_a_call_and_no_less_for_a_put(
    forward: int, strike: int, step: int, variance_e12: int
) -> None:
    variance_e12 = min(variance_e12, 10**12)  # an iv of 100 % for a year: where the noise is that of rounding
    noise = noise_e10(min(forward, strike + step))
    for is_put, sign in ((False, 1), (True, -1)):
        low = black76.price_e10(forward, strike, is_put, variance_e12)
        high = black76.price_e10(forward, strike + step, is_put, variance_e12)
        assert sign * (low - high) >= -noise
        assert sign * (low - high) <= step * black76.TICK_E10 + noise


@given(prices, prices, st.integers(0, 10**12 // 2), st.integers(0, 10**12 // 2))
@settings(deadline=None, max_examples=300)
def test_price__of_a_greater_variance__is_no_less(
    forward: int, strike: int, variance: int, more: int
) -> None:
    low = black76.price_e10(forward, strike, False, variance)
    assert black76.price_e10(forward, strike, False, variance + more) >= low - noise_e10(min(forward, strike))


@pytest.mark.parametrize("forward", [0, 1, black76.PRICE_MAX])
@pytest.mark.parametrize("strike", [0, 1, black76.PRICE_MAX])
@pytest.mark.parametrize("variance_e12", [0, black76.W_MIN, black76.W_MAX, 2 * black76.W_MAX])
@pytest.mark.parametrize("is_put", [False, True])
def test_price_and_greeks__at_the_corners_of_their_ranges__do_not_raise(
    forward: int, strike: int, variance_e12: int, is_put: bool
) -> None:
    price = black76.price_e10(forward, strike, is_put, variance_e12)
    assert price >= black76.intrinsic(forward, strike, is_put) * black76.TICK_E10
    if variance_e12 == 0 or 0 in (forward, strike):
        assert price == black76.intrinsic(forward, strike, is_put) * black76.TICK_E10
    for remaining_s in (0, 1, 2**32 - 1):
        found = black76.greeks(forward, strike, is_put, variance_e12, remaining_s)
        assert -(10**12) <= found.delta_e12 <= 10**12
        assert min(found.gamma_e18, found.vega_e10, -found.theta_e10) >= 0


def test_greeks__against_double_precision__agree() -> None:
    generator = random.Random(76)
    for _ in range(2_000):
        forward, seconds = generator.randint(100_000, 12_000_000), generator.randint(3_600, YEAR_S)
        strike = int(forward * np.exp(generator.uniform(-0.5, 0.5)))
        years, volatility, is_put = seconds / YEAR_S, generator.uniform(0.2, 2), generator.random() < 0.5
        variance_e12 = int(volatility**2 * years * 1e12)
        stdev = np.sqrt(variance_e12 / 1e12)
        d1 = np.log(forward / strike) / stdev + stdev / 2
        density = np.exp(-d1 * d1 / 2) / np.sqrt(2 * np.pi)
        vega = forward / 100 * density * np.sqrt(years) / 100
        found = black76.greeks(forward, strike, is_put, variance_e12, seconds)
        assert found.delta_e12 / 1e12 == pytest.approx(ndtr(d1) - is_put, abs=1e-11)
        assert found.gamma_e18 / 1e18 == pytest.approx(density / (forward / 100 * stdev), abs=1e-12, rel=1e-9)
        assert found.vega_e10 / 1e10 == pytest.approx(vega, abs=1e-6, rel=1e-6)
        assert found.theta_e10 / 1e10 == pytest.approx(
            -forward / 100 * density * stdev / 2 * 86_400 / seconds, abs=1e-6, rel=1e-9
        )


# ---------------------------------------------------------------------------------------------------- vectors


def vector_rows() -> dict[str, Any]:
    """Seeded inputs, the corners among them, and what the core makes of each."""
    generator = random.Random(1973)
    inputs = [(forward, strike, 10**9, True) for forward in (0, 1, 2**32 - 1) for strike in (0, 1, 2**32 - 1)]
    inputs += [(4_621_979, 4_800_000, variance, False) for variance in (0, 1, 1_663_108_622, black76.W_MAX)]
    inputs += [(4_621_979, 4_621_979, variance, True) for variance in (0, 1, 1_663_108_622, black76.W_MAX)]
    while len(inputs) < 56:
        forward = generator.randint(150_000, 12_000_000)
        strike = max(1, int(forward * np.exp(generator.uniform(-1, 1))) // 100_00 * 100_00)
        inputs.append((forward, strike, int(np.exp(generator.uniform(16, 28))), generator.random() < 0.5))
    while len(inputs) < 64:
        forward, strike = (generator.getrandbits(generator.randint(1, 32)) for _ in range(2))
        inputs.append((forward, strike, generator.randint(0, black76.W_MAX), generator.random() < 0.5))
    shocks = risk_array.Shocks()
    rows = []
    for forward, strike, variance_e12, is_put in inputs:
        remaining = generator.choice([3_600, 115_180, 604_800, 2_592_000, 15_552_000])
        left = shocks.left(remaining)
        mark_ticks, pnl = risk_array.scenarios(forward, strike, is_put, variance_e12, shocks, left)
        row = {"forward": forward, "strike": strike, "is_put": is_put, "variance_e12": variance_e12}
        row |= {"remaining_s": remaining}
        row |= {"price_e10": black76.price_e10(forward, strike, is_put, variance_e12)}
        rows.append(row | {"mark_ticks": mark_ticks, "pnl_ticks": list(pnl)})
    surfaces = []
    for _ in range(12):
        svi = surface.Surface(
            generator.randint(-(10**10), 10**11),
            generator.randint(0, 5 * 10**11),
            generator.randint(-(10**12), 10**12),
            generator.randint(-(10**12), 10**12),
            generator.randint(1, 10**12),
        )
        forward, strike = generator.randint(150_000, 12_000_000), generator.randint(150_000, 12_000_000)
        surfaces.append(
            {name: getattr(svi, name) for name in ("a_e12", "b_e12", "rho_e12", "m_e12", "sigma_e12")}
            | {
                "forward": forward,
                "strike": strike,
                "variance_e12": surface.variance_e12(svi, forward, strike),
            }
        )
    return {"options": rows, "surfaces": surfaces}


def test_vectors__recomputed__are_those_on_file() -> None:
    on_file = json.loads(VECTORS.read_text())
    assert len(on_file["options"]) >= 60
    assert {name: on_file[name] for name in ("options", "surfaces")} == vector_rows()


def test_vectors__against_double_precision__are_right() -> None:
    for row in json.loads(VECTORS.read_text())["options"]:
        if 0 not in (row["forward"], row["strike"], row["variance_e12"]):
            exact = reference_usd(
                row["forward"] / 100, row["strike"] / 100, row["is_put"], row["variance_e12"] / 1e12
            )
            assert row["price_e10"] / 1e10 == pytest.approx(float(exact), abs=1e-6, rel=1e-11)


ORIGIN = (
    "Outputs of sequencer/protocol/black76.py, risk_array.py (default Shocks) and surface.py for the inputs "
    "of vector_rows() in tests/protocol/test_black76.py: corners, the worked example of docs/RISK.md, seeded "
    "draws. Each price was checked against double-precision Black-76 with scipy's ndtr. Units: forward, "
    "strike, marks and P&L in ticks of 0.01 USD; *_e10 in 1e-10 USD; *_e12 in 1e-12."
)

if __name__ == "__main__":
    tables = vector_rows()
    body = ",\n".join(
        f'  "{name}": [\n' + ",\n".join("    " + json.dumps(row) for row in rows) + "\n  ]"
        for name, rows in tables.items()
    )
    VECTORS.write_text('{\n  "origin": ' + json.dumps(ORIGIN) + ",\n" + body + "\n}\n")
