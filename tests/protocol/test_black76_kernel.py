"""The C kernel of a page's rows against the Python that it stands in for: at random, at every edge, out of bounds."""

import math
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sequencer.protocol import black76, risk_array
from sequencer.protocol.black76 import D_MAX_Q56, HART_SPLIT_Q56, LN2_Q56, PRICE_MAX, W_MAX
from sequencer.protocol.entries import Page
from sequencer.protocol.risk_array import LEFT_MAX_PPM, PNL_MAX, PNL_MIN, STRIKE_MAX, U32_MAX, Shocks

try:
    from sequencer._kernel import black76_kernel
except ImportError:
    pytest.skip("the C kernel is not built, or is hidden", allow_module_level=True)

DISTANCE_MAX = 32 << 56
STDEV_MAX = 8 << 56


def around(*numbers: int) -> list[int]:
    return [number + step for number in numbers for step in (-2, -1, 0, 1, 2)]


def sized(most: int) -> st.SearchStrategy[int]:
    """Up to `most`, of any length."""
    lengths = st.integers(0, most.bit_length())
    return lengths.flatmap(lambda bits: st.integers(0, min(1 << bits, most)))


# --- single functions -----------------------------------------------------------------------------------------------


def check(name: str, *numbers: int) -> None:
    x, y = (*numbers, 0)[:2]
    assert black76_kernel.evaluate(name, x, y) == getattr(black76, name)(*numbers), (name, numbers)


def within(numbers: list[int], low: int, high: int) -> list[int]:
    return [number for number in numbers if low <= number <= high]


POWERS = around(*(1 << bits for bits in range(63)))
HALF_LN2S = [k * LN2_Q56 - (LN2_Q56 >> 1) for k in range(1, 88)]  # where exp's k changes
# forward / strike where one is doubled, at 256/181
PRICES = within([*POWERS, *around(PRICE_MAX, 181 << 20, 256 << 20, 1_000_000)], 1, PRICE_MAX)


def test_ln_ratio__at_edges__equals_pure() -> None:
    for numerator in PRICES:
        for denominator in PRICES:
            check("ln_ratio_q56", numerator, denominator)
    for shift in range(24):
        for one, other in ((181 << shift, 256 << shift), (256 << shift, 181 << shift)):
            for step in (-1, 0, 1):
                check("ln_ratio_q56", one + step, other)
                check("ln_ratio_q56", one, other + step)


def test_stdev__at_edges__equals_pure() -> None:
    squares = [root * root for root in (2, 3, 1_000, 10**6, 4 * 10**6, 3_999_999)]
    for variance in within([*POWERS, *around(W_MAX, *squares)], 0, W_MAX):
        check("stdev_q56", variance)


def test_exp__at_edges__equals_pure() -> None:
    edges = around(*HALF_LN2S, *(k * LN2_Q56 for k in range(87)), *(k << 56 for k in range(61)), 50 << 56)
    for x in within([*POWERS, *edges], 0, 60 << 56):
        check("exp_neg_q56", x)


def test_hart_ratio__at_edges__equals_pure() -> None:
    edges = around(HART_SPLIT_Q56, D_MAX_Q56, *(k << 55 for k in range(37)))
    for x in within([*POWERS, *edges], 0, 18 << 56):
        check("hart_ratio_q56", x)


def test_time_value__at_edges__equals_pure() -> None:
    deviations = within(around(*(1 << bits for bits in range(60)), STDEV_MAX), 0, STDEV_MAX)
    for stdev in deviations:
        half = stdev >> 1
        d1s = (-D_MAX_Q56, -HART_SPLIT_Q56, 0, HART_SPLIT_Q56, half, -half)
        # distances at which u, and with it d1 or d2, lies at an edge
        turns = [(half - d1) * stdev >> 56 for d1 in d1s] + [(HART_SPLIT_Q56 - half) * stdev >> 56]
        for distance in within(around(0, DISTANCE_MAX, stdev, *turns), 0, DISTANCE_MAX):
            check("time_value_q56", distance, stdev)


def test_functions__at_random_numbers_of_any_length__equal_pure() -> None:
    rng = random.Random(76)

    def draw(most: int, least: int = 0) -> int:
        return min(max(rng.getrandbits(rng.randint(0, most.bit_length())), least), most)

    for _ in range(20_000):
        check("ln_ratio_q56", draw(PRICE_MAX, 1), draw(PRICE_MAX, 1))
        check("stdev_q56", draw(W_MAX))
        check("exp_neg_q56", rng.randint(0, 60 << 56))
        check("hart_ratio_q56", rng.randint(0, 18 << 56))
        check("time_value_q56", draw(DISTANCE_MAX), draw(STDEV_MAX))
        stdev = draw(STDEV_MAX, 1)
        check("time_value_q56", min(rng.randint(0, 15 * stdev), DISTANCE_MAX), stdev)


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("ln_ratio_q56", 0, 1),
        ("ln_ratio_q56", 1, 0),
        ("ln_ratio_q56", 1 << 32, 1),
        ("stdev_q56", -1, 0),
        ("stdev_q56", W_MAX + 1, 0),
        ("exp_neg_q56", (60 << 56) + 1, 0),
        ("exp_neg_q56", -1, 0),
        ("hart_ratio_q56", (18 << 56) + 1, 0),
        ("time_value_q56", DISTANCE_MAX + 1, 1),
        ("time_value_q56", 1, STDEV_MAX + 1),
        ("time_value_q56", 1 << 200, 1),
    ],
)
def test_functions__out_of_their_bounds__are_left_to_python(name: str, x: int, y: int) -> None:
    assert black76_kernel.evaluate(name, x, y) is None


# --- rows -----------------------------------------------------------------------------------------------------------

shock_sets = st.builds(
    Shocks,
    st.integers(0, 900_000),
    st.integers(0, 900_000),
    st.integers(0, 1_000_000),
    st.integers(0, 1_000_000),
    st.integers(0, 900_000),
    st.integers(0, U32_MAX),
    st.integers(1, U32_MAX),
    st.integers(0, 1_000_000),
)
HARSHEST = Shocks(900_000, 900_000, 1_000_000, 1_000_000, 900_000, 0, 1, 1_000_000)
STILL = Shocks(0, 0, 0, 0, 0, 0, 1, 0)
prices = st.one_of(sized(PRICE_MAX), st.integers(1_000_000, 20_000_000), st.just(PRICE_MAX))
variances = st.one_of(sized(W_MAX), st.sampled_from([0, 1, W_MAX, W_MAX + 1, 2**63 - 1]))
strikes = st.one_of(sized(STRIKE_MAX), st.integers(1_000_000, 20_000_000), st.just(STRIKE_MAX))
lefts = st.tuples(st.integers(0, LEFT_MAX_PPM), st.integers(0, LEFT_MAX_PPM))


def rows(
    forward: int, terms: list[int], given: dict[int, int], shocks: Shocks, left: tuple[int, int]
) -> list[risk_array.Row] | None:
    return black76_kernel.rows(forward, terms, given, shocks.moves, left, shocks.extreme_weight_ppm)


@given(
    prices,
    st.lists(st.tuples(strikes, variances, st.booleans()), max_size=8),
    st.one_of(shock_sets, st.sampled_from([Shocks(), HARSHEST, STILL])),
    lefts,
)
@example(PRICE_MAX, [(1, W_MAX, False), (STRIKE_MAX, W_MAX, True)], HARSHEST, (LEFT_MAX_PPM, LEFT_MAX_PPM))
@example(1, [(STRIKE_MAX, 1, False), (0, W_MAX, True)], HARSHEST, (LEFT_MAX_PPM, 0))
@example(0, [(STRIKE_MAX, W_MAX, True)], STILL, (0, 0))
def test_rows__of_any_page__equal_pure(
    forward: int, listed: list[tuple[int, int, bool]], shocks: Shocks, left: tuple[int, int]
) -> None:
    given = {strike: variance for strike, variance, _ in listed}
    terms = [strike | is_put << 31 for strike, _, is_put in listed]
    found = rows(forward, terms, given, shocks, left)
    assert found == risk_array.rows_in_python(forward, terms, given, shocks, left)
    assert risk_array.rows(forward, terms, given, shocks, left) == found
    for mark, pnl in found or []:
        assert 0 <= mark <= PRICE_MAX
        assert all(PNL_MIN <= value <= PNL_MAX for value in pnl)


def test_rows__of_full_pages_by_chance__equal_pure(is_long: bool) -> None:
    rng = random.Random(5)
    clamped = 0
    for _ in range(2_000 if is_long else 100):
        forward = int(math.exp(rng.uniform(0, math.log(PRICE_MAX))))
        shocks = rng.choice(
            (
                Shocks(),
                HARSHEST,
                Shocks(*(rng.randint(0, 900_000) for _ in range(5)), 0, rng.randint(1, U32_MAX)),
            )
        )
        left = shocks.left(int(math.exp(rng.uniform(0, 22))))
        terms, given = [], {}
        for row in range(32):
            strike = min(max(int(forward * math.exp(rng.gauss(0, 0.7))), 1), STRIKE_MAX)
            if row & 1 and terms:
                strike = terms[-1] & STRIKE_MAX  # a call and a put
            terms.append(strike | rng.getrandbits(1) << 31)
            given.setdefault(strike, int(math.exp(rng.uniform(0, math.log(W_MAX)))))
        found = rows(forward, terms, given, shocks, left)
        assert found == risk_array.rows_in_python(forward, terms, given, shocks, left)
        clamped += sum(PNL_MAX in pnl or PNL_MIN in pnl for _, pnl in found)
    assert clamped


USUAL = (5_000_000, [5_000_000], {5_000_000: 10**10}, Shocks().moves, (1_000_000, 900_000), 350_000)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, -1),
        (0, 1 << 32),
        (0, 1 << 70),
        (1, [-1]),
        (1, [1 << 32]),
        (1, [5_000_000] * 33),
        (2, {5_000_000: -1}),
        (2, {5_000_000: 1 << 63}),
        (3, ((1_900_001, 0), *Shocks().moves[1:])),
        (3, ((-1, 0), *Shocks().moves[1:])),
        (3, (*Shocks().moves[:8], (1, (4 << 56) + 1))),
        (3, (*Shocks().moves[:8], (1, (-4 << 56) - 1))),
        (4, (2_000_001, 0)),
        (4, (0, -1)),
        (5, -1),
        (5, 1_000_001),
    ],
)
def test_rows__out_of_bounds__are_left_to_python(place: int, value: object) -> None:
    arguments: list[object] = list(USUAL)
    assert black76_kernel.rows(*arguments) is not None  # type: ignore[arg-type]
    arguments[place] = value
    assert black76_kernel.rows(*arguments) is None  # type: ignore[arg-type]


def test_rows__with_a_variance_beyond_the_kernel__are_computed() -> None:
    forward, terms, _, _, left, _ = USUAL
    given = {terms[0]: 1 << 80}
    assert rows(forward, terms, given, Shocks(), left) is None
    expected = risk_array.rows(forward, terms, {terms[0]: W_MAX}, Shocks(), left)
    assert risk_array.rows(forward, terms, given, Shocks(), left) == expected


def test_rows__at_all_bounds_of_the_kernel__do_not_wrap() -> None:
    """Beyond what valid shocks give: moves and their logarithms at the ends of what the kernel takes."""
    for ppm in (0, 1, 1_900_000):
        for ln in (-(4 << 56), 4 << 56):
            shocks = replace(Shocks(), extreme_weight_ppm=1_000_000)
            object.__setattr__(shocks, "moves", ((ppm, ln),) * 9)
            for forward in (0, 1, PRICE_MAX):
                for strike in (0, 1, STRIKE_MAX):
                    for variance in (0, 1, 10**9, W_MAX):
                        for left in (0, LEFT_MAX_PPM):
                            arguments = forward, [strike, strike | 1 << 31], {strike: variance}, shocks
                            # The memo does not tell these shocks from their like.
                            risk_array._valued.cache_clear()
                            expected = risk_array.rows_in_python(*arguments, (left, left))
                            assert rows(*arguments, (left, left)) == expected
    risk_array._valued.cache_clear()


# --- words ----------------------------------------------------------------------------------------------------------

pnls = st.lists(
    st.one_of(st.integers(PNL_MIN, PNL_MAX), st.sampled_from([PNL_MIN, -1, 0, PNL_MAX])),
    min_size=16,
    max_size=16,
)


@given(st.lists(st.tuples(sized(U32_MAX), sized(U32_MAX), pnls.map(tuple)), max_size=32))
def test_page_words__of_any_page__equal_pure(listed: list[tuple[int, int, tuple[int, ...]]]) -> None:
    page = Page()
    page.terms = [word for word, _, _ in listed]
    page.rows = [(mark, pnl) for _, mark, pnl in listed]
    assert black76_kernel.page_words(page.terms, page.rows) == page.rows_in_python()
    assert page.words()[32:] == page.rows_in_python()
    assert Page.from_words(page.words()).rows == page.rows


ROW = (1, (0,) * 16)


@pytest.mark.parametrize(
    ("terms", "given"),
    [
        ([1], []),
        ([1] * 33, [ROW] * 33),
        ([-1], [ROW]),
        ([1 << 32], [ROW]),
        ([1], [(-1, (0,) * 16)]),
        ([1], [(1 << 32, (0,) * 16)]),
        ([1], [(1, (PNL_MAX + 1,) * 16)]),
        ([1], [(1, (PNL_MIN - 1,) * 16)]),
    ],
)
def test_page_words__out_of_bounds__are_left_to_python(terms: list[int], given: list[risk_array.Row]) -> None:
    assert black76_kernel.page_words(terms, given) is None


# --- any other arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rows", ()),
        ("rows", (1.5, *USUAL[1:])),
        ("rows", (USUAL[0], (5,), *USUAL[2:])),
        ("rows", (*USUAL[:2], {}, *USUAL[3:])),
        ("rows", (*USUAL[:2], {5_000_000: "1"}, *USUAL[3:])),
        ("rows", (*USUAL[:2], None, *USUAL[3:])),
        ("rows", (*USUAL[:3], USUAL[3][1:], *USUAL[4:])),
        ("rows", (*USUAL[:3], [*USUAL[3]], *USUAL[4:])),
        ("rows", (*USUAL[:3], (1,) * 9, *USUAL[4:])),
        ("rows", (*USUAL[:4], (1,), USUAL[5])),
        ("rows", (*USUAL[:5], None)),
        ("page_words", ([],)),
        ("page_words", ((), [])),
        ("page_words", ([1], [1])),
        ("page_words", ([1], [(1, (0,) * 15)])),
        ("page_words", ([1], [(1, ("a",) * 16)])),
        ("page_words", (["a"], [ROW])),
        ("evaluate", ("exp_neg_q56", 1)),
        ("evaluate", (1, 1, 1)),
        ("evaluate", ("sqrt", 1, 1)),
        ("evaluate", ("exp_neg_q56", 1.0, 0)),
    ],
)
def test_kernel__called_with_anything_else__raises(name: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        getattr(black76_kernel, name)(*arguments)


def test_transition__where_pure_python_is_asked_for__has_no_kernel() -> None:
    code = (
        "from sequencer.protocol import entries, reports, risk_array as r;"
        "assert r._kernel is None and reports._kernel is None and entries._rows_in_kernel is None;"
        f"print(r.rows({USUAL[0]}, {USUAL[1]}, {USUAL[2]}, r.Shocks(), {USUAL[4]}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"FAIRSTRIKE_PURE": "1"},
    )
    assert done.stdout.strip() == repr(rows(*USUAL[:3], Shocks(), USUAL[4]))
