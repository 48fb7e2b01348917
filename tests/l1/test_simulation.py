"""A seed, a storm: crashes at random steps, reorganisations, a stalled mempool; every batch is posted once."""

import random
from collections.abc import Callable

import pytest

from sequencer.l1.poster import Poster, PosterConfig
from sequencer.l1.txmgr import TxConfig, TxManager

from .conftest import BatchMaker, Exchange
from .test_poster import next_batch
from .test_txmgr import STEPS, Clock, Crash

BATCHES = 12
ROUNDS = 60
CONFIRMATIONS = 4


def crash_now_and_then(dice: random.Random) -> Callable[[str], None]:
    def checkpoint(step: str) -> None:
        if (step in STEPS or step == "bump stored") and dice.random() < 0.12:
            raise Crash(step)

    return checkpoint


@pytest.mark.parametrize("seed", range(6))
def test_storm__posts_every_batch_once(exchange: Exchange, make_batch: BatchMaker, seed: int) -> None:
    dice = random.Random(seed)
    chain, clock = exchange.chain, Clock()
    first_nonce = exchange.rpc.nonce(exchange.sequencer.address)
    config = TxConfig(confirmations=CONFIRMATIONS, stall_s=20, rebroadcast_s=5)

    def start() -> tuple[TxManager, Poster]:
        manager = exchange.manager(config, clock=clock, checkpoint=crash_now_and_then(dice))
        poster_config = PosterConfig(in_flight_max=3, confirmations=CONFIRMATIONS)
        poster = Poster(exchange.rpc, manager, exchange.deployment.rollup, poster_config, clock)
        for batch_id in range(poster.next_needed(), BATCHES + 1):
            poster.offer(make_batch(batch_id))
        return manager, poster

    manager, poster = start()
    # anvil mines on its own while it reverts, and then holds blocks whose effects are not in its state
    chain.set_automine(False)
    snapshot, taken_at = chain.snapshot(), chain.rpc.block_number()
    try:
        for _ in range(ROUNDS):
            clock.now_s += dice.choice((1, 3, 25))
            if dice.random() < 0.25 and chain.rpc.block_number() - taken_at < CONFIRMATIONS:
                chain.revert(snapshot)
                snapshot, taken_at = chain.snapshot(), chain.rpc.block_number()
            if dice.random() < 0.6:
                chain.mine()
            if chain.rpc.block_number() - taken_at >= CONFIRMATIONS:
                snapshot, taken_at = chain.snapshot(), chain.rpc.block_number()
            try:
                poster.step()
            except Crash:
                manager.close()
                manager, poster = start()
    finally:
        chain.set_automine(True)
    for _ in range(200):
        clock.now_s += 30
        chain.mine()
        try:
            poster.step()
        except Crash:
            manager.close()
            manager, poster = start()
        if poster.status().last_confirmed == BATCHES or poster.next_needed() == BATCHES + 1:
            break
    manager.close()
    assert next_batch(exchange) == BATCHES + 1
    assert exchange.rpc.nonce(exchange.sequencer.address, "pending") - first_nonce == BATCHES
    read = exchange.follower(0).batches(exchange.deployment.deploy_block)
    assert [batch.post_root[0] for batch in read] == list(range(1, BATCHES + 1))
