"""The state from posted batches alone, and the first thing that does not fit named."""

import dataclasses
from pathlib import Path

import pytest

from sequencer.engine.engine import ReplayError
from sequencer.l1.follower import PostedBatch
from sequencer.log.sqlite import SqliteLog
from sequencer.proof.audit import Fault, FaultKind
from sequencer.proof.replay import replay
from sequencer.protocol import batch, codec
from sequencer.protocol.constants import Kind
from sequencer.rollup.batcher import Batcher
from tests.simulation.little import DOMAIN, PARAMS, Little, deposit, genesis


@pytest.fixture
def little() -> Little:
    made = Little()
    for _ in range(4):
        made.run(made.orders(16), [deposit(0, amount=1_000)])
    return made


@pytest.fixture
def posted(little: Little, tmp_path: Path) -> list[PostedBatch]:
    """As the follower reads them."""
    log = SqliteLog(tmp_path / "log.sqlite")
    for entry in little.entries:
        log.append(entry, log.end)
    hashes = [bytes(32)]
    for raw in (raw for entry in little.entries for raw in entry.raws()):
        if raw[0] == Kind.DEPOSIT:
            hashes.append(codec.inbox_hash(hashes[-1], raw))
    batcher = Batcher(tmp_path / "batches.sqlite", log, genesis().root(), 2_500)
    out = []
    while (one := batcher.build(True)) is not None:
        out.append(
            PostedBatch(
                one.batch_id,
                bytes(32),
                one.post_root,
                batch.data_root(one.payload),
                bytes(32),
                len(one.payload) // 31,
                one.segments,
                one.records,
                one.first_seq,
                one.time_s,
                one.inbox_count,
                hashes[one.inbox_count],
                one.work,
                one.tick,
                one.ticks,
                one.payload,
                one.batch_id,
                "0x",
                "0x",
            )
        )
    batcher.close()
    log.close()
    assert len(out) > 2
    return out


def test_replay__of_all_batches__is_the_state(little: Little, posted: list[PostedBatch]) -> None:
    seen: list[PostedBatch] = []
    rebuilt = replay(posted, DOMAIN, PARAMS, seen.append)
    assert rebuilt.final_root == rebuilt.state.root() == little.state.root()
    assert rebuilt.records == little.state.globals.seq
    assert rebuilt.batches == len(posted)
    assert rebuilt.payload_bytes == sum(len(one.payload) for one in posted)
    assert seen == posted


def test_replay__of_nothing__is_genesis() -> None:
    assert replay([], DOMAIN, PARAMS).batches == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"post_root": bytes(32)}, "post_root: the post-root is not what the records give"),
        ({"time_s": 1}, "time: the header says 1, the records give "),
        ({"records": 1}, "records: the header says 1, the records give "),
        ({"inbox_count": 0}, "inbox_count: the header says 0, the records give "),
        ({"inbox_hash": bytes(32)}, "inbox: .*message"),
        ({"work": 1}, "work: the header says 1, the records give "),
        ({"tick": 1}, "tick: the header says 1, the records give "),
        ({"ticks": 0}, "record: its last record, PLACE, is cut off"),
        ({"first_seq": 0}, "order: it begins at seq 0, the state stands at "),
        ({"segments": 1}, "bounds: it spans bytes"),
        ({"payload": b"\0" * 30}, "bounds: it spans bytes"),
        ({"batch_id": 7}, "order: it stands where batch 2 is next"),
    ],
)
def test_replay__stops_at_the_first_header_that_lies(
    posted: list[PostedBatch], change: dict[str, object], message: str
) -> None:
    posted[1] = dataclasses.replace(posted[1], **change)  # type: ignore[arg-type]
    with pytest.raises(ReplayError, match=rf"batch \d, segment \d+, {message}"):
        replay(posted, DOMAIN, PARAMS)


@pytest.mark.parametrize("place", ["root", "record"])
def test_replay__stops_at_the_first_segment_that_lies(posted: list[PostedBatch], place: str) -> None:
    payload = bytearray(posted[1].payload)
    payload[0 if place == "root" else -40] ^= 1
    posted[1] = dataclasses.replace(posted[1], payload=bytes(payload))
    with pytest.raises(
        ReplayError, match=r"batch 2, segment \d+, root: the root is not what the records give"
    ):
        replay(posted, DOMAIN, PARAMS)


def test_replay__without_a_batch_in_the_middle__says_so(posted: list[PostedBatch]) -> None:
    del posted[1]
    with pytest.raises(ReplayError, match="batch 3, segment 0, order: it stands where batch 2 is next"):
        replay(posted, DOMAIN, PARAMS)


def heavy(posted: list[PostedBatch]) -> PostedBatch:
    """Batch 2 with its first two segments as one, which is too heavy to be executed in one transaction."""
    one = posted[1]
    first, second, *rest = batch.decode(one.payload, one.segments, one.ticks)
    both = batch.Segment(second.root, first.records + second.records)
    return dataclasses.replace(one, segments=one.segments - 1, payload=batch.encode([both, *rest]))


def test_replay__of_a_segment_that_is_too_heavy__is_refused_though_its_root_is_right(
    posted: list[PostedBatch],
) -> None:
    posted[1] = heavy(posted)
    with pytest.raises(ReplayError, match="batch 2, segment 0, weight: its records weigh"):
        replay(posted, DOMAIN, PARAMS)


def test_replay__of_final_batches__takes_what_leads_to_its_root_and_tells(
    little: Little, posted: list[PostedBatch]
) -> None:
    posted[1] = dataclasses.replace(heavy(posted), work=1)
    told: list[Fault] = []
    rebuilt = replay(posted, DOMAIN, PARAMS, is_final=told.append)
    assert rebuilt.final_root == little.state.root()
    assert [(fault.batch_id, fault.kind) for fault in told] == [(2, FaultKind.WEIGHT)]
    posted[2] = dataclasses.replace(posted[2], post_root=bytes(32))
    with pytest.raises(ReplayError, match=r"batch 3, segment \d+, post_root"):
        replay(posted, DOMAIN, PARAMS, is_final=told.append)
