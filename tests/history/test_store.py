"""The history's file: whatever way it took to a record, it holds the same rows there, each with its checksum."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sequencer import checksums
from sequencer.checksums import row_sum, row_sums
from sequencer.engine.engine import replay
from sequencer.engine.ledger import Ledger
from sequencer.engine.snapshots import save
from sequencer.history.history import History
from sequencer.history.store import FILE, Store
from sequencer.history.tables import ADDED, COLUMNS
from sequencer.log.sqlite import SqliteLog
from sequencer.wire.rows import Why
from tests.history.busy import Busy
from tests.history.compare import caught_up, content
from tests.simulation.little import genesis

STEPS = 140


@pytest.fixture(scope="module")
def busy() -> Busy:
    """A day of every kind of order, to the first settlement."""
    made = Busy(3)
    for _ in range(STEPS):
        made.step()
    made.settle()
    return made


def log_of(folder: Path, busy: Busy, end: int | None = None) -> SqliteLog:
    folder.mkdir(parents=True, exist_ok=True)
    log = SqliteLog(folder / "log.sqlite")
    for entry in busy.entries[log.end : end]:
        log.append(entry, log.end)
    return log


def of_ledger(ledger: Ledger) -> object:
    positions = {
        (account, instrument): (one.lots, one.cost, one.realised)
        for account, held in ledger.positions.items()
        for instrument, one in held.items()
    }
    totals = {account: one.values() for account, one in ledger.totals.items() if any(one.values())}
    kept = {seq: (one.id, one.label) for seq, one in ledger.kept.items()}
    return positions, totals, kept, {one: seq for one, seq in ledger.floors.items() if seq}, ledger.next_seq


def straight(folder: Path, busy: Busy, end: int | None = None) -> tuple[dict[str, list[Any]], object]:
    """(content, ledger) of a history that took the log's first `end` entries in without a break."""
    log = log_of(folder, busy, end)
    history, state = caught_up(folder, log, genesis())
    ledger = of_ledger(history.ledger)
    history.close()
    log.close()
    assert state.globals.seq == busy.entries[(end or len(busy.entries)) - 1].first_seq + sum(
        len(records) for _, records, _ in busy.entries[(end or len(busy.entries)) - 1].segments
    )
    return content(folder), ledger


def test_busy_day__has_rows_of_every_kind(tmp_path: Path, busy: Busy) -> None:
    rows, _ = straight(tmp_path, busy)
    assert {table: len(rows[table]) for table in ADDED if len(rows[table]) < 5} == {}
    assert {row[1] for row in rows["closes"]} == {1, 2}  # filled, cancelled
    assert {row[2] for row in rows["closes"]} >= {0, 1, 4, 5, 8}  # user, self-trade, expired, IOC
    assert {row[1] for row in rows["trades"]} == {0, 1}  # trades, settlements
    assert {row[2] for row in rows["moves"]} >= {0, 1, 2, 3}  # deposits, withdrawals, transfers, settlements
    assert {row[9] >= 0 for row in rows["amends"]} == {True, False}  # by their owner, by reduce-only


@pytest.mark.parametrize("seed", range(6))
def test_starts_between__change_nothing(tmp_path: Path, busy: Busy, seed: int) -> None:
    """As after a SIGKILL: what was not written yet is made again, whatever snapshot there is."""
    dice = random.Random(seed)
    end = 0
    while end < len(busy.entries):
        end = min(end + dice.randrange(1, 30), len(busy.entries))
        log = log_of(tmp_path, busy, end)
        history, state = caught_up(tmp_path, log, genesis())
        if dice.random() < 0.5:
            save(tmp_path / "snapshots", state, log.end)
        history.close()
        log.close()
    whole, ledger = straight(tmp_path / "straight", busy)
    assert content(tmp_path) == whole
    log = log_of(tmp_path, busy)
    history, _ = caught_up(tmp_path, log, genesis())
    assert of_ledger(history.ledger) == ledger
    history.close()
    log.close()


@pytest.mark.parametrize("seed", range(8))
def test_cut__leaves_what_was_there_before(tmp_path: Path, busy: Busy, seed: int) -> None:
    """A roll-back to any tick: as if the history had never gone further."""
    dice = random.Random(seed)
    log = log_of(tmp_path, busy)
    history, _ = caught_up(tmp_path, log, genesis())
    history.close()
    at = dice.randrange(1, log.end)
    log.rewrite(at, [], 1, [f"event {seed}"], first_seq=busy.entries[at].first_seq, is_cut=True)
    history, _ = caught_up(tmp_path, log, genesis())
    ledger = of_ledger(history.ledger)
    history.close()
    log.close()
    assert (content(tmp_path), ledger) == straight(tmp_path / "straight", busy, at)
    again, whole = straight(tmp_path, busy)  # and goes on from there
    other, expected = straight(tmp_path / "other", busy)
    for one in (again, other):  # the chain's hash differs: the roll-back is in it
        one["meta"] = [row[:2] for row in one["meta"]]
    assert (again, whole) == (other, expected)


def test_another_log__is_taken_in_instead(tmp_path: Path, busy: Busy) -> None:
    """The log came from a copy, and is not what the history was made of."""
    other = Busy(9)
    for _ in range(12):
        other.step()
    straight(tmp_path, busy)
    (tmp_path / "log.sqlite").unlink()
    (tmp_path / "log.head").unlink()
    found, _ = straight(tmp_path, other)
    assert found == straight(tmp_path / "straight", other)[0]


@pytest.mark.parametrize("table", ["positions", "totals", "floors", "meta", "file"])
def test_damage_that_a_start_sees__has_it_made_again(tmp_path: Path, busy: Busy, table: str) -> None:
    whole, _ = straight(tmp_path, busy)
    if table == "file":
        (tmp_path / FILE).write_bytes(b"\x5a" * 4_096)
    else:
        db = sqlite3.connect(tmp_path / FILE)
        column = [part.split()[0] for part in COLUMNS[table].split(", ")][-1]
        db.execute(f"UPDATE {table} SET {column} = {column} + 1")
        db.commit()
        db.close()
    assert straight(tmp_path, busy)[0] == whole


@pytest.mark.parametrize("seed", range(5))
def test_undo__takes_the_ledger_back_to_what_the_log_holds(busy: Busy, seed: int) -> None:
    """The log refuses a tick when the one behind it is applied already."""
    dice = random.Random(seed)
    ledger, state = Ledger(), genesis()
    kept = dice.randrange(5, len(busy.entries) - 3)
    batches, before = [], None
    for at, entry in enumerate(busy.entries[: kept + 3]):
        labels = {(account, nonce): label for account, nonce, label in entry.labels}

        def observe(raw: bytes, out: Any, labels: dict[Any, str] = labels) -> None:
            key = (int.from_bytes(raw[1:5], "big"), int.from_bytes(raw[19:23], "big"))
            ledger.apply(raw, out, state.globals.time, labels.get(key, "") if raw[0] == 0x20 else "")

        if at == kept:
            before = of_ledger(ledger)
        replay(state, entry, observe)
        batches.append(ledger.take())
    assert of_ledger(ledger) != before
    while len(batches) > kept:
        ledger.undo(batches.pop())
    assert of_ledger(ledger) == before


def test_prune__lets_old_rows_go_and_keeps_sums_positions_and_what_is_open(
    tmp_path: Path, busy: Busy
) -> None:
    whole, ledger = straight(tmp_path, busy)
    horizon = whole["times"][len(whole["times"]) // 2][1]
    store = Store(tmp_path / FILE)
    from sequencer.history.cuts import prune

    while prune(store, horizon, 7):
        pass
    store.close()
    left = content(tmp_path)
    for table in ("totals", "positions"):
        assert left[table] == whole[table]
    ended = {row[0]: row[4] for row in whole["closes"]}
    floors = sorted((row[1], row[0]) for row in whole["floors"])
    for row in whole["orders"]:
        end = min(
            [
                ended.get(row[0], 2**40),
                *(seq for account, seq in floors if account == row[1] and seq > row[0]),
            ]
        )
        assert (row in left["orders"]) == (end >= horizon), row
    orders = {row[0] for row in left["orders"]}
    assert left["trades"] == [row for row in whole["trades"] if row[0] >= horizon * 512 or row[4] in orders]
    assert left["moves"] == [row for row in whole["moves"] if row[0] >= horizon * 512]
    assert len(left["trades"]) < len(whole["trades"])
    log = log_of(tmp_path, busy)
    history, _ = caught_up(tmp_path, log, genesis())
    assert of_ledger(history.ledger) == ledger
    history.close()
    log.close()


def test_cut_into_what_is_pruned__makes_it_again(tmp_path: Path, busy: Busy) -> None:
    whole, _ = straight(tmp_path, busy)
    from sequencer.history.cuts import prune

    store = Store(tmp_path / FILE)
    while prune(store, whole["times"][-1][1], 1_000):
        pass
    store.close()
    log = log_of(tmp_path, busy)
    at = log.end // 2
    log.rewrite(at, [], 1, ["event"], first_seq=busy.entries[at].first_seq, is_cut=True)
    history, _ = caught_up(tmp_path, log, genesis())
    history.close()
    log.close()
    assert content(tmp_path) == straight(tmp_path / "straight", busy, at)[0]


@pytest.mark.parametrize("lanes", [8, 1, 0], ids=["in C", "in plain C", "in Python"])
def test_row_sums__are_those_of_single_rows(
    lanes: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if not lanes:
        monkeypatch.setattr(checksums, "_kernel", None)
    elif checksums._kernel is None:
        pytest.skip("the kernel is not built")
    else:
        from sequencer._kernel import cmap_kernel

        cmap_kernel.use_lanes(lanes)
        request.addfinalizer(lambda: cmap_kernel.use_lanes(8))
    rows: list[list[int | str]] = [
        [1, -5, "a'b", 2**63 - 1],
        [0, True, "", -(2**63)],
        [Why.IOC, 2**70, "\u20ac\n"],
    ]
    # Of every length of what is hashed, over several blocks.
    rows += [["x" * length, 10**digits, -(10**digits)] for length in range(140) for digits in (0, 9, 18)]
    whole = row_sums("trades", rows)
    singles = [row_sum("trades", *(int(one) if isinstance(one, int) else one for one in row)) for row in rows]
    assert whole == b"".join(singles)
    assert row_sums("trades", []) == b""


def test_days__fewer_than_a_roll_back_may_need__are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 14, not 3"):
        History(tmp_path / FILE, 0, 3)
