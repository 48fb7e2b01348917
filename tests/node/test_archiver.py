"""The archive: what is final goes to files, and is read, checked and posted again from there as before."""

import shutil
import threading
from pathlib import Path

import pytest

from sequencer.engine.snapshots import recover
from sequencer.log import packs, sqlite
from sequencer.log.interface import Entry
from sequencer.log.sqlite import SqliteLog
from sequencer.node import archiver
from sequencer.node.archiver import Archiver, archive, compact, end_of
from sequencer.node.check import check_folder
from sequencer.rollup.batcher import Batcher, read_stored
from tests.simulation.little import Little, genesis

TICKS = 40


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 4_000)
    monkeypatch.setattr(sqlite, "TAIL_BYTES", 8_000)
    monkeypatch.setattr(packs, "FILE_PACKS", 3)


@pytest.fixture
def little() -> Little:
    made = Little()
    while len(made.entries) < TICKS:
        made.run(made.orders(8))
    return made


@pytest.fixture
def folder(little: Little, tmp_path: Path) -> Path:
    """Of a sequencer that has stopped: a log in packs, and batches."""
    log = SqliteLog(tmp_path / "log.sqlite")
    batcher = Batcher(tmp_path / "batches.sqlite", log, genesis().root(), 2_500)
    for entry in little.entries:
        log.append(entry, log.end)
        log.tidy()
        batcher.build(True)
    batcher.close()
    log.close()
    return tmp_path


def read(folder: Path) -> list[Entry]:
    log = SqliteLog(folder / "log.sqlite")
    entries = list(log.read(0))
    log.close()
    return entries


def archived_end(folder: Path) -> int:
    log = SqliteLog(folder / "log.sqlite")
    (row,) = log._db.execute("SELECT COALESCE(MAX(end), 0) FROM packs WHERE body IS NULL").fetchall()
    log.close()
    return int(row[0])


def batches_of(folder: Path) -> list[object]:
    log = SqliteLog(folder / "log.sqlite")
    found: list[object] = []
    while some := list(read_stored(folder / "batches.sqlite", log, len(found) + 1)):
        found += some
    log.close()
    return found


def test_end_of__is_that_of_the_last_batch_that_is_posted_and_old_enough(
    folder: Path, little: Little
) -> None:
    log = SqliteLog(folder / "log.sqlite")
    batcher = Batcher(folder / "batches.sqlite", log, genesis().root(), 2_500)
    last = batcher.cursor.batch_id - 1
    ends = [batcher.after_batch(one) for one in range(1, last + 1)]
    batcher.close()
    log.close()
    offsets = [0] + [end[0] for end in ends if end is not None]
    assert [end_of(folder, one) for one in range(last + 1)] == offsets
    assert end_of(folder, last + 5) == offsets[-1]
    for entry in (little.entries[0], little.entries[TICKS // 2], little.entries[-1]):
        end = end_of(folder, last, entry.time)
        assert [one.time <= entry.time for one in little.entries[:end]] == [True] * end
        assert end > 0
    assert end_of(folder, last, little.entries[0].time - 1) == 0
    assert end_of(folder / "none", last) == 0


@pytest.mark.parametrize("is_alone", [False, True])
def test_compact__leaves_log_batches_and_state_as_they_were(
    folder: Path, little: Little, is_alone: bool
) -> None:
    before = batches_of(folder)
    other = None if is_alone else SqliteLog(folder / "log.sqlite")
    done = compact(folder, TICKS)
    assert done.is_shortened is is_alone
    assert done.packs > 3
    assert (done.end == TICKS) is is_alone
    assert done.end == archived_end(folder) > TICKS // 2
    assert done.size == sum(path.stat().st_size for path in (folder / "archive").iterdir())
    assert read(folder) == little.entries
    assert batches_of(folder) == before
    log = SqliteLog(folder / "log.sqlite")
    state, replayed = recover(folder / "snapshots", log, genesis())
    assert (state.root(), replayed) == (little.state.root(), TICKS)
    log.close()
    assert not any(one.findings or one.note for one in check_folder(folder))
    again = compact(folder, TICKS)
    assert (again.packs, again.end, again.size) == (0, done.end, done.size)
    if other is not None:
        assert list(other.read(0)) == little.entries
        other.append(little.entries[-1], TICKS)
        other.close()


def test_compact__of_a_log_of_one_row_a_tick__shortens_its_file(tmp_path: Path, little: Little) -> None:
    """As an older version has left it."""
    log = SqliteLog(tmp_path / "log.sqlite")
    batcher = Batcher(tmp_path / "batches.sqlite", log, genesis().root(), 2_500)
    for number in range(200):
        log.append(Entry(number, 1, bytes(32), [(bytes(32), [bytes(2_000)], number)]), log.end)
    batcher.close()
    log.close()
    size = (tmp_path / "log.sqlite").stat().st_size
    compact(tmp_path, 200)
    assert (tmp_path / "log.sqlite").stat().st_size < size // 3
    assert [one.first_seq for one in read(tmp_path)] == list(range(200))


def test_file_of_the_archive__changed_or_gone__is_found(folder: Path) -> None:
    archive(folder, TICKS)
    path = min((folder / "archive").iterdir())
    good = path.read_bytes()
    path.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
    (log,) = [one for one in check_folder(folder) if one.store == "log.sqlite"]
    assert "hash chain broken in places" in log.findings[0].what
    path.unlink()
    (log,) = [one for one in check_folder(folder) if one.store == "log.sqlite"]
    assert not log.findings
    assert f"{path}, which is not there: put it back" in log.note


def test_archiver__beside_a_writer__moves_what_is_old_and_posted_alone(
    folder: Path, little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "LOOK_S", 0.02)
    monkeypatch.setattr(archiver, "REST_S", 0.0)
    now = [little.entries[0].time]
    one = Archiver(folder, 10, lambda: 10**6, lambda: now[0])
    assert one.look().packs == 0
    log = SqliteLog(folder / "log.sqlite")
    one.start()
    until = threading.Event()
    for _ in range(60):
        little.run(little.orders(8))
        log.append(little.entries[-1], log.end)
        log.tidy()
        now[0] = little.entries[-1].time
        until.wait(0.01)
    for _ in range(500):
        if archived_end(folder) > TICKS // 2:
            break
        until.wait(0.02)
    one.stop()
    end = archived_end(folder)
    assert TICKS // 2 < end <= end_of(folder, 10**6)
    assert list(log.read(0)) == little.entries
    log.close()
    never = Archiver(folder, 10, lambda: 0, lambda: now[0])
    shutil.rmtree(folder / "archive")
    assert never.look().packs == 0
    assert not (folder / "archive").exists()
