"""Rebuilds the exchange from L1 data alone: posted payloads, nothing of the sequencer's.

Every batch passes all of the watcher's checks (`execution.py`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sequencer.engine.engine import ReplayError
from sequencer.genesis import genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.proof.audit import Fault
from sequencer.proof.execution import Execution, Facts, HeaderFacts
from sequencer.protocol.params import Params
from sequencer.protocol.state import State


@dataclass(slots=True)
class Replayed:
    """Result of a replay: the state, and how much L1 data it came from."""

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
    facts: Facts | None = None,
    is_final: Callable[[Fault], None] | None = None,
) -> Replayed:
    """The state after all `posted` batches, the first of them batch 1. `facts`: L1's word; None: the headers'.

    Raises ReplayError at the first batch that is wrong. `is_final`: all are, so that nobody can take them back: one
    that is wrong and leads to its root all the same is told of and counts.
    """
    run = Execution(genesis_state(domain, params), facts or HeaderFacts())
    out = Replayed(run.state)
    for one in posted:
        fault = run.execute(one, out.batches + 1)
        if fault is not None:
            if is_final is None or not run.is_led_to(one, fault):
                raise ReplayError(str(fault))
            is_final(fault)
        out.batches += 1
        out.records += one.records
        out.payload_bytes += len(one.payload)
        progress(one)
    out.final_root = run.state.root()
    return out
