"""The log: one writer, nothing half, nothing changed afterwards."""

import sqlite3
import threading
from pathlib import Path

import pytest

from sequencer.log.interface import Entry, LogError, LogLost
from sequencer.log.sqlite import SqliteLog


def entry(number: int, size: int = 93) -> Entry:
    return Entry(number, 1_000 + number, bytes([number % 256]) * 32, [(b"\1" * 32, [b"\x20" * size], number)])


def test_append__is_read_back_in_order_also_by_the_next_process(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    for number in range(600):  # more than one page of reading
        log.append(entry(number), number)
    assert [one.first_seq for one in log.read(0)] == list(range(600))
    head = log.head_hash
    log.close()
    again = SqliteLog(tmp_path / "log.sqlite")
    assert (again.end, again.head_hash) == (600, head)
    assert list(again.read(598)) == [entry(598), entry(599)]
    assert list(again.read(600)) == []
    again.append(entry(600), 600)
    again.close()


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_append__at_another_offset_than_the_end__is_refused(tmp_path: Path, expected: int) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append(entry(0), 0)
    log.append(entry(1), 1)
    with pytest.raises(LogLost, match=f"offset {expected} expected, the log ends at 2"):
        log.append(entry(2), expected)
    assert len(list(log.read(0))) == log.end == 2
    log.close()


def test_second_writer__loses_and_has_to_stand_down(tmp_path: Path) -> None:
    first, second = (SqliteLog(tmp_path / "log.sqlite") for _ in range(2))
    first.append(entry(0), 0)
    with pytest.raises(LogLost, match="another writer has appended place 0"):
        second.append(entry(9), second.end)
    first.append(entry(1), 1)
    assert [one.first_seq for one in second.read(0)] == [0, 1]
    first.close()
    second.close()


@pytest.mark.parametrize("column", ["body", "hash"])
def test_entry__changed_afterwards__breaks_the_chain(tmp_path: Path, column: str) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    for number in range(4):
        log.append(entry(number), number)
    changed = log._encode(entry(7)) if column == "body" else bytes(32)
    log._db.execute(f"UPDATE ticks SET {column} = ? WHERE place = 2", (changed,))
    with pytest.raises(LogError, match="hash chain broken at place 2"):
        list(log.read(0))
    log.close()


def test_entry__taken_out__breaks_the_chain(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    for number in range(4):
        log.append(entry(number), number)
    log._db.execute("DELETE FROM ticks WHERE place = 1")
    with pytest.raises(LogError, match="hash chain broken at place 2"):
        list(log.read(0))
    with pytest.raises(LogError, match="place 9 is past the end"):
        list(log.read(9))
    log.close()


def test_full_disk__takes_nothing_of_the_tick_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append(entry(0), 0)
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogError, match="disk is full") as caught:
        log.append(entry(1, 100_000), 1)
    assert not isinstance(caught.value, LogLost)
    assert (log.end, len(list(log.read(0)))) == (1, 1)
    log._db.execute("PRAGMA max_page_count = 1000000")
    log.append(entry(1, 100_000), 1)
    log.close()
    again = SqliteLog(tmp_path / "log.sqlite")
    assert [one.first_seq for one in again.read(0)] == [0, 1]
    again.close()


@pytest.mark.parametrize(
    ("code", "is_lost"),
    [
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_IOERR_FSYNC, True),  # what was written may be there at the next start
        (sqlite3.SQLITE_IOERR_SHMSIZE, True),
        (sqlite3.SQLITE_CORRUPT, True),
    ],
)
def test_error_of_sqlite__after_which_nobody_knows__is_no_refusal(
    tmp_path: Path, code: int, is_lost: bool
) -> None:
    class Broken:
        def execute(self, *_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error

    log = SqliteLog(tmp_path / "log.sqlite")
    working, log._db = log._db, Broken()  # type: ignore[assignment]
    with pytest.raises(LogError) as caught:
        log.append(entry(0), 0)
    assert isinstance(caught.value, LogLost) is is_lost
    assert log.end == 0
    log._db = working
    log.close()


def test_reader__while_another_thread_appends__sees_whole_entries_in_order(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    count = 300

    def write() -> None:
        for number in range(count):
            log.append(entry(number), number)

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while seen < count:
        for one in log.read(seen):
            assert one == entry(seen)
            seen += 1
    thread.join()
    log.close()
