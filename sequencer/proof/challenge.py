"""Challenges: from a posted batch and the state before one of its segments to the calldata that `Arbiter` judges.

A challenge is the calldata of a check (docs/PROTOCOL.md section 16). Try it with `eth_call` first: a check changes
nothing.
"""

import functools
from dataclasses import dataclass
from typing import Final

from eth_abi import abi as eth_abi_coder

from sequencer.contracts import load
from sequencer.l1 import blobs
from sequencer.l1.abi import Contract
from sequencer.l1.follower import PostedBatch
from sequencer.l1.payload import chunk_proof
from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import batch as batches
from sequencer.protocol import constants as c
from sequencer.protocol.batch import CHUNK_BYTES
from sequencer.protocol.constants import ELEMENT_BYTES
from sequencer.protocol.hashing import keccak
from sequencer.protocol.state import State

SEGMENT_ELEMENTS_MAX: Final = 42
APPLY: Final = keccak(b"apply(bytes32,uint256,bytes32,bytes32,bytes32,bytes32)")[:4]
RECORD_BYTES_MAX: Final = 128  # four words
CHUNK_ELEMENTS: Final = CHUNK_BYTES // ELEMENT_BYTES
HEADER: Final = (
    f"(uint256,{','.join(['bytes32'] * 3)},{','.join(['uint256'] * 6)},bytes32,{','.join(['uint256'] * 3)})"
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """`call`: calldata of a check. `challenge_id`: the id that the commitment contains."""

    batch_id: int
    challenge_id: bytes
    call: bytes

    def commitment(self, challenger: str, salt: bytes) -> bytes:
        """Argument of `Arbiter.commit`. `salt`: 32 bytes that nobody can guess."""
        return keccak(
            eth_abi_coder.encode(["address", "bytes32", "bytes32"], [challenger, self.challenge_id, salt])
        )

    def calldata(self, salt: bytes) -> bytes:
        """Calldata of `Arbiter.challenge`."""
        return arbiter().encode("challenge", salt, self.call)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A segment's range in the payload: elements of the record area, and their total number."""

    start: int
    end: int
    area: int

    @property
    def are_open(self) -> bool:
        """Whether a data source opens the records: there are some, inside the payload, and not too many."""
        return self.start < self.end <= self.area and self.end - self.start <= SEGMENT_ELEMENTS_MAX


@functools.cache
def arbiter() -> Contract:
    """The functions of `Arbiter`."""
    return Contract(load("Arbiter").abi)


def bounds(payload: bytes, segments: int, ticks: int, index: int) -> Bounds:
    """Bounds of segment `index`, unchecked."""

    def end_of(segment: int) -> int:
        element, place = divmod(segment, batches.OFFSETS_PER_ELEMENT)
        at = (segments + element) * ELEMENT_BYTES + 3 * place
        return int.from_bytes(payload[at : at + 3], "big")

    area = len(payload) // ELEMENT_BYTES - batches.tables(segments, ticks)
    return Bounds(end_of(index - 1) if index else 0, end_of(index), area)


def records_of(payload: bytes, segments: int, ticks: int, index: int) -> list[bytes]:
    """Records of segment `index`. Raises ValueError when its form alone is a fraud: see `challenge_form`."""
    where = bounds(payload, segments, ticks, index)
    if not where.are_open:
        raise ValueError(f"segment {index}: its bounds are a fraud")
    first = batches.tables(segments, ticks) * ELEMENT_BYTES
    body = payload[first + where.start * ELEMENT_BYTES : first + where.end * ELEMENT_BYTES]
    records = list(batches.split(body))
    size = c.LAYOUT.get(records[-1][0], (ELEMENT_BYTES,))[0]
    if len(records[-1]) != size or sum(map(batches.weight, records)) > c.SEGMENT_WEIGHT_MAX:
        raise ValueError(f"segment {index}: a record is cut off, or the records weigh too much")
    return records


def is_malformed(payload: bytes, segments: int, ticks: int, index: int) -> bool:
    """Whether `Arbiter.check_form` finds fraud."""
    try:
        records_of(payload, segments, ticks, index)
    except ValueError:
        return True
    where = bounds(payload, segments, ticks, index)
    return index == segments - 1 and where.end != where.area


def segment_proof(payload: bytes, segments: int, ticks: int, index: int) -> bytes:
    """Proof of segment `index` for `DataSourceCalldata`."""
    elements = _elements(payload, segments, ticks, index)
    return chunk_proof(payload, list(dict.fromkeys(element // CHUNK_ELEMENTS for element in elements)))


def blob_proof(posted: PostedBatch, index: int) -> bytes:
    """Proof of segment `index` for `DataSourceBlob`."""
    elements = _elements(posted.payload, posted.segments, posted.ticks, index)
    return blobs.element_proof(posted.blobs(), dict.fromkeys(elements), posted.blob_hashes)


def _elements(payload: bytes, segments: int, ticks: int, index: int) -> list[int]:
    """Elements that a data source opens for segment `index`, in its order; an element of offsets may appear twice."""
    where = bounds(payload, segments, ticks, index)
    tables = batches.tables(segments, ticks)
    elements = [index - 1] if index else []
    elements.append(index)
    if index:
        elements.append(segments + (index - 1) // batches.OFFSETS_PER_ELEMENT)
    elements.append(segments + index // batches.OFFSETS_PER_ELEMENT)
    if where.are_open:
        elements += range(tables + where.start, tables + where.end)
    return elements


def proof(posted: PostedBatch, index: int) -> bytes:
    """Proof of segment `index` for the deployment's data source."""
    if posted.blob_hashes:
        return blob_proof(posted, index)
    return segment_proof(posted.payload, posted.segments, posted.ticks, index)


def message(witness: Witness) -> bytes:
    """Calldata of a verifier for one record."""
    head = witness.pre_root + len(witness.record).to_bytes(32, "big")
    return APPLY + head + witness.record.ljust(RECORD_BYTES_MAX, b"\0") + witness.data()


def challenge_segment(posted: PostedBatch, index: int, tracer: Tracer) -> Challenge:
    """Re-executes segment `index`. `tracer` is at the start of the segment, and is left at its end."""
    pre_root = tracer.root()
    messages = segment_witness(posted, index, tracer)
    return challenge_by(posted, "check_segment", index, index, pre_root, proof(posted, index), messages)


def segment_witness(posted: PostedBatch, index: int, tracer: Tracer) -> bytes:
    """The witness of `check_segment`; `tracer` as above."""
    messages = b""
    for raw in records_of(posted.payload, posted.segments, posted.ticks, index):
        one = message(tracer.witness(raw))
        messages += len(one).to_bytes(32, "big") + one
    return messages


def challenge_form(posted: PostedBatch, index: int) -> Challenge:
    """Proves bounds and weight of segment `index`."""
    return challenge_by(posted, "check_form", index, index, proof(posted, index))


def challenge_header(posted: PostedBatch, state: State) -> Challenge:
    """Compares the header with GLOBAL of `state`, whose root is the batch's post-root."""
    state.flush()
    path = state.map.path(c.KEY_GLOBAL)
    data = state.globals.words()
    words = [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]
    return challenge_by(posted, "check_header", 0, words, path.bitmap, list(path.siblings))


def challenge_late(posted: PostedBatch, message: int) -> Challenge:
    """Compares the batch's time of posting with the deadline of inbox message `message`; all messages share one id."""
    return challenge_by(posted, "check_late", 0, message)


def challenge_by(posted: PostedBatch, check: str, index: int, *arguments: object) -> Challenge:
    """A challenge by `check`; `index` as in its id, `arguments` those after the header."""
    header = posted.header()
    function = arbiter().function(check)
    header_hash = keccak(eth_abi_coder.encode([HEADER], [header]))
    challenge_id = keccak(
        eth_abi_coder.encode(["bytes32", "bytes4", "uint256"], [header_hash, function.selector, index])
    )
    return Challenge(posted.batch_id, challenge_id, function.encode(header, *arguments))
