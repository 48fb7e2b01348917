"""Packs: runs of ticks under one zstandard frame, in which the log keeps all but its newest entries.

A pack is a row of the table `packs`: the ticks' bodies as one array, compressed, and the chain hash of the last of
them; the others follow from the bodies. Packs of final batches may be moved to files of the folder `archive`, each
the frames of up to FILE_PACKS packs behind each other; `zstd -d` reads one. Readers see no difference.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from sequencer.checksums import file_of
from sequencer.log.interface import LogError
from sequencer.protocol.hashing import keccak

GENESIS_HASH: Final = bytes(32)
PACK_BYTES: Final = (
    256 * 1024
)  # of bodies; beyond it compression gains nothing, and a read in the middle costs more
UNPACKED_BYTES_MAX: Final = 1 << 30
LEVEL: Final = 3  # signatures and roots, nine tenths of a record, do not compress at any level
FILE_PACKS: Final = 64
ARCHIVE: Final = "archive"
_TICKS: Final = 256  # rows that are read at once

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[bytes]).decode


class LogArchived(LogError):
    """A file of the archive is not there; the log is whole but for it."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Ticks from offset `first` to before `end`. `chained`: chain hash of the last. Either `body`, or where it lies in
    a file.
    """

    first: int
    end: int
    chained: bytes
    body: bytes | None
    file: str
    place: int
    size: int


_COLUMNS: Final = "first, end, hash, body, file, place, size"


_TABLE: Final = (
    "packs (first INTEGER PRIMARY KEY, end INTEGER NOT NULL, hash BLOB NOT NULL, body BLOB, "
    "file TEXT NOT NULL DEFAULT '', place INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0)"
)


def create(db: sqlite3.Connection) -> None:
    """Makes the table, if need be."""
    db.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")


def stand_in(db: sqlite3.Connection) -> None:
    """For reading alone: an empty table of the connection's own, where an older version has written none."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'packs'").fetchone():
        db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {_TABLE}")


def compressed(bodies: list[bytes]) -> bytes:
    """A pack's body. Its size stands in the frame, and a checksum behind it."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(_encode(bodies))


def pack_at(db: sqlite3.Connection, offset: int) -> Pack | None:
    """The pack that holds the tick at `offset`."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM packs WHERE first <= ? ORDER BY first DESC LIMIT 1",  # noqa: S608  # a constant
        (offset,),
    ).fetchone()
    return Pack(*row) if row is not None and row[1] > offset else None


def packs_from(db: sqlite3.Connection, offset: int) -> list[Pack]:
    """The packs that hold ticks from `offset` on."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM packs WHERE end > ? ORDER BY first", (offset,))  # noqa: S608  # a constant
    return [Pack(*row) for row in rows]


def last(db: sqlite3.Connection) -> tuple[int, bytes]:
    """Offset behind the last tick, and its chain hash."""
    row = db.execute(
        "SELECT at, hash FROM (SELECT offset + 1 AS at, hash FROM ticks ORDER BY offset DESC LIMIT 1)"
        " UNION ALL SELECT at, hash FROM (SELECT end AS at, hash FROM packs ORDER BY first DESC LIMIT 1)"
        " ORDER BY at DESC LIMIT 1"
    ).fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS_HASH)


def unpacked(db: sqlite3.Connection, pack: Pack) -> list[tuple[bytes, bytes]]:
    """(body, chain hash) of each tick of a pack. Raises LogError when they do not lead to its hash, LogArchived."""
    where = f"offsets {pack.first} to {pack.end - 1}"
    data = pack.body if pack.body is not None else _of_file(db, pack)
    try:
        if zstandard.frame_content_size(data) > UNPACKED_BYTES_MAX:
            raise ValueError("too large")
        bodies = _decode(zstandard.decompress(data))
    except (ValueError, MemoryError, zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise LogError(f"hash chain broken in {where}: their pack cannot be read ({error})") from error
    chained = hash_before(db, pack.first)
    out = []
    for body in bodies:
        chained = keccak(chained + body)
        out.append((body, chained))
    if chained != pack.chained or len(out) != pack.end - pack.first:
        raise LogError(f"hash chain broken in {where}")
    return out


def _of_file(db: sqlite3.Connection, pack: Pack) -> bytes:
    path = file_of(db).parent / ARCHIVE / pack.file
    try:
        with path.open("rb") as file:
            file.seek(pack.place)
            return file.read(pack.size)
    except FileNotFoundError:
        raise LogArchived(
            f"offsets {pack.first} to {pack.end - 1} are in {path}, which is not there: put it back"
        ) from None
    except OSError as error:
        raise LogError(f"{path}: {error}") from error


def hash_before(db: sqlite3.Connection, offset: int) -> bytes:
    """Chain hash of the tick before `offset`. Raises LogError when there is none."""
    if not offset:
        return GENESIS_HASH
    for _ in range(2):  # between the two looks it may have been packed, or unpacked
        row = db.execute("SELECT hash FROM ticks WHERE offset = ?", (offset - 1,)).fetchone()
        if row is not None:
            return bytes(row[0])
        if (pack := pack_at(db, offset - 1)) is not None:
            return pack.chained if pack.end == offset else unpacked(db, pack)[offset - 1 - pack.first][1]
    raise LogError(f"offset {offset} is past the end")


def read_bodies(db: sqlite3.Connection, start: int) -> Iterator[tuple[bytes, bytes]]:
    """(body, chain hash) of each tick from offset `start` on. Raises LogError when the chain is broken, LogArchived."""
    offset = start
    previous: bytes | None = None
    while True:
        rows, pack = _from(db, offset)
        if pack is not None:
            run, skipped = unpacked(db, pack), offset - pack.first
            if previous not in (None, run[skipped - 1][1] if skipped else hash_before(db, offset)):
                raise LogError(f"hash chain broken at offset {offset}")
            for body, chained in run[skipped:]:
                previous = chained
                offset += 1
                yield body, chained
            continue
        if previous is None:
            previous = hash_before(db, offset)
        if not rows:
            return
        for at, chained, body in rows:
            if at != offset or keccak(previous + body) != chained:
                raise LogError(f"hash chain broken at offset {at}")
            previous = chained
            offset += 1
            yield body, chained


def _from(db: sqlite3.Connection, offset: int) -> tuple[list[tuple[int, bytes, bytes]], Pack | None]:
    """The rows (offset, chain hash, body) from `offset` on, or the pack that holds it."""
    rows: list[tuple[int, bytes, bytes]] = []
    for _ in range(2):  # between the two looks ticks may have been packed, or unpacked
        rows = db.execute(
            "SELECT offset, hash, body FROM ticks WHERE offset >= ? ORDER BY offset LIMIT ?", (offset, _TICKS)
        ).fetchall()
        if rows and rows[0][0] == offset:
            break
        if (pack := pack_at(db, offset)) is not None:
            return [], pack
    return rows, None


def first_tick(db: sqlite3.Connection, end: int) -> int | None:
    """Offset of the oldest tick before `end` that is in no pack."""
    row = db.execute("SELECT MIN(offset) FROM ticks WHERE offset < ?", (end,)).fetchone()
    return None if row[0] is None else int(row[0])


def put_pack(db: sqlite3.Connection, end: int = 2**62) -> int:
    """Packs the oldest ticks before offset `end`, up to PACK_BYTES of them, in one transaction; bytes of their bodies,
    0: there are none.

    Raises LogError when their chain is broken, sqlite3.Error.
    """
    rows: list[tuple[int, bytes, bytes]] = []
    size = 0
    oldest = db.execute("SELECT offset, hash, body FROM ticks WHERE offset < ? ORDER BY offset", (end,))
    for offset, chained, body in oldest:
        rows.append((offset, chained, body))
        size += len(body)
        if size >= PACK_BYTES:
            break
    if not rows:
        return 0
    oldest.close()
    first, end = rows[0][0], rows[-1][0] + 1
    previous = hash_before(db, first)
    for offset, chained, body in rows:
        if keccak(previous + body) != chained:
            raise LogError(f"hash chain broken at offset {offset}")
        previous = chained
    data = compressed([body for _, _, body in rows])
    with transaction(db):
        db.execute(
            "INSERT INTO packs (first, end, hash, body) VALUES (?, ?, ?, ?)", (first, end, previous, data)
        )
        gone = db.execute("DELETE FROM ticks WHERE offset >= ? AND offset < ?", (first, end)).rowcount
        if gone != len(rows):
            raise LogError(f"offsets {first} to {end - 1} have changed while they were packed")
    return size


def archive(db: sqlite3.Connection, end: int) -> int:
    """Moves packs that end at or before offset `end` to a file, up to FILE_PACKS of them; how many.

    The file is durable before the first row refers to it; a crash leaves a file that no row refers to, which the next
    call writes again. Raises OSError, LogError, sqlite3.Error.
    """
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM packs WHERE end <= ? AND body IS NOT NULL ORDER BY first LIMIT ?",  # noqa: S608  # a constant
        (end, FILE_PACKS),
    )
    packs = [Pack(*row) for row in rows]
    if not packs:
        return 0
    for pack in packs:
        unpacked(db, pack)  # what is damaged stays where it is found
    folder = file_of(db).parent / ARCHIVE
    folder.mkdir(exist_ok=True)
    # Of the same offsets there may be a file with what a roll-back has taken back.
    path = folder / f"log-{packs[0].first:012d}-{packs[-1].end:012d}-{packs[-1].chained[:4].hex()}.zst"
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        for pack in packs:
            file.write(pack.body or b"")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    for directory in (folder, folder.parent):
        _sync(directory)
    place = 0
    for pack in packs:  # one at a time: whoever appends waits for no more than that
        size = len(pack.body or b"")
        db.execute(
            "UPDATE packs SET body = NULL, file = ?, place = ?, size = ? WHERE first = ? AND hash = ?",
            (path.name, place, size, pack.first, pack.chained),
        )
        place += size
    return len(packs)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that begins with the right to write; undone by an exception."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already
            db.execute("ROLLBACK")
        raise
