"""The durable log: one append per tick, before anything is acknowledged.

A tick is kept as its segments (records and the root after them), chained by hash, so that recovery and the batcher
read the same bytes that the engine has seen. The log only grows: what a roll-back puts in the place of entries stands
behind them (places.py). Appends are fenced by the place: of two writers one succeeds. The newest ticks are a row each;
the others lie in packs (packs.py), which `tidy` makes.

The log may be the journal of a replicated stream, whose messages are the bodies: those that this node sends go to the
stream before they are committed here, and those of another leader are put in by `take`.
"""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sequencer.checksums import FROM_COPY, StoreDamaged, damaged, guard, guarded
from sequencer.log import index, packs
from sequencer.log.head import Head
from sequencer.log.interface import Entry, LogError, LogLost, Redone, RollBack, Stream, TurnBack
from sequencer.log.places import Places, staged_of
from sequencer.log.reader import check_version, hash_before, read_from
from sequencer.protocol.hashing import keccak

logger = logging.getLogger(__name__)

LOG_FILE: Final = "log.sqlite"
TAIL_BYTES: Final = 2 * packs.PACK_BYTES  # of ticks that are a row each, before the older half is packed
STREAM_BYTES: Final = 1 << 20  # of staged entries that go to a stream at once
NEWER_GONE: Final = f"{FROM_COPY}; or, to go on without what was acknowledged since, delete log.head"


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
_DAMAGE = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
)  # the last: of the schema


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE


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


class SqliteLog:
    """Log in one SQLite file: WAL, synchronous=FULL, one commit (one fsync) per tick.

    `stream`: that this is the journal of; what it has is durable, and the file is not synced for each tick. What the
    journal has lost at a crash, or by damage, is to be taken from there (`take`) before anything is appended.
    Raises StoreDamaged when the file is not what was written.
    """

    def __init__(self, path: Path, stream: Stream | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._stream = stream
        # Appends come from the log's thread, reads from the engine's: a connection each.
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Whether packing ticks lasts does not matter: the next append's fsync covers it.
        self._packer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._head = Head(path)
        self._encode = msgspec.msgpack.Encoder().encode
        try:
            self._open()
        except StoreDamaged:
            self.close()
            raise
        except LogError as error:
            self.close()
            raise StoreDamaged(path.name, error.reason, FROM_COPY) from error
        except sqlite3.DatabaseError as error:
            self.close()
            if _is_damage(error):
                raise StoreDamaged(path.name, str(error), FROM_COPY) from error
            raise
        self._file = file_id(path)
        self._tail_bytes = self._counted_tail()
        self._tidy_at = TAIL_BYTES

    def _open(self) -> None:
        self._packer.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if self._stream is None else 'NORMAL'}")
        check_version(self._db)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS ticks (place INTEGER PRIMARY KEY, hash BLOB NOT NULL, body BLOB NOT NULL)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS room (id INTEGER PRIMARY KEY, body BLOB)")
        packs.create(self._db)
        index.create(self._db)
        is_broken = self._stream is not None and self._drop_damaged()
        try:
            guard(self._db, *index.GUARDED)  # `ticks` has its chain
        except StoreDamaged:
            is_broken = True
        for table, columns in guarded(self._db).items():
            for at in damaged(self._db, table, columns):
                if table not in index.GUARDED:
                    what = f"table {table}, row {at} is not what was written"
                    raise StoreDamaged(self._path.name, what, FROM_COPY)
                is_broken = True
        is_broken = is_broken or not index.are_sound(self._db)
        packs.check_tail(self._db)
        if is_broken:
            logger.error("%s: damaged tables are made again from its entries", self._path.name)
            index.rebuild(self._db)
        self._places, self._hash = index.places_of(self._db)
        self._check_head()

    def _drop_damaged(self) -> bool:
        """Removes what is damaged and all behind it, for the stream has it; whether there was any. Not when there are
        roll-backs in that: what the other stores have done of them must not be forgotten.
        """
        end = packs.sound_end(self._db)
        if end >= packs.last(self._db)[0]:
            return False
        if self._db.execute("SELECT 1 FROM runs WHERE place > ?", (end,)).fetchone():
            return False
        logger.error("%s: place %d is damaged: from there on it comes from the stream", self._path.name, end)
        packs.drop_from(self._db, end)
        return True

    def _check_head(self) -> None:
        """Raises StoreDamaged when entries are gone that were there, unless the stream has them."""
        known, count = self._head.read(), self._places.count
        if known is not None and self._stream is None:
            if known[0] > count:
                what = f"it ends at place {count}, and reached to {known[0]}: its newest entries are lost"
                raise StoreDamaged(self._path.name, what, NEWER_GONE)
            if packs.hash_before(self._db, known[0]) != known[1]:
                what = f"place {known[0] - 1} is not what was written there: it is another log"
                raise StoreDamaged(self._path.name, what, NEWER_GONE)
        self._head.write(count, self._hash)

    def _counted_tail(self) -> int:
        return int(self._db.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM ticks").fetchone()[0])

    @property
    def end(self) -> int:
        """Offset of the next append."""
        return self._places.end

    @property
    def places(self) -> int:
        """Place of the next append."""
        return self._places.count

    @property
    def head_hash(self) -> bytes:
        """Chain hash of the last place."""
        return self._hash

    # --- writing ----------------------------------------------------------------------------------

    def append(self, entry: Entry, expected_offset: int) -> bytes:
        """See Log.append."""
        if expected_offset != self._places.end:
            raise LogLost(f"offset {expected_offset} expected, the log ends at {self._places.end}")
        body = self._encode(entry)
        after = self._places.after(entry)
        if self._stream is not None:
            self._stream.append(self._places.count, [body])
        self._commit([(entry, body)], after, self._stream is not None)
        return self._hash

    def take(self, bodies: Sequence[bytes], expected_place: int) -> None:
        """Puts in bodies as the stream has them, all or none.

        Raises LogLost when the next place is another, or as `append` does; LogError when a body is none that a writer
        of this log can have put there.
        """
        if expected_place != self._places.count:
            raise LogLost(f"place {expected_place} expected, the log ends at {self._places.count}")
        entries = []
        after = self._places
        for body in bodies:
            entry = packs.entry(body, after.count)
            after = after.after(entry)
            entries.append((entry, body))
        self._commit(entries, after, False)

    def _commit(self, entries: Sequence[tuple[Entry, bytes]], after: Places, is_in_stream: bool) -> None:
        """Puts entries at the next places, durably. Raises LogError when none is there, LogLost when nobody can say."""
        before, chained = self._places, self._hash
        rows = []
        for place, (_, body) in enumerate(entries, before.count):
            chained = keccak(chained + body)
            rows.append((place, chained, body))
        try:
            if len(rows) == 1 and after.runs is before.runs:
                self._insert(rows[0])
            else:
                with packs.transaction(self._db):
                    for row in rows:
                        self._insert(row)
                    index.note(self._db, before, after, (entry for entry, _ in entries))
        except sqlite3.IntegrityError:
            raise LogLost(f"another writer has appended place {before.count}") from None
        except sqlite3.Error as error:
            refusal = _refusal(error, f"place {before.count}")
            if is_in_stream and not isinstance(refusal, LogLost):
                raise LogLost(f"{refusal.reason}; place {before.count} is in the stream alone") from error
            raise refusal from error
        self.check_place()
        self._stands(after, chained, sum(len(body) for _, body in entries))

    def _insert(self, row: tuple[int, bytes, bytes]) -> None:
        # The primary key, and the packs' end, make the fence hold against another process, too.
        put = self._db.execute(
            "INSERT INTO ticks SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM packs WHERE end > ?1)", row
        )
        if not put.rowcount:
            raise LogLost(f"another writer has appended place {row[0]}")

    def _stands(self, places: Places, chained: bytes, size: int) -> None:
        self._places, self._hash = places, chained
        self._tail_bytes += size
        self._head.write(places.count, chained)

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
        """Writes `size` bytes durably and lets them go again; asks the stream, if there is one, whether it takes any.
        Raises LogError, LogLost: an append would, too.
        """
        self.check_place()
        if self._stream is not None:
            self._stream.check()
        try:
            self._db.execute("INSERT OR REPLACE INTO room VALUES (0, randomblob(?))", (size,))
            self._db.execute("UPDATE room SET body = NULL")
        except sqlite3.Error as error:
            raise _refusal(error, "what was only tried") from error

    # --- reading ----------------------------------------------------------------------------------

    def read(self, start: int) -> Iterator[Entry]:
        """See Log.read. Raises LogError when the hash chain is broken."""
        return (entry for entry, _ in read_from(self._reader, self._places, start))

    def read_hashed(self, start: int) -> Iterator[tuple[Entry, bytes]]:
        """See Log.read_hashed. Raises LogError when the hash chain is broken."""
        return read_from(self._reader, self._places, start)

    def bodies(self, place: int) -> Iterator[tuple[bytes, bytes]]:
        """Bodies from `place` on, as the stream has them, each with the chain hash after it."""
        return packs.read_bodies(self._reader, place)

    def superseded(self) -> Iterator[tuple[int, Entry]]:
        """(place, entry) of what was in the log and counts no more, and of staged entries that never did."""
        for place, end in self._places.superseded():
            for at, (body, _) in zip(range(place, end), packs.read_bodies(self._reader, place), strict=False):
                entry = packs.entry(body, at)
                if not isinstance(entry.control, TurnBack):
                    yield at, entry

    def hash_before(self, offset: int) -> bytes:
        """See Log.hash_before."""
        return hash_before(self._reader, self._places, offset)

    def verified(self) -> int:
        """The offset before which every signature is known to have been checked: by the last entry's word."""
        return next(iter(self.read(self.end - 1))).verified if self.end else 0

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
        """Has `entries` stand for all from `offset` to the end, in one durable transaction; the new epoch.

        They must be as many, unless `is_cut`: then the log ends behind them. They are appended as staged entries, and
        a TurnBack behind them has them count.

        With it goes that the L1 `events` which took `batch_id` back have been answered, and what has become of the
        acknowledged records from `first_seq` on: `redone`, looked at after the last of `entries`, has those that are
        not what they were; its `seq` counts in the old log.
        An exception out of `entries` leaves all as it was; LogLost says that this writer has to stand down.
        """
        db, before = self._db, self._places
        places, chained, size, root = before, self._hash, 0, self._hash
        before.place_of(offset)

        def put(entry: Entry) -> None:
            nonlocal places, chained, size
            body = self._encode(entry)
            after = places.after(entry)
            chained = keccak(chained + body)
            self._insert((places.count, chained, body))
            size += len(body)
            places = after

        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                if packs.last(db) != (before.count, self._hash):
                    raise LogLost("another writer has appended")
                for entry in entries:
                    put(staged_of(entry))
                    root = entry.root
                staged = places.count - before.count
                if not is_cut and offset + staged != before.end:
                    raise ValueError(f"entries reach to offset {offset + staged}, the log to {before.end}")
                turn = TurnBack(
                    *(
                        before.epoch + 1,
                        batch_id,
                        offset,
                        staged,
                        list(events),
                        list(redone),
                        first_seq,
                        is_cut,
                    )
                )
                entry = Entry(first_seq, 0, root, [], control=turn)
                put(entry)
                index.note(db, before, places, [entry])
                if self._stream is not None:
                    self._send(before.count)
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
        self._stands(places, chained, size)
        return places.epoch

    def _send(self, first: int) -> None:
        """Sends what a transaction has put in from place `first` on; TurnBack, the last, has it count.

        Raises as the stream does. What of it the stream has then counts for nothing, and this log has it not: after a
        LogError, too, this writer has to stand down, unless nothing was sent.
        """
        assert self._stream is not None
        bodies: list[bytes] = []
        place, size = first, 0
        rows = self._db.execute("SELECT body FROM ticks WHERE place >= ? ORDER BY place", (first,)).fetchall
        for (body,) in [*rows(), (None,)]:
            if bodies and (body is None or size + len(body) > STREAM_BYTES):
                try:
                    self._stream.append(place, bodies)
                except LogLost:
                    raise
                except LogError as error:
                    if place == first:
                        raise
                    raise LogLost(f"{error.reason}; some of a roll-back is in the stream") from error
                place, bodies, size = place + len(bodies), [], 0
            if body is not None:
                bodies.append(body)
                size += len(body)

    def redone(self, seq: int) -> Redone | None:
        """What roll-backs have made of the record that was acknowledged with this number, if anything."""
        return index.redone_of(self._reader, seq)

    def acknowledged_as(self, place: int) -> int:
        """The number that the record at this place was acknowledged with."""
        return index.acknowledged_as(self._reader, place)

    def rolled_back(self) -> RollBack | None:
        """The last roll-back of the log."""
        return index.last_roll_back(self._reader)

    def rolled_back_to(self, epoch: int) -> int | None:
        """The first offset that roll-backs after the `epoch`-th have put something in the place of; None: none has."""
        return index.rolled_back_to(self._reader, epoch)

    def answered(self) -> frozenset[str]:
        """L1 events that need nothing more."""
        return index.answered(self._reader)

    def epoch_of(self, batch_id: int) -> int:
        """The last roll-back that a batch with this id can owe its content to; 0: none."""
        return index.epoch_of(self._reader, batch_id)

    def roll_back_done(self, epoch: int) -> None:
        """The other stores have followed the log."""
        self._db.execute("UPDATE rollbacks SET is_done = 1 WHERE epoch = ?", (epoch,))

    def rebuild(self) -> None:
        """Makes the tables of roll-backs again from the entries. Raises LogError when these are damaged."""
        index.rebuild(self._db)
        self._places, self._hash = index.places_of(self._db)

    def close(self) -> None:
        """Closes the file."""
        self._head.close()
        self._packer.close()
        self._reader.close()
        self._db.close()
