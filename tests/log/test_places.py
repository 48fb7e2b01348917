"""A log that only grows: what replaces entries stands behind them, and every journal of the stream gives the same."""

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sequencer.checksums import StoreDamaged
from sequencer.log import index, packs, sqlite
from sequencer.log.interface import Cut, Entry, LogError, LogLost, Redone, Staged, Term, TurnBack
from sequencer.log.reader import LogReader
from sequencer.log.sqlite import SqliteLog
from sequencer.node.check import check_folder
from tests.log.test_sqlite import entry

SEEDS = range(12)


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 1_500)
    monkeypatch.setattr(sqlite, "TAIL_BYTES", 3_000)


class Messages:
    """A stream in memory. `fails`: how many more appends before one is refused."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.fails = 10**9
        self.error: type[LogError] = LogError

    def append(self, place: int, bodies: Sequence[bytes]) -> None:
        if not self.fails:
            raise self.error("the stream does not answer")
        self.fails -= 1
        if place != len(self.bodies):
            raise LogLost(f"message {place} is there")
        self.bodies += bodies

    def check(self) -> None:
        if not self.fails:
            raise self.error("the stream does not answer")


def numbered(first: int, count: int, size: int = 93) -> list[Entry]:
    return [entry(number, size) for number in range(first, first + count)]


def tables(log: SqliteLog) -> list[object]:
    """What the log remembers of roll-backs; of its runs, what they say."""
    names = [name for name in index.GUARDED if name != "runs"]
    return [log._places, *(log._db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names)]


def grown(log: SqliteLog, seed: int, steps: int = 60) -> list[Entry]:
    """Ticks, terms, roll-backs and cuts in some order; the entries that stand."""
    rng = random.Random(seed)
    stands: list[Entry] = []
    seq = 0
    for step in range(steps):
        kind = rng.random()
        if kind < 0.75 or not stands:
            made = entry(seq)
            if rng.random() < 0.3:
                made = replace(made, segments=[], control=rng.choice([Term(step, "a"), Cut(1, log.end, 0)]))
            log.append(made, log.end)
            stands.append(made)
        else:
            is_cut = kind > 0.9
            offset = rng.randrange(len(stands) + 1)
            again = [replace(one, time=step) for one in stands[offset:]]
            if is_cut:
                again = again[: rng.randrange(3)]
            at = stands[offset].first_seq if offset < len(stands) else seq
            redone = [Redone(at, at + rng.randrange(2), b"raw", rng.randrange(2))]
            log.rewrite(offset, again, step, [f"event {step}"], redone, at, is_cut)
            if rng.random() < 0.8:
                log.roll_back_done(log._places.epoch)
            stands[offset:] = again
        seq = stands[-1].first_seq + stands[-1].records if stands else 0
        log.tidy()
        assert log.end == len(stands)
    return stands


def assert_reads(log: SqliteLog, path: Path, stands: list[Entry]) -> None:
    reader = LogReader(sqlite3.connect(path))
    for one in (log, reader):
        assert one.end == len(stands)
        hashes = [bytes(32)]
        for start in range(len(stands) + 1):
            assert list(one.read(start)) == stands[start:]
        hashes += [chained for _, chained in one.read_hashed(0)]
        assert [one.hash_before(offset) for offset in range(len(stands) + 1)] == hashes
    reader._db.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_log__after_any_roll_backs__reads_as_it_stands_from_any_offset(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path)
    stands = grown(log, seed)
    assert_reads(log, path, stands)
    known = tables(log)
    log.close()
    log = SqliteLog(path)
    assert tables(log) == known
    assert_reads(log, path, stands)
    log.rebuild()
    done = log._db.execute("SELECT is_done FROM rollbacks ORDER BY epoch").fetchall()
    assert [one[:-2] for one in tables(log)[1]] == [one[:-2] for one in known[1]]  # type: ignore[attr-defined]
    assert tables(log)[2:] == known[2:]
    assert log._places == known[0]
    assert {one for (one,) in done[:-1]} <= {1}
    log.close()
    assert not [one.findings for one in check_folder(tmp_path) if one.findings]


@pytest.mark.parametrize("seed", SEEDS)
def test_journals__of_one_stream__are_the_same_however_it_is_taken(tmp_path: Path, seed: int) -> None:
    stream = Messages()
    leader = SqliteLog(tmp_path / "leader.sqlite", stream)
    stands = grown(leader, seed)
    assert [body for body, _ in leader.bodies(0)] == stream.bodies
    rng = random.Random(seed)
    path = tmp_path / "follower.sqlite"
    follower = SqliteLog(path)
    while follower.places < len(stream.bodies):
        some = stream.bodies[follower.places : follower.places + rng.randrange(1, 9)]
        follower.take(some, follower.places)
        follower.tidy()
        if rng.random() < 0.2:
            follower.close()
            follower = SqliteLog(path)
    assert (follower.head_hash, follower.end) == (leader.head_hash, leader.end)
    assert_reads(follower, path, stands)
    assert [one[:-2] for one in tables(follower)[1]] == [one[:-2] for one in tables(leader)[1]]  # type: ignore[attr-defined]
    assert tables(follower)[2:] == tables(leader)[2:]
    assert follower._places == leader._places
    assert list(follower.superseded()) == list(leader.superseded())
    leader.close()
    follower.close()


def test_superseded__is_all_that_stood_once(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    for one in numbered(0, 6):
        log.append(one, log.end)
    log.rewrite(4, numbered(4, 2, 50), 2, ["a"])
    log.rewrite(3, numbered(3, 1, 60), 1, ["b"], is_cut=True)
    old = [(place, replace(one, control=None)) for place, one in log.superseded()]
    assert old == [
        *zip(range(3, 6), numbered(3, 3), strict=True),
        *zip(range(6, 8), numbered(4, 2, 50), strict=True),
    ]
    assert list(log.read(0)) == [*numbered(0, 3), *numbered(3, 1, 60)]
    log.close()


def test_staged_entries__that_nothing_has_count__are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path)
    encode = log._encode
    log.take([encode(one) for one in numbered(0, 4)], 0)
    staged = [encode(replace(one, control=Staged())) for one in numbered(2, 2, 50)]
    log.take(staged, 4)
    assert (log.end, log.places, list(log.read(0))) == (4, 6, numbered(0, 4))
    log.close()
    log = SqliteLog(path)
    assert (log.end, log.places, list(log.read(0))) == (4, 6, numbered(0, 4))
    log.take([encode(entry(4))], 6)
    assert list(log.read(0)) == numbered(0, 5)
    assert [place for place, _ in log.superseded()] == [4, 5]
    assert_reads(log, path, numbered(0, 5))
    log.take(staged, 7)
    turn = TurnBack(1, 1, 3, 2, [], [], 3, False)
    log.take([encode(Entry(3, 0, bytes(32), [], control=turn))], 9)
    assert list(log.read(0)) == [*numbered(0, 3), *numbered(2, 2, 50)]
    log.close()


@pytest.mark.parametrize(
    ("bodies", "what"),
    [
        ([b""], "its body is no entry"),
        ([b"\x93\x01\x02\x03"], "its body is no entry"),
        ([replace(entry(4), control=Term(1, "a"))], "a Term with segments"),
        ([Entry(4, 0, b"", [], control=TurnBack(1, 1, 3, 1, [], [], 3, False))], "1 entries cannot replace"),
        ([Entry(4, 0, b"", [], control=TurnBack(1, 1, 5, 0, [], [], 3, True))], "0 entries cannot replace"),
        ([Entry(4, 0, b"", [], control=TurnBack(1, 1, -1, 0, [], [], 3, True))], "0 entries cannot replace"),
        ([Entry(4, 0, b"", [], control=TurnBack(2, 1, 3, 0, [], [], 3, True))], "roll-back 2 after 0"),
        (
            [
                replace(entry(2), control=Staged()),
                Entry(4, 0, b"", [], control=TurnBack(1, 1, 2, 1, [], [], 3, False)),
            ],
            "1 entries cannot replace those from offset 2",
        ),
    ],
)
def test_body__that_no_writer_can_have_put_there__is_refused_with_all_of_its_call(
    tmp_path: Path, bodies: list[bytes | Entry], what: str
) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    log.take([log._encode(one) for one in numbered(0, 4)], 0)
    head = log.head_hash
    some = [one if isinstance(one, bytes) else log._encode(one) for one in bodies]
    with pytest.raises(LogError, match=what) as caught:
        log.take([log._encode(entry(4)), *some] if len(some) == 1 and b"" in some else some, 4)
    assert not isinstance(caught.value, LogLost)
    assert (log.end, log.places, log.head_hash, len(list(log.bodies(0)))) == (4, 4, head, 4)
    log.close()


def test_take__at_another_place__is_refused(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    with pytest.raises(LogLost, match="place 1 expected, the log ends at 0"):
        log.take([log._encode(entry(0))], 1)
    log.close()


@pytest.mark.parametrize("error", [LogError, LogLost])
@pytest.mark.parametrize("sent", range(3))
def test_stream__that_fails_in_a_roll_back__leaves_the_journal_as_it_was(
    tmp_path: Path, sent: int, error: type[LogError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "STREAM_BYTES", 300)
    stream = Messages()
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, stream)
    for one in numbered(0, 6):
        log.append(one, log.end)
    stream.fails, stream.error = sent, error
    before = list(log.bodies(0))
    with pytest.raises(LogError) as caught:
        log.rewrite(2, numbered(2, 4, 50), 1, ["a"])
    assert isinstance(caught.value, LogLost) is (error is LogLost or sent > 0)
    assert list(log.bodies(0)) == before
    log.close()
    stream.fails = 10**9
    log = SqliteLog(path, stream)
    log.take(stream.bodies[log.places :], log.places)
    assert list(log.read(0)) == numbered(0, 6)
    log.rewrite(2, numbered(2, 4, 50), 1, ["a"])
    assert list(log.read(0)) == [*numbered(0, 2), *numbered(2, 4, 50)]
    assert [body for body, _ in log.bodies(0)] == stream.bodies
    log.close()


def test_append__that_the_stream_refuses__is_not_there(tmp_path: Path) -> None:
    stream = Messages()
    log = SqliteLog(tmp_path / "log.sqlite", stream)
    log.append(entry(0), 0)
    stream.fails = 0
    with pytest.raises(LogError, match="the stream does not answer"):
        log.append(entry(1), 1)
    assert (log.end, len(list(log.read(0)))) == (1, 1)
    stream.fails = 10**9
    log.append(entry(1), 1)
    assert list(log.read(0)) == numbered(0, 2)
    assert [body for body, _ in log.bodies(0)] == stream.bodies
    log.close()


def test_append__that_is_in_the_stream_alone__has_its_writer_stand_down(tmp_path: Path) -> None:
    stream = Messages()
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, stream)
    log.append(entry(0), 0)
    log._db.execute("PRAGMA query_only = 1")
    with pytest.raises(LogLost, match="place 1 is in the stream alone"):
        log.append(entry(1), 1)
    log.close()
    log = SqliteLog(path, stream)
    log.take(stream.bodies[log.places :], log.places)
    assert list(log.read(0)) == numbered(0, 2)
    log.close()


@pytest.mark.parametrize("place", [0, 3, 30, 58, 59])
@pytest.mark.parametrize("column", ["body", "hash"])
def test_journal__that_is_damaged__comes_from_the_stream_again(
    tmp_path: Path, place: int, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Messages()
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, stream)
    for one in numbered(0, 60):
        log.append(one, log.end)
        log.tidy()
    before, head = list(log.bodies(0)), log.head_hash
    table = "packs" if log._db.execute("SELECT 1 FROM packs WHERE end > ?", (place,)).fetchone() else "ticks"
    key = "first" if table == "packs" else "place"
    log._db.execute(
        f"UPDATE {table} SET {column} = zeroblob(40) WHERE {key} = "
        f"(SELECT MAX({key}) FROM {table} WHERE {key} <= ?)",
        (place,),
    )
    log.close()
    with pytest.raises(StoreDamaged):
        SqliteLog(path)
    log = SqliteLog(path, stream)
    assert "is damaged: from there on it comes from the stream" in caplog.text
    assert log.places <= place
    log.take(stream.bodies[log.places :], log.places)
    assert (list(log.bodies(0)), log.head_hash, log.end) == (before, head, 60)
    log.close()
    SqliteLog(path).close()


def test_journal__damaged_before_a_roll_back__is_refused(tmp_path: Path) -> None:
    stream = Messages()
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, stream)
    for one in numbered(0, 4):
        log.append(one, log.end)
    log.rewrite(2, numbered(2, 2, 50), 1, ["a"])
    log._db.execute("UPDATE ticks SET body = x'00' WHERE place = 1")
    log.close()
    with pytest.raises(StoreDamaged, match="hash chain broken at place 1"):
        SqliteLog(path, stream)
