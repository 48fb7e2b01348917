"""scripts/check_history.py: what accounts are told equals what the raw log gives by another way, to the unit."""

import asyncio
import importlib.util
import sqlite3
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sequencer.checksums import row_sum
from sequencer.history.store import FILE
from sequencer.history.tables import columns
from tests.history.busy import Busy
from tests.history.compare import caught_up
from tests.history.test_store import log_of
from tests.simulation.little import PARAMS, genesis

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = b"\x22" * 20  # of little's domain


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_history", ROOT / "scripts/check_history.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def made(folder: Path, is_settled: bool) -> Busy:
    busy = Busy(11)
    for _ in range(160):
        busy.step()
    if is_settled:
        busy.settle()
    log = log_of(folder, busy)
    caught_up(folder, log, genesis())[0].close()
    log.close()
    return busy


@pytest.mark.parametrize("is_settled", [False, True])
def test_busy_exchange__is_recomputed_to_the_unit(
    tmp_path: Path, script: ModuleType, is_settled: bool
) -> None:
    busy = made(tmp_path, is_settled)
    of = asyncio.run(script.check(tmp_path, PARAMS, 31_337, CONTRACT))
    assert of.differences == []
    counts = of.counts
    assert counts["trades"] > 100
    assert counts["identities"] > 500
    assert counts["accounts after the restart"] == len(busy.state.accounts) == 4
    assert (counts["settlements"] > 0) == is_settled
    assert (counts["positions after the restart"] > 0) == (counts["greeks"] > 0) == (not is_settled)
    assert counts["orders"] > 200
    assert counts["rows of the statement"] > 400


@pytest.mark.parametrize(
    ("table", "column", "found"),
    [
        ("totals", "realised", "totals of account"),
        ("totals", "fees", "totals of account"),
        ("trades", "cost", "trade ("),
        ("trades", "price", "trade ("),
        ("positions", "cost", "positions: "),
        ("orders", "lots", "in all"),
        ("moves", "amount", "by its rows"),
    ],
)
def test_one_unit__of_difference_is_found(
    tmp_path: Path, script: ModuleType, table: str, column: str, found: str
) -> None:
    """A history that is wrong with every checksum right, as a fault of the ledger would leave it."""
    made(tmp_path, is_settled=False)
    db = sqlite3.connect(tmp_path / FILE)
    if table == "orders":  # one that rests
        (row,) = db.execute(
            "SELECT MAX(o.id) FROM orders AS o WHERE NOT EXISTS (SELECT 1 FROM closes AS c WHERE c.id = o.id) "
            "AND NOT EXISTS (SELECT 1 FROM floors AS f WHERE f.account = o.account AND f.seq > o.id) "
            "AND NOT EXISTS (SELECT 1 FROM amends AS a WHERE a.id = o.id)"
        ).fetchone()
    else:
        (row,) = db.execute(f"SELECT MIN(rowid) FROM {table}").fetchone()
    db.execute(f"UPDATE {table} SET {column} = {column} + 1 WHERE rowid = ?", (row,))
    names = ", ".join(columns(table))
    values = db.execute(f"SELECT {names} FROM {table} WHERE rowid = ?", (row,)).fetchone()
    db.execute(f"UPDATE {table} SET checksum = ? WHERE rowid = ?", (row_sum(table, *values), row))
    db.commit()
    db.close()
    of = asyncio.run(script.check(tmp_path, PARAMS, 31_337, CONTRACT))
    assert any(found in one for one in of.differences), of.differences


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo__with_its_first_trades__is_recomputed_to_the_unit(tmp_path: Path, script: ModuleType) -> None:
    asyncio.run(script.play(tmp_path, None, 40))
    at = script.Deployment.load(tmp_path / "deployment.json")
    contract = bytes.fromhex(at.rollup.removeprefix("0x"))
    of = asyncio.run(script.check(tmp_path / "sequencer", script.of_deployment(at), at.chain_id, contract))
    assert of.differences == []
    assert of.counts["accounts after the restart"] == 9
    assert of.counts["trades"] >= 40
    assert of.counts["settlements"] > 0
