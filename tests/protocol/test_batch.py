"""Payload of a batch: encode, decode, data root."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import batch
from sequencer.protocol import constants as c
from sequencer.protocol.batch import BatchError, Segment
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import keccak

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import examples

RECORDS = st.one_of(
    st.sampled_from(sorted(c.LAYOUT)).flatmap(
        lambda kind: st.binary(min_size=c.LAYOUT[kind][0] - 1, max_size=c.LAYOUT[kind][0] - 1).map(
            lambda body: bytes([kind]) + body
        )
    ),
    st.binary(min_size=31, max_size=31).filter(lambda raw: raw[0] not in c.LAYOUT),
)
SEGMENTS = st.lists(
    st.builds(Segment, st.binary(min_size=31, max_size=31), st.lists(RECORDS, max_size=4).map(tuple)),
    max_size=25,
)


@settings(max_examples=examples(100))
@given(SEGMENTS)
def test_decode__of_a_payload__gives_its_segments(segments: list[Segment]) -> None:
    payload = batch.encode(segments)
    ticks = sum(raw[0] == Kind.TICK for segment in segments for raw in segment.records)
    assert len(payload) % 31 == 0
    assert batch.decode(payload, len(segments), ticks) == segments
    assert batch.ids_in(payload, len(segments), ticks) == [batch.NO_ID] * ticks
    assert payload[: 31 * len(segments)] == b"".join(segment.root for segment in segments)


@settings(max_examples=examples(100))
@given(SEGMENTS, st.lists(st.binary(min_size=31, max_size=31), max_size=40))
def test_ids__of_a_payload__stand_between_its_tables_and_its_records(
    segments: list[Segment], ids: list[bytes]
) -> None:
    """As many as the header says, whatever the records are: a TICK that is refused begins none."""
    payload = batch.encode(segments, ids)
    first = batch.ids_at(len(segments))
    assert batch.tables(len(segments), len(ids)) == first + len(ids)
    assert payload[31 * first : 31 * (first + len(ids))] == b"".join(ids)
    assert batch.ids_in(payload, len(segments), len(ids)) == ids
    assert batch.decode(payload, len(segments), len(ids)) == segments
    assert payload[31 * first :] == b"".join(ids) + b"".join(
        raw for segment in segments for raw in segment.records
    )
    assert payload[: 31 * first] == batch.encode(segments, [])[: 31 * first]


@settings(max_examples=examples(200))
@given(st.binary(max_size=400), st.integers(0, 12), st.integers(0, 5))
def test_decode__of_any_bytes__is_segments_or_a_batch_error(
    payload: bytes, segments: int, ticks: int
) -> None:
    try:
        decoded = batch.decode(payload, segments, ticks)
    except BatchError:
        return
    assert len(decoded) == segments
    assert sum(len(raw) for segment in decoded for raw in segment.records) <= len(payload)


@settings(max_examples=examples(100))
@given(SEGMENTS.filter(bool), st.data())
def test_decode__of_a_payload_with_a_byte_changed__stays_total(
    segments: list[Segment], data: st.DataObject
) -> None:
    ticks = sum(batch.ticks_in(segment.records) for segment in segments)
    payload = bytearray(batch.encode(segments))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(BatchError):
        assert len(batch.decode(bytes(payload), len(segments), ticks)) == len(segments)


def test_decode__names_what_is_wrong() -> None:
    one = Segment(bytes(31), (bytes(31),))
    good = batch.encode([one])
    for payload, count, ticks, message in (
        (good + b"\0", 1, 0, "not a whole number"),
        (good[:31], 1, 0, "shorter than its tables"),
        (good, 1, 2, "shorter than its tables"),
        (good + bytes(31), 1, 0, "elements after the last segment"),
        (good[:-31], 1, 0, "segment 0 ends out of order"),
        (good, 1, 1, "segment 0 ends out of order"),
        (batch.encode([one, Segment(bytes(31), ())]), 1, 0, "segment 0|after the last"),
    ):
        with pytest.raises(BatchError, match=message):
            batch.decode(payload, count, ticks)


def test_encode__keeps_the_top_248_bits_of_a_root() -> None:
    assert batch.encode([Segment(bytes(range(32)), ())])[:31] == bytes(range(31))


def test_split__of_a_record_cut_off__gives_what_is_left() -> None:
    assert list(batch.split(b"\x20" + bytes(61))) == [b"\x20" + bytes(61)]
    assert list(batch.split(b"\xff" + bytes(30) + b"\x01" + bytes(30))) == [
        b"\xff" + bytes(30),
        b"\x01" + bytes(30),
    ]


def test_weight__of_what_is_no_kind__is_one() -> None:
    assert [batch.weight(raw) for raw in (b"", b"\xff", b"\x20", b"\x01")] == [1, 1, 31, 1]
    assert max(layout[2] for layout in c.LAYOUT.values()) + c.LAYOUT[1][2] <= c.SEGMENT_WEIGHT_MAX


@settings(max_examples=examples(40))
@given(st.binary(max_size=6_000))
def test_data_root__equals_a_naive_tree(payload: bytes) -> None:
    count = max(-(-len(payload) // 992), 1)
    size = 1 << (count - 1).bit_length()

    def node(low: int, high: int) -> bytes:
        if high - low == 1:
            chunk = payload[992 * low : 992 * high]
            return keccak(chunk.ljust(992, b"\0")) if chunk else bytes(32)
        middle = (low + high) // 2
        return keccak(node(low, middle) + node(middle, high))

    assert batch.data_root(payload) == node(0, size)
