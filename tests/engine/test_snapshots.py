"""Snapshots: taken for what they prove, left out when they prove nothing; the log has the last word."""

import asyncio
import random
import time
from pathlib import Path

import msgspec
import pytest
import zstandard

from sequencer.engine import snapshots
from sequencer.engine.engine import ReplayError, replay
from sequencer.engine.signed import is_signed
from sequencer.engine.snapshots import Aside, load, recover, save
from sequencer.local.bench import key_of, owner_of
from sequencer.log.sqlite import SqliteLog
from sequencer.node.folder import only_process
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import State
from tests.simulation.little import DOMAIN, MID, Little, genesis, reasons, submission

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


def without_signatures(little: Little, path: Path, holds: bool) -> SqliteLog:
    """Its log, with zeros in the place of each signature."""
    log = SqliteLog(path)
    for entry in little.entries:
        segments = [
            (
                root,
                [
                    raw[: -c.SIGNATURE_BYTES] + bytes(c.SIGNATURE_BYTES) if is_signed(raw) else raw
                    for raw in raws
                ],
                work,
            )
            for root, raws, work in entry.segments
        ]
        log.append(msgspec.structs.replace(entry, segments=segments, holds=holds), log.end)
    return log


@pytest.mark.parametrize("verified", [0, 4, TICKS])
@pytest.mark.parametrize("holds", [False, True])
def test_recover__of_entries_that_were_verified__recovers_no_signer_again(
    tmp_path: Path, verified: int, holds: bool
) -> None:
    """By owners, session keys and feeds; and of all others it does."""
    little = Little()
    session = key_of(50)
    granted = little.signed(
        Kind.SET_SIGNER, 0, signer=owner_of(50), scope=c.SCOPE_TRADE, signer_expires=c.U32_MAX
    )
    assert reasons(little.run([granted])) == [Reason.OK]
    while len(little.entries) < TICKS:
        raw = codec.sign(little.rest(0, c.BUY, MID - 50).raw, DOMAIN, session)
        tick = little.run(
            [*little.orders(8), submission(raw, owner_of(50))], little.keeper.pass_one(little.now + 1)
        )
        assert set(reasons(tick)) == {Reason.OK}
        assert tick.entry is not None
        assert {Kind.PLACE, Kind.FEED} <= {raw[0] for raw in tick.entry.raws()}
        assert tick.entry.holds
    log = without_signatures(little, tmp_path / "log.sqlite", holds)
    if holds and verified == TICKS:
        state, replayed = recover(tmp_path / "none", log, genesis(), None, verified)
        assert (state.root(), replayed) == (little.state.root(), TICKS)
    else:
        with pytest.raises(ReplayError):
            recover(tmp_path / "none", log, genesis(), None, verified)
    log.close()


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
    for _ in range(300):
        data = bytearray(good)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(data))
        with pytest.raises(ReplayError, match="checksum"):
            load(path, DOMAIN)


def test_damaged_words__under_a_checksum_that_fits__are_noticed(log: SqliteLog, tmp_path: Path) -> None:
    """The root is taken of GLOBAL's fields: before, bits of its words that no field holds passed."""
    path = folder_with(log, tmp_path, 8) / "state-000000000008.zst"
    content = zstandard.decompress(snapshots.unframed(path.read_bytes()))
    good = msgspec.msgpack.decode(content, type=snapshots.Snapshot)
    dice = random.Random(2)
    places = [(place, at) for place, (_, words) in enumerate(good.leaves) for at in range(len(words))]
    is_global = [key == c.KEY_GLOBAL.to_bytes(32, "big") for key, _ in good.leaves].index(True)
    tried = [one for one in places if one[0] == is_global] + dice.sample(places, 150)
    for place, at in tried:
        key, words = good.leaves[place]
        changed = words[:at] + bytes([words[at] ^ 1 << dice.randrange(8)]) + words[at + 1 :]
        leaves = [*good.leaves[:place], (key, changed), *good.leaves[place + 1 :]]
        body = msgspec.msgpack.encode(snapshots.Snapshot(good.offset, good.root, leaves))
        path.write_bytes(snapshots.framed(zstandard.compress(body)))
        with pytest.raises(ReplayError):
            load(path, DOMAIN)


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


def test_snapshot_aside__is_of_the_moment_it_was_begun_at_and_the_state_goes_on(
    log: SqliteLog, tmp_path: Path
) -> None:
    state = state_at(log, 4)

    async def play() -> None:
        aside = Aside(tmp_path / "snapshots")
        aside.begin(state, 4)
        assert aside.is_busy
        for entry in log.read(4):
            replay(state, entry)
        await aside.end(60.0)
        assert not aside.is_busy
        assert (aside.written, aside.failed) == (1, 0)

    asyncio.run(play())
    found, offset = load(tmp_path / "snapshots" / "state-000000000004.zst", DOMAIN)
    assert (found.root(), offset) == (state_at(log, 4).root(), 4)
    assert state.root() == state_at(log, TICKS).root()


def linger(*_: object) -> None:
    time.sleep(600)


def test_snapshot_aside__given_up_or_without_room__leaves_none(
    log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_at(log, 4)

    async def play() -> None:
        (tmp_path / "file").write_bytes(b"")
        aside = Aside(tmp_path / "file" / "snapshots")  # no folder can be there
        aside.begin(state, 4)
        await aside.end(60.0)
        assert (aside.written, aside.failed) == (0, 1)

        aside = Aside(tmp_path / "snapshots")
        monkeypatch.setattr(snapshots, "save", linger)
        aside.begin(state, 4)
        await aside.end(0.01)
        assert (aside.is_busy, aside.failed) == (False, 1)

    asyncio.run(play())
    assert "ended with 1" in caplog.text
    assert "ended with -9" in caplog.text
    assert not list(tmp_path.rglob("state-*"))


def test_snapshot_aside__whose_sequencer_is_gone__is_not_put_in_its_place(
    log: SqliteLog, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="not wanted any more"):
        save(tmp_path, state_at(log, 4), 4, lambda: False)
    assert not list(tmp_path.glob("state-*"))


def test_snapshot_aside__holds_no_lock_of_the_process_it_comes_from(
    log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next start would find the folder held by a copy of the sequencer that was killed."""
    state, begun = state_at(log, 4), tmp_path / "begun"

    def begin_and_linger(*_: object) -> None:
        begun.touch()
        linger()

    async def play() -> None:
        monkeypatch.setattr(snapshots, "save", begin_and_linger)
        aside = Aside(tmp_path / "snapshots")
        with only_process(tmp_path / "node"):
            aside.begin(state, 4)
            while not begun.exists():  # noqa: ASYNC110  # another process sets no Event
                await asyncio.sleep(0.01)
        with only_process(tmp_path / "node"):
            pass
        await aside.end()

    asyncio.run(play())
