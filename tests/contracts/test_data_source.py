"""DataSourceCalldata: it shows of a payload what stands there, and nothing else."""

import random
from typing import Any

import boa
import pytest
from contract_support import deploy, naive_data_root, pack, reverts
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_support import deploy_stub

from sequencer.l1.payload import chunk_proof
from sequencer.proof.challenge import SEGMENT_ELEMENTS_MAX, bounds, segment_proof
from sequencer.protocol import batch as batches
from sequencer.protocol import constants as c
from sequencer.protocol import work

ELEMENT = 31
CHUNK = 32  # elements
ELEMENTS_MAX = 3_936
OFFSET_MAX = 2**24 - 1


@pytest.fixture(scope="module")
def source() -> Any:
    return deploy("DataSourceCalldata")


def payload_of(ends: list[int], elements: int, seed: int = 0, ticks: int = 0) -> bytes:
    """A payload of random roots, ids of ticks and records."""
    draw = random.Random(seed)
    roots = [draw.randbytes(ELEMENT) for _ in ends]
    return pack(roots, ends, draw.randbytes(elements * ELEMENT), draw.randbytes(ticks * ELEMENT))


def element(payload: bytes, index: int) -> int:
    return int.from_bytes(payload[index * ELEMENT : (index + 1) * ELEMENT], "big")


def ask(
    source: Any, payload: bytes, of: int, at: int, proof: bytes | None = None, ticks: int = 0, **changes: Any
) -> Any:
    arguments = {
        "data_root": naive_data_root(payload),
        "elements": len(payload) // ELEMENT,
        "segments": of,
        "ticks": ticks,
        "index": at,
    } | changes
    if proof is None:
        proof = segment_proof(payload, of, ticks, at)
    return source.segment(*arguments.values(), proof)


def expected(payload: bytes, segments: int, ticks: int, index: int) -> tuple[int, int, int, int, list[int]]:
    """docs/PROTOCOL.md sections 5 and 16, word for word."""
    where = bounds(payload, segments, ticks, index)
    first = segments + -(-segments // 10) + ticks
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
    sizes=st.lists(st.integers(1, 42), min_size=1, max_size=80),
    ticks=st.integers(0, 90),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_segment__of_any_payload__is_what_stands_there(
    source: Any, sizes: list[int], ticks: int, seed: int, data: st.DataObject
) -> None:
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    payload = payload_of(ends, ends[-1], seed, ticks)
    index = data.draw(st.integers(0, len(ends) - 1))
    assert tuple(ask(source, payload, len(ends), index, ticks=ticks)) == expected(
        payload, len(ends), ticks, index
    )


@pytest.mark.parametrize("ticks", [0, 1, 2, 5, 33])
@pytest.mark.parametrize("records", [28, 29, 30, 31, 42])
def test_segment__at_the_end_of_a_chunk__is_read_to_the_last_byte(
    source: Any, records: int, ticks: int
) -> None:
    payload = payload_of([records], records, ticks=ticks)
    assert tuple(ask(source, payload, 1, 0, ticks=ticks)) == expected(payload, 1, ticks, 0)


@pytest.mark.parametrize("index", [0, 1, 9, 10, 31, 32, 33, 1_000, 1_873])
def test_segment__of_the_largest_payload__is_shown(source: Any, index: int) -> None:
    segments = 1_874
    payload = payload_of([*range(1, segments), 1_874], 1_874)
    assert len(payload) == ELEMENTS_MAX * ELEMENT
    assert tuple(ask(source, payload, segments, index)) == expected(payload, segments, 0, index)


def test_segment__the_largest_over_the_most_chunks__fits_the_proof(source: Any) -> None:
    draw = random.Random(5)
    longest = 0
    for segments in range(31, 91):
        records = ELEMENTS_MAX - segments - -(-segments // 10)
        ends = [min(42 * (place + 1), records) for place in range(segments - 1)] + [records]
        ends = [min(end, records - segments + place + 1) for place, end in enumerate(ends)]
        payload = payload_of(ends, records, draw.randrange(2**32))
        for index in range(segments):
            longest = max(longest, len(segment_proof(payload, segments, 0, index)))
    for ticks in range(
        0, 96, 5
    ):  # the most chunks: the record area begins a chunk or more behind the offsets
        payload = payload_of([42 * (place + 1) for place in range(60)], 2_520, ticks, ticks)
        longest = max(longest, *(len(segment_proof(payload, 60, ticks, index)) for index in range(60)))
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
    for ticks in (0, 7):
        payload = payload_of(ends, 10, ticks=ticks)
        found = ask(source, payload, 3, index, ticks=ticks)
        assert tuple(found) == expected(payload, 3, ticks, index)
        assert found.records == []


def test_segment__of_more_elements_than_its_weight_allows__shows_no_records(source: Any) -> None:
    payload = payload_of([43, 85], 85)
    assert ask(source, payload, 2, 0).records == []
    assert len(ask(source, payload, 2, 1).records) == 42


# ----------------------------------------------------------------------------------------- what it refuses


def test_segment__with_a_tampered_proof__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100)
    proof = segment_proof(payload, 100, 0, 57)
    draw = random.Random(1)
    for _ in range(60):
        at = draw.randrange(len(proof) * 8)
        wrong = bytearray(proof)
        wrong[at // 8] ^= 1 << at % 8
        with reverts("data: chunk is not in the payload"):
            ask(source, payload, 100, 57, bytes(wrong))


def test_segment__with_a_proof_of_another_length__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100)
    proof = segment_proof(payload, 100, 0, 57)
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
    with reverts("data: tables exceed the payload"):
        ask(source, payload, 100, 57, segment_proof(payload, 100, 0, 57), ticks=101)
    with reverts("data: payload too large"):
        ask(source, payload, 100, 57, elements=4_097)
    for elements in (120, 500):  # another depth
        with reverts("data: chunk is not in the payload"):
            ask(source, payload, 100, 57, elements=elements)


def test_segment__in_another_form__reverts(source: Any) -> None:
    payload = payload_of([4], 4)
    calldata = source.segment.prepare_calldata(
        naive_data_root(payload), len(payload) // ELEMENT, 1, 0, 0, segment_proof(payload, 1, 0, 0)
    )
    head = 4 + 5 * 32
    shifted = calldata[:head] + (7 * 32).to_bytes(32, "big") + bytes(32) + calldata[head + 32 :]
    with reverts("data: calldata is not canonical"):
        boa.env.raw_call(source.address, data=shifted)


# ------------------------------------------------------------------------------------------- ids of ticks


def id_of(
    source: Any,
    payload: bytes,
    segments: int,
    ticks: int,
    index: int,
    proof: bytes | None = None,
    **changes: Any,
) -> int:
    arguments = {
        "data_root": naive_data_root(payload),
        "elements": len(payload) // ELEMENT,
        "segments": segments,
        "ticks": ticks,
        "index": index,
    } | changes
    if proof is None:
        proof = id_proof(payload, segments, index)
    return int(source.tick_id(*arguments.values(), proof))


def id_proof(payload: bytes, segments: int, index: int) -> bytes:
    """The chunk that holds the id, and its path."""
    return chunk_proof(payload, [(segments + -(-segments // 10) + index) // CHUNK])


@settings(max_examples=40, deadline=None)
@given(segments=st.integers(1, 60), ticks=st.integers(1, 120), seed=st.integers(0, 2**32), data=st.data())
def test_tick_id__of_any_payload__is_what_stands_there(
    source: Any, segments: int, ticks: int, seed: int, data: st.DataObject
) -> None:
    records = max(segments, ticks)
    payload = payload_of([*range(1, segments), records], records, seed, ticks)
    index = data.draw(st.integers(0, ticks - 1))
    first = segments + -(-segments // 10)
    assert id_of(source, payload, segments, ticks, index) == element(payload, first + index)
    assert batches.ids_in(payload, segments, ticks)[index] == element(payload, first + index).to_bytes(
        31, "big"
    )


@pytest.mark.parametrize("index", [0, 29, 30, 61, 62, 999, 1_310])
def test_tick_id__at_the_edges_of_chunks_and_of_the_largest_payload__is_shown(
    source: Any, index: int
) -> None:
    segments, ticks, records = 1, 1_311, 2_623
    payload = payload_of([records], records, 3, ticks)
    assert len(payload) == ELEMENTS_MAX * ELEMENT
    assert id_of(source, payload, segments, ticks, index) == element(payload, 2 + index)


def test_tick_id__with_a_wrong_proof__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100, 0, 90)
    proof = id_proof(payload, 100, 57)
    draw = random.Random(2)
    for _ in range(40):
        at = draw.randrange(len(proof) * 8)
        wrong = bytearray(proof)
        wrong[at // 8] ^= 1 << at % 8
        with reverts("data: chunk is not in the payload"):
            id_of(source, payload, 100, 90, 57, bytes(wrong))
    with reverts("data: chunk is not in the payload"):  # of another chunk
        id_of(source, payload, 100, 90, 57, id_proof(payload, 100, 2))
    for cut in (1, 32, 992, len(proof)):
        with reverts("data: proof too short"):
            id_of(source, payload, 100, 90, 57, proof[:-cut])
    for more in (1, 32, 992 + 96):
        with reverts("data: surplus proof"):
            id_of(source, payload, 100, 90, 57, proof + bytes(more))


def test_tick_id__of_no_tick__reverts(source: Any) -> None:
    payload = payload_of([*range(1, 101)], 100, 0, 90)
    proof = id_proof(payload, 100, 57)
    for index in (90, 2**256 - 1):
        with reverts("data: no such tick"):
            id_of(source, payload, 100, 90, index, proof)
    with reverts("data: no such tick"):
        id_of(source, payload, 100, 0, 0, proof)
    with reverts("data: tables exceed the payload"):
        id_of(source, payload, 100, 191, 57, proof)
    with reverts("data: payload too large"):
        id_of(source, payload, 100, 90, 57, proof, elements=4_097)
    with reverts("data: chunk is not in the payload"):
        id_of(source, payload, 100, 90, 57, proof, data_root=bytes(32))


def test_tick_id__in_another_form__reverts(source: Any) -> None:
    payload = payload_of([4], 4, 0, 2)
    calldata = source.tick_id.prepare_calldata(
        naive_data_root(payload), len(payload) // ELEMENT, 1, 2, 1, id_proof(payload, 1, 1)
    )
    head = 4 + 5 * 32
    shifted = calldata[:head] + (7 * 32).to_bytes(32, "big") + bytes(32) + calldata[head + 32 :]
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
