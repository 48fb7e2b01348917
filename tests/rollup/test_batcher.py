"""From the log to batches: each segment once, in order, within the size that L1 takes, whatever happens in between."""

import contextlib
import sqlite3
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec
import pytest

from sequencer.checksums import StoreDamaged
from sequencer.l1 import blobs
from sequencer.l1.batch import Batch
from sequencer.l1.payload import PAYLOAD_BYTES_MAX
from sequencer.log.interface import Entry, LogLost
from sequencer.log.sqlite import SqliteLog
from sequencer.protocol import batch, codec, receipts, work
from sequencer.protocol.constants import ELEMENT_BYTES, Kind
from sequencer.rollup.batcher import Batcher, read_stored
from tests.simulation.little import Little, deposit, genesis

SMALL = 3_000
GENESIS_ROOT = genesis().root()


@pytest.fixture
def little() -> Little:
    made = Little()
    for number in range(6):
        made.run(made.orders(24), [deposit(number % 4, amount=1_000)])
    return made


@pytest.fixture
def log(little: Little, tmp_path: Path) -> SqliteLog:
    opened = SqliteLog(tmp_path / "log.sqlite")
    for entry in little.entries:
        opened.append(entry, opened.end)
    return opened


def all_of(batcher: Batcher) -> list[Batch]:
    built = []
    while (one := batcher.build(True)) is not None:
        built.append(one)
    return built


def segments_of(entries: list[Entry]) -> list[tuple[bytes, tuple[bytes, ...]]]:
    return [(one.root[:ELEMENT_BYTES], one.records) for entry in entries for one in entry.batch_segments()]


def check(batches: list[Batch], entries: list[Entry], size_max: int) -> None:
    """The batches hold the entries' segments, each once and in order, and their headers say what is in them."""
    decoded = [batch.decode(one.payload, one.segments, one.ticks) for one in batches]
    assert [(one.root, one.records) for some in decoded for one in some] == segments_of(entries)
    assert [one.batch_id for one in batches] == list(range(1, len(batches) + 1))
    seq = inbox = 0
    root, running = GENESIS_ROOT, bytes(32)
    for one, segments in zip(batches, decoded, strict=True):
        records = [raw for segment in segments for raw in segment.records]
        for raw in records:
            if raw[0] == Kind.DEPOSIT:
                inbox, running = inbox + 1, codec.inbox_hash(running, raw)
        assert (one.first_seq, one.records, one.inbox_count) == (seq, len(records), inbox)
        assert (one.pre_root, one.inbox_hash) == (root, running)
        root = one.post_root
        assert one.post_root[:ELEMENT_BYTES] == segments[-1].root
        assert len(one.payload) <= size_max <= blobs.BLOBS_MAX * blobs.BLOB_PAYLOAD_BYTES
        seq += len(records)
    times = [one.time_s for one in batches]
    assert times == sorted(times)
    assert times[-1] == entries[-1].time


def test_build__that_gives_none__says_how_much_is_left(
    little: Little, tmp_path: Path, log: SqliteLog
) -> None:
    """Whoever counts from there on knows when the next one is full."""
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, 2_000)
    while batcher.build(False) is not None:
        pass
    left = batcher.left_bytes
    assert 0 < left <= 2_000
    last = batcher.build(True)
    assert last is not None
    assert len(last.payload) == left
    batcher.close()


@pytest.mark.parametrize("size", [1_400, SMALL, 10_000, PAYLOAD_BYTES_MAX])
def test_batches__hold_every_segment_once_and_in_order(
    log: SqliteLog, little: Little, tmp_path: Path, size: int
) -> None:
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, size)
    built = all_of(batcher)
    check(built, little.entries, size)
    assert batcher.waiting() == 0
    assert list(read_stored(tmp_path / "batches.sqlite", log, 1)) == built[:16]
    assert list(read_stored(tmp_path / "batches.sqlite", log, 2)) == built[1:17]
    assert batcher.last() == (built[-1].batch_id, built[-1].post_root)
    batcher.close()


def test_store__of_a_version_without_ticks__stops_the_start(log: SqliteLog, tmp_path: Path) -> None:
    """No Rollup of today would take the batches in it."""
    path = tmp_path / "batches.sqlite"
    batcher = Batcher(path, log, GENESIS_ROOT, SMALL)
    all_of(batcher)
    batcher.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ALTER TABLE batches DROP COLUMN ticks")
        db.execute("ALTER TABLE batches DROP COLUMN tick")
    with pytest.raises(StoreDamaged, match=r"did not commit to the headers of ticks.*deploy anew"):
        Batcher(path, log, GENESIS_ROOT, SMALL)


@pytest.mark.parametrize("size", [700, SMALL, PAYLOAD_BYTES_MAX])
def test_batches__hold_the_id_of_each_ticks_header_in_order(
    little: Little, tmp_path: Path, size: int
) -> None:
    """Headers, ids alone, and ticks that nobody has signed: in the batch in which the tick begins."""
    log, ids = SqliteLog(tmp_path / "log.sqlite"), []
    for number, entry in enumerate(little.entries):
        kept = receipts.stored(header_of(entry)) if number % 3 == 0 else bytes([number]) * ELEMENT_BYTES
        heads = [] if number % 3 == 2 else [kept]
        ids.append(batch.NO_ID if not heads else header_of(entry).id if number % 3 == 0 else kept)
        log.append(msgspec.structs.replace(entry, heads=heads), log.end)
    path = tmp_path / "batches.sqlite"
    batcher = Batcher(path, log, GENESIS_ROOT, size)
    built = all_of(batcher)
    check(built, little.entries, size)
    assert [one for each in built for one in batch.ids_in(each.payload, each.segments, each.ticks)] == ids
    for one in built:
        segments = batch.decode(one.payload, one.segments, one.ticks)
        assert one.ticks == sum(raw[0] == Kind.TICK for segment in segments for raw in segment.records)
    assert [one.tick for one in built] == list(accumulate(one.ticks for one in built))
    assert built[-1].tick == little.engine.state.globals.tick
    assert all(batcher.is_as_logged(one.batch_id) for one in built)
    assert list(read_stored(path, log, 1)) == built[:16]
    batcher.close()


def header_of(entry: Entry) -> receipts.Header:
    return receipts.Header(1, 2, 0, 7, b"\3" * 31, entry.first_seq, entry.records, b"\4" * 32, entry.root, 5)


def test_batch__whose_log_is_another__is_not_posted(log: SqliteLog, little: Little, tmp_path: Path) -> None:
    path = tmp_path / "batches.sqlite"
    batcher = Batcher(path, log, GENESIS_ROOT, SMALL)
    built = all_of(batcher)
    batcher.close()
    other = SqliteLog(tmp_path / "other.sqlite")
    last = little.entries[-1]
    changed = msgspec.structs.replace(last, time=last.time + 1)
    for entry in (*little.entries[:-1], changed):
        other.append(entry, other.end)
    found: list[Batch] = []
    with pytest.raises(StoreDamaged, match=r"batch \d is not what the log gives: it is not posted"):
        found.extend(read_stored(path, other, 1))
    assert found == built[: len(found)]
    assert 0 < len(found) < len(built)


def test_batches__of_less_than_one_tick__end_inside_it(
    log: SqliteLog, little: Little, tmp_path: Path
) -> None:
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, 400)
    built = all_of(batcher)
    ends = [batcher.after_batch(one.batch_id) for one in built]
    assert any(end is not None and end[1] > 0 for end in ends)
    assert len(built) > len(little.entries)
    batcher.close()


@pytest.mark.parametrize("in_blobs", [False, True])
def test_batches__cost_no_more_than_the_budget_holds(
    log: SqliteLog, little: Little, tmp_path: Path, in_blobs: bool
) -> None:
    """Cut by what their records do: what costs more could never be posted."""
    most = work.of_batch(work.SEGMENT_MAX, int(in_blobs))
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, None, in_blobs, most)
    assert batcher.is_work_full(little.entries[-1].segments[-1][2])
    full = []
    while (one := batcher.build(False)) is not None:
        full.append(one)
    built = full + all_of(batcher)
    check(built, little.entries, blobs.BLOB_PAYLOAD_BYTES)
    before = 0
    costs = []
    for one in built:
        costs.append(work.of_batch(one.work - before, int(in_blobs)))
        before = one.work
    assert before == little.engine.state.globals.work
    assert max(costs) <= most
    heaviest = max(
        second[2] - first[2] for entry in little.entries for first, second in pairwise(entry.segments)
    )
    assert all(cost > most - heaviest - work.SEGMENT_MAX // 10 for cost in costs[: len(full)])
    assert [batcher.work_after(one.batch_id) for one in built] == [one.work for one in built]
    assert batcher.work_after(0) == 0
    batcher.close()


def test_build__takes_full_batches_alone_unless_asked_for_all(
    log: SqliteLog, little: Little, tmp_path: Path
) -> None:
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, SMALL)
    full = []
    while (one := batcher.build(False)) is not None:
        full.append(one)
    assert all(len(one.payload) > SMALL // 2 for one in full)
    assert batcher.build(False) is None
    check(full + all_of(batcher), little.entries, SMALL)
    batcher.close()


@pytest.mark.parametrize("size", [1_400, SMALL])
def test_batches__in_blobs__hold_as_many_as_a_backlog_fills(
    log: SqliteLog, little: Little, tmp_path: Path, size: int
) -> None:
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, size, in_blobs=True)
    built = all_of(batcher)
    check(built, little.entries, blobs.BLOBS_MAX * size)
    assert all(len(one.payload) > (blobs.BLOBS_MAX - 1) * size for one in built[:-1])
    assert len(built) > 1
    assert [batcher.is_as_logged(one.batch_id) for one in built] == [True] * len(built)
    batcher.close()


def test_build__in_blobs__takes_whole_blobs_alone_and_leaves_the_rest_unless_asked_for_all(
    log: SqliteLog, little: Little, tmp_path: Path
) -> None:
    segment_max = max(
        sum(map(len, one.records)) for entry in little.entries for one in entry.batch_segments()
    )
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, SMALL, in_blobs=True)
    full = []
    while (one := batcher.build(False)) is not None:
        full.append(one)
    for one in full:
        blob_count = -(-len(one.payload) // SMALL)
        assert len(one.payload) > blob_count * SMALL - segment_max - 3 * ELEMENT_BYTES
    rest = all_of(batcher)
    assert len(rest) == 1
    assert len(rest[0].payload) < SMALL
    check(full + rest, little.entries, blobs.BLOBS_MAX * SMALL)
    batcher.close()


@pytest.mark.parametrize("each", [1, 2, 3])
def test_batcher__started_anew_after_every_few_batches__goes_on_where_it_was(
    log: SqliteLog, little: Little, tmp_path: Path, each: int
) -> None:
    built: list[Batch] = []
    while True:
        batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, 1_000)
        some = [one for one in (batcher.build(True) for _ in range(each)) if one is not None]
        batcher.close()
        built += some
        if not some:
            break
    check(built, little.entries, 1_000)


def test_batches__while_the_log_grows(little: Little, tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, SMALL)
    built: list[Batch] = []
    for number, entry in enumerate(little.entries):
        log.append(entry, log.end)
        one = batcher.build(number % 3 == 0)
        built += [one] if one is not None else []
    check(built + all_of(batcher), little.entries, SMALL)
    batcher.close()


def test_holding__names_the_batch_of_a_record(log: SqliteLog, tmp_path: Path) -> None:
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, 1_000)
    assert batcher.holding(0) is None
    built = all_of(batcher)
    for one in built:
        assert batcher.holding(one.first_seq) == one.batch_id
        assert batcher.holding(one.first_seq + one.records - 1) == one.batch_id
    assert batcher.holding(built[-1].first_seq + built[-1].records) is None
    batcher.close()


@pytest.mark.parametrize(
    ("size", "in_blobs", "most"),
    [(0, False, 122_016), (-1, True, 126_976), (122_017, False, 122_016), (126_977, True, 126_976)],
)
def test_size__that_rollup_does_not_take__is_refused(
    log: SqliteLog, tmp_path: Path, size: int, in_blobs: bool, most: int
) -> None:
    with pytest.raises(ValueError, match=rf"payload_bytes must be in 1\.\.{most}"):
        Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, size, in_blobs)


@pytest.mark.parametrize("kept", [0, 3])
def test_log__shorter_than_the_batches__stops_the_start(
    log: SqliteLog, little: Little, tmp_path: Path, kept: int
) -> None:
    """Going on would give the lost sequence numbers to other orders, and post a batch that does not follow."""
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, SMALL)
    all_of(batcher)
    batcher.close()
    shorter = SqliteLog(tmp_path / "shorter.sqlite")
    for entry in little.entries[:kept]:
        shorter.append(entry, shorter.end)
    with pytest.raises(LogLost, match=f"it ends at offset {kept}, and batch .* restore it"):
        Batcher(tmp_path / "batches.sqlite", shorter, GENESIS_ROOT, SMALL)


def test_log__that_is_another__gives_no_batch(log: SqliteLog, little: Little, tmp_path: Path) -> None:
    batcher = Batcher(tmp_path / "batches.sqlite", log, GENESIS_ROOT, SMALL)
    all_of(batcher)
    batcher.close()
    other = Little()
    while len(other.entries) <= len(little.entries):
        other.run(other.orders(4))
    another = SqliteLog(tmp_path / "another.sqlite")
    for entry in other.entries:
        another.append(entry, another.end)
    batcher = Batcher(tmp_path / "batches.sqlite", another, GENESIS_ROOT, SMALL)
    with pytest.raises(LogLost, match="goes on at seq"):
        batcher.build(True)
    batcher.close()
