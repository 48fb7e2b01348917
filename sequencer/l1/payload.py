"""The data root of a batch's payload (PROTOCOL §6), and proofs of chunks under it (PROTOCOL §16)."""

from collections.abc import Sequence
from typing import Final

from tiny_keccak import keccak256

ELEMENT_BYTES: Final = 31
CHUNK_BYTES: Final = 992
PAYLOAD_BYTES_MAX: Final = 122_016  # contracts/lib/batch.vy
ZERO_LEAF: Final = bytes(32)


def data_root(payload: bytes) -> bytes:
    """Merkle root over chunks of 992 bytes, the last one zero padded, with zero leaves up to a power of two."""
    return _levels(_chunks(payload))[-1][0]


def chunk_proof(payload: bytes, chunks: Sequence[int]) -> bytes:
    """The chunks asked for, each followed by the hashes beside its way to the data root, leaf first."""
    data = _chunks(payload)
    levels = _levels(data)
    proof = b""
    for index in chunks:
        proof += data[index]
        for level in levels[:-1]:
            proof += level[index ^ 1]
            index >>= 1
    return proof


def _chunks(payload: bytes) -> list[bytes]:
    return [
        payload[start : start + CHUNK_BYTES].ljust(CHUNK_BYTES, b"\0")
        for start in range(0, len(payload), CHUNK_BYTES)
    ]


def _levels(chunks: list[bytes]) -> list[list[bytes]]:
    """Hashes by level, leaves first, the root last."""
    level = [keccak256(chunk) for chunk in chunks] or [ZERO_LEAF]
    level += [ZERO_LEAF] * ((1 << (len(level) - 1).bit_length()) - len(level))
    levels = [level]
    while len(level) > 1:
        level = [keccak256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return levels
