"""The data root of a batch's payload (PROTOCOL §6)."""

from typing import Final

from tiny_keccak import keccak256

ELEMENT_BYTES: Final = 31
CHUNK_BYTES: Final = 992
PAYLOAD_BYTES_MAX: Final = 122_016  # Rollup.vy
ZERO_LEAF: Final = bytes(32)


def data_root(payload: bytes) -> bytes:
    """Merkle root over chunks of 992 bytes, the last one zero padded, with zero leaves up to a power of two."""
    level = [
        keccak256(payload[start : start + CHUNK_BYTES].ljust(CHUNK_BYTES, b"\0"))
        for start in range(0, len(payload), CHUNK_BYTES)
    ] or [ZERO_LEAF]
    level += [ZERO_LEAF] * ((1 << (len(level) - 1).bit_length()) - len(level))
    while len(level) > 1:
        level = [keccak256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]
