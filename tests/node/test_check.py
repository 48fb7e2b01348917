"""What is stored is checked before it acts: a bit changed in any store is found, and what can be is made again."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from sequencer.checksums import StoreDamaged
from sequencer.cli import main
from sequencer.engine import snapshots
from sequencer.engine.snapshots import load, recover, save
from sequencer.l1.batch import Batch
from sequencer.l1.signing import Content, Fees
from sequencer.l1.txstore import Attempt, TxStore
from sequencer.log import index, packs
from sequencer.log.interface import LogError, Redone, RollBack
from sequencer.log.sqlite import SqliteLog
from sequencer.node.check import Scrub, check_folder
from sequencer.protocol.constants import Kind
from sequencer.rollup.batcher import Batcher, read_stored
from sequencer.rollup.withdrawals import Withdrawals
from tests.simulation.little import DOMAIN, Little, genesis

BATCHES = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a sequencer that has stopped: ticks, batches, proofs, a roll-back long ago, a snapshot, transactions."""
    little = Little()
    log = SqliteLog(tmp_path / "log.sqlite")
    log.rewrite(0, [], 1, ["0xa:1"], [Redone(3, 4, b"\0", 0)])
    log.roll_back_done(1)
    batcher = Batcher(tmp_path / "batches.sqlite", log, genesis().root(), 4_000)
    proofs = Withdrawals(tmp_path / "withdrawals.sqlite")
    stored = 0
    for turn in range(BATCHES):
        little.run(little.orders(8))
        little.run([little.signed(Kind.WITHDRAW, turn, amount=1_000_000)])
        for entry in little.entries[stored:]:
            log.append(entry, log.end)
        stored = len(little.entries)
        while (built := batcher.build(True)) is not None:
            last = built
        proofs.prove(little.state, last.batch_id, last.post_root)
    save(tmp_path / "snapshots", little.state, log.end)
    batcher.close()
    proofs.close()
    log.close()
    store = TxStore(tmp_path / "l1.sqlite")
    store.bind("a key on a chain")
    intent = store.add("batch-1", Content(b"\1" * 20, b"data", 0, 100_000, b""))
    store.update(intent.seq, nonce=0, state="sent")
    store.add_attempt(Attempt("0x01", intent.seq, 0, Fees(10**9, 1), 1.0))
    store.mark_sent("0x01", 2.0)
    store.close()
    return tmp_path


def flip(path: Path, table: str, column: str, place: int = 0) -> None:
    """Changes one bit of a value, as a disk does: beside SQLite's triggers, and without a word."""
    db = sqlite3.connect(path)
    row, value = db.execute(
        f"SELECT rowid, {column} FROM {table} ORDER BY rowid LIMIT 1 OFFSET ?", (place,)
    ).fetchone()
    if isinstance(value, bytes):
        at = len(value) // 2
        changed: object = value[:at] + bytes([value[at] ^ 4]) + value[at + 1 :]
    elif isinstance(value, str):
        changed = chr(ord(value[0]) ^ 1) + value[1:]
    else:
        changed = int(value or 0) ^ 4
    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
    db.commit()
    db.close()


def stored_in(folder: Path) -> list[Batch]:
    with contextlib.closing(SqliteLog(folder / "log.sqlite")) as log:
        return list(read_stored(folder / "batches.sqlite", log, 1))


def rows_of(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM batches ORDER BY id").fetchall()


def checked(folder: Path) -> tuple[int, dict[str, str]]:
    """Exit status of `fairstrike check`, and the stores that are damaged with the first thing found."""
    result = CliRunner().invoke(main, ["check", str(folder), "--json", "-"])
    told = json.loads(result.stdout[result.stdout.index("{") :])
    assert told["ok"] == (result.exit_code == 0)
    return result.exit_code, {
        one["store"]: one["findings"][0]["what"] for one in told["stores"] if one["state"] == "damaged"
    }


def test_check__of_a_sound_folder__finds_nothing_and_changes_nothing(folder: Path) -> None:
    assert checked(folder) == (0, {})
    stores = {one.store: one.rows for one in check_folder(folder)}
    assert stores["batches.sqlite"] >= BATCHES
    assert stores["withdrawals.sqlite"] == BATCHES
    assert stores["l1.sqlite"] == 3
    assert stores["log.sqlite"] > 3 + BATCHES
    assert any(name.startswith("snapshots/state-") for name in stores)


def test_check__of_a_folder_without_a_store__says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert "no log, archive or other store in it" in result.output.replace("\n", " ")


def places() -> list[tuple[str, str, str]]:
    batch = "pre_root post_root segments records first_seq time_s inbox_count inbox_hash work payload_hash next_offset"
    return [
        *(("log.sqlite", "ticks", column) for column in ("body", "hash")),
        *(("log.sqlite", "rollbacks", column) for column in ("batch_id", "is_done")),
        *(("log.sqlite", "redone", column) for column in ("place", "record", "reason")),
        ("log.sqlite", "rollback_events", "key"),
        *(("batches.sqlite", "batches", column) for column in (*batch.split(), "next_segment", "checksum")),
        *(("withdrawals.sqlite", "proofs", column) for column in ("owner", "amount", "bitmap", "siblings")),
        *(("l1.sqlite", "intents", column) for column in ("destination", "data", "nonce", "state", "gas")),
        *(("l1.sqlite", "attempts", column) for column in ("tx_hash", "nonce", "max_fee")),
        ("l1.sqlite", "meta", "value"),
    ]


@pytest.mark.parametrize(("store", "table", "column"), places())
def test_bit__changed_in_any_column__is_found(folder: Path, store: str, table: str, column: str) -> None:
    flip(folder / store, table, column)
    status, found = checked(folder)
    assert status == 2
    assert store in found


def test_file__with_a_page_of_nonsense__is_found(folder: Path) -> None:
    path = folder / "log.sqlite"
    data = bytearray(path.read_bytes())
    data[4_096:4_196] = b"\xff" * 100
    path.write_bytes(bytes(data))
    assert checked(folder)[0] == 2


@pytest.mark.parametrize("place", range(BATCHES))
@pytest.mark.parametrize("column", [column for _, table, column in places() if table == "batches"])
def test_batch__with_a_changed_bit__is_not_posted_and_is_made_again_from_the_log(
    folder: Path, column: str, place: int
) -> None:
    """Before, it was posted, challenged, and the bond was gone."""
    path = folder / "batches.sqlite"
    good = stored_in(folder)
    before = rows_of(path)
    flip(path, "batches", column, place)
    with pytest.raises(
        StoreDamaged, match=r"batches.sqlite: batch \d is not what was written: it is not posted"
    ):
        stored_in(folder)
    log = SqliteLog(folder / "log.sqlite")
    Batcher(path, log, genesis().root(), 4_000).close()
    log.close()
    assert stored_in(folder) == good
    assert rows_of(path) == before
    assert checked(folder) == (0, {})


def test_batch__that_the_log_does_not_give__stops_the_start_with_what_to_do(folder: Path) -> None:
    flip(folder / "batches.sqlite", "batches", "next_offset", 1)
    flip(folder / "batches.sqlite", "batches", "segments", 1)
    flip(folder / "batches.sqlite", "batches", "payload_hash", 1)
    log = SqliteLog(folder / "log.sqlite")
    with pytest.raises(
        StoreDamaged, match=r"batch 2 is not what was written, and .* restore the folder from a copy"
    ):
        Batcher(folder / "batches.sqlite", log, genesis().root(), 4_000)
    log.close()


def test_proof__with_a_changed_bit__is_made_again(folder: Path) -> None:
    path = folder / "withdrawals.sqlite"
    flip(path, "proofs", "siblings", 1)
    log = SqliteLog(folder / "log.sqlite")
    state, _ = recover(folder / "snapshots", log, genesis())
    last = stored_in(folder)[-1]
    proofs = Withdrawals(path)
    assert proofs.proof(0) is not None
    assert proofs.proof(1) is None
    proofs.prove(state, last.batch_id, last.post_root)
    assert [(proofs.proof(number) or {})["batch_id"] for number in range(1, BATCHES)] == [last.batch_id] * 2
    proofs.close()
    log.close()
    assert checked(folder) == (0, {})


@pytest.mark.parametrize(("table", "column"), [(t, c) for s, t, c in places() if s == "l1.sqlite"])
def test_transaction__with_a_changed_bit__keeps_everything_from_being_sent(
    folder: Path, table: str, column: str
) -> None:
    flip(folder / "l1.sqlite", table, column)
    with pytest.raises(StoreDamaged, match=f"l1.sqlite: table {table}, row 1 .*move it away"):
        TxStore(folder / "l1.sqlite")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("rollbacks", name) for name in ("batch_id", "offset", "is_done", "checksum")),
        ("rollback_events", "key"),
        ("redone", "place"),
        *(("runs", name) for name in ("offset", "place", "checksum")),
    ],
)
def test_what_the_log_remembers_of_roll_backs__with_a_changed_bit__is_made_again_from_its_entries(
    folder: Path, table: str, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "log.sqlite"

    def remembered() -> list[list[tuple[object, ...]]]:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return [db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in index.GUARDED]

    before = remembered()
    flip(path, table, column)
    log = SqliteLog(path)
    assert "are made again from its entries" in caplog.text
    assert log.rolled_back() == RollBack(1, 1, 0, True)
    assert (log.answered(), log.redone(3)) == ({"0xa:1"}, Redone(3, 4, b"\0", 0))
    assert recover(folder / "none", log, genesis())[1] == log.end
    log.close()
    assert remembered() == before
    assert checked(folder) == (0, {})


@pytest.mark.parametrize("is_packed", [False, True])
def test_log_entry__with_a_changed_bit__stops_the_start_with_what_to_do(
    folder: Path, is_packed: bool
) -> None:
    """One before the newest snapshot, which no replay reads."""
    if is_packed:
        log = SqliteLog(folder / "log.sqlite")
        packs.put_pack(log._packer)
        log.close()
    flip(folder / "log.sqlite", "packs" if is_packed else "ticks", "body", 0 if is_packed else 2)
    what = "table packs, row 0 is not what was written" if is_packed else "hash chain broken at place 2"
    with pytest.raises(StoreDamaged, match=rf"log.sqlite: {what}: restore the folder from a copy"):
        SqliteLog(folder / "log.sqlite")


def test_archived_entry__with_a_changed_bit__is_found_by_the_look_beside_the_work(folder: Path) -> None:
    log = SqliteLog(folder / "log.sqlite")
    packs.put_pack(log._packer, 4)
    assert packs.archive(log._packer, 4) == 1
    (path,) = (folder / "archive").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    log.close()
    log = SqliteLog(folder / "log.sqlite")
    assert recover(folder / "snapshots", log, genesis())[1] == 0
    with pytest.raises(LogError, match="hash chain broken in places 0 to"):
        list(log.read(0))
    log.close()
    scrub = Scrub(folder)
    scrub.start()
    scrub._thread.join(30)
    assert "hash chain broken in places 0 to" in scrub.error


def test_snapshot__with_any_bit_changed__is_left_out_and_found(folder: Path) -> None:
    """Before, one in 12 changed bits of such a file passed, some of them into what was read."""
    (path,) = (folder / "snapshots").glob("*.zst")
    good = path.read_bytes()
    for at in range(len(good)):
        data = bytearray(good)
        data[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="checksum"):
            snapshots.unframed(bytes(data))
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert list(checked(folder)[1]) == [f"snapshots/{path.name}"]
    log = SqliteLog(folder / "log.sqlite")
    state, replayed = recover(folder / "snapshots", log, genesis())
    assert replayed == log.end
    log.close()
    path.write_bytes(good)
    assert load(path, DOMAIN)[0].root() == state.root()
