"""The crit-bit Merkle map against a naive twin: a dict, and a recursive rebuild from its sorted items.

Long because every operation is compared with the same twin, in Python and in C.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from eth_utils.crypto import keccak as reference_keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sequencer.protocol import cmap
from sequencer.protocol.cmap import EMPTY_ROOT, NO_NEIGHBOUR, WORD_MAX, Neighbour, Path

IMPLEMENTATIONS = [cmap.PureMap] if cmap.Map is cmap.PureMap else [cmap.PureMap, cmap.Map]
needs_kernel = pytest.mark.skipif(cmap.Map is cmap.PureMap, reason="the C kernel is not built, or is hidden")
LOW72 = 2**72 - 1

if TYPE_CHECKING:
    from collections.abc import Iterator

# Keys that collide often and share long prefixes, as orders do, besides any word at all.
KEYS = st.one_of(
    st.integers(0, 15),
    st.integers(0, 255).map(lambda position: 1 << position),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 7), st.integers(0, 3)).map(
        lambda part: part[0] << 252 | part[1] << 72 | part[2] << 40 | part[3]
    ),
    st.sampled_from([WORD_MAX, WORD_MAX - 1, WORD_MAX >> 1]),
    st.integers(0, WORD_MAX),
)
VALUES = st.one_of(st.integers(0, 3), st.sampled_from([WORD_MAX]), st.integers(0, WORD_MAX))
ENTRIES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=24)
LOW_MASKS = st.sampled_from([0, 1, 2**40 - 1, LOW72, 2**252 - 1, WORD_MAX])


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def naive_root(entries: dict[int, int]) -> bytes:
    return naive_subtree(sorted(entries.items())) if entries else EMPTY_ROOT


def naive_subtree(items: list[tuple[int, int]]) -> bytes:
    if len(items) == 1:
        return reference_keccak(word(items[0][0]) + word(items[0][1]))
    bit = 1 << ((items[0][0] ^ items[-1][0]).bit_length() - 1)
    left = [item for item in items if not item[0] & bit]
    right = [item for item in items if item[0] & bit]
    return reference_keccak(word(bit) + naive_subtree(left) + naive_subtree(right))


def made(implementation: type[cmap.PureMap], entries: dict[int, int]) -> cmap.PureMap:
    built = implementation()
    for key, value in entries.items():
        built.put(key, value)
    return built


def naive_first(entries: dict[int, int], prefix: int, low_mask: int) -> tuple[int, int] | None:
    return min((item for item in entries.items() if item[0] & ~low_mask == prefix), default=None)


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.__name__)
def implementation(request: pytest.FixtureRequest) -> type[cmap.PureMap]:
    return request.param  # type: ignore[no-any-return]  # fixtures are untyped


# --------------------------------------------------------------------------------------------- state machine


class LazyMachine(RuleBasedStateMachine):
    """Compares only when told to, so that many changes and roots pile up between two hashings."""

    implementation = cmap.PureMap

    def __init__(self) -> None:
        super().__init__()
        self.map = self.implementation()
        self.naive: dict[int, int] = {}
        self.marked: list[bytes] = []

    def present(self, data: st.DataObject, key: int) -> int:
        """Mostly a present key: a drawn one alone would seldom hit."""
        return data.draw(st.sampled_from(sorted(self.naive))) if self.naive else key

    @rule(key=KEYS, value=VALUES)
    def put(self, key: int, value: int) -> None:
        self.map.put(key, value)
        self.naive[key] = value

    @rule(key=KEYS, words=st.sampled_from([0, 1, 135, 136, 137, 272, 1_000]).map(bytes))
    def put_words(self, key: int, words: bytes) -> None:
        self.map.put_words(key, words)
        self.naive[key] = int.from_bytes(reference_keccak(words), "big")

    @rule(key=KEYS, value=VALUES)
    def put_leaf(self, key: int, value: int) -> None:
        self.map.put_leaf(word(key) + word(value))
        self.naive[key] = value

    @rule()
    def mark(self) -> None:
        assert self.map.mark() == len(self.marked)
        self.marked.append(naive_root(self.naive))

    @rule()
    def roots(self) -> None:
        assert self.map.roots() == self.marked
        self.marked = []

    @rule(data=st.data(), key=KEYS, value=VALUES)
    def overwrite(self, data: st.DataObject, key: int, value: int) -> None:
        self.put(self.present(data, key), value)

    @rule(data=st.data(), key=KEYS)
    def delete(self, data: st.DataObject, key: int) -> None:
        key = self.present(data, key)
        if key in self.naive:
            self.map.delete(key)
            del self.naive[key]
        else:
            with pytest.raises(KeyError):
                self.map.delete(key)

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        assert self.map.get(key) == self.naive.get(key)

    @rule(key=KEYS, low_mask=LOW_MASKS)
    def first_in_prefix(self, key: int, low_mask: int) -> None:
        prefix = key & ~low_mask
        assert self.map.first_in_prefix(prefix, low_mask) == naive_first(self.naive, prefix, low_mask)

    @rule()
    def compare_roots(self) -> None:
        assert self.map.root() == naive_root(self.naive)

    @rule()
    def rebuild(self) -> None:
        self.map = self.implementation.build(sorted(self.naive.items()))
        self.marked = []

    @rule()
    def compare_entries(self) -> None:
        assert self.map.items() == sorted(self.naive.items())

    @invariant()
    def lengths_agree(self) -> None:
        assert len(self.map) == len(self.naive)

    def teardown(self) -> None:
        self.compare_entries()
        self.compare_roots()
        self.roots()


class EagerMachine(LazyMachine):
    """Compares roots after every command, and proves each change by its witness."""

    @rule(key=KEYS, value=VALUES)
    def put(self, key: int, value: int) -> None:
        before = self.map.root()
        if key in self.naive:
            expected = cmap.write(before, key, self.naive[key], value, self.map.path(key))
        else:
            expected = cmap.insert(before, key, value, self.map.insert_witness(key))
        super().put(key, value)
        assert expected == self.map.root()

    @rule(data=st.data(), key=KEYS)
    def delete(self, data: st.DataObject, key: int) -> None:
        key = self.present(data, key)
        if key not in self.naive:
            return
        expected = cmap.remove(self.map.root(), key, self.naive[key], self.map.path(key))
        self.map.delete(key)
        del self.naive[key]
        assert expected == self.map.root()

    @rule(key=KEYS, low_mask=LOW_MASKS)
    def prove_prefix(self, key: int, low_mask: int) -> None:
        prefix = key & ~low_mask
        if naive_first(self.naive, prefix, low_mask) is None:
            witness = self.map.empty_prefix_witness(prefix, low_mask)
            assert cmap.absent_prefix(self.map.root(), prefix, low_mask, witness)
        else:
            with pytest.raises(KeyError):
                self.map.empty_prefix_witness(prefix, low_mask)

    @invariant()
    def roots_agree(self) -> None:
        assert self.map.items() == sorted(self.naive.items())
        assert self.map.root() == naive_root(self.naive)


def test_roots__of_a_map_that_empties_meanwhile__are_all_hashed(
    implementation: type[cmap.PureMap],
) -> None:
    emptied = made(implementation, {0: 1})
    for change in (emptied.mark, lambda: emptied.delete(0), emptied.mark, emptied.mark):
        change()
    emptied.put(0, 1)
    emptied.mark()
    one = naive_root({0: 1})
    assert emptied.roots() == [one, EMPTY_ROOT, EMPTY_ROOT, one]
    assert emptied.root() == one


@pytest.mark.parametrize("machine", [LazyMachine, EagerMachine])
def test_map__after_every_command__equals_naive_twin(
    implementation: type[cmap.PureMap], machine: type[LazyMachine]
) -> None:
    bound = type(machine.__name__, (machine,), {"implementation": implementation})
    run_state_machine_as_test(
        bound, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


# ------------------------------------------------------------------------------------------------------- map


def test_root__of_empty_map__is_zero(implementation: type[cmap.PureMap]) -> None:
    assert implementation().root() == bytes(32)
    assert implementation.build([]).root() == bytes(32)


def test_root__of_three_entries__is_the_written_out_formula(implementation: type[cmap.PureMap]) -> None:
    entries = {1 << 252: 7, 1 << 252 | 5: 0, 3 << 252 | 1: WORD_MAX}
    low = reference_keccak(
        word(4) + reference_keccak(word(1 << 252) + word(7)) + reference_keccak(word(1 << 252 | 5) + word(0))
    )
    high = reference_keccak(word(3 << 252 | 1) + word(WORD_MAX))
    assert made(implementation, entries).root() == reference_keccak(word(1 << 253) + low + high)


def test_root__after_thousands_of_changes__does_not_depend_on_history(
    implementation: type[cmap.PureMap],
) -> None:
    rng = random.Random(7)
    naive: dict[int, int] = {}
    grown = implementation()
    for turn in range(6000):
        key = rng.getrandbits(10) << rng.choice([0, 40, 200])
        if key in naive and rng.random() < 0.4:
            grown.delete(key)
            del naive[key]
        else:
            naive[key] = rng.getrandbits(256)
            grown.put(key, naive[key])
        if turn % 97 == 0:
            assert grown.root() == cmap.PureMap.build(sorted(naive.items())).root()
    assert grown.root() == naive_root(naive)
    assert grown.items() == sorted(naive.items())


def test_root__after_undoing_every_change__is_restored(implementation: type[cmap.PureMap]) -> None:
    rng = random.Random(8)
    grown = made(implementation, {rng.getrandbits(256): rng.getrandbits(256) for _ in range(200)})
    before = grown.root()
    added = [rng.getrandbits(256) for _ in range(200)]
    for key in added:
        grown.put(key, 1)
    assert grown.root() != before
    for key in added:
        grown.delete(key)
    assert grown.root() == before


def test_map__with_a_branch_at_every_bit__works(implementation: type[cmap.PureMap]) -> None:
    entries = {0: 1} | {1 << position: position for position in range(256)}
    deep = made(implementation, entries)
    assert deep.root() == naive_root(entries)
    assert deep.path(0).bitmap == WORD_MAX
    assert cmap.read(deep.root(), 0, 1, deep.path(0))
    for key in sorted(entries):
        deep.delete(key)
    assert deep.root() == EMPTY_ROOT


def test_put__of_zero__is_present_and_distinct_from_absent(implementation: type[cmap.PureMap]) -> None:
    zero = made(implementation, {1: 1, 2: 0})
    assert zero.get(2) == 0
    assert len(zero) == 2
    assert zero.root() != made(implementation, {1: 1}).root()
    assert cmap.read(zero.root(), 2, 0, zero.path(2))
    with pytest.raises(KeyError):
        zero.absence_witness(2)


def test_put__of_equal_value__keeps_the_root(implementation: type[cmap.PureMap]) -> None:
    same = made(implementation, {1: 1, 2: 2})
    before = same.root()
    same.put(1, 1)
    assert same.root() == before


@pytest.mark.parametrize(
    ("key", "value"), [(-1, 0), (WORD_MAX + 1, 0), (0, -1), (0, WORD_MAX + 1), (1, 2**300)]
)
def test_put__of_number_that_is_no_word__raises_and_changes_nothing(
    implementation: type[cmap.PureMap], key: int, value: int
) -> None:
    kept = made(implementation, {1: 1})
    before = kept.root()
    with pytest.raises(ValueError, match="not a word"):
        kept.put(key, value)
    assert kept.root() == before
    assert kept.items() == [(1, 1)]


@pytest.mark.parametrize("key", [3, -1, WORD_MAX + 1])
def test_delete__of_absent_key__raises(implementation: type[cmap.PureMap], key: int) -> None:
    kept = made(implementation, {1: 1, 2: 2})
    with pytest.raises(KeyError):
        kept.delete(key)
    with pytest.raises(KeyError):
        implementation().delete(key)
    assert kept.root() == naive_root({1: 1, 2: 2})


@pytest.mark.parametrize("key", [3, -1, WORD_MAX + 1])
def test_get__of_absent_key__is_none(implementation: type[cmap.PureMap], key: int) -> None:
    assert made(implementation, {1: 1, 2: 2}).get(key) is None
    assert implementation().get(key) is None


@given(entries=st.dictionaries(KEYS, VALUES, max_size=40))
def test_build__of_sorted_items__equals_puts(entries: dict[int, int]) -> None:
    for implementation in IMPLEMENTATIONS:
        built = implementation.build(sorted(entries.items()))
        assert built.root() == naive_root(entries)
        assert built.items() == sorted(entries.items())
        built.put(9, 9)
        assert built.root() == naive_root(entries | {9: 9})


@pytest.mark.parametrize(
    "items",
    [
        [(2, 0), (1, 0)],
        [(1, 0), (1, 1)],
        [(-1, 0)],
        [(0, -1)],
        [(WORD_MAX + 1, 0)],
        [(1, 0), (2, WORD_MAX + 1)],
    ],
)
def test_build__of_unsorted_or_overwide_items__raises(
    implementation: type[cmap.PureMap], items: list[tuple[int, int]]
) -> None:
    with pytest.raises(ValueError, match="not a word, or not in rising order"):
        implementation.build(items)


@pytest.mark.parametrize(
    ("prefix", "low_mask"), [(-1, 0), (0, -1), (WORD_MAX + 1, 0), (0, WORD_MAX + 1), (0, 2), (1, 1)]
)
def test_first_in_prefix__of_malformed_prefix__raises(
    implementation: type[cmap.PureMap], prefix: int, low_mask: int
) -> None:
    for asked in (implementation(), made(implementation, {1: 1})):
        with pytest.raises(ValueError, match="not "):
            asked.first_in_prefix(prefix, low_mask)
        with pytest.raises(ValueError, match="not "):
            asked.empty_prefix_witness(prefix, low_mask)


# ------------------------------------------------------------------------------------------------- witnesses


def test_words__of_witnesses__stand_in_calldata_order() -> None:
    one, two = word(11), word(12)
    assert Path(5, (one, two)).words() == [5, 11, 12]
    assert Neighbour(1, 2, 3, 4, (one, two)).words() == [1, 2, 3, 4, 11, 12]
    assert NO_NEIGHBOUR.words() == []


@pytest.mark.parametrize("key", [3, -1, WORD_MAX + 1])
def test_path__of_absent_key__raises(implementation: type[cmap.PureMap], key: int) -> None:
    for asked in (implementation(), made(implementation, {1: 1, 2: 2})):
        with pytest.raises(KeyError):
            asked.path(key)


def test_insert_witness__of_present_key__raises(implementation: type[cmap.PureMap]) -> None:
    with pytest.raises(KeyError):
        made(implementation, {1: 1}).insert_witness(1)


def test_witness__from_map_with_unhashed_changes__is_of_the_new_root(
    implementation: type[cmap.PureMap],
) -> None:
    changed = made(implementation, {1: 1, 2: 2, 3: 3})
    changed.root()
    changed.put(3, 4)
    path = changed.path(1)
    assert cmap.read(changed.root(), 1, 1, path)


def test_path__of_best_order__shows_that_no_order_stands_to_its_left(
    implementation: type[cmap.PureMap],
) -> None:
    side = 3 << 252 | 9 << 73
    book = made(implementation, {side | price << 40 | 1: 5 for price in (30, 10, 20)} | {1 << 252: 1})
    key, value = book.first_in_prefix(side, LOW72) or (0, 0)
    path = book.path(key)
    assert key == side | 10 << 40 | 1
    assert cmap.read(book.root(), key, value, path)
    assert key & path.bitmap & LOW72 == 0
    worse = side | 20 << 40 | 1
    assert worse & book.path(worse).bitmap & LOW72 != 0


@st.composite
def tampered_siblings(draw: st.DrawFn, siblings: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """A bit flipped, two swapped, one cut off at either end, one doubled, one shortened."""
    kinds = ["append"]
    if siblings:
        kinds += ["flip", "head", "tail", "short", "long", "other type"]
    if len(siblings) > 1:
        kinds.append("swap")
    kind = draw(st.sampled_from(kinds))
    if kind == "append":
        return (*siblings, bytes(32))
    index = draw(st.integers(0, len(siblings) - 1))
    changed: list[object] = list(siblings)
    if kind == "flip":
        flipped = int.from_bytes(siblings[index], "big") ^ 1 << draw(st.integers(0, 255))
        changed[index] = word(flipped)
    elif kind == "swap":
        other = (index + 1) % len(siblings)
        changed[index], changed[other] = changed[other], changed[index]
    elif kind == "head":
        del changed[0]
    elif kind == "tail":
        del changed[-1]
    elif kind == "short":
        changed[index] = siblings[index][:-1]
    elif kind == "long":
        changed[index] = siblings[index] + b"\0"
    else:
        changed[index] = int.from_bytes(siblings[index], "big")
    return tuple(changed)  # type: ignore[arg-type]  # wrong types are the point


@st.composite
def tampered_word(draw: st.DrawFn, number: int) -> int:
    """A bit flipped, a set bit moved (which keeps a bitmap's count), or out of range."""
    kind = draw(st.sampled_from(["flip", "move", "negative", "overwide"]))
    position = draw(st.integers(0, 255))
    if kind == "move" and 0 < number < WORD_MAX:
        ones = [at for at in range(256) if number >> at & 1]
        zeros = [at for at in range(256) if not number >> at & 1]
        return number ^ 1 << draw(st.sampled_from(ones)) ^ 1 << draw(st.sampled_from(zeros))
    if kind == "negative":
        return -1 - number
    if kind == "overwide":
        return number + WORD_MAX + 1
    return number ^ 1 << position


@settings(deadline=None)
@given(entries=ENTRIES, data=st.data())
def test_tampered_path__in_any_part__does_not_verify(entries: dict[int, int], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(entries)))
    value = entries[key]
    built = cmap.PureMap.build(sorted(entries.items()))
    root, path = built.root(), built.path(key)
    assert cmap.read(root, key, value, path)
    part = data.draw(st.sampled_from(["root", "key", "value", "bitmap", "siblings"]))
    if part == "root":
        root = word(int.from_bytes(root, "big") ^ 1 << data.draw(st.integers(0, 255)))
    elif part == "key":
        key = data.draw(tampered_word(key))
    elif part == "value":
        value = data.draw(tampered_word(value))
    elif part == "bitmap":
        path = replace(path, bitmap=data.draw(tampered_word(path.bitmap)))
    else:
        path = replace(path, siblings=data.draw(tampered_siblings(path.siblings)))
    assert not cmap.read(root, key, value, path)
    assert cmap.write(root, key, value, 1, path) is None
    assert cmap.remove(root, key, value, path) is None


@settings(deadline=None)
@given(entries=ENTRIES, absent=KEYS, data=st.data())
def test_tampered_neighbour__in_any_part__does_not_verify(
    entries: dict[int, int], absent: int, data: st.DataObject
) -> None:
    entries.pop(absent, None)
    built = cmap.PureMap.build(sorted(entries.items()))
    root, witness = built.root(), built.insert_witness(absent)
    assert cmap.insert(root, absent, 5, witness) == naive_root(entries | {absent: 5})
    part = data.draw(st.sampled_from(["key", "value", "bitmap", "bit", "siblings"]))
    if part == "siblings":
        witness = replace(witness, siblings=data.draw(tampered_siblings(witness.siblings)))
    else:
        changed: dict[str, Any] = {part: data.draw(tampered_word(getattr(witness, part)))}
        witness = replace(witness, **changed)
    assert cmap.insert(root, absent, 5, witness) is None
    assert not cmap.absent_prefix(root, absent, 0, witness)


@settings(deadline=None)
@given(entries=ENTRIES, data=st.data(), low_mask=LOW_MASKS)
def test_absence__of_a_present_key__cannot_be_proved_by_any_neighbour(
    entries: dict[int, int], data: st.DataObject, low_mask: int
) -> None:
    present = data.draw(st.sampled_from(sorted(entries)))
    built = cmap.PureMap.build(sorted(entries.items()))
    root = built.root()
    for key, value in sorted(entries.items()):
        path = built.path(key)
        for position in range(256):
            witness = Neighbour(key, value, path.bitmap, 1 << position, path.siblings)
            assert not cmap.absent_prefix(root, present & ~low_mask, low_mask, witness)
    assert cmap.insert(root, present, 1, NO_NEIGHBOUR) is None


@pytest.mark.parametrize(("prefix", "low_mask"), [(8, 2), (9, 1), (8, 5)])
def test_absent_prefix__of_malformed_prefix__is_refused(prefix: int, low_mask: int) -> None:
    built = cmap.PureMap.build([(1 << 200, 1), (1 << 255, 1)])
    witness = built.absence_witness(prefix)
    assert cmap.absent_prefix(built.root(), prefix, 0, witness)
    assert not cmap.absent_prefix(built.root(), prefix, low_mask, witness)
    assert not cmap.absent_prefix(EMPTY_ROOT, prefix, low_mask, NO_NEIGHBOUR)


def test_insert__into_empty_root_with_words__is_refused() -> None:
    assert cmap.insert(EMPTY_ROOT, 1, 2, NO_NEIGHBOUR) == cmap.leaf_hash(1, 2)
    assert cmap.insert(EMPTY_ROOT, 1, 2, Neighbour(0, 0, 0, 1, ())) is None
    assert not cmap.absent_prefix(EMPTY_ROOT, 1, 0, Neighbour(0, 0, 0, 1, ()))


def test_path__that_passes_a_node_off_as_a_leaf__does_not_verify() -> None:
    built = cmap.PureMap.build([(0, 1), (1, 2), (4, 3)])
    left = cmap.node_hash(1, cmap.leaf_hash(0, 1), cmap.leaf_hash(1, 2))
    right = cmap.leaf_hash(4, 3)
    assert built.root() == cmap.node_hash(4, left, right)
    assert not cmap.read(built.root(), int.from_bytes(left, "big"), int.from_bytes(right, "big"), Path(0, ()))
    assert not cmap.read(built.root(), 4, int.from_bytes(left + right, "big"), Path(0, ()))


JUNK = st.one_of(
    st.none(), st.integers(), st.binary(max_size=40), st.text(max_size=3), st.floats(), st.lists(st.none())
)
JUNK_TUPLES = st.one_of(JUNK, st.lists(JUNK, max_size=4).map(tuple))
JUNK_PATHS = st.one_of(JUNK, st.builds(Path, JUNK, JUNK_TUPLES))
JUNK_NEIGHBOURS = st.one_of(JUNK, st.builds(Neighbour, JUNK, JUNK, JUNK, JUNK, JUNK_TUPLES))


@given(st.tuples(JUNK, JUNK, JUNK, JUNK, JUNK_PATHS, JUNK_NEIGHBOURS))
def test_verification__of_anything_at_all__is_total(junk: tuple[object, ...]) -> None:
    root, key, value, other, path, neighbour = junk
    verify: object = cmap
    assert verify.read(root, key, value, path) is False  # type: ignore[attr-defined]  # wrong types are the point
    assert verify.write(root, key, value, other, path) is None  # type: ignore[attr-defined]
    assert verify.remove(root, key, value, path) is None  # type: ignore[attr-defined]
    assert verify.insert(root, key, value, neighbour) is None  # type: ignore[attr-defined]
    assert verify.absent_prefix(root, key, other, neighbour) is False  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------- C kernel


@needs_kernel
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_kernel__at_any_lane_width__equals_pure(lanes: int) -> None:
    from sequencer._kernel import cmap_kernel  # absent where it is not built

    rng = random.Random(lanes)
    pure, fast = cmap.PureMap(), cmap.Map()
    try:
        assert cmap_kernel.use_lanes(lanes) <= lanes
        for size in [*range(1, 40), 500, 1000]:
            keys = [rng.getrandbits(12) << rng.choice([0, 60, 240]) for _ in range(size)]
            for key in keys:
                value = rng.getrandbits(256)
                pure.put(key, value)
                fast.put(key, value)
            for key in sorted({key for key in keys if key & 3 == 1}):
                pure.delete(key)
                fast.delete(key)
            assert fast.root() == pure.root()
            assert fast.items() == pure.items()
    finally:
        cmap_kernel.use_lanes(8)


@needs_kernel
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_kernel__hashing_thousands_of_roots_together__equals_pure(lanes: int) -> None:
    """More nodes, and longer texts, than the kernel lets wait, among changes that move nodes which wait."""
    from sequencer._kernel import cmap_kernel  # absent where it is not built

    rng = random.Random(lanes)
    pure, fast = cmap.PureMap(), cmap.Map()
    keys: dict[int, None] = {}
    try:
        cmap_kernel.use_lanes(lanes)
        for number in range(4_000):
            for _ in range(rng.randrange(4)):
                key = rng.getrandbits(9) << rng.choice([0, 60, 240])
                if key in keys and rng.random() < 0.6:
                    del keys[key]
                    pure.delete(key)
                    fast.delete(key)
                elif rng.random() < 0.5:
                    keys[key] = None
                    words = rng.randbytes(rng.choice([0, 64, 135, 136, 137, 384, 2_200]))
                    pure.put_words(key, words)
                    fast.put_words(key, words)
                else:
                    keys[key] = None
                    pure.put(key, number)
                    fast.put(key, number)
            assert fast.mark() == pure.mark()
            if rng.random() < 0.001:
                assert fast.roots() == pure.roots()
        assert fast.roots() == pure.roots()
        assert fast.roots() == []
        huge = bytes(range(256)) * 5_000
        pure.put_words(1, huge)
        fast.put_words(1, huge)
        assert fast.items() == pure.items()
        assert fast.root() == pure.root()
    finally:
        cmap_kernel.use_lanes(8)


@needs_kernel
@given(
    entries=st.dictionaries(KEYS, VALUES, max_size=8),
    method=st.sampled_from(
        [
            "get",
            "put",
            "put_words",
            "delete",
            "first_in_prefix",
            "path",
            "insert_witness",
            "build",
            "_descend",
        ]
    ),
    arguments=st.lists(st.one_of(JUNK_TUPLES, KEYS, st.integers(-(2**300), 2**300)), max_size=3),
)
def test_kernel__called_with_anything__raises_python_errors_only(
    entries: dict[int, int], method: str, arguments: list[object]
) -> None:
    called = made(cmap.Map, entries)
    with contextlib.suppress(TypeError, ValueError, KeyError):
        getattr(called, method)(*arguments)
    naive = cmap.PureMap.build(called.items())
    assert called.root() == naive.root()
    assert len(called) == len(naive)


@needs_kernel
def test_kernel__built_from_an_iterator_that_fails__raises_its_error() -> None:
    def failing() -> Iterator[tuple[int, int]]:
        yield 1, 1
        yield 2, 2
        raise LookupError("foreign")

    with pytest.raises(LookupError, match="foreign"):
        cmap.Map.build(failing())


def test_map__where_pure_python_is_asked_for__is_pure() -> None:
    code = "from sequencer.protocol import cmap; assert cmap.Map is cmap.PureMap"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"FAIRSTRIKE_PURE": "1"})


@needs_kernel
def test_map__with_a_kernel_of_older_sources__is_pure() -> None:
    code = (
        "import sys, types; old = types.ModuleType('sequencer._kernel.cmap_kernel');"
        "sys.modules[old.__name__] = old;"
        "from sequencer.protocol import cmap, exposure;"
        "assert cmap.Map is cmap.PureMap; assert exposure._plus is exposure.plus"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
