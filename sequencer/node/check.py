"""Verifies a folder: every row, every link of the log's hash chain, every snapshot.

The folder may be a sequencer's, a standby's or a watcher's, also while it runs. Nothing is changed here: whoever opens
the store rebuilds what can be rebuilt (batches and proofs from the log, an archive from L1), and `remedy` says so.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sequencer.checksums import FROM_COPY, damaged, guarded
from sequencer.engine import snapshots
from sequencer.l1.txstore import REMEDY as TX_REMEDY
from sequencer.log import index, packs
from sequencer.log.interface import Entry, LogError, Staged, TurnBack
from sequencer.log.packs import LogArchived
from sequencer.log.places import Places
from sequencer.log.reader import LogReader
from sequencer.rollup.batcher import compare

FINDINGS_MAX: Final = 100  # per store; one already shows damage
SHARE: Final = 0.1  # of a core, beside a running sequencer
INDEX_REMEDY: Final = "start the node: it makes them again from the log's entries"
REMEDIES: Final = {
    "batches": "start the node: it makes the row again from the log",
    "proofs": "start the node: it makes the proof again",
    "journal": "start the watcher: it reads the row from L1 again",
    "about": "start the watcher: it goes on from its last row",
    "intents": TX_REMEDY,
    "attempts": TX_REMEDY,
    "meta": TX_REMEDY,
    **dict.fromkeys(index.GUARDED, INDEX_REMEDY),
}
AT_OPENING: Final = ("packs",)  # of the tables: whoever opens the log compares it
FILE_REMEDY: Final = "put the file back from a copy"
HISTORY: Final = "history.sqlite"
HISTORY_REMEDY: Final = f"stop the node and delete {HISTORY}: the next start makes it again from the log"
SNAPSHOT_REMEDY: Final = "delete it: the next start takes an older one, or the log alone"

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A damaged row, entry or snapshot, and the remedy."""

    what: str
    remedy: str


@dataclass(slots=True)
class Checked:
    """Result of one file. `rows`: number checked. `note`: why the file could not be checked as a whole."""

    store: str
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    note: str = ""

    def found(self, what: str, remedy: str) -> None:
        """Stores a finding, up to FINDINGS_MAX."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(what, remedy))


def check_folder(folder: Path, progress: Progress = lambda *_: None, whole_log: bool = True) -> list[Checked]:
    """Every store of a folder. `whole_log`: its chain, too, which takes a second for about 100 MB, and all of the
    history, of which a start acts on the sums alone.

    Raises ValueError when there is no store in it.
    """
    files = sorted(path for path in folder.glob("*.sqlite") if whole_log or path.name != HISTORY)
    pictures = sorted((folder / "snapshots").glob("state-*.zst"))
    if not files:
        raise ValueError(f"{folder}: no log, archive or other store in it")
    out = []
    for path in files:
        one = Checked(path.name)
        out.append(one)
        try:
            with contextlib.closing(_open(path)) as db:
                _check_file(db, one, progress, () if whole_log else AT_OPENING)
                if path.name == "log.sqlite":
                    for name, what in packs.short_files(db):
                        one.found(f"{packs.ARCHIVE}/{name}: {what}", FILE_REMEDY)
                    if whole_log:
                        _check_chain(db, one, progress)
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                one.note = "in use: its rows are compared when it is opened"
            else:
                one.found(str(error), HISTORY_REMEDY if path.name == HISTORY else FROM_COPY)
    by_name = {one.store: one for one in out}
    if (
        {"log.sqlite", "batches.sqlite"} <= by_name.keys()
        and not by_name["log.sqlite"].findings
        and not by_name["log.sqlite"].note
        and whole_log
    ):
        with contextlib.suppress(sqlite3.DatabaseError):  # found above
            _check_batches(folder, by_name["batches.sqlite"], progress)
    if {"log.sqlite", HISTORY} <= by_name.keys() and whole_log:
        with contextlib.suppress(sqlite3.DatabaseError):
            _check_history(folder, by_name[HISTORY])
    for place, path in enumerate(pictures):
        progress("snapshots", place + 1, len(pictures))
        one = Checked(f"snapshots/{path.name}", 1)
        out.append(one)
        try:
            snapshots.unframed(path.read_bytes())
        except FileNotFoundError:  # a running sequencer has a newer one
            out.pop()
        except (OSError, ValueError) as error:
            one.found(str(error), SNAPSHOT_REMEDY)
    return out


def as_json(folder: Path, checked: list[Checked]) -> dict[str, Any]:
    """The result as one object."""
    return {
        "folder": str(folder),
        "ok": not any(one.findings for one in checked),
        "stores": [
            {
                "store": one.store,
                "rows": one.rows,
                "state": "damaged" if one.findings else one.note or "sound",
                "findings": [{"what": it.what, "remedy": it.remedy} for it in one.findings],
            }
            for one in checked
        ],
    }


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)


def _check_file(
    db: sqlite3.Connection, one: Checked, progress: Progress, left_out: Container[str] = ()
) -> None:
    for (line,) in db.execute(f"PRAGMA quick_check({FINDINGS_MAX})"):
        if line != "ok":
            one.found(line, HISTORY_REMEDY if one.store == HISTORY else FROM_COPY)
    tables = guarded(db)
    if not tables:
        one.note = "it has no checksums: written by an older version, which a start of this one adds"
    for place, (table, columns) in enumerate(tables.items()):
        progress(one.store, place + 1, len(tables))
        if table in left_out:
            continue
        one.rows += int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608  # a table's name
        for row in damaged(db, table, columns):
            remedy = HISTORY_REMEDY if one.store == HISTORY else REMEDIES.get(table, FROM_COPY)
            one.found(f"table {table}, row {row} is not what was written", remedy)


def _check_chain(
    db: sqlite3.Connection,
    one: Checked,
    progress: Progress,
    rest: Callable[[float], None] = lambda _took_s: None,
) -> None:
    """The log's hash chain: each body under its hash, at each place, and each entry at the end of the previous one;
    then whether the map of places is that of the entries.
    """
    log = LogReader(db)
    before = log.places()
    places, seq = Places(), 0
    begun = time.monotonic()
    try:
        for body, _ in log.bodies(0):
            place = places.count
            entry = packs.entry(body, place)
            was_staged = places.staged
            places = places.after(entry)
            seq = _check_goes_on(entry, place, seq, was_staged > 0)
            one.rows += 1
            if place % 256 == 0:
                progress("log.sqlite, chain", place + 1, before.count)
                rest(time.monotonic() - begun)
                begun = time.monotonic()
            if places.count == before.count and places != before:
                one.found("its tables of places and roll-backs are not those of its entries", INDEX_REMEDY)
    except LogArchived as error:
        one.note = f"{error.reason}; from there on it was not compared"
    except LogError as error:
        one.found(error.reason, FROM_COPY)


def _check_goes_on(entry: Entry, place: int, seq: int, is_staged: bool) -> int:
    """The record that the next entry begins with. The first staged one goes back, to where a roll-back begins.

    Raises LogError when an entry begins elsewhere.
    """
    if isinstance(entry.control, TurnBack):
        return seq if entry.control.staged else entry.control.first_seq
    goes_back = isinstance(entry.control, Staged) != is_staged
    if entry.first_seq != seq and not goes_back:
        raise LogError(f"place {place} does not go on at record {seq}")
    return entry.first_seq + entry.records


def _check_history(folder: Path, one: Checked) -> None:
    """The history ends at an entry of the log; a roll-back that it has not followed yet is no damage."""
    with (
        contextlib.closing(_open(folder / HISTORY)) as db,
        contextlib.closing(_open(folder / "log.sqlite")) as log_db,
    ):
        offset, log_hash, epoch = db.execute("SELECT next_offset, log_hash, epoch FROM meta").fetchone()
        if log_db.execute("SELECT 1 FROM rollbacks WHERE epoch > ?", (epoch,)).fetchone():
            return
        log = LogReader(log_db)
        if offset > log.end or (offset and log.hash_before(offset).hex() != log_hash):
            one.found(f"it stands at entry {offset} of another log", "start the node: it makes it again")


def _check_batches(folder: Path, one: Checked, progress: Progress) -> None:
    """Every stored batch against the log."""
    with (
        contextlib.closing(_open(folder / "log.sqlite")) as log_db,
        contextlib.closing(_open(folder / "batches.sqlite")) as db,
    ):
        for batch_id, is_same in compare(db, LogReader(log_db)):
            progress("batches.sqlite, against the log", batch_id, batch_id)
            if not is_same:
                one.found(f"batch {batch_id} is not what the log gives", REMEDIES["batches"])


class Scrub:
    """Checks the whole log once, slowly, beside a running sequencer; `error` holds what it found."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.sqlite"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)
        self.error = ""
        self.rows = 0

    def start(self) -> None:
        """Starts the check."""
        self._thread.start()

    def stop(self) -> None:
        """Stops it at any point."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _rest(self, took_s: float) -> None:
        if self._ended.wait(took_s * (1 / SHARE - 1)):
            raise InterruptedError

    def _run(self) -> None:
        one = Checked(self._path.name)
        try:
            with contextlib.closing(_open(self._path)) as db:
                _check_chain(db, one, lambda *_: None, self._rest)
        except InterruptedError:
            return
        except sqlite3.Error as error:
            one.found(str(error), FROM_COPY)
        self.rows = one.rows
        for found in one.findings:
            self.error = f"{one.store}: {found.what}: {found.remedy}"
            logger.critical(self.error)
