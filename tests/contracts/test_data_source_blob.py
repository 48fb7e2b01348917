"""DataSourceBlob: what blobs say about a segment, by the elements' KZG openings."""

import hashlib
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import boa
import ckzg
import eth.precompiles.point_evaluation as precompile
import pytest
from contract_support import deploy, pack, reverts
from test_data_source import expected

from sequencer.proof.challenge import bounds
from sequencer.protocol.hashing import keccak

ELEMENT = 31
BLOB_ELEMENTS = 4_096
SEGMENTS = 40
FIRST_ID = SEGMENTS + 4
TICKS = 20
ENDS = [3 * (place + 1) for place in range(SEGMENTS - 1)] + [4_200]


@cache
def setup() -> Any:
    """The ceremony's points, loaded once: the precompile of py-evm does it at every call."""
    path = Path(precompile.__file__).parent / ".." / "_utils" / "kzg_trusted_setup.txt"
    return ckzg.load_trusted_setup(str(path), 0)


@pytest.fixture(scope="module")
def source() -> Any:
    return deploy("DataSourceBlob")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompile, "load_trusted_setup", lambda *_: setup())


def point(place: int) -> bytes:
    """Where field element `place` of a blob is the polynomial's value."""
    modulus = 52435875175126190479447740508185965837690552500527637822603658699938581184513
    root = pow(7, (modulus - 1) // BLOB_ELEMENTS, modulus)
    return pow(root, int(f"{place:012b}"[::-1], 2), modulus).to_bytes(32, "big")


class Blobs:
    """A payload in blobs. `high`: element whose field element is above 2^248."""

    def __init__(self, payload: bytes, high: int | None = None) -> None:
        elements = [payload[at : at + ELEMENT] for at in range(0, len(payload), ELEMENT)]
        words = [(b"\x01" if place == high else b"\0") + one for place, one in enumerate(elements)]
        joined = [words[at : at + BLOB_ELEMENTS] for at in range(0, len(words), BLOB_ELEMENTS)]
        self.payload = payload
        self.blobs = [b"".join(part).ljust(BLOB_ELEMENTS * 32, b"\0") for part in joined]
        self.commitments = [ckzg.blob_to_kzg_commitment(blob, setup()) for blob in self.blobs]
        self.hashes = [b"\x01" + hashlib.sha256(one).digest()[1:] for one in self.commitments]
        self.root = bytes(32)
        for one in self.hashes:
            self.root = keccak(self.root + one)

    def proof(self, segments: int, ticks: int, index: int) -> bytes:
        where = bounds(self.payload, segments, ticks, index)
        tables = segments + -(-segments // 10) + ticks
        needed = [index - 1] if index else []
        needed.append(index)
        needed += dict.fromkeys(segments + at // 10 for at in range(max(0, index - 1), index + 1))
        if where.are_open:
            needed += range(tables + where.start, tables + where.end)
        return self.opened(needed)

    def opened(self, needed: list[int]) -> bytes:
        """The versioned hashes, and these elements with their openings."""
        proof, opened = b"".join(self.hashes), -1
        for element in needed:
            blob, place = divmod(element, BLOB_ELEMENTS)
            if blob != opened:
                proof, opened = proof + self.commitments[blob], blob
            opening, value = ckzg.compute_kzg_proof(self.blobs[blob], point(place), setup())
            assert value == self.blobs[blob][32 * place : 32 * place + 32]
            proof += value + opening
        return proof


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    """Two blobs; the last segment but one is where the second begins."""
    draw = random.Random(3)
    roots = [draw.randbytes(ELEMENT) for _ in range(SEGMENTS)]
    ends = [*ENDS[:-2], 4_040 - TICKS, 4_060 - TICKS]
    records, ids = (draw.randbytes(count * ELEMENT) for count in (4_100 - TICKS, TICKS))
    return Blobs(pack(roots, ends, records, ids))


def ask(source: Any, blobs: Blobs, index: int, proof: bytes) -> Any:
    elements = len(blobs.payload) // ELEMENT
    return source.segment(blobs.root, elements, SEGMENTS, TICKS, index, proof)


@pytest.mark.parametrize("index", [0, 10, 38, 39])
def test_segment__is_what_stands_in_the_blobs(source: Any, blobs: Blobs, index: int) -> None:
    proof = blobs.proof(SEGMENTS, TICKS, index)
    assert tuple(ask(source, blobs, index, proof)) == expected(blobs.payload, SEGMENTS, TICKS, index)
    print(f"segment {index}: {source._computation.get_gas_used()} gas, {len(proof)} bytes")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda proof: bytes([proof[0] ^ 1]) + proof[1:], "data: blobs are not the payload's"),
        (lambda proof: proof[:70] + bytes([proof[70] ^ 1]) + proof[71:], "data: element is not in the blob"),
        (
            lambda proof: proof[:143] + bytes([proof[143] ^ 1]) + proof[144:],
            "data: element is not in the blob",
        ),
        (lambda proof: proof[:-1] + bytes([proof[-1] ^ 1]), "data: element is not in the blob"),
        (
            lambda proof: proof[:112] + proof[192:272] + proof[112:192] + proof[272:],
            "data: element is not in the blob",
        ),
        (lambda proof: proof[:-1], "data: proof too short"),
        (lambda proof: proof[:40], "data: proof too short"),
        (lambda proof: proof + b"\0", "data: surplus proof"),
    ],
    ids=["hash", "commitment", "value", "opening", "swapped", "cut", "no hashes", "surplus"],
)
def test_segment__with_a_wrong_proof__reverts(
    source: Any, blobs: Blobs, change: Callable[[bytes], bytes], reason: str
) -> None:
    proof = blobs.proof(SEGMENTS, TICKS, 5)
    with reverts(reason):
        ask(source, blobs, 5, change(proof))


def test_segment__with_an_element_above_248_bits__is_its_low_bits(source: Any) -> None:
    payload = pack([b"\7" * ELEMENT], [2], b"\5" * 62)
    blobs = Blobs(payload, high=2)
    proof = blobs.proof(1, 0, 0)
    found = source.segment(blobs.root, len(payload) // ELEMENT, 1, 0, 0, proof)
    assert tuple(found) == expected(payload, 1, 0, 0)


def test_segment__of_more_blobs_than_a_block_takes__reverts(source: Any) -> None:
    with reverts("data: payload too large"):
        source.segment(bytes(32), 33 * BLOB_ELEMENTS, 1, 0, 0, bytes(33 * 32))


# ------------------------------------------------------------------------------------------- ids of ticks


def id_of(source: Any, blobs: Blobs, index: int, proof: bytes, ticks: int = TICKS) -> int:
    elements = len(blobs.payload) // ELEMENT
    return int(source.tick_id(blobs.root, elements, SEGMENTS, ticks, index, proof))


@pytest.mark.parametrize("index", [0, 1, TICKS - 1])
def test_tick_id__is_what_stands_in_the_blobs(source: Any, blobs: Blobs, index: int) -> None:
    place = FIRST_ID + index
    found = id_of(source, blobs, index, blobs.opened([place]))
    assert found == int.from_bytes(blobs.payload[place * ELEMENT : (place + 1) * ELEMENT], "big")


def test_tick_id__in_the_second_blob__is_shown(source: Any) -> None:
    """More ticks than the first blob holds."""
    draw = random.Random(4)
    made = Blobs(pack([draw.randbytes(ELEMENT)], [2], draw.randbytes(62), draw.randbytes(4_095 * ELEMENT)))
    for index in (4_093, 4_094):  # the last element of the first blob, the first of the second
        place = 2 + index
        found = source.tick_id(made.root, len(made.payload) // ELEMENT, 1, 4_095, index, made.opened([place]))
        assert found == int.from_bytes(made.payload[place * ELEMENT : (place + 1) * ELEMENT], "big")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda proof: bytes([proof[0] ^ 1]) + proof[1:], "data: blobs are not the payload's"),
        (lambda proof: proof[:70] + bytes([proof[70] ^ 1]) + proof[71:], "data: element is not in the blob"),
        (
            lambda proof: proof[:143] + bytes([proof[143] ^ 1]) + proof[144:],
            "data: element is not in the blob",
        ),
        (lambda proof: proof[:-1] + bytes([proof[-1] ^ 1]), "data: element is not in the blob"),
        (lambda proof: proof[:-1], "data: proof too short"),
        (lambda proof: proof[:40], "data: proof too short"),
        (lambda proof: proof + b"\0", "data: surplus proof"),
    ],
    ids=["hash", "commitment", "value", "opening", "cut", "no hashes", "surplus"],
)
def test_tick_id__with_a_wrong_proof__reverts(
    source: Any, blobs: Blobs, change: Callable[[bytes], bytes], reason: str
) -> None:
    with reverts(reason):
        id_of(source, blobs, 3, change(blobs.opened([FIRST_ID + 3])))


def test_tick_id__with_the_opening_of_another__reverts(source: Any, blobs: Blobs) -> None:
    for other in (FIRST_ID + 4, FIRST_ID - 1, 0):
        with reverts("data: element is not in the blob"):
            id_of(source, blobs, 3, blobs.opened([other]))


def test_tick_id__of_no_tick__reverts(source: Any, blobs: Blobs) -> None:
    proof = blobs.opened([FIRST_ID + TICKS])  # the first record's
    with reverts("data: no such tick"):
        id_of(source, blobs, TICKS, proof)
    with reverts("data: no such tick"):
        id_of(source, blobs, 0, proof, ticks=0)
    with reverts("data: tables exceed the payload"):
        id_of(source, blobs, 0, proof, ticks=len(blobs.payload) // ELEMENT)


def test_tick_id__in_another_form__reverts(source: Any, blobs: Blobs) -> None:
    calldata = source.tick_id.prepare_calldata(
        blobs.root, len(blobs.payload) // ELEMENT, SEGMENTS, TICKS, 3, blobs.opened([FIRST_ID + 3])
    )
    head = 4 + 5 * 32
    shifted = calldata[:head] + (7 * 32).to_bytes(32, "big") + bytes(32) + calldata[head + 32 :]
    with reverts("data: calldata is not canonical"):
        boa.env.raw_call(source.address, data=shifted)
