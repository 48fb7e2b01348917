"""Moves what is final out of `log.sqlite` into files of `archive` (log/packs.py), beside a sequencer or by command.

The log is as long as before, and is read and verified as before; its file stays small, and what is in the archive never
changes, so that a backup copies each of its files once. What goes is what stands at places before that of the first
entry that is not final, and with it what roll-backs have superseded there. No roll-back reaches behind a final batch;
one that did would read the files like all else, and append what replaces them.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sequencer.log import index, packs
from sequencer.log.interface import LogError
from sequencer.log.sqlite import LOG_FILE
from sequencer.rollup.batcher import BATCHES_FILE

AFTER_S: Final = 86_400  # behind the end of a batch's challenge window
LOOK_S: Final = 600.0
PATIENCE_S: Final = 0.5  # for others to let a file go
REST_S: Final = 1.0  # between two files of packs

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Archived:
    """`packs` that were moved; the archive's `size` in bytes, and the offset before which all lies in it."""

    packs: int = 0
    size: int = 0
    end: int = 0
    is_shortened: bool = False


def end_of(folder: Path, batch_id: int, before_s: int | None = None) -> int:
    """Log offset before which every record is in a stored batch up to `batch_id`, of a time up to `before_s`."""
    path = folder / BATCHES_FILE
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        row = db.execute(
            "SELECT next_offset FROM batches WHERE id <= ? AND time_s <= ? ORDER BY id DESC LIMIT 1",
            (batch_id, 2**62 if before_s is None else before_s),
        ).fetchone()
    return int(row[0]) if row else 0


def archive(folder: Path, end: int, rest: Callable[[], bool] = lambda: False) -> Archived:
    """Moves the log's ticks before offset `end`, as far as they fill packs. `rest` after each file; True ends it.

    Raises LogError, OSError, sqlite3.Error; what was moved until then stays moved.
    """
    done = Archived()
    with contextlib.closing(sqlite3.connect(folder / LOG_FILE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        packs.create(db)
        db.execute("PRAGMA synchronous=NORMAL")  # the files are synced, and the rows need not be
        places, _ = index.places_of(db)
        while moved := packs.archive(db, places.place_of(min(end, places.end))):
            done.packs += moved
            if rest():
                break
        row = db.execute(
            "SELECT COALESCE(MAX(end), 0), COALESCE(SUM(size), 0) FROM packs WHERE body IS NULL"
        ).fetchone()
        done.end, done.size = places.offset_of(int(row[0])), int(row[1])
    return done


def compact(folder: Path, end: int) -> Archived:
    """As `archive`. When nobody else has the log open, all ticks before `end` are packed first, and files shortened.

    Raises as `archive` does.
    """
    with contextlib.closing(
        sqlite3.connect(folder / LOG_FILE, isolation_level=None, timeout=PATIENCE_S)
    ) as db:
        packs.create(db)
        is_alone = _left_wal(db)
        places, _ = index.places_of(db)
        place = places.place_of(min(end, places.end))
        while is_alone and packs.first_tick(db, place) is not None:
            packs.put_pack(db, place)
    done = archive(folder, end)
    done.is_shortened = is_alone and all(_shortened(folder / name) for name in (LOG_FILE, BATCHES_FILE))
    return done


def _left_wal(db: sqlite3.Connection) -> bool:
    """Whether the file is no longer in WAL mode, which SQLite leaves only for one who is alone; its opener returns."""
    try:
        return bool(db.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "delete")
    except sqlite3.OperationalError:
        return False


def _shortened(path: Path) -> bool:
    """Gives a file's free pages back, unless somebody has it open. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)) as db:
        if not _left_wal(db):
            return False
        db.execute("VACUUM")
        db.execute("PRAGMA journal_mode=WAL")
    return True


class Archiver:
    """Archives beside a running sequencer, on a thread of its own, what has been final for long.

    `posted`: the last batch that L1 has; `time_s`: the exchange's; a batch goes `after_s` after its time.
    """

    def __init__(
        self, folder: Path, after_s: int, posted: Callable[[], int], time_s: Callable[[], int]
    ) -> None:
        self._folder = folder
        self._after_s = after_s
        self._posted = posted
        self._time_s = time_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, behind the file that is being written."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def look(self) -> Archived:
        """Archives what is old enough now."""
        end = end_of(self._folder, self._posted(), self._time_s() - self._after_s)
        return archive(self._folder, end, lambda: self._ended.wait(REST_S)) if end else Archived()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                done = self.look()
            except (LogError, OSError, sqlite3.Error) as error:
                logger.error("nothing more goes to the archive for now: %s", error)
                continue
            if done.packs:
                logger.info("the log's ticks before offset %d are in the archive", done.end)
