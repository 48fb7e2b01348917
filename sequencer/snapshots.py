"""Snapshots of the state, so that start and recovery replay only the log's tail.

A file holds every leaf's preimage, compressed, and the log offset it belongs to; it proves itself by its root. Files
are written beside and renamed, so that a crash leaves the old one.
"""

import logging
import os
import struct
from pathlib import Path

import msgspec
import zstandard

from sequencer.engine import ReplayError, replay
from sequencer.log import Log
from sequencer.protocol.state import State

KEPT = 2

logger = logging.getLogger(__name__)


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """Content of a file: `offset` of the next log entry, `root`, leaves as (key 32 bytes, words)."""

    offset: int
    root: bytes
    leaves: list[tuple[bytes, bytes]]


def save(folder: Path, state: State, offset: int) -> Path:
    """Writes a snapshot of `state`, which stands before log entry `offset`; keeps the newest few."""
    folder.mkdir(parents=True, exist_ok=True)
    leaves = [(key.to_bytes(32, "big"), words) for key, words in state.preimages()]
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    data = compressor.compress(msgspec.msgpack.encode(Snapshot(offset, state.root(), leaves)))
    path = folder / f"state-{offset:012d}.zst"
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    for unfinished in folder.glob("state-*.tmp"):  # of a crash in the lines above
        unfinished.unlink()
    for old in sorted(folder.glob("state-*.zst"))[:-KEPT]:
        old.unlink()
    return path


# What reading, decompressing, decoding and rebuilding from damaged bytes may raise.
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
    msgspec.MsgspecError,
    zstandard.ZstdError,
)


def load(path: Path, domain: bytes) -> tuple[State, int]:
    """(state, offset of the next log entry). Raises ReplayError when the file does not prove its root."""
    try:
        snapshot = msgspec.msgpack.decode(zstandard.decompress(path.read_bytes()), type=Snapshot)
        state = State.from_preimages(
            domain, ((int.from_bytes(key, "big"), words) for key, words in snapshot.leaves)
        )
    except _DAMAGE as error:
        raise ReplayError(f"{path.name}: {error!r}") from error
    if state.root() != snapshot.root:
        raise ReplayError(f"{path.name}: the leaves do not give the root")
    return state, snapshot.offset


def newest(folder: Path, log: Log, genesis: State, last_offset: int | None = None) -> tuple[State, int]:
    """(state, offset of the next log entry) of the newest snapshot that proves itself and fits the log; else `genesis`.

    `last_offset`: none that stands behind it is taken.
    """
    for path in sorted(folder.glob("state-*.zst"), reverse=True):
        if last_offset is not None and int(path.stem.removeprefix("state-")) > last_offset:
            continue
        try:
            found, at = load(path, genesis.domain)
            _check_fits(found, at, log)
        except ReplayError as error:
            logger.warning("snapshot left out: %s", error)
            continue
        return found, at
    return genesis, 0


def discard(folder: Path, offset: int) -> None:
    """Deletes the snapshots that stand behind log entry `offset`."""
    for path in folder.glob("state-*.zst"):
        if int(path.stem.removeprefix("state-")) > offset:
            path.unlink()


def recover(folder: Path, log: Log, genesis: State) -> tuple[State, int]:
    """The state after the whole log, and how many entries were replayed: start and crash recovery alike.

    From the newest snapshot that proves itself and stands where the log's entry before it ends; else from `genesis`.
    """
    state, offset = newest(folder, log, genesis)
    replayed = 0
    for entry in log.read(offset):
        replay(state, entry)
        replayed += 1
    return state, replayed


def _check_fits(state: State, offset: int, log: Log) -> None:
    """Raises ReplayError unless `state` is what the log gives up to `offset`."""
    if not 0 < offset <= log.end:
        raise ReplayError(f"offset {offset} is not within the log, which ends at {log.end}")
    if next(iter(log.read(offset - 1))).root != state.root():
        raise ReplayError(f"its root is not that of log entry {offset - 1}")
