"""Packs: runs of ticks under one zstandard frame, in which the log keeps all but its newest entries.

A pack is a row of the table `packs`: the ticks' bodies as one array, compressed, and the chain hash of the last of
them; the others follow from the bodies. Packs of final batches may be moved to files of the folder `archive`, each
the frames of up to FILE_PACKS packs behind each other; `zstd -d` reads one. Readers see no difference.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from sequencer.checksums import declare, file_of, guarded, row_sum
from sequencer.log.interface import Entry, LogError
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
_entry: Final = msgspec.msgpack.Decoder(Entry).decode


class LogArchived(LogError):
    """A file of the archive is not there; the log is whole but for it."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Ticks from place `first` to before `end`. `chained`: chain hash of the last. Either `body`, or where it lies in
    a file.
    """

    first: int
    end: int
    chained: bytes
    body: bytes | None
    file: str
    at: int
    size: int

    def checksum(self) -> bytes:
        """Of its row."""
        return row_sum(
            *("packs", self.first, self.end, self.chained, self.body, self.file, self.at, self.size)
        )


_COLUMNS: Final = "first, end, hash, body, file, at, size"


_TABLE: Final = (
    "packs (first INTEGER PRIMARY KEY, end INTEGER NOT NULL, hash BLOB NOT NULL, body BLOB, "
    "file TEXT NOT NULL DEFAULT '', at INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0, checksum BLOB)"
)


def create(db: sqlite3.Connection) -> None:
    """Makes the table, if need be."""
    db.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")
    if guarded(db).get("packs") != (columns := _COLUMNS.split(", ")):
        declare(db, "packs", columns)


def compressed(bodies: list[bytes]) -> bytes:
    """A pack's body. Its size stands in the frame, and a checksum behind it."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(_encode(bodies))


def entry(body: bytes, place: int) -> Entry:
    """The entry at a place. Raises LogError when the body is none."""
    try:
        return _entry(body)
    except msgspec.MsgspecError as error:
        raise LogError(f"place {place}: its body is no entry: {error}") from error


def pack_at(db: sqlite3.Connection, place: int) -> Pack | None:
    """The pack that holds the tick at `place`."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM packs WHERE first <= ? ORDER BY first DESC LIMIT 1",  # noqa: S608  # a constant
        (place,),
    ).fetchone()
    return Pack(*row) if row is not None and row[1] > place else None


def last(db: sqlite3.Connection) -> tuple[int, bytes]:
    """Place behind the last tick, and its chain hash."""
    row = db.execute(
        "SELECT at, hash FROM (SELECT place + 1 AS at, hash FROM ticks ORDER BY place DESC LIMIT 1)"
        " UNION ALL SELECT at, hash FROM (SELECT end AS at, hash FROM packs ORDER BY first DESC LIMIT 1)"
        " ORDER BY at DESC LIMIT 1"
    ).fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS_HASH)


def unpacked(db: sqlite3.Connection, pack: Pack) -> list[tuple[bytes, bytes]]:
    """(body, chain hash) of each tick of a pack. Raises LogError when they do not lead to its hash, LogArchived."""
    where = f"places {pack.first} to {pack.end - 1}"
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
            file.seek(pack.at)
            return file.read(pack.size)
    except FileNotFoundError:
        raise LogArchived(
            f"places {pack.first} to {pack.end - 1} are in {path}, which is not there: put it back"
        ) from None
    except OSError as error:
        raise LogError(f"{path}: {error}") from error


def hash_before(db: sqlite3.Connection, place: int) -> bytes:
    """Chain hash of the tick before `place`. Raises LogError when there is none."""
    if not place:
        return GENESIS_HASH
    for _ in range(2):  # between the two looks it may have been packed
        row = db.execute("SELECT hash FROM ticks WHERE place = ?", (place - 1,)).fetchone()
        if row is not None:
            return bytes(row[0])
        if (pack := pack_at(db, place - 1)) is not None:
            return pack.chained if pack.end == place else unpacked(db, pack)[place - 1 - pack.first][1]
    raise LogError(f"place {place} is past the end")


def read_bodies(db: sqlite3.Connection, start: int) -> Iterator[tuple[bytes, bytes]]:
    """(body, chain hash) of each tick from place `start` on. Raises LogError when the chain is broken, LogArchived."""
    place = start
    previous: bytes | None = None
    while True:
        rows, pack = _from(db, place)
        if pack is not None:
            run, skipped = unpacked(db, pack), place - pack.first
            if previous not in (None, run[skipped - 1][1] if skipped else hash_before(db, place)):
                raise LogError(f"hash chain broken at place {place}")
            for body, chained in run[skipped:]:
                previous = chained
                place += 1
                yield body, chained
            continue
        if previous is None:
            previous = hash_before(db, place)
        if not rows:
            return
        for at, chained, body in rows:
            if at != place or keccak(previous + body) != chained:
                raise LogError(f"hash chain broken at place {at}")
            previous = chained
            place += 1
            yield body, chained


def _from(db: sqlite3.Connection, place: int) -> tuple[list[tuple[int, bytes, bytes]], Pack | None]:
    """The rows (place, chain hash, body) from `place` on, or the pack that holds it."""
    rows: list[tuple[int, bytes, bytes]] = []
    for _ in range(2):  # between the two looks ticks may have been packed
        rows = db.execute(
            "SELECT place, hash, body FROM ticks WHERE place >= ? ORDER BY place LIMIT ?", (place, _TICKS)
        ).fetchall()
        if rows and rows[0][0] == place:
            break
        if (pack := pack_at(db, place)) is not None:
            return [], pack
    return rows, None


def check_tail(db: sqlite3.Connection) -> None:
    """Whether the packs follow each other from place 0 on, and the chain of the ticks behind them. Raises LogError."""
    end = 0
    for first, next_end in db.execute("SELECT first, end FROM packs ORDER BY first"):
        if first != end or next_end <= first:
            raise LogError(f"places {end} to {first - 1} are not there")
        end = next_end
    for _ in read_bodies(db, end):
        pass
    if (at := first_tick(db, end)) is not None:
        raise LogError(f"place {at} is there twice")


def sound_end(db: sqlite3.Connection) -> int:
    """The place before which all is what was written, but for files of the archive, which are not read."""
    end = 0
    rows = db.execute(f"SELECT {_COLUMNS}, checksum FROM packs ORDER BY first")  # noqa: S608  # a constant
    for *columns, checksum in rows:
        pack = Pack(*columns)
        if pack.first != end or pack.checksum() != checksum:
            return end
        end = pack.end
    with contextlib.suppress(LogError):
        for _ in read_bodies(db, end):
            end += 1
    return end


def drop_from(db: sqlite3.Connection, place: int) -> None:
    """Removes what is at `place` and behind it."""
    with transaction(db):
        db.execute("DELETE FROM packs WHERE end > ?1 OR first >= ?1", (place,))
        db.execute("DELETE FROM ticks WHERE place >= ?", (place,))


def short_files(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Files of the archive that are not as long as they were written: name, and what of it is there."""
    files = db.execute("SELECT file, SUM(size) FROM packs WHERE body IS NULL GROUP BY file ORDER BY file")
    for name, size in files:
        with contextlib.suppress(FileNotFoundError):  # it may be kept elsewhere
            found = (file_of(db).parent / ARCHIVE / name).stat().st_size
            if found != size:
                yield name, f"{found} of {size} bytes"


def first_tick(db: sqlite3.Connection, end: int) -> int | None:
    """Place of the oldest tick before `end` that is in no pack."""
    row = db.execute("SELECT MIN(place) FROM ticks WHERE place < ?", (end,)).fetchone()
    return None if row[0] is None else int(row[0])


def put_pack(db: sqlite3.Connection, end: int = 2**62) -> int:
    """Packs the oldest ticks before place `end`, up to PACK_BYTES of them, in one transaction; bytes of their bodies,
    0: there are none.

    Raises LogError when their chain is broken, sqlite3.Error.
    """
    rows: list[tuple[int, bytes, bytes]] = []
    size = 0
    oldest = db.execute("SELECT place, hash, body FROM ticks WHERE place < ? ORDER BY place", (end,))
    for place, chained, body in oldest:
        rows.append((place, chained, body))
        size += len(body)
        if size >= PACK_BYTES:
            break
    if not rows:
        return 0
    oldest.close()
    first, end = rows[0][0], rows[-1][0] + 1
    previous = hash_before(db, first)
    for place, chained, body in rows:
        if keccak(previous + body) != chained:
            raise LogError(f"hash chain broken at place {place}")
        previous = chained
    data = compressed([body for _, _, body in rows])
    with transaction(db):
        db.execute(
            "INSERT INTO packs (first, end, hash, body, checksum) VALUES (?, ?, ?, ?, ?)",
            (first, end, previous, data, Pack(first, end, previous, data, "", 0, 0).checksum()),
        )
        gone = db.execute("DELETE FROM ticks WHERE place >= ? AND place < ?", (first, end)).rowcount
        if gone != len(rows):
            raise LogError(f"places {first} to {end - 1} have changed while they were packed")
    return size


def archive(db: sqlite3.Connection, end: int) -> int:
    """Moves packs that end at or before place `end` to a file, up to FILE_PACKS of them; how many.

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
    at = 0
    for pack in packs:  # one at a time: whoever appends waits for no more than that
        size = len(pack.body or b"")
        moved = replace(pack, body=None, file=path.name, at=at, size=size)
        db.execute(
            "UPDATE packs SET body = NULL, file = ?, at = ?, size = ?, checksum = ? WHERE first = ? AND hash = ?",
            (path.name, at, size, moved.checksum(), pack.first, pack.chained),
        )
        at += size
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
