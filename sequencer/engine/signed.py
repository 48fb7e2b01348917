"""Signers of records that are to be executed in order: found many at a time (keyring.py), on other cores if there are.

The kernel works without Python's lock, so that the records before are executed meanwhile.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from sequencer.keyring import KeyRing, hints_of
from sequencer.protocol import codec
from sequencer.protocol.constants import Reason

CHUNK_RECORDS: Final = 256  # a few times as long as the wait for Python's lock behind it
AHEAD_MIN: Final = 32  # fewer are not worth a thread

_SIGNED: Final = frozenset(bytes([kind]) for kind, layout in codec.LAYOUTS.items() if layout.signed)
_ring: Final = KeyRing()


def is_signed(raw: bytes) -> bool:
    """Whether a record is of a kind that somebody signs."""
    return raw[:1] in _SIGNED


def signers_of(raws: Sequence[bytes], domain: bytes) -> Iterator[bytes | None]:
    """For each record, in order, what `apply` may be told of its signer; None: it finds that out by itself."""
    claims = [raw for raw in raws if is_signed(raw) and codec.well_formed(raw) is Reason.OK]
    return _in_their_places(raws, claims, _recovered(claims, domain))


def _in_their_places(
    raws: Sequence[bytes], claims: Sequence[bytes], found: Iterator[bytes | None]
) -> Iterator[bytes | None]:
    place = 0
    for raw in raws:
        if place < len(claims) and raw is claims[place]:
            place += 1
            yield next(found)
        else:
            yield None


def _recovered(claims: Sequence[bytes], domain: bytes) -> Iterator[bytes | None]:
    chunks = [claims[at : at + CHUNK_RECORDS] for at in range(0, len(claims), CHUNK_RECORDS)]
    if len(claims) < AHEAD_MIN or len(os.sched_getaffinity(0)) < 2:
        return (one for chunk in chunks for one in _signers(chunk, domain))
    futures = [_threads().submit(_signers, chunk, domain) for chunk in chunks]
    return (one for future in futures for one in future.result())


def _signers(raws: Sequence[bytes], domain: bytes) -> list[bytes | None]:
    return _ring.signers(raws, domain, hints_of(raws))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) - 1), thread_name_prefix="signers")
