"""Rebuilds the exchange from L1 data alone: posted payloads and nothing of the sequencer's.

Every record is applied again and every committed root compared (its top 248 bits inside a batch, all of it at the end).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sequencer.engine import ReplayError
from sequencer.genesis import genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.log import LoggedSegment
from sequencer.protocol import batch as batches
from sequencer.protocol.constants import ELEMENT_BYTES
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply


@dataclass(slots=True)
class Replayed:
    """What L1 gave: the state, and how much of it there was."""

    state: State
    batches: int = 0
    records: int = 0
    payload_bytes: int = 0
    final_root: bytes = b""


def replay(
    posted: Iterable[PostedBatch],
    domain: bytes,
    params: Params,
    progress: Callable[[PostedBatch], None] = lambda _batch: None,
) -> Replayed:
    """The state after all `posted` batches. Raises ReplayError at the first root or header that L1 does not hold."""
    out = Replayed(genesis_state(domain, params))
    state = out.state
    for one in posted:
        replay_batch(state, one)
        out.batches += 1
        out.records += one.records
        out.payload_bytes += len(one.payload)
        progress(one)
    out.final_root = state.root()
    return out


def replay_batch(state: State, one: PostedBatch) -> list[LoggedSegment]:
    """Applies a batch; its segments as (root after it, all 32 bytes; records; GLOBAL's work after it).

    Raises ReplayError at the first root or header field that L1 does not hold; `state` is then of no more use.
    """
    where = f"batch {one.batch_id}"
    if state.globals.seq != one.first_seq:
        raise ReplayError(f"{where}: begins at seq {one.first_seq}, the state stands at {state.globals.seq}")
    try:
        segments = batches.decode(one.payload, one.segments)
    except batches.BatchError as error:
        raise ReplayError(f"{where}: {error}") from error
    applied: list[LoggedSegment] = []
    for number, segment in enumerate(segments):
        for raw in segment.records:
            apply(state, raw)
        root = state.root()
        if root[:ELEMENT_BYTES] != segment.root:
            raise ReplayError(f"{where}, segment {number}: the root is not what the records give")
        applied.append((root, list(segment.records), state.globals.work))
    g = state.globals
    if state.root() != one.post_root:
        raise ReplayError(f"{where}: the post-root is not what the records give")
    for name, held, claimed in (
        ("records", g.seq - one.first_seq, one.records),
        ("time", g.time, one.time_s),
        ("inbox count", g.inbox_count, one.inbox_count),
        ("inbox hash", g.inbox_hash, one.inbox_hash),
        ("work", g.work, one.work),
    ):
        if held != claimed:
            told, given = (f"0x{it.hex()}" if isinstance(it, bytes) else it for it in (claimed, held))
            raise ReplayError(f"{where}: the header's {name} is {told}, the records give {given}")
    return applied
