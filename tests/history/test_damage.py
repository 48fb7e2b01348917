"""A bit changed in any row of the history is found: by `fairstrike check`, and before the row is shown to anybody."""

import sqlite3
from pathlib import Path

import pytest

from sequencer.history.history import History
from sequencer.history.store import FILE, HistoryDamaged
from sequencer.history.tables import COLUMNS, columns
from sequencer.node.check import HISTORY_REMEDY, check_folder
from tests.history.busy import Busy
from tests.history.compare import caught_up, content
from tests.history.test_store import log_of
from tests.simulation.little import genesis


def made(folder: Path, is_settled: bool) -> Path:
    busy = Busy(5)
    for _ in range(120):
        busy.step()
    if is_settled:
        busy.settle()
    log = log_of(folder, busy)
    caught_up(folder, log, genesis())[0].close()
    log.close()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("settled"), is_settled=True)


@pytest.fixture(scope="module")
def with_positions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("open"), is_settled=False)


def flip(folder: Path, table: str, column: str, back: bool = False) -> None:
    """Changes a bit of the first row's value beside the store, or changes it back."""
    db = sqlite3.connect(folder / FILE)
    text = column in ("label", "log_hash")
    change = (
        f"CASE WHEN {column} = 'a1' THEN 'a2' WHEN {column} = 'a2' THEN 'a1' "
        f"WHEN substr({column}, 1, 1) = '~' THEN substr({column}, 2) ELSE '~' || {column} END"
        if text
        else f"{column} + {-(2**20) if back else 2**20}"
    )
    db.execute(f"UPDATE {table} SET {column} = {change} WHERE rowid = (SELECT MIN(rowid) FROM {table})")
    db.commit()
    db.close()


@pytest.mark.parametrize("table", list(COLUMNS))
def test_check__finds_a_change_of_any_column(with_positions: Path, table: str) -> None:
    folder = with_positions
    (sound,) = [one for one in check_folder(folder) if one.store == FILE]
    assert (sound.findings, sound.rows > 500) == ([], True)
    names = columns(table)
    for column in names[1:]:  # the first is the row's id, by which it is named
        flip(folder, table, column)
        (found,) = [one for one in check_folder(folder) if one.store == FILE]
        assert any(
            f"table {table}, row" in one.what and one.remedy == HISTORY_REMEDY for one in found.findings
        )
        flip(folder, table, column, back=True)


def test_check__finds_that_it_is_of_another_log(folder: Path, tmp_path: Path) -> None:
    other = Busy(6)
    other.step()
    log_of(tmp_path, other).close()
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes())
    (found,) = [one for one in check_folder(tmp_path) if one.store == FILE]
    assert "of another log" in found.findings[0].what


@pytest.mark.parametrize(
    ("method", "table", "column"),
    [
        ("order_history", "orders", "lots"),
        ("order_history", "closes", "why"),
        ("order_history", "amends", "price_after"),
        ("trade_history", "trades", "realised"),
        ("settlement_history", "trades", "price"),
        ("transaction_log", "moves", "amount"),
    ],
)
def test_page__with_a_damaged_row__is_refused_and_the_next_start_makes_it_again(
    folder: Path, tmp_path: Path, method: str, table: str, column: str
) -> None:
    for path in folder.glob("*.sqlite"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = content(tmp_path)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute(f"UPDATE {table} SET {column} = {column} + 1")
    db.commit()
    db.close()
    history = History(tmp_path / FILE, 0, 0)

    def ask_all() -> None:
        for account in range(1, 5):
            history.answer(method, {"account": account, "limit": 200}, str)

    with pytest.raises(HistoryDamaged, match=f"table {table}, row"):
        ask_all()
    assert "the next start makes it again" in history.error
    history.close()
    log = log_of(tmp_path, Busy(5))
    again, _ = caught_up(tmp_path, log, genesis())
    again.close()
    log.close()
    assert content(tmp_path) == whole
