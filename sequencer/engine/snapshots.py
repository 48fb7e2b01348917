"""Snapshots of the state, so that start and recovery replay only the log's tail.

A file holds every leaf's preimage, compressed, and the log offset it belongs to. A checksum in front covers every byte
of it: the root would not tell of the offset, nor of bits of GLOBAL that no field holds. It proves itself by its root,
too. Files are written beside and renamed, so that a crash leaves the old one.

A large state takes seconds to write. The sequencer leaves that to a process that is a copy of its own (`Aside`): the
copy's state stands still, and only the copying of page tables holds the sequencer up.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn, Protocol

import msgspec
import zstandard

from sequencer.engine.engine import ReplayError, replay
from sequencer.engine.events import Labels
from sequencer.log.interface import Entry, Ticks
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.wire.rows import OwnFill

KEPT = 2
MAGIC: Final = b"fairstrike snapshot 1\n"
SUM_BYTES: Final = 32
ASIDE_NICENESS: Final = 5  # orders come first

logger = logging.getLogger(__name__)


class Told(msgspec.Struct, frozen=True, array_like=True):
    """Acknowledgements of the latest signed records before a snapshot, as they were sent: (record, sequence number,
    acknowledgement with its receipt), oldest first. They hold for a log with the chain hash `log_hash` there.

    `signer`: address of the key that has signed the receipts; empty: they have none.
    """

    log_hash: bytes
    signer: bytes
    answers: list[tuple[bytes, int, bytes]]


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """Content of a file: `offset` of the next log entry, `root`, leaves as (key 32 bytes, words), what was `told`."""

    offset: int
    root: bytes
    leaves: list[tuple[bytes, bytes]]
    told: Told | None = None


def save(
    folder: Path,
    state: State,
    offset: int,
    is_wanted: Callable[[], bool] = lambda: True,
    told: Callable[[], Told] | None = None,
) -> Path:
    """Writes a snapshot of `state`, which stands before log entry `offset`; keeps the newest few.

    `told`: gives the acknowledgements that it is to hold. Raises OSError, also when it `is_wanted` no more by the time
    that it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaves = [(key.to_bytes(32, "big"), words) for key, words in state.preimages()]
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    content = Snapshot(offset, state.root(), leaves, told() if told is not None else None)
    data = framed(compressor.compress(msgspec.msgpack.encode(content)))
    path = folder / f"state-{offset:012d}.zst"
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if not is_wanted():
        beside.unlink()
        raise OSError(f"{path.name} is not wanted any more")
    beside.replace(path)
    for unfinished in folder.glob("state-*.tmp"):  # of a crash in the lines above
        unfinished.unlink()
    for old in sorted(folder.glob("state-*.zst"))[:-KEPT]:
        old.unlink()
    return path


def framed(data: bytes) -> bytes:
    """A file's content: what it is, the checksum, the compressed data."""
    return MAGIC + sha256(data).digest() + data


def unframed(content: bytes) -> bytes:
    """The compressed data. Raises ValueError when a byte of the file is not what was written."""
    head = len(MAGIC) + SUM_BYTES
    data = content[head:]
    if content[:head] != MAGIC + sha256(data).digest():
        raise ValueError("the checksum is not that of the content")
    return data


class Aside:
    """Snapshots of a state that goes on meanwhile, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = 0
        self._ended: asyncio.Task[None] | None = None
        self.written = 0
        self.failed = 0

    @property
    def is_busy(self) -> bool:
        """Whether one is being written."""
        return self._ended is not None and not self._ended.done()

    def begin(self, state: State, offset: int, told: Callable[[], Told] | None = None) -> None:
        """Begins to write `state` as it is, before log entry `offset`. Raises OSError when no process can be had.

        `told`: see `save`; the copy calls it.
        """
        assert not self.is_busy
        state.root()  # once here instead of in every copy
        parent = os.getpid()
        self._process = os.fork()
        if not self._process:
            _in_the_copy(self._folder, state, offset, lambda: os.getppid() == parent, told)
        self._ended = asyncio.create_task(self._wait(self._process))

    async def end(self, patience_s: float = 0.0) -> None:
        """Returns when none is being written any more: at the latest after `patience_s`, given up then."""
        if self._ended is None:
            return
        await asyncio.wait((self._ended,), timeout=patience_s)
        if self.is_busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            await self._ended

    async def _wait(self, process: int) -> None:
        _, status = await asyncio.to_thread(os.waitpid, process, 0)
        if status:
            self.failed += 1
            logger.error(
                "a snapshot was not written: its process ended with %d", os.waitstatus_to_exitcode(status)
            )
        else:
            self.written += 1


def _in_the_copy(
    folder: Path,
    state: State,
    offset: int,
    is_wanted: Callable[[], bool],
    told: Callable[[], Told] | None,
) -> NoReturn:
    """What the copy does, and nothing after it. It holds neither lock nor connection of the process it came from."""
    code = 1
    try:
        gc.disable()  # it would touch, and so copy, every page
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.nice(ASIDE_NICENESS)
        save(folder, state, offset, is_wanted, told)
        code = 0
    finally:
        os._exit(code)


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
    state, snapshot = _load(path, domain)
    return state, snapshot.offset


def _load(path: Path, domain: bytes) -> tuple[State, Snapshot]:
    """As `load`, with all that the file holds."""
    try:
        snapshot = msgspec.msgpack.decode(zstandard.decompress(unframed(path.read_bytes())), type=Snapshot)
        state = State.from_preimages(
            domain, ((int.from_bytes(key, "big"), words) for key, words in snapshot.leaves)
        )
    except _DAMAGE as error:
        raise ReplayError(f"{path.name}: {error!r}") from error
    if state.root() != snapshot.root:
        raise ReplayError(f"{path.name}: the leaves do not give the root")
    return state, snapshot


def newest(folder: Path, log: Ticks, genesis: State, last_offset: int | None = None) -> tuple[State, int]:
    """(state, offset of the next log entry) of the newest snapshot that proves itself and fits the log; else `genesis`.

    `last_offset`: none that stands behind it is taken.
    """
    state, offset, _ = _newest(folder, log, genesis, last_offset)
    return state, offset


def _newest(
    folder: Path, log: Ticks, genesis: State, last_offset: int | None
) -> tuple[State, int, Told | None]:
    """As `newest`, with the acknowledgements that the snapshot holds."""
    for path in sorted(folder.glob("state-*.zst"), reverse=True):
        if last_offset is not None and int(path.stem.removeprefix("state-")) > last_offset:
            continue
        try:
            found, snapshot = _load(path, genesis.domain)
            _check_fits(found, snapshot.offset, log)
        except ReplayError as error:
            logger.warning("snapshot left out: %s", error)
            continue
        return found, snapshot.offset, snapshot.told
    return genesis, 0, None


def discard(folder: Path, offset: int) -> None:
    """Deletes the snapshots that stand behind log entry `offset`."""
    for path in folder.glob("state-*.zst"):
        if int(path.stem.removeprefix("state-")) > offset:
            path.unlink()


class Listener(Protocol):
    """Hears what the records of the log did, entry by entry: of all that a start executes."""

    def begin(self, offset: int, told: Told | None) -> None:
        """The replay begins at log entry `offset`, with what its snapshot was `told`; it may begin once more."""
        ...

    def wants(self, entry: Entry) -> bool:
        """Whether the records of an entry are to be heard."""
        ...

    def open(self, state: State, entry: Entry, labels: Labels | None) -> None:
        """An entry is applied next to `state`. `labels`: of the ledger that takes it in; None: none does."""
        ...

    def hear(self, raw: bytes, out: Outcome, fills: Sequence[OwnFill]) -> None:
        """A record of it was applied. `fills`: what the ledger has made of it."""
        ...

    def close(self) -> None:
        """All of it was applied, and the ledger still knows the labels of orders that it has ended."""
        ...


class Follower(Protocol):
    """What is made of the log's entries besides the state, each once and in order."""

    @property
    def offset(self) -> int:
        """The first entry that it has not taken in."""
        ...

    def take_in(
        self,
        state: State,
        entry: Entry,
        log_hash: bytes,
        is_verified: bool,
        listener: Listener | None = None,
    ) -> None:
        """Applies an entry, of this chain hash, to `state` (see `replay`) and takes it in; `listener` hears of it.

        Raises ReplayError.
        """
        ...

    def caught_up(self, state: State) -> None:
        """The log ends at `state`."""
        ...

    def restart(self) -> None:
        """What came after an entry is not to be believed: forgets what is not kept for good."""
        ...


def recover(
    folder: Path,
    log: Ticks,
    genesis: State,
    follower: Follower | None = None,
    last_offset: int | None = None,
    listener: Listener | None = None,
) -> tuple[State, int]:
    """The state after the whole log, and how many entries were replayed: start and crash recovery alike.

    From the newest snapshot that proves itself and stands where the log's entry before it ends; else from `genesis`.
    `follower` gets the entries that it has not: no snapshot is taken that stands behind the first of them. None behind
    `last_offset` is taken either, since signatures from there on have not been checked: the replay does it, and trusts
    those before. `listener` hears of what is executed.
    """
    with _uncollected():
        bounds = [] if follower is None else [follower.offset]
        bounds += [] if last_offset is None else [last_offset]
        state, offset, told = _newest(folder, log, genesis, min(bounds, default=None))
        try:
            if listener is not None:
                listener.begin(offset, told)
            return state, _replay_from(state, offset, log, follower, last_offset or 0, listener)
        except ReplayError as error:
            if offset == 0:
                raise
            logger.warning("snapshot left out, its state does not go on as the log does: %s", error)
        if follower is not None:
            follower.restart()
        if listener is not None:
            listener.begin(0, None)
        return genesis, _replay_from(genesis, 0, log, follower, last_offset or 0, listener)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: a state is built without cycles, and it would look through it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _replay_from(
    state: State,
    offset: int,
    log: Ticks,
    follower: Follower | None,
    verified: int,
    listener: Listener | None,
) -> int:
    """Applies the log from `offset` on; how many entries. Signatures of those before `verified` have been checked."""
    at = offset
    for entry, log_hash in log.read_hashed(offset):
        hears = listener if listener is not None and listener.wants(entry) else None
        if follower is not None and at >= follower.offset:
            follower.take_in(state, entry, log_hash, at < verified, hears)
        elif hears is None:
            replay(state, entry, is_verified=at < verified)
        else:
            hears.open(state, entry, None)
            replay(state, entry, partial(_hear, hears), at < verified)
            hears.close()
        at += 1
    if follower is not None:
        follower.caught_up(state)
    return at - offset


def _hear(listener: Listener, raw: bytes, out: Outcome) -> None:
    listener.hear(raw, out, ())


def _check_fits(state: State, offset: int, log: Ticks) -> None:
    """Raises ReplayError unless `state` is what the log gives up to `offset`."""
    if not 0 < offset <= log.end:
        raise ReplayError(f"offset {offset} is not within the log, which ends at {log.end}")
    if next(iter(log.read(offset - 1))).root != state.root():
        raise ReplayError(f"its root is not that of log entry {offset - 1}")
