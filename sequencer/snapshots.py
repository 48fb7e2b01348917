"""Snapshots of the state, so that start and recovery replay only the log's tail.

A file holds every leaf's preimage, compressed, and the log offset it belongs to; it proves itself by its root. Files are
written beside and renamed, so that a crash leaves the old one.
"""

import os
from pathlib import Path

import msgspec
import zstandard

from sequencer.engine import ReplayError, replay
from sequencer.log import Log
from sequencer.protocol.state import State

KEPT = 2


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """Content of a file: `offset` of the next log entry, `root`, leaves as (key 32 bytes, words)."""

    offset: int
    root: bytes
    leaves: list[tuple[bytes, bytes]]


def save(folder: Path, state: State, offset: int) -> Path:
    """Writes a snapshot of `state`, which stands before log entry `offset`; keeps the newest few."""
    folder.mkdir(parents=True, exist_ok=True)
    leaves = [(key.to_bytes(32, "big"), words) for key, words in state.preimages()]
    data = zstandard.compress(msgspec.msgpack.encode(Snapshot(offset, state.root(), leaves)), 3)
    path = folder / f"state-{offset:012d}.zst"
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    for old in sorted(folder.glob("state-*.zst"))[:-KEPT]:
        old.unlink()
    return path


def load(path: Path, domain: bytes) -> tuple[State, int]:
    """(state, offset of the next log entry). Raises ReplayError when the file does not prove its root."""
    try:
        snapshot = msgspec.msgpack.decode(zstandard.decompress(path.read_bytes()), type=Snapshot)
        state = State.from_preimages(
            domain, ((int.from_bytes(key, "big"), words) for key, words in snapshot.leaves)
        )
    except (ValueError, msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise ReplayError(f"{path.name}: {error}") from error
    if state.root() != snapshot.root:
        raise ReplayError(f"{path.name}: the leaves do not give the root")
    return state, snapshot.offset


def recover(folder: Path, log: Log, genesis: State) -> tuple[State, int]:
    """The state after the whole log, and how many entries were replayed: start and crash recovery alike.

    From the newest snapshot that proves itself and lies within the log; else from `genesis`.
    """
    state, offset = genesis, 0
    for path in sorted(folder.glob("state-*.zst"), reverse=True):
        try:
            found, at = load(path, genesis.domain)
        except ReplayError:
            continue
        if at <= log.end:
            state, offset = found, at
            break
    replayed = 0
    for entry in log.read(offset):
        replay(state, entry)
        replayed += 1
    return state, replayed
