"""DataSourceCalldata: it shows of a payload what stands there, and nothing else."""

import random
from typing import Any

import boa
import pytest
from contract_support import deploy, naive_data_root, pack, reverts
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_support import deploy_stub

from sequencer.proof.challenge import SEGMENT_ELEMENTS_MAX, bounds, segment_proof
from sequencer.protocol import constants as c
from sequencer.protocol import work

ELEMENT = 31
ELEMENTS_MAX = 3_936
OFFSET_MAX = 2**24 - 1


@pytest.fixture(scope="module")
def source() -> Any:
    return deploy("DataSourceCalldata")


def payload_of(ends: list[int], elements: int, seed: int = 0) -> bytes:
    """A payload of random roots and records."""
    draw = random.Random(seed)
    roots = [draw.randbytes(ELEMENT) for _ in ends]
    return pack(roots, ends, draw.randbytes(elements * ELEMENT))


def element(payload: bytes, index: int) -> int:
    return int.from_bytes(payload[index * ELEMENT : (index + 1) * ELEMENT], "big")


def ask(source: Any, payload: bytes, of: int, at: int, proof: bytes | None = None, **changes: Any) -> Any:
    arguments = {
        "data_root": naive_data_root(payload),
        "elements": len(payload) // ELEMENT,
        "segments": of,
        "index": at,
    } | changes
    return source.segment(*arguments.values(), segment_proof(payload, of, at) if proof is None else proof)


def expected(payload: bytes, segments: int, index: int) -> tuple[int, int, int, int, list[int]]:
    """docs/PROTOCOL.md sections 5 and 16, word for word."""
    where = bounds(payload, segments, index)
    first = segments + -(-segments // 10)
    inside = where.start < where.end <= where.area and where.end - where.start <= SEGMENT_ELEMENTS_MAX
    return (
        element(payload, index - 1) if index else 0,
        element(payload, index),
        where.start,
        where.end,
        [element(payload, first + at) for at in range(where.start, where.end)] if inside else [],
    )


# ------------------------------------------------------------------------------------------ what it shows


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 42), min_size=1, max_size=80), seed=st.integers(0, 2**32), data=st.data()
)
def test_segment__of_any_payload__is_what_stands_there(
    source: Any, sizes: list[int], seed: int, data: st.DataObject
) -> None:
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    payload = payload_of(ends, ends[-1], seed)
    index = data.draw(st.integers(0, len(ends) - 1))
    assert tuple(ask(source, payload, len(ends), index)) == expected(payload, len(ends), index)


@pytest.mark.parametrize("records", [28, 29, 30, 31, 42])
def test_segment__at_the_end_of_a_chunk__is_read_to_the_last_byte(source: Any, records: int) -> None:
    payload = payload_of([records], records)
    assert tuple(ask(source, payload, 1, 0)) == expected(payload, 1, 0)


@pytest.mark.parametrize("index", [0, 1, 9, 10, 31, 32, 33, 1_000, 1_873])
def test_segment__of_the_largest_payload__is_shown(source: Any, index: int) -> None:
    segments = 1_874
    payload = payload_of([*range(1, segments), 1_874], 1_874)
    assert len(payload) == ELEMENTS_MAX * ELEMENT
    assert tuple(ask(source, payload, segments, index)) == expected(payload, segments, index)


def test_segment__the_largest_over_the_most_chunks__fits_the_proof(source: Any) -> None:
    draw = random.Random(5)
    longest = 0
    for segments in range(31, 91):
        records = ELEMENTS_MAX - segments - -(-segments // 10)
        ends = [min(42 * (place + 1), records) for place in range(segments - 1)] + [records]
        ends = [min(end, records - segments + place + 1) for place, end in enumerate(ends)]
        payload = payload_of(ends, records, draw.randrange(2**32))
        for index in range(segments):
            longest = max(longest, len(segment_proof(payload, segments, index)))
    assert longest <= deploy_stub("BatchHarness").limits()[2] == 7 * (992 + 7 * 32)


@pytest.mark.parametrize(
    ("ends", "index"),
    [
        ([5, 4, 10], 1),  # descending
        ([5, 5, 10], 1),  # empty
        ([5, 11, 10], 1),  # past the end
        ([5, OFFSET_MAX, 10], 1),
        ([5, OFFSET_MAX, 10], 2),
        ([0, 5, 10], 0),
    ],
)
def test_segment__with_wrong_bounds__shows_them_and_no_records(
    source: Any, ends: list[int], index: int
) -> None:
    payload = payload_of(ends, 10)
    found = ask(source, payload, 3, index)
    assert tuple(found) == expected(payload, 3, index)
    assert found.records == []


def test_segment__of_more_elements_than_its_weight_allows__shows_no_records(source: Any) -> None:
    payload = payload_of([43, 85], 85)
    assert ask(source, payload, 2, 0).records == []
    assert len(ask(source, payload, 2, 1).records) == 42


# ----------------------------------------------------------------------------------------- what it refuses


def test_segment__with_a_tampered_proof__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100)
    proof = segment_proof(payload, 100, 57)
    draw = random.Random(1)
    for _ in range(60):
        at = draw.randrange(len(proof) * 8)
        wrong = bytearray(proof)
        wrong[at // 8] ^= 1 << at % 8
        with reverts("data: chunk is not in the payload"):
            ask(source, payload, 100, 57, bytes(wrong))


def test_segment__with_a_proof_of_another_length__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100)
    proof = segment_proof(payload, 100, 57)
    for cut in (1, 32, 992, len(proof)):
        with reverts("data: proof too short"):
            ask(source, payload, 100, 57, proof[:-cut])
    for more in (1, 32, 992 + 96):
        with reverts("data: surplus proof"):
            ask(source, payload, 100, 57, proof + bytes(more))


def test_segment__of_another_place__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100)
    with reverts("data: no such segment"):
        ask(source, payload, 100, 57, index=100)
    with reverts("data: tables exceed the payload"):
        ask(source, payload, 100, 57, segments=200)
    with reverts("data: payload too large"):
        ask(source, payload, 100, 57, elements=4_097)
    for elements in (120, 500):  # another depth
        with reverts("data: chunk is not in the payload"):
            ask(source, payload, 100, 57, elements=elements)


def test_segment__in_another_form__reverts(source: Any) -> None:
    payload = payload_of([4], 4)
    calldata = source.segment.prepare_calldata(
        naive_data_root(payload), len(payload) // ELEMENT, 1, 0, segment_proof(payload, 1, 0)
    )
    head = 4 + 4 * 32
    shifted = calldata[:head] + (6 * 32).to_bytes(32, "big") + bytes(32) + calldata[head + 32 :]
    with reverts("data: calldata is not canonical"):
        boa.env.raw_call(source.address, data=shifted)


# ------------------------------------------------------------------------------------------------- layouts


def test_layout__of_every_kind__equals_the_transitions() -> None:
    harness = deploy_stub("BatchHarness")
    for kind in range(256):
        size, _, weight = c.LAYOUT.get(kind, (ELEMENT, 0, 1))
        assert tuple(harness.layout(kind)) == (size // ELEMENT, weight), hex(kind)


def test_work__of_every_kind__equals_the_transitions() -> None:
    harness = deploy_stub("BatchHarness")
    for kind in range(256):
        assert harness.work_of(kind) == work.of(bytes([kind])), hex(kind)
    assert tuple(harness.work_parts()) == (work.RISK_ROW, work.MAKER, work.POSITION)


def test_limits__follow_from_the_layouts() -> None:
    """The most elements that the weight lets in, by trying: an unbounded knapsack over the kinds."""
    kinds = {(size // ELEMENT, weight) for size, _, weight in c.LAYOUT.values()} | {(1, 1)}
    best = [0] * (c.SEGMENT_WEIGHT_MAX + 1)
    for limit in range(1, len(best)):
        best[limit] = max(best[limit - weight] + size for size, weight in kinds if weight <= limit)
    assert tuple(deploy_stub("BatchHarness").limits())[:2] == (c.SEGMENT_WEIGHT_MAX, best[-1])
    assert best[-1] == SEGMENT_ELEMENTS_MAX
