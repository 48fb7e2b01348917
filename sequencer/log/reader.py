"""Reading the log by offsets, from its file alone."""

import contextlib
import sqlite3
from collections.abc import Iterator

from sequencer.checksums import StoreDamaged
from sequencer.log import index, packs
from sequencer.log.interface import Entry, LogError, Staged, TurnBack
from sequencer.log.places import Places, standing


def read_from(db: sqlite3.Connection, places: Places, start: int) -> Iterator[tuple[Entry, bytes]]:
    """Entries from offset `start` on, and the chain's hash after each. Raises LogError when the chain is broken."""
    for place, count in places.stretches(start):
        left = count
        if left == 0:
            continue
        for body, chained in packs.read_bodies(db, place):
            entry = packs.entry(body, place)
            if left is None:
                if isinstance(entry.control, Staged | TurnBack):
                    return
            else:
                left -= 1
            yield standing(entry), chained
            place += 1
            if left == 0:
                break
        if left:
            raise LogError(f"it ends at place {place}, and entries are known to stand behind it")


class LogReader:
    """The log for reading alone, beside whoever writes it. Raises StoreDamaged for one of an older version."""

    def __init__(self, db: sqlite3.Connection) -> None:
        check_version(db)
        self._db = db

    def places(self) -> Places:
        """How the log stands now. Raises LogError when its last entries are damaged."""
        with snapshot(self._db):
            return index.places_of(self._db)[0]

    @property
    def end(self) -> int:
        """Offset behind the last entry."""
        return self.places().end

    def read(self, start: int) -> Iterator[Entry]:
        """See Log.read."""
        return (entry for entry, _ in self.read_hashed(start))

    def read_hashed(self, start: int) -> Iterator[tuple[Entry, bytes]]:
        """See Log.read_hashed."""
        yield from read_from(self._db, self.places(), start)

    def hash_before(self, offset: int) -> bytes:
        """See Log.hash_before."""
        return hash_before(self._db, self.places(), offset)

    def bodies(self, place: int) -> Iterator[tuple[bytes, bytes]]:
        """See SqliteLog.bodies."""
        return packs.read_bodies(self._db, place)


def hash_before(db: sqlite3.Connection, places: Places, offset: int) -> bytes:
    return packs.hash_before(db, places.place_of(offset - 1) + 1) if offset else packs.GENESIS_HASH


def check_version(db: sqlite3.Connection) -> None:
    """Raises StoreDamaged for a log whose roll-backs have rewritten it."""
    columns = [row[1] for row in db.execute("PRAGMA table_info(ticks)")]
    if columns and "place" not in columns:
        what = "it was written by an older version, whose roll-backs rewrote the log"
        raise StoreDamaged("log.sqlite", what, "deploy anew and start with an empty folder")


@contextlib.contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one state of the file."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")
