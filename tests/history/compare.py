"""A history compared with another that is made of the log alone."""

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from sequencer.checksums import damaged
from sequencer.engine.snapshots import recover
from sequencer.history.history import History
from sequencer.history.store import FILE
from sequencer.history.tables import COLUMNS, columns
from sequencer.log.sqlite import SqliteLog
from sequencer.protocol.state import State


def content(folder: Path) -> dict[str, list[Any]]:
    """All that a file holds, checksums included and compared; accounts without anything are as good as none."""
    db = sqlite3.connect(folder / FILE)
    for table in COLUMNS:
        assert not list(damaged(db, table, columns(table)))
    out = {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in COLUMNS}
    db.close()
    out["totals"] = [row for row in out["totals"] if any(row[1:6])]
    out["meta"] = [row[1:4] for row in out["meta"]]  # the number of roll-backs may differ
    return out


def caught_up(folder: Path, log: SqliteLog, genesis: State, days: int = 0) -> tuple[History, State]:
    """The history of a folder, with all of the log in."""
    history = History(folder / FILE, genesis.params.treasury_account, days)
    history.align(log)
    state, _ = recover(folder / "snapshots", log, genesis, history)
    assert history.is_whole
    assert not history.error
    return history, state


def assert_is_of_log(folder: Path, log: SqliteLog, genesis: State) -> dict[str, list[Any]]:
    """What a folder's history holds is what the log gives from the first record on; it."""
    with tempfile.TemporaryDirectory() as other:
        caught_up(Path(other), log, genesis)[0].close()
        expected = content(Path(other))
    found = content(folder)
    assert found == expected
    return found
