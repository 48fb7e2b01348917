"""A journal beside the stream: it takes what it lacks, is made again when it is damaged, and never goes against it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.log import replicated
from sequencer.log.interface import Entry, LogLost
from sequencer.log.jetstream import Stream
from sequencer.log.replicated import NotTheSame, StreamShorter, open_journal
from sequencer.log.sqlite import LOG_FILE, SqliteLog
from tests.log.servers import Cluster, until


def _entry(number: int) -> Entry:
    return Entry(number, 1_000 + number, bytes([number % 256]) * 32, [(b"\1" * 32, [b"\x20" * 93], number)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LOG_FILE


def _written(path: Path, stream: Stream, count: int) -> bytes:
    """A journal with that many entries, closed; its last chain hash."""
    journal = open_journal(path, stream)
    for number in range(journal.end, count):
        journal.append(_entry(number), number)
    head = journal.head_hash
    journal.close()
    return head


@pytest.fixture
def stream(cluster: Cluster) -> Iterator[Stream]:
    return cluster.opened()


def test_leaders_journal__equals_the_stream(path: Path, stream: Stream) -> None:
    head = _written(path, stream, 150)
    journal = open_journal(path, stream)
    assert (journal.places, journal.head_hash) == (150, head)
    assert [body for body, _ in journal.bodies(0)] == stream.read(0, 999)
    journal.close()


def test_another_nodes_journal__catches_up_and_follows(path: Path, tmp_path: Path, stream: Stream) -> None:
    head = _written(path, stream, 150)
    other = open_journal(tmp_path / "other" / LOG_FILE, stream)
    assert (other.places, other.head_hash) == (150, head)
    follower = stream.follow(other.places, lambda place, bodies: other.take(bodies, place))
    head = _written(path, stream, 160)
    until(lambda: follower.place == 160 or follower.failure)
    follower.stop()
    assert (other.places, other.head_hash) == (160, head)
    other.close()


def test_journal_that_is_behind__takes_what_it_lacks(path: Path, tmp_path: Path, stream: Stream) -> None:
    _written(path, stream, 50)
    head = _written(tmp_path / "other" / LOG_FILE, stream, 200)
    journal = open_journal(path, stream)
    assert (journal.places, journal.head_hash) == (200, head)
    journal.close()


@pytest.mark.parametrize("how", ["row", "file", "cut short"])
def test_damaged_journal__is_made_again_and_kept_aside(path: Path, stream: Stream, how: str) -> None:
    head = _written(path, stream, 150)
    if how == "row":
        with sqlite3.connect(path) as db:
            db.execute("UPDATE ticks SET body = zeroblob(LENGTH(body)) WHERE place = 70")
        db.close()
    else:
        data = bytearray(path.read_bytes())
        if how == "file":
            data[0:4096] = bytes(4096)
        path.write_bytes(data if how == "file" else data[: len(data) // 2])
    journal = open_journal(path, stream)
    assert (journal.places, journal.head_hash) == (150, head)
    journal.append(_entry(150), 150)
    journal.close()
    if how != "row":  # of which the journal drops what comes behind it, and no more
        assert [file for file in path.parent.iterdir() if ".damaged-" in file.name]


def test_journal_of_another_exchange__is_refused(path: Path, cluster: Cluster, stream: Stream) -> None:
    _written(path, stream, 20)
    other = cluster.opened()
    other.append(0, [b"another exchange's"] * 5)
    with pytest.raises(
        NotTheSame, match=f"place 0 of this node's journal is not what stream {other.name} has there"
    ):
        open_journal(path, other)


def test_stream_that_has_lost_bodies__is_refused_and_restored_from_the_journal(
    path: Path, cluster: Cluster, stream: Stream
) -> None:
    head = _written(path, stream, 150)
    bodies = stream.read(0, 150)
    poorer = cluster.opened()
    poorer.append(0, bodies[:100])
    with pytest.raises(
        StreamShorter, match="ends at place 100, this node's journal at 150: the stream has lost"
    ):
        open_journal(path, poorer)
    journal = SqliteLog(path, poorer)
    assert replicated.restore(journal, poorer) == 50
    assert replicated.restore(journal, poorer) == 0
    journal.close()
    assert poorer.read(0, 999) == bodies
    journal = open_journal(path, poorer)
    assert journal.head_hash == head
    journal.close()


def test_two_leaders__the_second_ones_journal_takes_nothing_that_the_stream_refused(
    path: Path, tmp_path: Path, cluster: Cluster, stream: Stream
) -> None:
    second_stream = cluster.opened(stream.name)
    first = open_journal(path, stream)
    second = open_journal(tmp_path / "second" / LOG_FILE, second_stream)
    first.append(_entry(0), 0)
    with pytest.raises(LogLost, match="another node leads"):
        second.append(Entry(0, 7, bytes(32), []), 0)
    assert second.places == 0
    second_stream.open()
    assert replicated.catch_up(second, second_stream) == 1
    assert second.head_hash == first.head_hash
    first.close()
    second.close()
