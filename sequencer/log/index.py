"""Tables beside the log that its controls make: where what stands, and what roll-backs have done.

They hold nothing that the log does not, but for whether the other stores have followed a roll-back, and are made
again from it when they are damaged.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from sequencer.checksums import FROM_COPY, StoreDamaged, row_sum
from sequencer.log import packs
from sequencer.log.interface import Entry, LogError, Redone, RollBack, Staged, TurnBack
from sequencer.log.places import Places, Run, stored

GUARDED: Final = ("rollbacks", "rollback_events", "redone", "runs")
_TABLES: Final = (
    "runs (place INTEGER PRIMARY KEY, offset INTEGER NOT NULL)",
    "rollbacks (epoch INTEGER PRIMARY KEY, batch_id INTEGER NOT NULL, offset INTEGER NOT NULL, "
    "is_done INTEGER NOT NULL)",
    "rollback_events (key TEXT PRIMARY KEY, epoch INTEGER)",
    # By the numbers that traders know their records by.
    "redone (seq INTEGER PRIMARY KEY, place INTEGER NOT NULL, record BLOB NOT NULL, reason INTEGER NOT NULL)",
)


def create(db: sqlite3.Connection) -> None:
    """Makes the tables, if need be."""
    for table in _TABLES:
        db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    db.execute("CREATE INDEX IF NOT EXISTS redone_places ON redone (place)")


def places_of(db: sqlite3.Connection) -> tuple[Places, bytes]:
    """How the log stands, and the chain hash of its last place. Raises LogError when its last entries are damaged."""
    runs = stored(db.execute("SELECT place, offset FROM runs ORDER BY place"))
    epoch = db.execute("SELECT COALESCE(MAX(epoch), 0) FROM rollbacks").fetchone()[0]
    count, chained = packs.last(db)
    staged = 0
    while staged < count and _is_staged(db, count - staged - 1):
        staged += 1
    place, offset = runs[-1]
    end = offset + count - staged - place
    if end < offset:
        raise LogError(f"it ends at place {count}, and is known to reach to {place + staged}")
    return Places(count, end, staged, epoch, runs), chained


def _is_staged(db: sqlite3.Connection, place: int) -> bool:
    """What is in the archive has a standing entry behind it."""
    pack = packs.pack_at(db, place)
    if pack is not None and pack.body is None:
        return False
    body, _ = next(packs.read_bodies(db, place))
    return isinstance(packs.entry(body, place).control, Staged)


def are_sound(db: sqlite3.Connection) -> bool:
    """Whether the tables' indexes hold what their rows do."""
    lines = [line for table in GUARDED for (line,) in db.execute(f"PRAGMA integrity_check({table})")]
    return set(lines) == {"ok"}


def note(db: sqlite3.Connection, before: Places, after: Places, entries: Iterable[Entry]) -> None:
    """Follows the log over `entries`, inside its transaction."""
    db.executemany("INSERT OR REPLACE INTO runs (place, offset) VALUES (?, ?)", added(before, after))
    for entry in entries:
        if isinstance(entry.control, TurnBack):
            _turn_back(db, entry.control)


def added(before: Places, after: Places) -> list[Run]:
    """Runs that are new; of those that one call adds and takes back, the last is enough."""
    return [run for run in after.runs if run not in before.runs]


def _turn_back(db: sqlite3.Connection, turn: TurnBack) -> None:
    db.execute(
        "INSERT INTO rollbacks (epoch, batch_id, offset, is_done) VALUES (?, ?, ?, 0)",
        (turn.epoch, turn.batch_id, turn.offset),
    )
    db.executemany(
        "INSERT OR IGNORE INTO rollback_events (key, epoch) VALUES (?, ?)",
        [(key, turn.epoch) for key in turn.events],
    )
    if turn.is_cut:
        db.execute("DELETE FROM redone WHERE place >= ?", (turn.first_seq,))
    _put_redone(db, turn.redone, turn.first_seq)


def _put_redone(db: sqlite3.Connection, redone: Sequence[Redone], first_seq: int) -> None:
    """Follows records that an earlier roll-back has changed by the number that was acknowledged first."""
    known = {place: seq for seq, place in db.execute("SELECT seq, place FROM redone")}
    db.execute("UPDATE redone SET reason = 0 WHERE place >= ?", (first_seq,))
    rows = [(known.get(one.seq, one.seq), one.place, one.record, one.reason) for one in redone]
    db.executemany("INSERT OR REPLACE INTO redone (seq, place, record, reason) VALUES (?, ?, ?, ?)", rows)
    db.execute("DELETE FROM redone WHERE seq = place AND reason = 0")


def rebuild(db: sqlite3.Connection) -> None:
    """Makes the tables again from the log. Raises LogError when it is damaged, StoreDamaged when nobody can say whether
    the other stores have followed the last roll-back.
    """
    with packs.transaction(db):
        rows = db.execute("SELECT epoch, batch_id, offset, is_done, checksum FROM rollbacks").fetchall()
        for table in GUARDED:
            db.execute(f"REINDEX {table}")
            db.execute(f"DELETE FROM {table}")  # noqa: S608  # our names
        places = Places()
        for body, _ in packs.read_bodies(db, 0):
            entry = packs.entry(body, places.count)
            after = places.after(entry)
            note(db, places, after, [entry])
            places = after
        for epoch, batch_id, offset in db.execute("SELECT epoch, batch_id, offset FROM rollbacks").fetchall():
            is_done = _is_done(rows, (epoch, batch_id, offset), epoch == places.epoch)
            db.execute("UPDATE rollbacks SET is_done = ? WHERE epoch = ?", (is_done, epoch))


def _is_done(rows: list[tuple[object, ...]], of: tuple[int, int, int], is_last: bool) -> int:
    """Whether a roll-back was done, out of rows of which some are damaged."""
    if not is_last:
        return 1  # none begins before the one before is done
    for row in rows:
        for is_done in (0, 1):
            is_by_sum = row_sum("rollbacks", *of, is_done) == row[4]
            if is_by_sum or (row[:3] == of and row[3] == is_done and type(row[3]) is int):
                return is_done
    raise StoreDamaged("log.sqlite", f"whether roll-back {of[0]} was completed is lost", FROM_COPY)


# --- answers ----------------------------------------------------------------------------------------


def redone_of(db: sqlite3.Connection, seq: int) -> Redone | None:
    """See SqliteLog.redone."""
    row = db.execute("SELECT seq, place, record, reason FROM redone WHERE seq = ?", (seq,)).fetchone()
    return Redone(*row) if row else None


def acknowledged_as(db: sqlite3.Connection, place: int) -> int:
    """See SqliteLog.acknowledged_as."""
    row = db.execute("SELECT seq FROM redone WHERE place = ?", (place,)).fetchone()
    return int(row[0]) if row else place


def last_roll_back(db: sqlite3.Connection) -> RollBack | None:
    """See SqliteLog.rolled_back."""
    row = db.execute(
        "SELECT epoch, batch_id, offset, is_done FROM rollbacks ORDER BY epoch DESC LIMIT 1"
    ).fetchone()
    return RollBack(row[0], row[1], row[2], bool(row[3])) if row else None


def rolled_back_to(db: sqlite3.Connection, epoch: int) -> int | None:
    """See SqliteLog.rolled_back_to."""
    row = db.execute("SELECT MIN(offset) FROM rollbacks WHERE epoch > ?", (epoch,)).fetchone()
    return None if row[0] is None else int(row[0])


def epoch_of(db: sqlite3.Connection, batch_id: int) -> int:
    """See SqliteLog.epoch_of."""
    row = db.execute(
        "SELECT COALESCE(MAX(epoch), 0) FROM rollbacks WHERE batch_id <= ?", (batch_id,)
    ).fetchone()
    return int(row[0])


def answered(db: sqlite3.Connection) -> frozenset[str]:
    """See SqliteLog.answered."""
    return frozenset(row[0] for row in db.execute("SELECT key FROM rollback_events").fetchall())
