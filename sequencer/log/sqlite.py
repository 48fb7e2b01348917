"""The durable log: one append per tick, before anything is acknowledged.

A tick is kept as its segments (records and the root after them), chained by hash, so that recovery and the batcher
read the same bytes that the engine has seen. Appends are fenced by the expected offset: of two writers one succeeds.
The newest ticks are a row each; the others lie in packs (packs.py), which `tidy` makes.
"""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sequencer.checksums import FROM_COPY, StoreDamaged, damaged, guard, guarded
from sequencer.log import packs
from sequencer.log.interface import Entry, LogError, LogLost, Redone, RollBack
from sequencer.log.packs import hash_before
from sequencer.protocol.hashing import keccak

logger = logging.getLogger(__name__)

LOG_FILE: Final = "log.sqlite"
TAIL_BYTES: Final = 2 * packs.PACK_BYTES  # of ticks that are a row each, before the older half is packed
GUARDED = ("rollbacks", "rollback_events", "rolled_back", "redone")
_OLD = "(epoch, offset, hash, records, body) SELECT ?, offset, hash, records, body"


# SQLite's codes after which a commit has certainly not happened: nothing was written whole, or nothing was tried.
# A failed fsync is none of them: what it left behind may be there at the next start.
_NOT_WRITTEN = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_IOERR_WRITE,
    }
)


_decode: Final = msgspec.msgpack.Decoder(Entry).decode


def _refusal(error: sqlite3.Error, what: str) -> LogError:
    """What an append that failed means; `what`: that was to be written."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return LogError("disk is full")
    if code in _NOT_WRITTEN or (code is not None and code & 0xFF in _NOT_WRITTEN):
        return LogError(str(error))
    return LogLost(f"{error}; whether {what} is durable is unknown")


def file_id(path: Path) -> tuple[int, int]:
    """Device and inode. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino


def read_ticks(db: sqlite3.Connection, start: int) -> Iterator[tuple[Entry, bytes]]:
    """Entries from offset `start` on, and the chain's hash after each. Raises LogError when the chain is broken."""
    for body, chained in packs.read_bodies(db, start):
        yield _decode(body), chained


def epoch_of(db: sqlite3.Connection, batch_id: int) -> int:
    """See SqliteLog.epoch_of."""
    row = db.execute(
        "SELECT COALESCE(MAX(epoch), 0) FROM rollbacks WHERE batch_id <= ?", (batch_id,)
    ).fetchone()
    return int(row[0])


def answered(db: sqlite3.Connection) -> frozenset[str]:
    """See SqliteLog.answered."""
    return frozenset(row[0] for row in db.execute("SELECT key FROM rollback_events").fetchall())


class LogReader:
    """The log for reading alone, beside whoever writes it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        packs.stand_in(db)
        self._db = db

    @property
    def end(self) -> int:
        """Offset behind the last entry."""
        return packs.last(self._db)[0]

    def read(self, start: int) -> Iterator[Entry]:
        """See Log.read."""
        return (entry for entry, _ in read_ticks(self._db, start))

    def read_hashed(self, start: int) -> Iterator[tuple[Entry, bytes]]:
        """See Log.read_hashed."""
        return read_ticks(self._db, start)

    def hash_before(self, offset: int) -> bytes:
        """See Log.hash_before."""
        return hash_before(self._db, offset)


class SqliteLog:
    """Log in one SQLite file: WAL, synchronous=FULL, one commit (one fsync) per tick."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Appends come from the log's thread, reads from the engine's: a connection each.
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Whether packing ticks lasts does not matter: the next append's fsync covers it.
        self._packer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._packer.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS ticks ("
            "offset INTEGER PRIMARY KEY, hash BLOB NOT NULL, records INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS rollbacks (epoch INTEGER PRIMARY KEY, batch_id INTEGER NOT NULL, "
            "offset INTEGER NOT NULL, is_done INTEGER NOT NULL)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS rollback_events (key TEXT PRIMARY KEY, epoch INTEGER)")
        # Evidence: what was signed and posted once. Never read by the sequencer.
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS rolled_back (epoch INTEGER, offset INTEGER, hash BLOB NOT NULL, "
            "records INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (epoch, offset))"
        )
        # By the numbers that traders know their records by.
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS redone (seq INTEGER PRIMARY KEY, place INTEGER NOT NULL, "
            "record BLOB NOT NULL, reason INTEGER NOT NULL)"
        )
        self._db.execute("CREATE INDEX IF NOT EXISTS redone_places ON redone (place)")
        guard(self._db, *GUARDED)  # `ticks` has its chain
        for table, columns in guarded(self._db).items():
            for at in damaged(self._db, table, columns):
                self.close()
                raise StoreDamaged(path.name, f"table {table}, row {at} is not what was written", FROM_COPY)
        self._db.execute("CREATE TABLE IF NOT EXISTS room (id INTEGER PRIMARY KEY, body BLOB)")
        packs.create(self._db)
        self._path = path
        self._file = file_id(path)
        self._encode = msgspec.msgpack.Encoder().encode
        self._end, self._hash = packs.last(self._db)
        self._tail_bytes = self._counted_tail()
        self._tidy_at = TAIL_BYTES

    def _counted_tail(self) -> int:
        return int(self._db.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM ticks").fetchone()[0])

    @property
    def end(self) -> int:
        """Offset of the next append."""
        return self._end

    @property
    def head_hash(self) -> bytes:
        """Chain hash of the last entry."""
        return self._hash

    def append(self, entry: Entry, expected_offset: int) -> bytes:
        """See Log.append."""
        if expected_offset != self._end:
            raise LogLost(f"offset {expected_offset} expected, the log ends at {self._end}")
        body = self._encode(entry)
        chained = keccak(self._hash + body)
        try:
            # The primary key, and the packs' end, make the fence hold against another process, too.
            put = self._db.execute(
                "INSERT INTO ticks SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM packs WHERE end > ?1)",
                (expected_offset, chained, entry.records, body),
            )
        except sqlite3.IntegrityError:
            raise LogLost(f"another writer has appended offset {expected_offset}") from None
        except sqlite3.Error as error:
            raise _refusal(error, f"offset {expected_offset}") from error
        if not put.rowcount:
            raise LogLost(f"another writer has appended offset {expected_offset}")
        self.check_place()
        self._end += 1
        self._hash = chained
        self._tail_bytes += len(body)
        return chained

    def tidy(self) -> None:
        """See Log.tidy: packs the oldest ticks, when there are enough of them. An error leaves all as it is."""
        if self._tail_bytes < self._tidy_at:
            return
        try:
            self._tail_bytes -= packs.put_pack(self._packer)
            self._tidy_at = TAIL_BYTES
        except (sqlite3.Error, LogError) as error:
            logger.error("%s: the oldest ticks stay as they are: %s", self._path.name, error)
            self._tidy_at = self._tail_bytes + TAIL_BYTES  # not at each append again

    def check_place(self) -> None:
        """Raises LogLost when the file is not where it was opened: what is written to it nobody finds again."""
        try:
            found = file_id(self._path)
        except OSError as error:
            raise LogLost(
                f"{self._path} is gone ({error.strerror}): restore the folder, then start again"
            ) from error
        if found != self._file:
            raise LogLost(
                f"{self._path} is another file than was opened: restore the folder, then start again"
            )

    def try_room(self, size: int) -> None:
        """Writes `size` bytes durably and lets them go again. Raises LogError, LogLost: an append would, too."""
        self.check_place()
        try:
            self._db.execute("INSERT OR REPLACE INTO room VALUES (0, randomblob(?))", (size,))
            self._db.execute("UPDATE room SET body = NULL")
        except sqlite3.Error as error:
            raise _refusal(error, "what was only tried") from error

    def read(self, start: int) -> Iterator[Entry]:
        """See Log.read. Raises LogError when the hash chain is broken."""
        return (entry for entry, _ in read_ticks(self._reader, start))

    def read_hashed(self, start: int) -> Iterator[tuple[Entry, bytes]]:
        """See Log.read_hashed. Raises LogError when the hash chain is broken."""
        return read_ticks(self._reader, start)

    def verified(self) -> int:
        """The offset before which every signature is known to have been checked: by the last entry's word."""
        return next(iter(self.read(self._end - 1))).verified if self._end else 0

    # --- roll-backs -------------------------------------------------------------------------------

    def rewrite(
        self,
        offset: int,
        entries: Iterable[Entry],
        batch_id: int,
        events: Sequence[str],
        redone: Sequence[Redone] = (),
        first_seq: int = 0,
        is_cut: bool = False,
    ) -> int:
        """Puts `entries` in the place of all from `offset` to the end, in one durable transaction; the new epoch.

        They must be as many, unless `is_cut`: then the log ends behind them.

        With it goes that the L1 `events` which took `batch_id` back have been answered, and what has become of the
        acknowledged records from `first_seq` on: `redone`, looked at after the last of `entries`, has those that are
        not what they were; its `seq` counts in the old log. Old bodies that differ are kept in the table `rolled_back`.
        An exception out of `entries` leaves all as it was; LogLost says that this writer has to stand down.
        """
        db = self._db
        chained, first = self.hash_before(offset), offset
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                if packs.last(db) != (self._end, self._hash):
                    raise LogLost("another writer has appended")
                self._unpack_from(first)
                epoch = int(db.execute("SELECT COALESCE(MAX(epoch), 0) + 1 FROM rollbacks").fetchone()[0])
                for entry in entries:
                    body = self._encode(entry)
                    chained = keccak(chained + body)
                    db.execute(
                        f"INSERT INTO rolled_back {_OLD} FROM ticks WHERE offset = ? AND body != ?",
                        (epoch, offset, body),
                    )
                    db.execute(
                        "UPDATE ticks SET hash = ?, records = ?, body = ? WHERE offset = ?",
                        (chained, entry.records, body, offset),
                    )
                    offset += 1
                if is_cut:
                    db.execute(
                        f"INSERT INTO rolled_back {_OLD} FROM ticks WHERE offset >= ?", (epoch, offset)
                    )
                    db.execute("DELETE FROM ticks WHERE offset >= ?", (offset,))
                    db.execute("DELETE FROM redone WHERE place >= ?", (first_seq,))
                elif offset != self._end:
                    raise ValueError(f"entries reach to offset {offset}, the log to {self._end}")
                db.execute(
                    "INSERT INTO rollbacks (epoch, batch_id, offset, is_done) VALUES (?, ?, ?, 0)",
                    (epoch, batch_id, first),
                )
                answered = [(key, epoch) for key in events]
                db.executemany("INSERT INTO rollback_events (key, epoch) VALUES (?, ?)", answered)
                self._put_redone(redone, first_seq)
            except BaseException:
                if db.in_transaction:  # a full disk has ended it already
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogError(str(error)) from error
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise LogLost(
                f"{error}; whether the roll-back of batch {batch_id} is durable is unknown"
            ) from error
        self._hash, self._end = chained, offset
        self._tail_bytes = self._counted_tail()
        return epoch

    def _unpack_from(self, offset: int) -> None:
        """Makes ticks from `offset` on rows again, inside a transaction."""
        for pack in packs.packs_from(self._db, offset):
            ticks = packs.unpacked(self._db, pack)
            self._db.execute("DELETE FROM packs WHERE first = ?", (pack.first,))
            self._db.executemany(
                "INSERT INTO ticks VALUES (?, ?, ?, ?)",
                (
                    (at, chained, _decode(body).records, body)
                    for at, (body, chained) in enumerate(ticks, start=pack.first)
                ),
            )

    def _put_redone(self, redone: Sequence[Redone], first_seq: int) -> None:
        """Follows records that an earlier roll-back has changed by the number that was acknowledged first."""
        known = {place: seq for seq, place in self._db.execute("SELECT seq, place FROM redone")}
        self._db.execute("UPDATE redone SET reason = 0 WHERE place >= ?", (first_seq,))
        rows = [(known.get(one.seq, one.seq), one.place, one.record, one.reason) for one in redone]
        self._db.executemany(
            "INSERT OR REPLACE INTO redone (seq, place, record, reason) VALUES (?, ?, ?, ?)", rows
        )
        self._db.execute("DELETE FROM redone WHERE seq = place AND reason = 0")

    def redone(self, seq: int) -> Redone | None:
        """What roll-backs have made of the record that was acknowledged with this number, if anything."""
        row = self._reader.execute(
            "SELECT seq, place, record, reason FROM redone WHERE seq = ?", (seq,)
        ).fetchone()
        return Redone(*row) if row else None

    def acknowledged_as(self, place: int) -> int:
        """The number that the record at this place was acknowledged with."""
        row = self._reader.execute("SELECT seq FROM redone WHERE place = ?", (place,)).fetchone()
        return int(row[0]) if row else place

    def rolled_back(self) -> RollBack | None:
        """The last roll-back that the log has been rewritten for."""
        row = self._reader.execute(
            "SELECT epoch, batch_id, offset, is_done FROM rollbacks ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        return RollBack(row[0], row[1], row[2], bool(row[3])) if row else None

    def rolled_back_to(self, epoch: int) -> int | None:
        """The first offset that roll-backs after the `epoch`-th have rewritten; None: there was none."""
        row = self._reader.execute("SELECT MIN(offset) FROM rollbacks WHERE epoch > ?", (epoch,)).fetchone()
        return None if row[0] is None else int(row[0])

    def hash_before(self, offset: int) -> bytes:
        """See Log.hash_before."""
        return hash_before(self._reader, offset)

    def answered(self) -> frozenset[str]:
        """L1 events that need nothing more."""
        return answered(self._reader)

    def epoch_of(self, batch_id: int) -> int:
        """The last roll-back that a batch with this id can owe its content to; 0: none."""
        return epoch_of(self._reader, batch_id)

    def roll_back_done(self, epoch: int) -> None:
        """The other stores have followed the log."""
        self._db.execute("UPDATE rollbacks SET is_done = 1 WHERE epoch = ?", (epoch,))

    def close(self) -> None:
        """Closes the file."""
        self._packer.close()
        self._reader.close()
        self._db.close()
