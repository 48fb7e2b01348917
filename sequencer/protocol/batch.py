"""Segments and batches: how records and roots lie in the payload that L1 keeps (docs/PROTOCOL.md section 5)."""

from collections.abc import Iterable
from dataclasses import dataclass

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.hashing import keccak

CHUNK_BYTES = 32 * c.ELEMENT_BYTES
OFFSETS_PER_ELEMENT = 10
NO_ID = bytes(c.ELEMENT_BYTES)  # of a tick whose header nobody has signed
_TICK = bytes([Kind.TICK])


class BatchError(ValueError):
    """A payload that no honest sequencer builds; names what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Records (bytes each) between two committed roots; `root`: the state's after the last, 32 bytes or its top 31."""

    root: bytes
    records: tuple[bytes, ...]


def weight(raw: bytes) -> int:
    """Static weight of a record in its segment; what is no known kind weighs 1."""
    layout = c.LAYOUT.get(raw[0]) if raw else None
    return layout[2] if layout else 1


def ticks_in(records: Iterable[bytes]) -> int:
    """How many ticks begin in logged records."""
    return sum(raw[:1] == _TICK for raw in records)


def encode(segments: Iterable[Segment], ids: Iterable[bytes] | None = None) -> bytes:
    """Payload of a batch. Records must be whole elements.

    `ids`: 31 bytes each, of the headers of the ticks that begin in it (receipts.py); None: NO_ID for each.
    """
    listed = list(segments)
    if ids is None:
        ids = [NO_ID] * sum(ticks_in(segment.records) for segment in listed)
    roots = b"".join(segment.root[: c.ELEMENT_BYTES] for segment in listed)
    body = b"".join(raw for segment in listed for raw in segment.records)
    offsets = b""
    end = 0
    for segment in listed:
        end += sum(len(raw) for raw in segment.records) // c.ELEMENT_BYTES
        offsets += end.to_bytes(3, "big")
    table = b""
    for start in range(0, len(offsets), 3 * OFFSETS_PER_ELEMENT):
        table += offsets[start : start + 3 * OFFSETS_PER_ELEMENT].ljust(c.ELEMENT_BYTES, b"\0")
    return roots + table + b"".join(ids) + body


def ids_at(segments: int) -> int:
    """Element at which the ids of ticks begin: behind roots and offsets."""
    return segments + -(-segments // OFFSETS_PER_ELEMENT)


def tables(segments: int, ticks: int) -> int:
    """Elements before the record area: roots, offsets, ids of ticks."""
    return ids_at(segments) + ticks


def ids_in(payload: bytes, segments: int, ticks: int) -> list[bytes]:
    """Ids of the headers of the ticks that begin in a payload."""
    start = ids_at(segments)
    return [payload[at * c.ELEMENT_BYTES : (at + 1) * c.ELEMENT_BYTES] for at in range(start, start + ticks)]


def decode(payload: bytes, segments: int, ticks: int) -> list[Segment]:
    """Inverse of `encode`, without the ids; roots come back as their top 31 bytes. Raises BatchError."""
    if len(payload) % c.ELEMENT_BYTES:
        raise BatchError("payload: not a whole number of 31-byte elements")
    start = tables(segments, ticks) * c.ELEMENT_BYTES
    if start > len(payload):
        raise BatchError("payload: shorter than its tables")
    body = payload[start:]
    out: list[Segment] = []
    begin = 0
    for i in range(segments):
        element, place = divmod(i, OFFSETS_PER_ELEMENT)
        at = (segments + element) * c.ELEMENT_BYTES + 3 * place
        end = int.from_bytes(payload[at : at + 3], "big") * c.ELEMENT_BYTES
        if not begin <= end <= len(body):
            raise BatchError(f"payload: segment {i} ends out of order")
        root = payload[i * c.ELEMENT_BYTES : (i + 1) * c.ELEMENT_BYTES]
        out.append(Segment(root, tuple(split(body[begin:end]))))
        begin = end
    if begin != len(body):
        raise BatchError("payload: elements after the last segment")
    return out


def split(data: bytes) -> Iterable[bytes]:
    """The records in a run of elements. An unknown kind takes one element; a record that is cut off is what is left."""
    at = 0
    while at < len(data):
        layout = c.LAYOUT.get(data[at])
        size = layout[0] if layout else c.ELEMENT_BYTES
        yield data[at : at + size]
        at += size


def chunks(payload: bytes) -> list[bytes]:
    """The payload in chunks of 992 bytes, the last one zero padded."""
    return [
        payload[at : at + CHUNK_BYTES].ljust(CHUNK_BYTES, b"\0") for at in range(0, len(payload), CHUNK_BYTES)
    ]


def data_levels(payload: bytes) -> list[list[bytes]]:
    """Merkle tree over the chunks: hashes by level, leaves first, the root last; zero leaves up to a power of two."""
    level = [keccak(chunk) for chunk in chunks(payload)] or [bytes(32)]
    level += [bytes(32)] * ((1 << (len(level) - 1).bit_length()) - len(level))
    levels = [level]
    while len(level) > 1:
        level = [keccak(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
        levels.append(level)
    return levels


def data_root(payload: bytes) -> bytes:
    """Merkle root over the payload's chunks."""
    return data_levels(payload)[-1][0]
