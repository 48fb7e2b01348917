"""black76, surface and risk_array: Python and Vyper, equal to the bit, and Vyper without a revert.

The inputs are corners of the documented ranges, the places where a branch turns, and seeded draws over every scale.
FAIRSTRIKE_LONG=1 draws 20 times as many.
"""

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import boa
import pytest
from vyper.compiler import CompilerData
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.output import build_abi_output
from vyper.compiler.settings import OptimizationLevel, Settings

from sequencer.protocol import black76, risk_array, surface
from sequencer.protocol.black76 import D_MAX_Q56, HART_SPLIT_Q56, LN2_Q56, PRICE_MAX, W_MAX
from sequencer.protocol.risk_array import Shocks
from sequencer.protocol.surface import ONE_E12, PARAMETER_MAX_E12, Surface

pytestmark = pytest.mark.fuzz

ROOT = Path(__file__).resolve().parents[2]
HARNESS = Path(__file__).parent / "harness"
VECTORS = json.loads((ROOT / "tests" / "vectors" / "black76.json").read_text())

BATCH = 256  # rows a call, as the harness
MODULUS = 1 << 256
U32_MAX = 2**32 - 1

# price range, extreme range and weight, volatility up and down, horizon, reference, power
DEFAULT = (150_000, 450_000, 350_000, 300_000, 250_000, 21_600, 2_592_000, 300_000)
NONE = (0, 0, 0, 0, 0, 0, 1, 0)
HARSHEST = (900_000, 900_000, 1_000_000, 1_000_000, 900_000, U32_MAX, U32_MAX, 1_000_000)
LEAST = (0, 0, 0, 0, 0, 0, 1, 0)

# The most that a row was found to cost, over draws and climbs from them, and 1 % more.
GAS_ROW_MAX = 43_200
GAS_PAGE_MAX = 1_480_000
DEAREST = [  # shocks, row
    (DEFAULT, (52_905, 981_515, 0, 2_424_322_177_365)),
    (NONE, (1_477_594_113, 4_230_120_666, 0, 1_839_944_243_963)),
    ((*HARSHEST[:5], 0, 2_592_000, 0), (26_531_906, 37_464_675, 0, 16_602_193_478_860)),
    ((150_000, 300_000, 0, 0, 0, 0, 1, 0), (724_150, 33_032_081, 0, 5_206_340_643_871)),
]

Row = Sequence[int]


@pytest.fixture(scope="module")
def harness() -> Any:
    """The modules as deployed contracts have them: the same compiler, pipeline, optimisation and EVM version."""
    bundle = FilesystemInputBundle([ROOT / "contracts", HARNESS])
    settings = Settings(evm_version="cancun", optimize=OptimizationLevel.GAS, experimental_codegen=False)
    compiled = CompilerData(bundle.load_file("MathHarness.vy"), input_bundle=bundle, settings=settings)
    with boa.swap_env(boa.Env()):
        address, _ = boa.env.deploy(bytecode=compiled.bytecode)
        yield boa.loads_abi(json.dumps(build_abi_output(compiled)), name="MathHarness").at(address)


@pytest.fixture
def many(is_long: bool) -> int:
    return 20 if is_long else 1


def batches(rows: Sequence[Row]) -> Iterable[list[list[int]]]:
    for start in range(0, len(rows), BATCH):
        yield [[value % MODULUS for value in row] for row in rows[start : start + BATCH]]


def assert_twins(harness: Any, which: int, python: Callable[..., int], rows: Sequence[Row]) -> None:
    """`python` and the harness's function number `which` agree at every row."""
    found = []
    for batch in batches(rows):
        found += harness.evaluate(which, [row + [0] * (8 - len(row)) for row in batch])
    expected = [int(python(*row)) % MODULUS for row in rows]
    wrong = [(row, a, b) for row, a, b in zip(rows, expected, found, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(rows)} differ, first (arguments, Python, Vyper): {wrong[0]}"


def unpacked(row: Row) -> tuple[int, tuple[int, ...]]:
    """(mark, 16 int32) of the harness's three words."""
    mark, *words = row
    pnl = [words[s // 8] >> 32 * (s % 8) & U32_MAX for s in range(16)]
    return mark, tuple(value - 2**32 if value >> 31 else value for value in pnl)


def assert_scenarios(harness: Any, parameters: Row, rows: Sequence[Row], remaining: int) -> None:
    """Rows (forward, strike, is put, variance) have the same mark and scenarios on both sides."""
    shocks = Shocks(*parameters)
    given, left = (*parameters, remaining), shocks.left(remaining)
    found = [unpacked(row) for batch in batches(rows) for row in harness.scenarios(given, batch)]
    for row, one in zip(rows, found, strict=True):
        forward, strike, is_put, variance_e12 = row
        expected = risk_array.scenarios(forward, strike, bool(is_put), variance_e12, shocks, left)
        assert one == expected, (parameters, row, remaining)


# ------------------------------------------------------------------------------------------------------ draws


def drawn_price() -> int:
    kind = random.random()
    if kind < 0.15:
        return random.choice([0, 1, 2, 2**31 - 1, 2**31, PRICE_MAX - 1, PRICE_MAX])
    if kind < 0.4:
        return random.getrandbits(random.randint(1, 32))
    return random.randint(10**6, 2 * 10**7)


def drawn_pair() -> tuple[int, int]:
    """Forward and strike: unrelated, next to each other, or in the region where options trade."""
    forward, kind = drawn_price(), random.random()
    if kind < 0.3:
        return forward, drawn_price()
    if kind < 0.5:
        return forward, min(PRICE_MAX, max(0, forward + random.randint(-5, 5)))
    return forward, min(PRICE_MAX, int(forward * math.exp(random.uniform(-2, 2))))


def drawn_variance() -> int:
    kind = random.random()
    if kind < 0.15:
        return random.choice([0, 1, 2, W_MAX - 1, W_MAX, W_MAX + 1, 2**64, MODULUS - 1])
    if kind < 0.3:
        return 1 << random.randint(0, 44)
    return int(math.exp(random.uniform(0, math.log(W_MAX))))


def drawn_shocks() -> list[int]:
    bounds = zip(LEAST, HARSHEST, strict=True)
    if random.random() < 0.3:
        return [random.choice([least, least + 1, most - 1, most]) for least, most in bounds]
    return [
        random.choice([random.randint(least, most), one])
        for (least, most), one in zip(bounds, DEFAULT, strict=True)
    ]


def drawn_seconds() -> int:
    return random.choice(
        [0, 1, 21_600, 21_601, U32_MAX, random.getrandbits(32), random.randint(1, 4 * 10**7)]
    )


def drawn_within(least: int, most: int) -> int:
    kind = random.random()
    if kind < 0.4:
        return random.choice([least, least + 1, most - 1, most])
    if kind < 0.7:
        return random.randint(least, most)
    return max(least, min(most, int(math.exp(random.uniform(0, 30.4))) * random.choice([-1, 1])))


def drawn_surface() -> list[int]:
    limit = PARAMETER_MAX_E12
    return [
        drawn_within(-limit, limit),
        drawn_within(0, limit),
        drawn_within(-ONE_E12, ONE_E12),
        drawn_within(-limit, limit),
        drawn_within(1, limit),
    ]


def drawn_int64s() -> list[int]:
    """A surface's five fields, some of them outside their bounds."""
    limit = PARAMETER_MAX_E12
    strange = [0, -1, limit + 1, -limit - 1, ONE_E12 + 1, -(2**63), 2**63 - 1]
    return [
        random.choice([*strange, random.getrandbits(64) - 2**63]) if random.random() < 0.15 else value
        for value in drawn_surface()
    ]


def drawn_u32() -> int:
    return random.choice([0, 1, U32_MAX, random.getrandbits(32), random.getrandbits(random.randint(1, 32))])


# -------------------------------------------------------------------------------------------------- functions


def test_coefficients__in_the_sources__are_the_same_on_both_sides() -> None:
    """The last unit of a leading coefficient moves so few results that draws may miss it."""

    def coefficients(path: str) -> set[int]:
        found = re.findall(r"\b\d{1,3}(?:_\d{3}){3,}\b", (ROOT / path).read_text())
        return {int(digits.replace("_", "")) for digits in found}

    python = coefficients("sequencer/protocol/black76.py")
    assert len(python) > 30
    assert coefficients("contracts/lib/black76.vy") == python - {black76.INV_SQRT_TWO_PI_Q56}  # of the greeks


def test_ln_ratio__of_any_two_prices__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    powers = [(1 << i, 1 << j) for i in range(0, 32, 5) for j in range(0, 32, 5)]
    turns = [(181 * k + d, 256 * k) for k in (1, 1_000, 16_000_000) for d in (-1, 0, 1)]
    drawn = [(max(1, a), max(1, b)) for a, b in (drawn_pair() for _ in range(500 * many))]
    rows = [*powers, *turns, *drawn, (1, PRICE_MAX), (PRICE_MAX, PRICE_MAX), (PRICE_MAX, 1)]
    assert_twins(harness, 0, black76.ln_ratio_q56, rows + [(b, a) for a, b in turns])


def test_stdev__of_any_variance__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    squares = [max(0, min(W_MAX, root * root + d)) for root in (1, 2, 999, 3_999_999) for d in (-1, 0, 1)]
    rows = [(min(drawn_variance(), W_MAX),) for _ in range(200 * many)]
    assert_twins(harness, 1, black76.stdev_q56, rows + [(one,) for one in squares])


def test_exp_neg__from_0_to_60__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    turns = [
        k * LN2_Q56 + half + d for k in range(0, 86, 5) for half in (0, LN2_Q56 >> 1) for d in (-1, 0, 1)
    ]
    drawn = [random.randint(0, 60 << 56) for _ in range(200 * many)]
    drawn += [random.getrandbits(random.randint(1, 61)) for _ in range(100 * many)]
    rows = [(max(0, one),) for one in [*turns, *drawn, 0, 60 << 56]]
    assert_twins(harness, 2, black76.exp_neg_q56, rows)


def test_hart_ratio__from_0_to_32__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    drawn = [random.randint(0, most << 56) for most in (8, 32) for _ in range(200 * many)]
    drawn += [random.getrandbits(random.randint(1, 60)) for _ in range(100 * many)]
    split = [HART_SPLIT_Q56 + d for d in range(-3, 4)]
    rows = [(one,) for one in [*drawn, *split, 0, 1, 32 << 56]]
    assert_twins(harness, 3, black76.hart_ratio_q56, rows)


def test_time_value__at_every_distance_and_deviation__is_the_same_on_both_sides(
    harness: Any, many: int
) -> None:
    rows = [(0, 0), (32 << 56, 0), (0, 1), (32 << 56, 1), (0, 8 << 56), (32 << 56, 8 << 56)]
    while len(rows) < 600 * many:
        stdev = random.choice([random.randint(1, 8 << 56), 1 << random.randint(0, 59)])
        half = stdev >> 1
        near_the_end = stdev * (half + D_MAX_Q56) >> 56  # d1 = -10
        where_d1_is_0 = stdev * half >> 56
        distance = random.choice(
            [
                near_the_end + random.randint(-3, 3),
                where_d1_is_0 + random.randint(-3, 3),
                random.randint(0, near_the_end),
                random.randint(0, 32 << 56),
                random.getrandbits(random.randint(1, 61)),
            ]
        )
        rows.append((max(0, min(32 << 56, distance)), stdev))
    assert_twins(harness, 4, black76.time_value_q56, rows)


def test_price__of_any_option__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    rows = [(*drawn_pair(), put, drawn_variance()) for put in (0, 1) for _ in range(200 * many)]
    rows += [
        (f, k, put, w)
        for f in (0, 1, PRICE_MAX)
        for k in (0, 1, PRICE_MAX)
        for put in (0, 1)
        for w in (1, W_MAX)
    ]
    assert_twins(harness, 6, lambda f, k, put, w: black76.price_e10(f, k, bool(put), w), rows)
    assert_twins(harness, 5, lambda f, k, put: black76.intrinsic(f, k, bool(put)), [row[:3] for row in rows])


def test_to_ticks__of_any_price__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    halves = [tick * 10**8 + 5 * 10**7 + d for tick in (0, 1, PRICE_MAX - 1, PRICE_MAX) for d in (-1, 0, 1)]
    rows = [(one,) for one in [0, *halves, *(random.getrandbits(62) for _ in range(50 * many)), 2**255 - 1]]
    assert_twins(harness, 7, black76.to_ticks, rows)


# ---------------------------------------------------------------------------------------------------- surface


def test_surface_is_valid__of_any_int64s__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    limits = [PARAMETER_MAX_E12, PARAMETER_MAX_E12, ONE_E12, PARAMETER_MAX_E12, PARAMETER_MAX_E12]
    edges = []
    for place, limit in enumerate(limits):
        for value in (-limit - 1, -limit, -1, 0, 1, limit, limit + 1, -(2**63), 2**63 - 1):
            edges.append([value if i == place else 1 for i in range(5)])
    rows = edges + [drawn_int64s() for _ in range(100 * many)]
    assert {surface.is_valid(Surface(*row)) for row in rows} == {True, False}
    assert_twins(harness, 8, lambda *five: surface.is_valid(Surface(*five)), rows)


def test_variance__of_any_valid_surface__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    rows = [(*drawn_surface(), *drawn_pair()) for _ in range(500 * many)]
    assert_twins(harness, 9, lambda *row: surface.variance_e12(Surface(*row[:5]), *row[5:]), rows)


def test_surface_is_sound__of_any_valid_surface__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    rows = [drawn_surface() for _ in range(200 * many)]
    for b, rho in ((2 * ONE_E12, 0), (ONE_E12, ONE_E12), (ONE_E12, -ONE_E12), (16 * 10**11, ONE_E12 // 4)):
        for step in (-1, 0, 1):  # at Lee's bound
            rows.append((ONE_E12, b + step, rho, 0, ONE_E12))
    for b, rho, sigma in ((ONE_E12, 0, ONE_E12), (10**10, 6 * 10**11, 10**11), (3, -8 * 10**11, ONE_E12 - 1)):
        bend = surface.bend_e12(Surface(0, b, rho, 0, sigma))
        for step in (-1, 0, 1):  # where the least variance is 0
            rows.append((step - bend, b, rho, 0, sigma))
    assert {surface.is_sound(Surface(*row)) for row in rows} == {True, False}
    assert_twins(harness, 10, lambda *five: surface.is_sound(Surface(*five)), rows)


def test_variance__where_the_root_is_next_to_an_integer__is_the_same_on_both_sides(harness: Any) -> None:
    rows = []
    for t in (1, 2, 3, 1_000, 999_999, 1_234_567, 2_828_427):
        for sigma in (2 * t - 1, 2 * t, 2 * t + 1):  # y = 2 t^2: y^2 + (2 t)^2 = (y + 1)^2 - 1
            for rho in (-ONE_E12, 0, ONE_E12):
                rows.append((0, PARAMETER_MAX_E12, rho, -2 * t * t, sigma, 0))
                rows.append((1, ONE_E12, rho, 0, sigma, -2 * t * t))
    rows += [(0, ONE_E12, 0, 0, 3 * n, 4 * n) for n in (1, 7, 10**12)]
    rows += [(0, ONE_E12, rho, -16 * ONE_E12, 16 * ONE_E12, 32 * ONE_E12) for rho in (-ONE_E12, ONE_E12)]
    assert_twins(harness, 13, lambda *row: surface.variance_at_e12(Surface(*row[:5]), row[5]), rows)


def test_at_time__of_any_times__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    rows = [(min(drawn_variance(), 2**128 - 1), drawn_u32(), drawn_u32()) for _ in range(200 * many)]
    assert_twins(harness, 11, surface.at_time, rows)


# ------------------------------------------------------------------------------------------------- risk array


def test_scenarios__of_the_golden_vectors__are_those_on_file(harness: Any) -> None:
    options = VECTORS["options"]
    rows = [[one["forward"], one["strike"], int(one["is_put"]), one["variance_e12"]] for one in options]
    for row, one in zip(rows, options, strict=True):
        (found,) = harness.scenarios((*DEFAULT, one["remaining_s"]), [row])
        assert unpacked(found) == (one["mark_ticks"], tuple(one["pnl_ticks"]))
    prices = harness.evaluate(6, [row + [0] * 4 for row in rows])
    assert prices == [one["price_e10"] for one in options]


def test_variance__of_the_golden_vectors__is_that_on_file(harness: Any) -> None:
    names = ("a_e12", "b_e12", "rho_e12", "m_e12", "sigma_e12", "forward", "strike")
    rows = [[one[name] % MODULUS for name in names] for one in VECTORS["surfaces"]]
    assert harness.evaluate(9, [[*row, 0] for row in rows]) == [
        one["variance_e12"] for one in VECTORS["surfaces"]
    ]


def test_shocks__of_any_valid_parameters__are_the_same_on_both_sides(harness: Any, many: int) -> None:
    for parameters in [DEFAULT, NONE, HARSHEST, *(drawn_shocks() for _ in range(20 * many))]:
        shocks = Shocks(*parameters)
        for remaining in (drawn_seconds() for _ in range(5)):
            moved, logarithms, left = harness.shocks((*parameters, remaining))
            assert tuple(left) == shocks.left(remaining), (parameters, remaining)
        assert tuple(zip(moved, logarithms, strict=True)) == shocks.moves


def test_shocks_is_valid__of_any_uint32s__is_the_same_on_both_sides(harness: Any, many: int) -> None:
    rows = [
        [most + d if i == place else most for i, most in enumerate(HARSHEST)]
        for place in range(8)
        for d in (0, 1)
    ]
    rows += [[least if i == 6 else 0 for i in range(8)] for least in (0, 1)]
    rows += [
        [random.choice([one, one, one, drawn_u32()]) for one in drawn_shocks()] for _ in range(50 * many)
    ]
    assert_twins(harness, 12, lambda *eight: risk_array.is_valid(Shocks(*eight)), rows)


@pytest.mark.parametrize("parameters", [DEFAULT, NONE, HARSHEST])
def test_scenarios__at_the_corners__are_the_same_on_both_sides(harness: Any, parameters: Row) -> None:
    prices = (0, 1, 2**31 - 1, PRICE_MAX)
    rows = [(f, k, put, w) for f in prices for k in prices for put in (0, 1) for w in (0, W_MAX)]
    rows += [
        (f, f, put, 1) for f in prices for put in (0, 1)
    ]  # the least deviation: all or nothing at the money
    for remaining in (0, 1, 21_601, 2_592_000):
        assert_scenarios(harness, parameters, rows, remaining)


def test_scenarios__of_any_option_and_shocks__are_the_same_on_both_sides(harness: Any, many: int) -> None:
    for _ in range(15 * many):
        rows = [(*drawn_pair(), random.randint(0, 1), drawn_variance()) for _ in range(10)]
        assert_scenarios(harness, drawn_shocks(), rows, drawn_seconds())


def test_settled__at_any_price__is_the_same_on_both_sides(harness: Any) -> None:
    rows = [(*drawn_pair(), random.randint(0, 1)) for _ in range(BATCH)]
    found = [unpacked(row) for row in harness.settled(rows)]
    assert found == [risk_array.settled(settlement, strike, bool(put)) for settlement, strike, put in rows]


# ----------------------------------------------------------------------------------------------- total, cheap


def test_no_function__of_words_outside_its_ranges__reverts(harness: Any) -> None:
    words = [0, 1, 2**31, 2**32, 2**63, 2**64 - 1, 2**128, 2**255 - 1, 2**255, 2**256 - 1]
    rows = [[random.choice(words) for _ in range(8)] for _ in range(30)]
    for which in range(14):
        assert len(harness.evaluate(which, rows)) == len(rows)
    for row in rows[:5]:
        harness.shocks([*row, row[0]])
        assert len(harness.scenarios([*row, row[0]], [row[:4], row[4:]])) == 2


def test_gas__of_the_dearest_rows_known__stays_within_its_bound(harness: Any) -> None:
    used = [harness.gas_of_scenarios((*shocks, 2_592_000), [row])[0] for shocks, row in DEAREST]
    print(f"gas of one row: {used}")
    assert max(used) <= GAS_ROW_MAX


def test_gas__of_a_full_page__stays_within_its_bound(harness: Any) -> None:
    svi = [10**9, 2 * 10**11, -3 * 10**11, 0, 3 * 10**11]
    around = [4_000_000 + 50_000 * (row // 2) | (row % 2) << 31 for row in range(32)]
    used = harness.gas_of_page((*DEFAULT, 90_000), svi, 4_621_979, around, [100_000, 90_000])
    flat = [5 * 10**10, 0, 0, 0, 1]
    alike = harness.gas_of_page((*DEFAULT, 100_000), flat, 4_621_979, [5_400_000] * 32, [100_000, 100_000])
    print(f"gas of 32 rows: {used}, {alike}")
    assert max(used, alike) <= GAS_PAGE_MAX
