"""The C kernel's variances of strikes against `reports.py`: of any reports, at every end, out of bounds."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequencer.protocol import reports
from sequencer.protocol.black76 import PRICE_MAX
from sequencer.protocol.entries import SurfaceReport
from sequencer.protocol.params import Params
from sequencer.protocol.risk_array import STRIKE_MAX, U32_MAX
from sequencer.protocol.surface import PARAMETER_MAX_E12, Surface

try:
    from sequencer._kernel import black76_kernel
except ImportError:
    pytest.skip("the C kernel is not built, or is hidden", allow_module_level=True)

E12 = 10**12


def sized(most: int) -> st.SearchStrategy[int]:
    """Up to `most`, of any length."""
    lengths = st.integers(0, most.bit_length())
    return lengths.flatmap(lambda bits: st.integers(0, min(1 << bits, most)))


prices = st.one_of(sized(PRICE_MAX), st.integers(1_000_000, 20_000_000), st.just(PRICE_MAX))
strikes = st.one_of(sized(STRIKE_MAX), st.integers(1_000_000, 20_000_000), st.just(STRIKE_MAX))
parameters = st.builds(
    Surface,
    st.one_of(st.integers(0, E12), st.integers(-PARAMETER_MAX_E12, PARAMETER_MAX_E12)),
    st.one_of(sized(E12), sized(PARAMETER_MAX_E12)),
    st.integers(-E12, E12),
    st.integers(-PARAMETER_MAX_E12, PARAMETER_MAX_E12),
    st.one_of(st.integers(1, E12), st.integers(1, PARAMETER_MAX_E12)),
)
EXPIRES = 2**32 - 1
report_lists = st.lists(
    st.builds(SurfaceReport, st.integers(0, EXPIRES), prices, st.integers(1, U32_MAX), parameters),
    min_size=1,
    max_size=5,
)
exact = st.builds(
    Surface,
    *(
        st.sampled_from(list(ends))
        for ends in (
            (-PARAMETER_MAX_E12, 0, PARAMETER_MAX_E12),
            (0, PARAMETER_MAX_E12),
            (-E12, E12),
            (-PARAMETER_MAX_E12, PARAMETER_MAX_E12),
            (1, PARAMETER_MAX_E12),
        )
    ),
)
exact_lists = st.lists(
    st.builds(
        SurfaceReport,
        st.sampled_from([0, EXPIRES - 1, EXPIRES]),
        st.sampled_from([0, 1, PRICE_MAX]),
        st.just(1),
        exact,
    ),
    min_size=1,
    max_size=5,
)


def params(feeds: int, quorum: int, variance_spread: int, mark_spread: int) -> Params:
    keys = tuple(bytes([feed + 1]) * 20 for feed in range(feeds))
    return Params(
        feed_keys=keys,
        feed_quorum=quorum,
        variance_spread_max_ppm=variance_spread,
        mark_spread_max_ppm=mark_spread,
    )


param_sets = st.builds(
    params,
    st.integers(3, 5),
    st.sampled_from([0, 3]),
    st.one_of(st.integers(0, 10**6), st.just(U32_MAX)),
    st.one_of(st.integers(0, 10**6), st.just(U32_MAX)),
)


@given(
    st.one_of(report_lists, exact_lists),
    st.lists(strikes, max_size=6),
    prices,
    prices,
    sized(EXPIRES),
    param_sets,
)
def test_variances__of_any_reports__equal_pure(
    fresh: list[SurfaceReport], listed: list[int], forward: int, index: int, now: int, given: Params
) -> None:
    terms = [strike | (place & 1) << 31 for place, strike in enumerate(listed)]
    arguments = fresh, terms, forward, index, EXPIRES, now, given
    low, high = reports._places(len(fresh), given)
    flat = [reports._flat(one, EXPIRES) for one in fresh]
    spreads = given.variance_spread_max_ppm, given.mark_spread_max_ppm
    found = black76_kernel.variances(terms, flat, forward, index, EXPIRES - now, low, high, *spreads)
    expected = reports.variances_in_python(*arguments)
    assert found == expected
    assert list(expected) == list(found)
    assert reports.variances_of(*arguments) == expected


def test_variances__of_likely_reports__agree_and_disagree_as_in_python() -> None:
    rng = random.Random(6)
    seen = {False: 0, True: 0}
    for _ in range(300):
        forward = rng.randint(1_000_000, 9_000_000)
        shape = Surface(rng.randint(0, 10**10), rng.randint(0, E12), rng.randint(-E12, E12), 0, 10**11)
        fresh = [
            SurfaceReport(
                rng.randint(0, 100),
                forward + rng.randint(-1_000, 1_000),
                forward,
                replace(shape, a_e12=shape.a_e12 + rng.randint(0, 10**10)),
            )
            for _ in range(rng.randint(2, 5))
        ]
        terms = [rng.randint(forward // 4, forward * 4) for _ in range(32)]
        given = params(5, 3, rng.randint(0, 300_000), rng.randint(0, 2_000))
        found = reports.variances_of(fresh, terms, forward, forward, 10**6, 200, given)
        assert found == reports.variances_in_python(fresh, terms, forward, forward, 10**6, 200, given)
        for variance in found.values():
            seen[variance == 0] += 1
    assert min(seen.values()) > 100


REPORT = (5_000_000, 1_000, 10**9, 10**11, -(10**11), 0, 10**11)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((0, value) for value in (-1, 1 << 32)),
        *((1, value) for value in (-1, 1 << 32)),
        *((2, value) for value in (-PARAMETER_MAX_E12 - 1, PARAMETER_MAX_E12 + 1)),
        *((3, value) for value in (-1, PARAMETER_MAX_E12 + 1)),
        *((4, value) for value in (-E12 - 1, E12 + 1)),
        *((5, value) for value in (-PARAMETER_MAX_E12 - 1, PARAMETER_MAX_E12 + 1, 1 << 90)),
        *((6, value) for value in (0, PARAMETER_MAX_E12 + 1)),
    ],
)
def test_variances__of_a_report_out_of_bounds__are_left_to_python(place: int, value: int) -> None:
    numbers = 5_000_000, 5_000_000, 900, 0, 0, 200_000, 1_000
    assert black76_kernel.variances([5_000_000], [REPORT], *numbers) is not None
    report = (*REPORT[:place], value, *REPORT[place + 1 :])
    assert black76_kernel.variances([5_000_000], [report], *numbers) is None  # type: ignore[list-item]


@pytest.mark.parametrize(
    "numbers",
    [
        (-1, 1, 1, 0, 0, 0, 0),
        (1, 1 << 32, 1, 0, 0, 0, 0),
        (1, 1, -1, 0, 0, 0, 0),
        (1, 1, 1, 1, 0, 0, 0),
        (1, 1, 1, 0, 1, 0, 0),
        (1, 1, 1, 0, 0, 1 << 32, 0),
        (1, 1, 1, 0, 0, 0, -1),
    ],
)
def test_variances__with_numbers_out_of_bounds__are_left_to_python(numbers: tuple[int, ...]) -> None:
    assert black76_kernel.variances([5_000_000], [REPORT], *numbers) is None
    assert black76_kernel.variances([5_000_000], [], 1, 1, 1, 0, 0, 0, 0) is None
    assert black76_kernel.variances([5_000_000], [REPORT] * 6, 1, 1, 1, 0, 0, 0, 0) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ([], [REPORT], 1, 1, 1, 0, 0, 0),
        ((), [REPORT], 1, 1, 1, 0, 0, 0, 0),
        ([], (REPORT,), 1, 1, 1, 0, 0, 0, 0),
        ([], [REPORT[1:]], 1, 1, 1, 0, 0, 0, 0),
        ([], [REPORT], 1, 1, 1, 0, 0, 0, "0"),
        (["1"], [REPORT], 1, 1, 1, 0, 0, 0, 0),
    ],
)
def test_variances__called_with_anything_else__raises(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        black76_kernel.variances(*arguments)  # type: ignore[arg-type]
