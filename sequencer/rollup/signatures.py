"""Recovers signers a second time, in a process of its own: `python -m sequencer.rollup.signatures DOMAIN`.

A frame is a 4-byte big-endian length and that many bytes. In: msgpack, a list of (record, signer that was vouched for).
Out: 4 bytes, the place of the first record that nobody with that key has signed, or NONE.
"""

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO, Final

import msgspec

from sequencer.protocol import codec

PREFIX_BYTES: Final = 4
NONE: Final = 2**32 - 1
NICENESS: Final = 5  # orders come first

Claims = list[tuple[bytes, bytes]]
_decode: Final = msgspec.msgpack.Decoder(Claims).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def first_forged(claims: Sequence[tuple[bytes, bytes]], domain: bytes) -> int | None:
    """Place of the first record whose signature does not give the signer beside it; None: all do."""
    for place, (raw, signer) in enumerate(claims):
        record = codec.decode(raw, domain)
        if not isinstance(record, codec.Record) or record.signer != signer:
            return place
    return None


def encoded(claims: Claims) -> bytes:
    """The frame of a question."""
    body = _encode(claims)
    return len(body).to_bytes(PREFIX_BYTES, "big") + body


def serve(domain: bytes, read_from: BinaryIO, write_to: BinaryIO) -> None:
    """Answers until the other side closes."""
    while len(prefix := read_from.read(PREFIX_BYTES)) == PREFIX_BYTES:
        claims = _decode(read_from.read(int.from_bytes(prefix, "big")))
        forged = first_forged(claims, domain)
        write_to.write((NONE if forged is None else forged).to_bytes(PREFIX_BYTES, "big"))
        write_to.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    serve(bytes.fromhex(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
