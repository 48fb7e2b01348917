"""Snapshots: taken for what they prove, left out when they prove nothing; the log has the last word."""

import random
from pathlib import Path

import pytest

from sequencer import snapshots
from sequencer.engine import ReplayError, replay
from sequencer.log import SqliteLog
from sequencer.protocol.state import State
from sequencer.snapshots import load, recover, save
from tests.simulation.little import DOMAIN, Little, genesis

TICKS = 12


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    """Some ticks of trading."""
    opened = SqliteLog(tmp_path / "log.sqlite")
    little = Little()
    for _ in range(TICKS - len(little.entries)):
        little.run(little.orders(8))
    for entry in little.entries:
        opened.append(entry, opened.end)
    return opened


def state_at(log: SqliteLog, offset: int) -> State:
    state = genesis()
    for entry in list(log.read(0))[:offset]:
        replay(state, entry)
    return state


def folder_with(log: SqliteLog, tmp_path: Path, *offsets: int) -> Path:
    for offset in offsets:
        save(tmp_path / "snapshots", state_at(log, offset), offset)
    return tmp_path / "snapshots"


def test_recover__without_snapshots__replays_the_whole_log(log: SqliteLog, tmp_path: Path) -> None:
    state, replayed = recover(tmp_path / "none", log, genesis())
    assert (state.root(), replayed) == (state_at(log, TICKS).root(), TICKS)


@pytest.mark.parametrize("at", [1, 5, TICKS])
def test_recover__from_a_snapshot__replays_the_tail_alone(log: SqliteLog, tmp_path: Path, at: int) -> None:
    state, replayed = recover(folder_with(log, tmp_path, at), log, genesis())
    assert (state.root(), replayed) == (state_at(log, TICKS).root(), TICKS - at)
    # and it goes on as the state that was never written
    little = Little()
    little.engine.state = state
    other = state_at(log, TICKS)
    little.nonces = [200] * 4
    little.run(little.orders(8))
    replay(other, little.entries[-1])


def test_state__from_its_preimages__is_the_state(log: SqliteLog, tmp_path: Path) -> None:
    state = state_at(log, TICKS)
    found, offset = load(save(tmp_path / "snapshots", state, TICKS), DOMAIN)
    assert offset == TICKS
    assert found.root() == state.root()
    assert list(found.preimages()) != []
    assert sorted(found.preimages()) == sorted(state.preimages())
    assert {one: len(book) for one, book in found.books.items() if len(book)} == {
        one: len(book) for one, book in state.books.items() if len(book)
    }
    assert found.holders.keys() == state.holders.keys()


def test_save__keeps_the_newest_few_and_clears_what_a_crash_left(log: SqliteLog, tmp_path: Path) -> None:
    folder = folder_with(log, tmp_path, 2, 4)
    (folder / "state-000000000003.tmp").write_bytes(b"half")
    folder_with(log, tmp_path, 6)
    assert [path.name for path in sorted(folder.iterdir())] == [
        "state-000000000004.zst",
        "state-000000000006.zst",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: bytes(len(data)),
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: data[: len(data) // 2] + data[len(data) // 2 + 1 :],
        lambda data: b"not a snapshot",
    ],
    ids=["empty", "half", "cut", "zeros", "bit", "gap", "text"],
)
def test_damaged_snapshot__is_left_out_for_the_older_one(log: SqliteLog, tmp_path: Path, damage) -> None:
    folder = folder_with(log, tmp_path, 4, 8)
    newest = folder / "state-000000000008.zst"
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(ReplayError, match="state-000000000008"):
        load(newest, DOMAIN)
    state, replayed = recover(folder, log, genesis())
    assert (state.root(), replayed) == (state_at(log, TICKS).root(), TICKS - 4)


def test_damage_at_any_place__is_noticed(log: SqliteLog, tmp_path: Path) -> None:
    path = folder_with(log, tmp_path, 8) / "state-000000000008.zst"
    good = path.read_bytes()
    dice = random.Random(1)
    for _ in range(150):
        data = bytearray(good)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(data))
        try:
            state, at = load(path, DOMAIN)
        except ReplayError:
            continue
        assert (at, state.root()) == (8, state_at(log, 8).root())  # a bit that says nothing


def test_damaged_words__that_decompress_well__are_noticed(log: SqliteLog, tmp_path: Path) -> None:
    import msgspec
    import zstandard

    path = folder_with(log, tmp_path, 8) / "state-000000000008.zst"
    good = zstandard.decompress(path.read_bytes())
    dice = random.Random(2)
    for _ in range(150):
        data = bytearray(good)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(zstandard.compress(bytes(data)))
        state, _ = recover(path.parent, log, genesis())
        assert state.root() == state_at_end(log)
    assert msgspec.msgpack.decode(good, type=snapshots.Snapshot).offset == 8


def state_at_end(log: SqliteLog) -> bytes:
    return next(iter(log.read(log.end - 1))).root


def test_all_snapshots_damaged__the_log_alone_gives_the_state(log: SqliteLog, tmp_path: Path) -> None:
    folder = folder_with(log, tmp_path, 4, 8)
    for path in folder.iterdir():
        path.write_bytes(b"")
    state, replayed = recover(folder, log, genesis())
    assert (state.root(), replayed) == (state_at_end(log), TICKS)


def test_snapshot__ahead_of_the_log__is_left_out(log: SqliteLog, tmp_path: Path) -> None:
    folder = folder_with(log, tmp_path, 3)
    save(folder, state_at(log, TICKS), TICKS + 1)
    state, replayed = recover(folder, log, genesis())
    assert (state.root(), replayed) == (state_at_end(log), TICKS - 3)


def test_snapshot__with_the_wrong_offset__is_left_out(log: SqliteLog, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    save(folder, state_at(log, 6), 7)
    state, replayed = recover(folder, log, genesis())
    assert (state.root(), replayed) == (state_at_end(log), TICKS)


def test_snapshot__of_another_log__is_left_out(log: SqliteLog, tmp_path: Path) -> None:
    other = Little()
    while len(other.entries) < 6:
        other.run([other.rest(0, 0, 1_000)])
    save(tmp_path / "snapshots", other.state, 6)
    state, replayed = recover(tmp_path / "snapshots", log, genesis())
    assert (state.root(), replayed) == (state_at_end(log), TICKS)
