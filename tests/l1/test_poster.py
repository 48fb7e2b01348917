"""Batches reach L1 in order, each once; what L1 refuses or cannot be asked is waited for."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.l1.errors import BatchMismatch, BatchOutOfOrder, PayloadTooLarge
from sequencer.l1.poster import Poster, PosterConfig, PosterState, post_gas
from sequencer.l1.rpc import Rpc
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.protocol import work

from .conftest import GENESIS_TIME_S, SEQUENCER, BatchMaker, Exchange

ROLLUP = Contract(load("Rollup").abi)


def next_batch(exchange: Exchange) -> int:
    return int(ROLLUP.read(exchange.rpc, exchange.deployment.rollup, "next_batch"))


def poster_of(exchange: Exchange, manager: TxManager, config: PosterConfig | None = None) -> Poster:
    return Poster(exchange.rpc, manager, exchange.deployment.rollup, config)


def posts_sent(exchange: Exchange, first_nonce: int) -> int:
    return exchange.rpc.nonce(exchange.sequencer.address, "pending") - first_nonce


def test_batches__are_posted_in_order_each_in_one_transaction(
    exchange: Exchange, make_batch: BatchMaker
) -> None:
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    poster = poster_of(exchange, exchange.manager())
    assert poster.next_needed() == 1
    for batch_id in range(1, 11):
        poster.offer(make_batch(batch_id, 31 * 1_000))
    posted = poster.drain(60)
    assert [item.batch_id for item in posted] == list(range(1, 11))
    assert next_batch(exchange) == 11
    assert posts_sent(exchange, first_nonce) == 10
    status = poster.status()
    assert (status.state, status.queued, status.last_confirmed) == (PosterState.IDLE, 0, 10)
    assert status.gas_used == sum(item.gas_used or 0 for item in posted) > 0


def test_pipeline__sends_several_before_the_first_is_mined(
    exchange: Exchange, make_batch: BatchMaker
) -> None:
    poster = poster_of(exchange, exchange.manager(), PosterConfig(in_flight_max=3))
    exchange.chain.set_automine(False)
    try:
        for batch_id in range(1, 6):
            poster.offer(make_batch(batch_id))
        poster.step()
        poster.step()
        assert poster.status().in_flight == 3
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    assert [item.batch_id for item in poster.drain(60)] == [1, 2, 3, 4, 5]
    assert next_batch(exchange) == 6


HALF = work.SLOT_MAX // 2


def test_batch__that_the_budget_does_not_hold_yet__waits_and_goes_once(
    exchange: Exchange, make_batch: BatchMaker
) -> None:
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    poster = poster_of(exchange, exchange.manager())
    for batch_id in range(1, 4):
        poster.offer(make_batch(batch_id, work=batch_id * HALF))
    while poster.status().state is not PosterState.WAITING:
        poster.step()
    assert poster.status().reason.startswith("batch 2 goes when L1 has the work for it, in ")
    assert posts_sent(exchange, first_nonce) == 1
    for expected in (3, 4):  # half of the budget grows in six seconds, and what the batch itself costs
        exchange.chain.set_time(exchange.chain.head_time_s() + 7)
        until = time.monotonic() + 30
        while next_batch(exchange) < expected and time.monotonic() < until:
            poster.step()
        assert next_batch(exchange) == expected
    assert [item.batch_id for item in poster.drain(60)][-1:] in ([3], [])
    assert posts_sent(exchange, first_nonce) == 3


def test_pipeline__sends_no_more_than_the_budget_holds_together(
    exchange: Exchange, make_batch: BatchMaker
) -> None:
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    poster = poster_of(exchange, exchange.manager(), PosterConfig(in_flight_max=4))
    exchange.chain.set_automine(False)
    try:
        for batch_id in range(1, 4):
            poster.offer(make_batch(batch_id, work=batch_id * (HALF - 5_000)))
        poster.step()
        assert poster.status().in_flight == 2
        assert poster.status().state is PosterState.WAITING
        assert posts_sent(exchange, first_nonce) == 2
    finally:
        exchange.chain.set_automine(True)


def test_restart__finds_what_is_posted_and_goes_on(exchange: Exchange, make_batch: BatchMaker) -> None:
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    manager = exchange.manager()
    poster = poster_of(exchange, manager)
    poster.offer(make_batch(1))
    poster.step()
    manager.close()
    poster = poster_of(exchange, exchange.manager())
    for batch_id in (1, 2):
        poster.offer(make_batch(batch_id))
    assert [item.batch_id for item in poster.drain(60)] == [1, 2]
    assert posts_sent(exchange, first_nonce) == 2


def test_restart__with_a_lost_store__posts_nothing_twice(exchange: Exchange, make_batch: BatchMaker) -> None:
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    manager = exchange.manager()
    poster = poster_of(exchange, manager)
    poster.offer(make_batch(1))
    poster.drain(60)
    manager.close()
    (exchange.directory / "tx.sqlite").unlink()
    poster = poster_of(exchange, exchange.manager())
    assert poster.next_needed() == 2
    for batch_id in (1, 2):
        poster.offer(make_batch(batch_id))
    assert [item.batch_id for item in poster.drain(60)] == [1, 2]
    assert posts_sent(exchange, first_nonce) == 2


def test_other_batch__under_a_posted_id__is_an_error(exchange: Exchange, make_batch: BatchMaker) -> None:
    manager = exchange.manager()
    poster = poster_of(exchange, manager)
    poster.offer(make_batch(1))
    poster.drain(60)
    manager.close()
    (exchange.directory / "tx.sqlite").unlink()
    poster = poster_of(exchange, exchange.manager())
    poster.offer(replace(make_batch(1), post_root=b"\x99" * 32))
    with pytest.raises(BatchMismatch):
        poster.drain(60)


def test_offer__checks_order_size_and_room(exchange: Exchange, make_batch: BatchMaker) -> None:
    poster = poster_of(exchange, exchange.manager(), PosterConfig(queue_max=2))
    assert poster.offer(make_batch(1))
    with pytest.raises(BatchOutOfOrder):
        poster.offer(make_batch(3))
    assert poster.offer(make_batch(2))
    assert not poster.offer(make_batch(3))
    with pytest.raises(PayloadTooLarge):
        poster.offer(make_batch(3, 31 * 4_000))


def test_refused_batch__is_stuck_with_the_reason_and_goes_when_it_may(
    exchange: Exchange, make_batch: BatchMaker
) -> None:
    poster = poster_of(exchange, exchange.manager())
    ahead_s = max(exchange.chain.head_time_s(), GENESIS_TIME_S) + 10_000
    poster.offer(make_batch(1, time_s=ahead_s))
    poster.offer(make_batch(2, time_s=ahead_s))
    patience_s = time.monotonic() + 60
    while (status := poster.status()).state is not PosterState.STUCK and time.monotonic() < patience_s:
        poster.step()
        time.sleep(0.01)
    assert status.state is PosterState.STUCK
    assert "rollup: time ahead of the block" in status.reason
    exchange.chain.set_time(ahead_s)
    assert [item.batch_id for item in poster.drain(60)] == [1, 2]
    assert next_batch(exchange) == 3


@pytest.mark.parametrize("seen", [False, True], ids=["before their receipts are seen", "after"])
def test_reorg__of_posted_batches__posts_them_again(
    exchange: Exchange, make_batch: BatchMaker, seen: bool
) -> None:
    config = TxConfig(confirmations=3, rebroadcast_s=0.2)
    poster = poster_of(exchange, exchange.manager(config), PosterConfig(confirmations=3))
    snapshot = exchange.chain.snapshot()
    for batch_id in (1, 2):
        poster.offer(make_batch(batch_id))
    poster.step()
    while next_batch(exchange) < 3:
        time.sleep(0.01)
    if seen:
        poster.step()
    exchange.chain.revert(snapshot)
    assert next_batch(exchange) == 1
    deadline = time.monotonic() + 60
    while next_batch(exchange) < 3 and time.monotonic() < deadline:
        poster.step()
        time.sleep(0.02)
    assert next_batch(exchange) == 3
    exchange.chain.mine(3)
    poster.drain(60)
    assert poster.status().last_confirmed == 2


def test_l1_down__waits_and_posts_when_it_is_back(exchange: Exchange, make_batch: BatchMaker) -> None:
    rpc = Rpc(exchange.rpc.url, attempts=1)
    manager = TxManager(rpc, exchange.sequencer, exchange.directory / "tx.sqlite")
    poster = Poster(rpc, manager, exchange.deployment.rollup)
    poster.offer(make_batch(1))
    poster.drain(60)
    rpc.close()
    rpc.url = "http://127.0.0.1:9"
    poster.offer(make_batch(2))
    poster.step()
    assert poster.status().state is PosterState.L1_DOWN
    rpc.url = exchange.rpc.url
    assert [item.batch_id for item in poster.drain(60)] == [2]
    rpc.close()


def test_l1_frozen__answers_late_to_what_was_sent_twice(exchange: Exchange, make_batch: BatchMaker) -> None:
    """The requests wait in the sockets of a stopped process: when it goes on, it executes each of them."""
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    rpc = Rpc(exchange.rpc.url, attempts=2)
    manager = TxManager(rpc, exchange.sequencer, exchange.directory / "tx.sqlite")
    poster = Poster(rpc, manager, exchange.deployment.rollup)
    poster.offer(make_batch(1))
    poster.drain(60)
    process = exchange.chain.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    rpc.close()
    rpc.timeout_s = 0.2
    try:
        poster.offer(make_batch(2))
        manager.send("batch-3-is-not-this", exchange.sequencer.address, b"", 0, 21_000)
        poster.step()
        assert poster.status().state is PosterState.L1_DOWN
    finally:
        process.send_signal(signal.SIGCONT)
    rpc.timeout_s = 60
    rpc.close()
    assert [item.batch_id for item in poster.drain(60)] == [2]
    manager.wait("batch-3-is-not-this", 60)
    assert posts_sent(exchange, first_nonce) == 3
    rpc.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from sequencer.l1.chains import DEVNET_MNEMONIC
from sequencer.l1.batch import Batch
from sequencer.l1.poster import Poster
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxManager
url, path, step, times, index, rollup, time_s = sys.argv[1:]
seen = 0
def checkpoint(passed):
    global seen
    seen += passed == step
    if seen == int(times):
        os.kill(os.getpid(), signal.SIGKILL)
rpc = Rpc(url)
manager = TxManager(rpc, Signer.from_mnemonic(DEVNET_MNEMONIC, int(index)), Path(path), checkpoint=checkpoint)
poster = Poster(rpc, manager, rollup)
for batch_id in range(1, 6):
    root = bytes([batch_id]) * 32
    payload = root[:31] + (8).to_bytes(3, "big").ljust(31, b"\\0") + bytes([7]) * 248
    pre_root = bytes([batch_id - 1 or 1]) * 32  # genesis has the root that batch 1 has
    poster.offer(Batch(batch_id, pre_root, root, 1, 1, batch_id - 1, int(time_s), 0, bytes(32), 0, 0, 0, payload))
poster.drain(60)
"""


@pytest.mark.parametrize(
    ("step", "times"), [("nonce stored", 3), ("before sending", 2), ("after sending", 3)]
)
def test_kill__in_the_middle__every_batch_is_posted_once(
    exchange: Exchange, make_batch: BatchMaker, step: str, times: int
) -> None:
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    path = exchange.directory / "tx.sqlite"
    arguments = [exchange.rpc.url, path, step, times, SEQUENCER, exchange.deployment.rollup, GENESIS_TIME_S]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)], check=False, env=environment
    )
    assert killed.returncode == -signal.SIGKILL
    poster = poster_of(exchange, exchange.manager())
    for batch_id in range(1, 6):
        poster.offer(make_batch(batch_id))
    assert [item.batch_id for item in poster.drain(60)] == [1, 2, 3, 4, 5]
    assert next_batch(exchange) == 6
    assert posts_sent(exchange, first_nonce) == 5


@pytest.mark.parametrize("size_bytes", [3 * 31, 31 * 100, 31 * 1_000, 122_016])
@pytest.mark.parametrize("fill", [0, 7])
def test_gas_formula__is_enough_without_being_wasteful(
    exchange: Exchange, make_batch: BatchMaker, size_bytes: int, fill: int
) -> None:
    batch = make_batch(1, size_bytes)
    payload = batch.payload.replace(b"\x07", bytes([fill]))
    batch = replace(batch, payload=payload)
    poster = poster_of(exchange, exchange.manager())
    poster.offer(batch)
    (posted,) = poster.drain(60)
    data = poster._calldata(batch)
    assert posted.gas_used is not None
    assert posted.gas_used <= post_gas(data, len(payload)) <= posted.gas_used * 1.45 + 130_000
