"""Packs and the archive: what is read is what was appended, wherever it lies."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.checksums import StoreDamaged
from sequencer.log import packs, sqlite
from sequencer.log.interface import Entry, LogError, LogLost
from sequencer.log.packs import LogArchived
from sequencer.log.reader import LogReader
from sequencer.log.sqlite import SqliteLog
from tests.log.test_sqlite import entry

COUNT = 60


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 1_500)
    monkeypatch.setattr(sqlite, "TAIL_BYTES", 3_000)
    monkeypatch.setattr(packs, "FILE_PACKS", 2)


def filled(path: Path, count: int = COUNT) -> tuple[SqliteLog, list[bytes]]:
    """A log with packs, and its chain hashes from the first on."""
    log = SqliteLog(path)
    hashes = [bytes(32)]
    for number in range(count):
        hashes.append(log.append(entry(number), number))
        log.tidy()
    return log, hashes


def rows(log: SqliteLog, what: str) -> list[tuple[int, ...]]:
    return log._db.execute(what).fetchall()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    opened, _ = filled(tmp_path / "log.sqlite")
    yield opened
    opened.close()


def archived(log: SqliteLog, end: int) -> int:
    moved = 0
    while some := packs.archive(log._packer, end):
        moved += some
    return moved


@pytest.mark.parametrize("end", [0, 20, COUNT])
def test_log__in_packs_and_in_files__is_read_from_any_offset_as_it_was_appended(
    tmp_path: Path, end: int
) -> None:
    log, hashes = filled(tmp_path / "log.sqlite")
    assert len(rows(log, "SELECT 1 FROM packs")) >= 4
    assert 0 < len(rows(log, "SELECT 1 FROM ticks")) < COUNT // 2
    assert bool(archived(log, end)) is bool(end)
    for one in (log, SqliteLog(tmp_path / "log.sqlite")):
        assert (one.end, one.head_hash) == (COUNT, hashes[-1])
        for start in range(COUNT + 1):
            expected = [(entry(number), hashes[number + 1]) for number in range(start, COUNT)]
            assert list(one.read_hashed(start)) == expected
            assert list(one.read(start)) == [found for found, _ in expected]
            assert one.hash_before(start) == hashes[start]
        with pytest.raises(LogError, match=f"place {COUNT + 1} is past the end"):
            list(one.read(COUNT + 1))
        one.close()


def test_pack__takes_less_room_than_its_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 100_000)
    monkeypatch.setattr(sqlite, "TAIL_BYTES", 200_000)
    log, _ = filled(tmp_path / "log.sqlite", 2_000)
    ((in_packs, packed),) = rows(log, "SELECT SUM(LENGTH(body)), SUM(end - first) FROM packs")
    ((in_rows, single),) = rows(log, "SELECT SUM(LENGTH(body)), COUNT(*) FROM ticks")
    assert in_packs / packed < 0.5 * in_rows / single
    log.close()


def test_writer__that_is_behind_the_packs__loses(tmp_path: Path) -> None:
    late = SqliteLog(tmp_path / "log.sqlite")
    late.append(entry(0), 0)
    log = SqliteLog(tmp_path / "log.sqlite")
    for number in range(1, COUNT):
        log.append(entry(number), number)
        log.tidy()
    assert not rows(log, "SELECT 1 FROM ticks WHERE place = 1")
    with pytest.raises(LogLost, match="another writer has appended place 1"):
        late.append(entry(9), late.end)
    with pytest.raises(LogLost, match="another writer has appended"):
        late.rewrite(0, [entry(7)], 1, [])
    assert [one.first_seq for one in log.read(0)] == list(range(COUNT))
    late.close()
    log.close()


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize("at", [0, 5, 20, -5, -1])
def test_bit__changed_in_a_pack__breaks_the_chain_there(
    tmp_path: Path, log: SqliteLog, at: int, is_archived: bool
) -> None:
    first, end, body = rows(log, "SELECT first, end, body FROM packs LIMIT 1 OFFSET 1")[0]
    assert isinstance(body, bytes)
    place = at % len(body)
    changed = body[:place] + bytes([body[place] ^ 16]) + body[place + 1 :]
    if is_archived:
        archived(log, COUNT)
        file, begin = rows(log, f"SELECT file, at FROM packs WHERE first = {first}")[0]
        path = tmp_path / "archive" / str(file)
        data = path.read_bytes()
        path.write_bytes(data[:begin] + changed + data[begin + len(body) :])
    else:
        log._db.execute("UPDATE packs SET body = ? WHERE first = ?", (changed, first))
    with pytest.raises(LogError, match=f"hash chain broken in places {first} to {end - 1}"):
        list(log.read(0))
    with pytest.raises(LogError, match=f"hash chain broken in places {first} to {end - 1}"):
        list(log.read(first + 1))
    assert [one.first_seq for one in log.read(end)] == list(range(end, COUNT))


@pytest.mark.parametrize("change", ["hash = zeroblob(32)", "end = end - 1", "body = NULL, file = 'other'"])
def test_row__of_a_pack_changed__breaks_the_chain(log: SqliteLog, change: str) -> None:
    log._db.execute(f"UPDATE packs SET {change} WHERE first = (SELECT first FROM packs LIMIT 1 OFFSET 1)")
    with pytest.raises(LogError):
        list(log.read(0))


def test_pack__taken_out__breaks_the_chain(log: SqliteLog) -> None:
    ((first, _),) = rows(log, "SELECT first, end FROM packs LIMIT 1 OFFSET 1")
    log._db.execute("DELETE FROM packs WHERE first = ?", (first,))
    with pytest.raises(LogError, match="hash chain broken at place"):
        list(log.read(0))


def test_ticks__that_are_damaged__are_not_packed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pack has no hash of each: packed, the damage could not be told from what was written."""
    log = SqliteLog(tmp_path / "log.sqlite")
    for number in range(COUNT):
        log.append(entry(number), number)
    log._db.execute("UPDATE ticks SET body = ? WHERE place = 2", (log._encode(entry(7)),))
    log.tidy()
    assert "hash chain broken at place 2" in caplog.text
    assert not rows(log, "SELECT 1 FROM packs")
    log.close()


def test_tidy__that_cannot_write__leaves_all_as_it_is_and_goes_on_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    for number in range(COUNT):
        log.append(entry(number), number)
    log._packer.execute("PRAGMA query_only = 1")
    log.tidy()
    assert "the oldest ticks stay as they are" in caplog.text
    assert [one.first_seq for one in log.read(0)] == list(range(COUNT))
    log._packer.execute("PRAGMA query_only = 0")
    for number in range(COUNT, 2 * COUNT):
        log.append(entry(number), number)
        log.tidy()
    assert rows(log, "SELECT 1 FROM packs")
    assert [one.first_seq for one in log.read(0)] == list(range(2 * COUNT))
    log.close()


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize("offset", [0, 3, 20, COUNT - 1])
@pytest.mark.parametrize("is_cut", [False, True])
def test_roll_back__into_packs__appends_and_keeps_the_evidence(
    tmp_path: Path, log: SqliteLog, offset: int, is_cut: bool, is_archived: bool
) -> None:
    if is_archived:
        archived(log, COUNT)
    before = list(log.bodies(0))
    fresh = [entry(number, 50) for number in range(offset, COUNT)][: 2 if is_cut else None]
    log.rewrite(offset, fresh, 1, ["event"], is_cut=is_cut)
    expected = [entry(number) for number in range(offset)] + fresh
    again = SqliteLog(tmp_path / "log.sqlite")
    with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite")) as db:
        assert list(log.read(0)) == list(again.read(0)) == list(LogReader(db).read(0)) == expected
    assert (again.end, again.places, again.head_hash) == (log.end, log.places, log.head_hash)
    assert (log.end, log.places) == (len(expected), COUNT + len(fresh) + 1)
    assert list(log.bodies(0))[:COUNT] == before
    old = [one for place, one in log.superseded()]
    assert old == [entry(number) for number in range(offset, COUNT)]
    for start in range(len(expected) + 1):
        assert list(again.read(start)) == expected[start:]
    hashes = [chained for _, chained in again.read_hashed(0)]
    assert [again.hash_before(at) for at in range(1, len(expected) + 1)] == hashes
    again.close()
    for number in range(len(expected), 2 * COUNT):  # and packs again
        log.append(entry(number), number)
        log.tidy()
    assert list(log.read(0)) == expected + [entry(number) for number in range(len(expected), 2 * COUNT)]
    assert len(rows(log, "SELECT 1 FROM ticks")) < COUNT


def test_archive__moves_packs_before_an_offset_alone_to_files_of_its_own(
    tmp_path: Path, log: SqliteLog
) -> None:
    ends = [end for (end,) in rows(log, "SELECT end FROM packs ORDER BY first")]
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "log-000000000000-000000000001-00.tmp").write_bytes(b"of a crash")
    assert archived(log, ends[2] + 1) == 3
    assert archived(log, ends[2] + 1) == 0
    files = sorted((tmp_path / "archive").glob("*.zst"))
    assert [path.name for path in files] == sorted(
        {str(file) for (file,) in rows(log, "SELECT file FROM packs WHERE body IS NULL")}
    )
    assert len(files) == 2
    before = [path.stat().st_size for path in files]
    assert archived(log, COUNT) == len(ends) - 3
    assert [path.stat().st_size for path in files] == before
    assert [one.first_seq for one in log.read(0)] == list(range(COUNT))


def test_archive__whose_file_is_elsewhere__says_which_and_the_rest_is_read(
    tmp_path: Path, log: SqliteLog
) -> None:
    archived(log, COUNT)
    gone = min((tmp_path / "archive").glob("*.zst"))
    kept = gone.rename(tmp_path / gone.name)
    with pytest.raises(
        LogArchived, match=rf"places 0 to \d+ are in .*{gone.name}, which is not there: put it back"
    ):
        list(log.read(0))
    first = int(gone.stem.split("-")[2])
    assert [one.first_seq for one in log.read(first)] == list(range(first, COUNT))
    kept.rename(gone)
    assert len(list(log.read(0))) == COUNT


def test_log__of_an_older_version__is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE ticks (offset INTEGER PRIMARY KEY, hash BLOB, records INTEGER, body BLOB)")
        for build in (LogReader, lambda _: SqliteLog(path)):
            with pytest.raises(
                StoreDamaged, match=r"written by an older version.*: deploy anew and start with"
            ):
                build(db)


def test_reader__beside_a_writer_that_packs__sees_whole_entries_in_order(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    count = 400

    def write() -> None:
        for number in range(count):
            log.append(entry(number), number)
            log.tidy()
            if number % 100 == 99:
                archived(log, number // 2)

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[Entry] = []
    with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite")) as db:
        reader = LogReader(db)
        while len(seen) < count:
            seen += reader.read(len(seen))
            whole = list(log.read(0))
            assert whole == [entry(number) for number in range(len(whole))]
    thread.join()
    assert seen == [entry(number) for number in range(count)]
    log.close()
