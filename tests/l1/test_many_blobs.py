"""A batch of six blobs, as a backlog gives: posted, followed, and challenged in each blob and across their bounds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1 import blobs, chains
from sequencer.l1.batch import Batch
from sequencer.l1.chains import Chain
from sequencer.l1.rpc import to_bytes
from sequencer.proof.audit import FaultKind
from sequencer.proof.challenge import SEGMENT_ELEMENTS_MAX, arbiter, bounds, challenge_segment
from sequencer.proof.challenger import Challenger
from sequencer.proof.watcher import WatchConfig, Watcher
from sequencer.proof.witness import Tracer
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol.batch import Segment
from sequencer.protocol.constants import ELEMENT_BYTES, SEGMENT_WEIGHT_MAX, Kind
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

from .conftest import GENESIS_TIME_S, TRADER, install_or_skip
from .test_blobs import Blobs
from .test_challenge import PARAMS

SEGMENTS = 1_870
LARGEST = 1
TICKS = 2
TABLES = batches.tables(SEGMENTS, TICKS)
BLOBS = 6


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    install_or_skip()
    with chains.start(
        "anvil", genesis_time_s=GENESIS_TIME_S, log_dir=tmp_path_factory.mktemp("a")
    ) as started:
        yield started


def records_of(index: int) -> tuple[bytes, ...]:
    """Surfaces that no feed has signed, which are no-ops; one segment of as many elements as the weight lets in."""
    surface = bytes([Kind.SURFACE]).ljust(4 * ELEMENT_BYTES, b"\0")
    tick = codec.encode(Kind.TICK, time=GENESIS_TIME_S)
    records = (tick, *[surface] * 10, tick) if index == LARGEST else (surface,) * 3
    assert sum(map(batches.weight, records)) <= SEGMENT_WEIGHT_MAX
    return records


def blobs_of(payload: bytes, index: int) -> set[int]:
    """The blobs that hold the records of a segment."""
    where = bounds(payload, SEGMENTS, TICKS, index)
    return {element // blobs.BLOB_ELEMENTS for element in range(TABLES + where.start, TABLES + where.end)}


def places(payload: bytes) -> list[int]:
    """The largest segment; one in the second, fourth and last blob alone; the ones that straddle two of the bounds."""
    lie_in: dict[tuple[int, ...], list[int]] = {}
    for index in range(LARGEST + 1, SEGMENTS - 1):
        lie_in.setdefault(tuple(sorted(blobs_of(payload, index))), []).append(index)
    assert len(lie_in) == 2 * BLOBS - 1
    return [LARGEST, *(lie_in[key][len(lie_in[key]) // 2] for key in ((0, 1), (1,), (3,), (4, 5), (5,)))]


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_segments__in_any_of_six_blobs_and_across_their_bounds__are_challenged(
    anvil: Chain, tmp_path: Path
) -> None:
    on = Blobs(anvil, tmp_path, genesis_root(PARAMS))
    domain = codec.domain_separator(on.at.chain_id, to_bytes(on.at.rollup))
    state = genesis_state(domain, PARAMS)
    honest: list[Segment] = []
    for index in range(SEGMENTS):
        for raw in records_of(index):
            apply(state, raw)
        honest.append(Segment(state.root(), records_of(index)))
    payload = batches.encode(honest)
    assert blobs.count(len(payload)) == BLOBS
    wrong = places(payload)
    told = [
        replace(one, root=bytes([one.root[0] ^ 1]) + one.root[1:]) if index in wrong else one
        for index, one in enumerate(honest)
    ]
    count = sum(len(one.records) for one in honest)
    head = (1, genesis_root(PARAMS), honest[-1].root, SEGMENTS, count, 0, GENESIS_TIME_S)
    on.post(Batch(*head, 0, bytes(32), state.globals.work, TICKS, TICKS, batches.encode(told)))
    on.manager.close()
    assert on.poster.status().blob_gas_used == BLOBS * blobs.GAS_PER_BLOB
    [posted] = on.batches()
    assert len(posted.blob_hashes) == BLOBS

    def verdict(index: int, before: State) -> tuple[bool, bytes]:
        check = challenge_segment(posted, index, Tracer.of(before))
        sender = anvil.signer(TRADER).address
        answer = anvil.rpc.eth_call(on.at.arbiter, check.call, "latest", sender)
        is_fraud, _, _, root = arbiter().function("check_segment").decode_output(answer)
        return bool(is_fraud), bytes(root)

    state = genesis_state(domain, PARAMS)
    for index in range(wrong[-1] + 1):
        if index in wrong:
            assert verdict(index, state) == (True, honest[index].root), blobs_of(payload, index)
        elif index == wrong[-2] - 1:
            assert not verdict(index, state)[0]
        for raw in records_of(index):
            apply(state, raw)

    challenger = Challenger(anvil.rpc, on.at, anvil.signer(TRADER), tmp_path)
    watcher = Watcher(anvil.rpc, on.at, PARAMS, tmp_path / "watch", WatchConfig(confirmations=0), challenger)
    fault = None
    for _ in range(8):
        watcher.step()
        fault = fault or watcher.fault
        if watcher.challenged is not None and watcher.challenged.state == "won":
            break
        anvil.mine()
    assert fault is not None
    assert (fault.kind, fault.segment) == (FaultKind.ROOT, LARGEST)
    assert watcher.challenged is not None
    assert watcher.challenged.state == "won", watcher.challenged
    print(f"{SEGMENT_ELEMENTS_MAX} elements: {watcher.challenged.gas} gas")
    assert on.batches() == []
    watcher.close()
