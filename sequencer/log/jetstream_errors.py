"""What the servers' answers mean for an append: done, certainly not done, or unknown."""

import enum
from collections.abc import Sequence
from typing import Final

from nats.js.errors import APIError

BATCH_BODIES: Final = 128  # that are appended together; the servers take 1,000
BATCH_BYTES: Final = 16 << 20

# The servers' error codes.
_WRONG_LAST: Final = frozenset({10071, 10164})  # another sequence than the expected one is the stream's last
_STANDS: Final = 10201  # of a batch: the servers know a message of this id already
_TOO_LARGE: Final = frozenset({10054, 10097})
_NO_ROOM: Final = frozenset({10002, 10047})  # said before anything is proposed to the replicas
_FULL: Final = 10077  # the store's own word; certain only when it names a limit
NO_PEERS: Final = 10005
NAME_TAKEN: Final = 10058


class Outcome(enum.Enum):
    """What an attempt to append came to."""

    APPENDED = "acknowledged by a majority"
    UNSENT = "certainly not appended: nobody took it"
    REFUSED = "certainly not appended: the servers said why"
    LOOK = "what stands there has to be looked at"
    UNKNOWN = "may have been appended, or may yet be"


def meaning(error: APIError) -> tuple[Outcome, str]:
    """What a refusal of the servers means."""
    said = error.description or ""
    if error.err_code in _WRONG_LAST or error.err_code == _STANDS:
        return Outcome.LOOK, f"the stream's servers: {said}"
    if error.err_code in _TOO_LARGE:
        return Outcome.REFUSED, f"the stream's servers: {said}"
    if error.err_code in _NO_ROOM or (error.err_code == _FULL and "maximum" in said):
        return Outcome.REFUSED, f"the stream's servers have no room: {said}"
    return Outcome.UNKNOWN, f"the stream's servers: {said}"


def batches_of(place: int, bodies: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
    """What is appended together, each with its first place."""
    batches: list[tuple[int, list[bytes]]] = []
    size = 0
    for at, body in enumerate(bodies, start=place):
        if not batches or len(batches[-1][1]) == BATCH_BODIES or size + len(body) > BATCH_BYTES:
            batches.append((at, []))
            size = 0
        batches[-1][1].append(body)
        size += len(body)
    return batches


def words_of(error: Exception) -> str:
    if isinstance(error, APIError):
        return error.description or f"error {error.err_code}"
    return str(error).removeprefix("nats: ") or type(error).__name__
