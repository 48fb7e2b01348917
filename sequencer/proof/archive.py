"""What a watcher keeps of L1: every batch with its payload, and every roll-back, in the chain's order, in one file.

The batches that stand are a fold over that journal: a posted batch comes on top, a roll-back takes the newest away.
When the chain is reorganised the journal's end is cut off and read again.
"""

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.l1.follower import PostedBatch

logger = logging.getLogger(__name__)

ARCHIVE_FILE: Final = "archive.sqlite"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A roll-back as L1 has it: batches from `first_id` on are no more."""

    first_id: int
    block_number: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the journal. Of a roll-back `batch_id` is the first that is no more; the last three say nothing."""

    number: int
    batch_id: int
    is_rollback: bool
    block_number: int
    block_hash: str
    post_root: bytes
    inbox_count: int
    segments: int


class Archive:
    """One SQLite file. Its rows without their payloads are in memory, too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, batch_id INTEGER, is_rollback INTEGER, "
            "block_number INTEGER, block_hash TEXT, post_root BLOB, inbox_count INTEGER, segments INTEGER, "
            "log_index INTEGER, body BLOB, UNIQUE (block_hash, log_index))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value)")
        self._decode = msgspec.msgpack.Decoder(PostedBatch).decode
        self.rows: list[Row] = [
            Row(values[0], values[1], bool(values[2]), *values[3:])
            for values in self._db.execute(
                "SELECT number, batch_id, is_rollback, block_number, block_hash, post_root, inbox_count, segments "
                "FROM journal ORDER BY number"
            )
        ]

    def bind(self, name: str) -> None:
        """Says whose archive this is. Raises ValueError when it is another's."""
        known = self.get("deployment")
        if known is None:
            self.put(deployment=name)
        elif known != name:
            raise ValueError(f"the folder's archive is of {known}, not of {name}")

    def get(self, name: str) -> Any:
        """A kept value, or None."""
        row = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put(self, **values: object) -> None:
        """Keeps values, all of them or none."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())
        self._db.execute("COMMIT")

    def add(self, event: PostedBatch | RolledBack, log_index: int) -> None:
        """The next event of the chain; one that is known already is left out."""
        key = (event.block_hash, log_index)
        if self._db.execute("SELECT 1 FROM journal WHERE block_hash = ? AND log_index = ?", key).fetchone():
            return
        number = self.rows[-1].number + 1 if self.rows else 1
        at = (event.block_number, event.block_hash)
        if isinstance(event, RolledBack):
            row, body = Row(number, event.first_id, True, *at, b"", 0, 0), b""
        else:
            row = Row(number, event.batch_id, False, *at, event.post_root, event.inbox_count, event.segments)
            body = msgspec.msgpack.encode(event)
        self._db.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                row.batch_id,
                row.is_rollback,
                *at,
                row.post_root,
                row.inbox_count,
                row.segments,
                log_index,
                body,
            ),
        )
        self.rows.append(row)

    def cut(self, count: int) -> None:
        """Forgets all rows but the first `count`: their blocks are gone."""
        for row in self.rows[count:]:
            self._db.execute("DELETE FROM journal WHERE number = ?", (row.number,))
        del self.rows[count:]

    def standing(self) -> list[Row]:
        """Rows of the batches that stand, in order."""
        out: list[Row] = []
        for row in self.rows:
            if not row.is_rollback:
                out.append(row)
                continue
            while out and out[-1].batch_id >= row.batch_id:
                out.pop()
        return out

    def batch(self, row: Row) -> PostedBatch:
        """The batch of a row, with its payload."""
        found = self._db.execute("SELECT body FROM journal WHERE number = ?", (row.number,)).fetchone()
        return self._decode(found[0])

    def size_bytes(self) -> int:
        """Of the file and what is not yet written back to it."""
        return sum(path.stat().st_size for path in (self._path, Path(f"{self._path}-wal")) if path.exists())

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


class KeptBlobs:
    """The blobs in a watcher's archive, for who comes when beacon nodes have them no more (`Follower.kept`).

    `folder` is that of a `fairstrike watch`, of anybody: what it gives is compared with L1's hashes. It is only read,
    and may be in use. Raises ValueError when there is no archive in it.
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
        """The blobs of these versioned hashes, None where they are not kept, or cannot be read."""
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
