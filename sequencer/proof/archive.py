"""A watcher's archive of L1: every batch with its payload, and every roll-back, in the chain's order, in one file.

The current batches follow from that journal: a posted batch is added, a roll-back removes the newest. After a
reorganisation the journal's end is cut off and read again. Each row has a checksum: a damaged row, and those after it,
are not used before they have been read from L1 again (`mend`).
"""

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.checksums import StoreDamaged, damaged, guard, guarded, row_sum
from sequencer.l1.follower import PostedBatch

logger = logging.getLogger(__name__)

ARCHIVE_FILE: Final = "archive.sqlite"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A roll-back on L1: removes the batches from `first_id` on."""

    first_id: int
    block_number: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the journal. For a roll-back `batch_id` is the first removed batch; the last three fields are unused."""

    number: int
    batch_id: int
    is_rollback: bool
    block_number: int
    block_hash: str
    post_root: bytes
    inbox_count: int
    segments: int


_COLUMNS: Final = "number, batch_id, is_rollback, block_number, block_hash, post_root, inbox_count, segments"
_WHOLE: Final = f"{_COLUMNS}, log_index, body"
REMEDY: Final = "the watcher reads it from L1 again"


class Archive:
    """One SQLite file. Its rows without their payloads are also in memory.

    `rows` end before the first damaged row; `damaged`: the numbers of damaged rows. Raises StoreDamaged when the file
    cannot be read at all.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._decode = msgspec.msgpack.Decoder(PostedBatch).decode
        self.damaged: list[int] = []
        self.rows: list[Row] = []
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            remedy = "move it away: all that L1 still has is read again"
            raise StoreDamaged(ARCHIVE_FILE, str(error), remedy) from error

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, batch_id INTEGER, is_rollback INTEGER, "
            "block_number INTEGER, block_hash TEXT, post_root BLOB, inbox_count INTEGER, segments INTEGER, "
            "log_index INTEGER, body BLOB, UNIQUE (block_hash, log_index))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value)")
        guard(self._db, "journal", "about")
        self.damaged = list(damaged(self._db, "journal", guarded(self._db)["journal"]))
        self._load()
        self._mend_cursor()

    def _load(self) -> None:
        """The undamaged rows."""
        first = min(self.damaged, default=2**62)
        query = f"SELECT {_COLUMNS} FROM journal WHERE number < ? ORDER BY number"  # noqa: S608  # a constant
        self.rows = [
            Row(values[0], values[1], bool(values[2]), *values[3:])
            for values in self._db.execute(query, (first,))
        ]

    def _mend_cursor(self) -> None:
        """Resets damaged values: reading continues from the last row, and the archive is bound anew."""
        for row in list(damaged(self._db, "about", guarded(self._db)["about"])):
            logger.error("%s, table about, row %d is damaged: it is made again", ARCHIVE_FILE, row)
            self._db.execute("DELETE FROM about WHERE rowid = ?", (row,))
        if (self.get("cursor_number") is None) != (self.get("cursor_hash") is None) or (
            self.rows and self.get("cursor_number") is None
        ):
            self.rewind(len(self.rows))

    def bind(self, name: str) -> None:
        """Binds the archive to a deployment. Raises ValueError when it is another's."""
        known = self.get("deployment")
        if known is None:
            self.put(deployment=name)
        elif known != name:
            raise ValueError(f"the folder's archive is of {known}, not of {name}")

    def get(self, name: str) -> Any:
        """A stored value, or None."""
        row = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put(self, **values: object) -> None:
        """Stores values, all of them or none."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", values.items())
        self._db.execute("COMMIT")

    def add(self, event: PostedBatch | RolledBack, log_index: int) -> None:
        """Adds the next event of the chain; a known one is skipped."""
        key = (event.block_hash, log_index)
        if self._db.execute("SELECT 1 FROM journal WHERE block_hash = ? AND log_index = ?", key).fetchone():
            return
        self.rows.append(self._insert(self.rows[-1].number + 1 if self.rows else 1, event, log_index))

    def _insert(self, number: int, event: PostedBatch | RolledBack, log_index: int) -> Row:
        at = (event.block_number, event.block_hash)
        if isinstance(event, RolledBack):
            row, body = Row(number, event.first_id, True, *at, b"", 0, 0), b""
        else:
            row = Row(number, event.batch_id, False, *at, event.post_root, event.inbox_count, event.segments)
            body = msgspec.msgpack.encode(event)
        values = (number, row.batch_id, row.is_rollback, *at, row.post_root, row.inbox_count, row.segments)
        self._db.execute(
            f"INSERT INTO journal ({_WHOLE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # a constant
            (*values, log_index, body),
        )
        return row

    def rewind(self, count: int) -> None:
        """Notes that L1 has been read up to the block of the last of the first `count` rows only."""
        if count:
            last = self.rows[count - 1]
            self.put(cursor_number=last.block_number, cursor_hash=last.block_hash)
        else:
            self._db.execute("DELETE FROM about WHERE name IN ('cursor_number', 'cursor_hash')")

    def gap(self) -> tuple[int, int, list[int]] | None:
        """Range of L1 to read again: first block, last block, the row numbers; None when nothing is damaged.

        It covers the first run of damaged rows: between the last sound row before and the first after, or the cursor.
        """
        if not self.damaged:
            return None
        first, *_ = numbers = sorted(self.damaged)
        run = [number for place, number in enumerate(numbers) if number == first + place]
        after = self._db.execute(
            "SELECT block_number FROM journal WHERE number = ?", (run[-1] + 1,)
        ).fetchone()
        last = after[0] if after else self.get("cursor_number")
        return (self.rows[-1].block_number if self.rows else 0), int(last or 0), run

    def mend(self, numbers: list[int], events: list[tuple[PostedBatch | RolledBack, int]]) -> bool:
        """Replaces damaged rows by the events of their blocks, all of which are given; False if one has none.

        Then these rows and all later ones are deleted.
        """
        marks = ",".join("?" * len(numbers))
        known = set(
            self._db.execute(
                f"SELECT block_hash, log_index FROM journal WHERE number NOT IN ({marks})",  # noqa: S608  # marks
                numbers,
            )
        )
        found = [(event, index) for event, index in events if (event.block_hash, index) not in known]
        is_whole = len(found) == len(numbers)
        self._db.execute("BEGIN IMMEDIATE")
        if is_whole:
            self._db.execute(f"DELETE FROM journal WHERE number IN ({marks})", numbers)  # noqa: S608  # marks
            for number, (event, index) in zip(numbers, found, strict=True):
                self._insert(number, event, index)
        else:
            self._db.execute("DELETE FROM journal WHERE number >= ?", (numbers[0],))
        self._db.execute("COMMIT")
        self.damaged = [one for one in self.damaged if one not in numbers] if is_whole else []
        self._load()
        if not is_whole:
            self.rewind(len(self.rows))
        return is_whole

    def cut(self, count: int) -> None:
        """Deletes all rows but the first `count`: their blocks are no longer in the chain."""
        for row in self.rows[count:]:
            self._db.execute("DELETE FROM journal WHERE number = ?", (row.number,))
        del self.rows[count:]

    def standing(self) -> list[Row]:
        """Rows of the current batches, in order."""
        out: list[Row] = []
        for row in self.rows:
            if not row.is_rollback:
                out.append(row)
                continue
            while out and out[-1].batch_id >= row.batch_id:
                out.pop()
        return out

    def batch(self, row: Row) -> PostedBatch:
        """The batch of a row, with its payload. Raises StoreDamaged when it is damaged: see `mend`."""
        found = self._db.execute(
            f"SELECT {_WHOLE}, checksum FROM journal WHERE number = ?",  # noqa: S608  # a constant
            (row.number,),
        ).fetchone()
        if found is None or row_sum("journal", *found[:-1]) != found[-1]:
            self.damaged = sorted({*self.damaged, row.number})
            self._load()
            raise StoreDamaged(ARCHIVE_FILE, f"batch {row.batch_id} is not what was written", REMEDY)
        return self._decode(found[-2])

    def size_bytes(self) -> int:
        """Size of the file and its write-ahead log."""
        return sum(path.stat().st_size for path in (self._path, Path(f"{self._path}-wal")) if path.exists())

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


class KeptBlobs:
    """Blobs in a watcher's archive, for when beacon nodes have dropped them (`Follower.kept`).

    `folder` is that of any `fairstrike watch`: its blobs are compared with L1's hashes. It is only read, and may be in
    use. Raises ValueError when there is no archive in it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / ARCHIVE_FILE
        try:
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            rows = self._db.execute("SELECT batch_id, number FROM journal WHERE is_rollback = 0")
            self._numbers: dict[int, list[int]] = {}
            for batch_id, number in rows:
                self._numbers.setdefault(batch_id, []).append(number)
        except sqlite3.Error as error:
            raise ValueError(f"--archive {folder}: no archive in {path}: {error}") from error
        self._decode = msgspec.msgpack.Decoder(PostedBatch).decode

    def __call__(self, batch_id: int, hashes: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
        """The blobs of these versioned hashes; None for those that are not stored, or cannot be read."""
        for number in self._numbers.get(batch_id, ()):
            try:
                row = self._db.execute("SELECT body FROM journal WHERE number = ?", (number,)).fetchone()
                batch = self._decode(row[0])
            except (sqlite3.Error, TypeError, msgspec.DecodeError) as error:
                logger.warning("the archive's batch %d cannot be read: %s", batch_id, error)
                continue
            if batch.blob_hashes == hashes:
                return batch.blobs()
        return None

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
