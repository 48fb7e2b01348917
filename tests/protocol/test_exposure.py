"""The C kernel of the sums over scenarios against the Python that it stands in for, at numbers of any size."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import exposure

try:
    from sequencer._kernel import exposure_kernel
    from sequencer._kernel.exposure_kernel import Vector
except ImportError:
    pytest.skip("the C kernel is not built, or is hidden", allow_module_level=True)


def vector(most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-most, most), min_size=c.SCENARIOS, max_size=c.SCENARIOS)


def vectors() -> st.SearchStrategy[list[int]]:
    edge = st.sampled_from([0, 1, -1, 2**59 - 1, -(2**59), 2**63 - 1, -(2**63), 2**80, -(2**127)])
    edges = st.lists(edge, min_size=c.SCENARIOS, max_size=c.SCENARIOS)
    return st.one_of(vector(10), vector(2**40), vector(2**59), vector(2**75), edges)


NUMBERS = st.one_of(
    *(st.integers(-(2**bits), 2**bits) for bits in (4, 40, 59, 75)), st.sampled_from([2**63, -(2**63)])
)


@given(sums=vectors(), row=vectors(), lots=NUMBERS)
def test_plus__of_any_numbers__equals_pure(sums: list[int], row: list[int], lots: int) -> None:
    expected = exposure.plus(sums, tuple(row), lots)
    try:
        found = exposure_kernel.plus(Vector(sums), tuple(row), lots)
    except OverflowError:
        assert max(map(abs, (*row, lots))) >= 2**63 or max(map(abs, expected)) >= 2**127
    else:
        assert list(found) == expected
        assert found == Vector(list(expected))
        assert found != Vector([expected[0] + 1, *expected[1:]])


@given(net=vectors(), longs=vectors(), first=NUMBERS, last=NUMBERS, value=NUMBERS)
def test_lowest__of_any_numbers__equals_pure_or_is_left_to_it(
    net: list[int], longs: list[int], first: int, last: int, value: int
) -> None:
    found = exposure_kernel.lowest(Vector(net), Vector(longs), first, last, value)
    if max(map(abs, (*net, *longs, first, last, value))) < 2**59:
        assert found == exposure.lowest(net, longs, first, last, value)
    else:
        assert found is None


@pytest.mark.parametrize("seed", range(20))
def test_lowest__of_convex_longs__equals_pure(seed: int) -> None:
    """Chords that rise, as those of options do: here the lines cross, which they seldom do by chance."""
    rng = random.Random(seed)
    crossed = 0
    for _ in range(500):
        size = 10 ** rng.randrange(1, 17)
        slopes = sorted(rng.randrange(-size, size) for _ in range(8))
        longs = [0]
        for slope in slopes[1:7]:
            longs.append(longs[-1] + slope)
        longs = [*longs, 0] * 2
        net = [value + rng.randrange(-size, size) // 3 for value in longs]
        args = slopes[0], slopes[7], rng.randrange(4 * size)
        found = exposure_kernel.lowest(Vector(net), Vector(longs), *args)
        assert found == exposure.lowest(net, longs, *args)
        crossed += found < min(0, *net)
    assert crossed > 100


@given(row=vectors())
def test_gain__of_a_row__equals_pure(row: list[int]) -> None:
    if max(map(abs, row)) < 2**63:
        assert exposure_kernel.gain(tuple(row)) == exposure.gain(tuple(row))


NONE = Vector([0] * c.SCENARIOS)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("plus", ()),
        ("plus", (NONE, (1, 2), 1)),
        ("plus", ([0] * 16, (1,) * 16, 1)),
        ("plus", (NONE, ("b",) * 16, 1)),
        ("plus", (NONE, (1,) * 16, 1.5)),
        ("lowest", (NONE, [0] * 16, 0, 0, 0)),
        ("lowest", (NONE, NONE, 0, 0)),
        ("lowest", (NONE, NONE, 0, "1", 0)),
        ("gain", ([1],)),
        ("gain", ((2**63,),)),
        ("Vector", ()),
        ("Vector", ([0] * 15,)),
        ("Vector", ([0.5] * 16,)),
        ("Vector", ([2**127] * 16,)),
    ],
)
def test_kernel__called_with_anything_else__raises(name: str, args: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(exposure_kernel, name)(*args)
