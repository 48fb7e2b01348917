"""How much payload a batch may have on L1, and proofs of its chunks under the data root (PROTOCOL §16)."""

from collections.abc import Sequence
from typing import Final

from sequencer.protocol.batch import chunks as chunks_of
from sequencer.protocol.batch import data_levels

PAYLOAD_BYTES_MAX: Final = 122_016  # contracts/lib/batch.vy
PAYLOAD_HEAD: Final = (
    388  # where in the calldata of `Rollup.post` the payload's length stands (contracts/Rollup.vy)
)
PAYLOAD_START: Final = PAYLOAD_HEAD + 32


def payload_in(calldata: bytes) -> bytes:
    """The payload in the calldata of `Rollup.post`, at the places where Rollup reads it, whatever stands elsewhere.

    A stricter reader would be blind to a batch that Rollup takes. What it has read is checked by the data root.
    """
    length = int.from_bytes(calldata[PAYLOAD_HEAD:PAYLOAD_START], "big")
    return calldata[PAYLOAD_START : PAYLOAD_START + length]


def chunk_proof(payload: bytes, chunks: Sequence[int]) -> bytes:
    """The chunks asked for, each followed by the hashes beside its way to the data root, leaf first."""
    data = chunks_of(payload)
    levels = data_levels(payload)
    proof = b""
    for index in chunks:
        proof += data[index]
        for level in levels[:-1]:
            proof += level[index ^ 1]
            index >>= 1
    return proof
