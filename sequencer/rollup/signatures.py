"""Checks signatures a second time, in a process of its own: `python -m sequencer.rollup.signatures DOMAIN`.

A frame is a 4-byte big-endian length and that many bytes. In: msgpack, whether the request is urgent, and a list of
(record, signer that a gateway vouched for). Out: 4 bytes, the position of the first record that its signer has not
signed, or NONE.

A thread of the lowest niceness answers requests that are not urgent, on idle cores. An unprivileged process may not
raise its priority again, hence two threads. The other thread answers what this one has left waiting for a while.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final

import msgspec

from sequencer.keyring import KeyRing
from sequencer.protocol import codec
from sequencer.protocol.constants import Reason

PREFIX_BYTES: Final = 4
NONE: Final = 2**32 - 1
NICENESS: Final = 5  # orders come first
NICENESS_MAX: Final = 19
PATIENCE_S: Final = 0.25  # for the thread that runs on idle cores only
_SIGNED: Final = frozenset(bytes([kind]) for kind, layout in codec.LAYOUTS.items() if layout.signed)

Claims = list[tuple[bytes, bytes]]
_decode: Final = msgspec.msgpack.Decoder(tuple[bool, Claims]).decode
_encode: Final = msgspec.msgpack.Encoder().encode
_ring: Final = KeyRing()  # by the signers that are named


def first_forged(claims: Sequence[tuple[bytes, bytes]], domain: bytes) -> int | None:
    """Position of the first record whose signature does not give its signer; None: all do."""
    signed = [raw[:1] in _SIGNED and codec.well_formed(raw) is Reason.OK for raw, _ in claims]
    sound = claims if all(signed) else claims[: signed.index(False)]
    recovered = _ring.signers([raw for raw, _ in sound], domain, [claimed for _, claimed in sound])
    for place, ((_, claimed), signer) in enumerate(zip(sound, recovered, strict=True)):
        if signer != claimed:
            return place
    return None if len(sound) == len(claims) else len(sound)


def encoded(claims: Claims, is_urgent: bool = False) -> bytes:
    """The frame of a request."""
    body = _encode((is_urgent, claims))
    return len(body).to_bytes(PREFIX_BYTES, "big") + body


def serve(domain: bytes, read_from: BinaryIO, write_to: BinaryIO) -> None:
    """Answers until the other side closes."""
    answered: Future[int | None] | None = None
    with ThreadPoolExecutor(1, initializer=os.nice, initargs=(NICENESS_MAX,)) as idle:
        while len(prefix := read_from.read(PREFIX_BYTES)) == PREFIX_BYTES:
            is_urgent, claims = _decode(read_from.read(int.from_bytes(prefix, "big")))
            try:
                if is_urgent or (answered is not None and not answered.done()):
                    raise TimeoutError
                answered = idle.submit(first_forged, claims, domain)
                forged = answered.result(PATIENCE_S)
            except TimeoutError:
                forged = first_forged(claims, domain)
            write_to.write((NONE if forged is None else forged).to_bytes(PREFIX_BYTES, "big"))
            write_to.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    serve(bytes.fromhex(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
