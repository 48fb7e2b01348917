"""Entries without segments, which say who leads or where a batch ends: every reader of the log takes them in its
stride.
"""

import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from sequencer.engine.engine import ReplayError
from sequencer.engine.snapshots import recover, save
from sequencer.history.history import History
from sequencer.history.store import FILE as HISTORY_FILE
from sequencer.log import packs
from sequencer.log.interface import Control, Cut, Entry, Redone, Staged, Term, TurnBack
from sequencer.log.sqlite import SqliteLog
from sequencer.node.check import check_folder
from sequencer.queue.receipts import Issuer
from sequencer.rollup.batcher import Batcher
from tests.rollup.test_rollback import Stores, lied
from tests.simulation.liar import event
from tests.simulation.little import DOMAIN, PARAMS, Little, genesis


def empty(log: SqliteLog, control: Control | None, time: int = 0) -> Entry:
    """An entry of nothing but `control`, of the state at the log's end."""
    last = next(iter(log.read(log.end - 1))) if log.end else None
    if last is None:
        return Entry(0, time, genesis().root(), [], control=control)
    return Entry(last.first_seq + last.records, last.time, last.root, [], control=control)


def put(log: SqliteLog, *entries: Entry) -> None:
    for entry in entries:
        log.append(entry, log.end)


@pytest.fixture
def little() -> Little:
    made = Little()
    for _ in range(4):
        made.run(made.orders(24))
    return made


def mixed(folder: Path, little: Little) -> SqliteLog:
    """A log in which a Term or Cut stands before and after each tick, and several at the end."""
    log = SqliteLog(folder / "log.sqlite")
    for number, entry in enumerate(little.entries):
        put(log, empty(log, Term(number, "a"), entry.time))
        put(log, entry)
    put(log, empty(log, Cut(1, log.end, 0)))
    put(log, empty(log, Term(99, "b")))
    return log


@pytest.mark.parametrize(
    "control",
    [
        None,
        Term(3, "b"),
        Cut(2, 7, 1),
        Staged(),
        TurnBack(1, 2, 3, 4, ["a"], [Redone(1, 2, b"x", 3)], 17, True),
    ],
)
def test_control__comes_back_as_it_was_written(tmp_path: Path, control: Control | None) -> None:
    one = Entry(1, 2, bytes(32), [], control=control)
    log = SqliteLog(tmp_path / "log.sqlite")
    assert packs.entry(log._encode(one), 0) == one
    log.close()


def test_log_with_controls__replays_checks_and_fills_the_history_as_one_without(
    tmp_path: Path, little: Little
) -> None:
    log = mixed(tmp_path, little)
    state, replayed = recover(tmp_path / "none", log, genesis())
    assert (state.root(), replayed) == (little.state.root(), log.end)
    save(tmp_path / "snapshots", state, log.end)
    again, replayed = recover(tmp_path / "snapshots", log, genesis())
    assert (again.root(), replayed) == (state.root(), 0)
    for _ in range(2):
        history = History(tmp_path / HISTORY_FILE, PARAMS.treasury_account)
        history.align(log)
        recover(tmp_path / "snapshots", log, genesis(), history)
        assert (history.offset, history.is_whole) == (log.end, True)
        history.close()
    log.close()
    assert [one.findings for one in check_folder(tmp_path)] == [[], [], []]


def test_empty_entry__with_another_root__does_not_replay(tmp_path: Path, little: Little) -> None:
    log = mixed(tmp_path, little)
    put(log, replace(empty(log, Term(100, "c")), root=bytes(32)))
    with pytest.raises(ReplayError, match="root differs"):
        recover(tmp_path / "none", log, genesis())
    log.close()


@pytest.mark.parametrize("payload_bytes", [3_000, 9_000, 100_000])
def test_batches__are_those_of_the_log_without_controls(
    tmp_path: Path, little: Little, payload_bytes: int
) -> None:
    plain = SqliteLog(tmp_path / "plain.sqlite")
    put(plain, *little.entries)
    log = mixed(tmp_path, little)
    built = []
    for name, one in (("plain", plain), ("mixed", log)):
        batcher = Batcher(tmp_path / f"{name}-batches.sqlite", one, genesis().root(), payload_bytes)
        assert batcher.waiting() > 0
        built.append(list(iter(lambda batcher=batcher: batcher.build(True), None)))
        assert batcher.waiting() == 0
        put(one, empty(one, Term(100, "c")))
        assert batcher.waiting() == 0  # nothing that a batch could be made of
        assert all(batcher.is_as_logged(batch.batch_id) for batch in built[-1])
        batcher.close()
    assert built[0] == built[1]
    plain.close()
    log.close()


@pytest.mark.parametrize(
    "column", ["post_root", "segments", "next_offset", "next_segment", "header_hash", "checksum"]
)
def test_row_of_batches__that_was_damaged__is_made_again_between_controls(
    tmp_path: Path, little: Little, column: str
) -> None:
    log = mixed(tmp_path, little)
    path = tmp_path / "batches.sqlite"
    batcher = Batcher(path, log, genesis().root(), 9_000)
    while batcher.build(True) is not None:
        pass
    before = batcher._db.execute("SELECT * FROM batches").fetchall()
    batcher.close()
    for (batch_id,) in [row[:1] for row in before]:
        db = sqlite3.connect(path)
        db.execute(f"UPDATE batches SET {column} = 12345 WHERE id = ?", (batch_id,))
        db.commit()
        db.close()
        batcher = Batcher(path, log, genesis().root(), 9_000)
        assert batcher._db.execute("SELECT * FROM batches").fetchall() == before
        batcher.close()
    log.close()


def test_headers__go_on_behind_the_last_tick_that_has_one(tmp_path: Path, little: Little) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    issuer = Issuer(DOMAIN, None)
    made = little.run(little.orders(4))
    sealed = issuer.seal(made)
    assert made.entry is not None
    assert sealed is not None
    put(log, *little.entries[:-1], made.entry)
    put(log, empty(log, Term(1, "a")), empty(log, Cut(1, 1, 0)))
    other = Issuer(DOMAIN, None)
    other.resume(log)
    assert other._parent == issuer._parent == sealed.header.id
    assert other._last_ns == issuer._last_ns
    log.close()


def test_roll_back__keeps_terms_and_drops_the_ends_of_batches_that_are_made_again(tmp_path: Path) -> None:
    _, inbox, _ = lied(tmp_path / "plain")
    _ = lied(tmp_path / "source")
    source = SqliteLog(tmp_path / "source" / "log.sqlite")
    entries = list(source.read(0))
    made = Batcher(tmp_path / "source" / "batches.sqlite", source, genesis().root())
    ends = [made.after_batch(batch_id) for batch_id in range(1, 5)]
    made.close()
    source.close()
    stores = Stores(tmp_path)
    log = stores.log
    for offset, entry in enumerate(entries):
        put(log, entry)
        put(log, empty(log, Term(offset, "a")))
        if (offset + 1, 0) in ends:
            batch = stores.batcher.build(True)
            assert batch is not None
            put(log, empty(log, Cut(batch.batch_id, log.end, 0)))
    old = list(log.read(0))
    state, report = stores.recovery.rewrite(genesis(), [event(3)], inbox)
    stores.recovery.follow()
    new = list(log.read(0))
    assert len(new) == len(old)
    cuts = [entry.control.batch_id for entry in new if isinstance(entry.control, Cut)]
    assert cuts == [1, 2]
    assert [one for one in new if isinstance(one.control, Term)] != []
    for was, now in zip(old, new, strict=True):
        assert isinstance(was.control, Term) == isinstance(now.control, Term)
        assert bool(was.segments) == bool(now.segments)
    again, _ = recover(tmp_path / "none", log, genesis())
    assert again.root() == state.root()
    plain = Stores(tmp_path / "plain")
    assert plain.recovery.rewrite(genesis(), [event(3)], inbox)[0].root() == state.root()
    assert report.inserted == 0
    plain.close()
    stores.close()
