"""An honest batch that is mined on another branch of L1 is nothing there.

`Rollup.post` took the pre-root and the inbox hash from its own branch: with two deposits the other way round the honest
leader's batch was a fraud, and its bond of 1 ETH was gone. Now the transaction reverts, and the bond stays.
"""

import time
from pathlib import Path

import pytest

from sequencer.genesis import genesis_state
from sequencer.l1.batch import Batch
from sequencer.l1.poster import Poster, PosterConfig, PosterState
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_stage import BOND_WEI, CHALLENGER, Stage, stage
from sequencer.market.tape import open_tape
from sequencer.proof.watcher import WatchConfig
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.transition import apply

FIRST, SECOND = 5, 6
USD = 10**6


def deposit(on: Stage, trader: int, amount: int) -> bytes:
    """Deposits; the message's record."""
    Wallet(on.chain.rpc, devnet_signer(trader), on.at).deposit_with_permit(amount)
    return on.follower().messages_after(0)[-1].record


def honest(on: Stage, messages: list[bytes], time_s: int) -> Batch:
    """The first batch: a tick and all the inbox's messages."""
    state = genesis_state(on.domain, on.params)
    pre_root, segments = state.root(), []
    for raw in (codec.encode(Kind.TICK, time=time_s), *messages):
        assert not apply(state, raw).reason
        segments.append(batches.Segment(state.root(), (raw,)))
    g = state.globals
    return Batch(
        *(1, pre_root, state.root(), len(segments), len(segments), 0, g.time),
        *(g.inbox_count, g.inbox_hash, g.work, g.tick, g.tick, batches.encode(segments)),
    )


@pytest.mark.timeout(300)
def test_batch__mined_where_two_deposits_are_the_other_way_round__reverts_and_costs_no_bond(
    tmp_path: Path,
) -> None:
    with stage("pyevm", open_tape(None, 1)) as on:
        for trader in (FIRST, SECOND):
            Wallet(on.chain.rpc, devnet_signer(trader), on.at).mint(1_000 * USD)
        fork = on.chain.snapshot()
        messages = [*on.inbox, deposit(on, FIRST, 10 * USD), deposit(on, SECOND, 20 * USD)]
        batch = honest(on, messages, on.chain.head_time_s())

        manager = TxManager(on.chain.rpc, on.signer, tmp_path / "tx.sqlite", TxConfig())
        poster = Poster(on.chain.rpc, manager, on.at.rollup, PosterConfig(confirmations=0))
        on.chain.revert(fork)
        fork = on.chain.snapshot()
        deposit(on, SECOND, 20 * USD)
        deposit(on, FIRST, 10 * USD)
        on.chain.set_time(batch.time_s + 60)
        poster.offer(batch)
        patience_s = time.monotonic() + 60
        while poster.status().state is not PosterState.STUCK and time.monotonic() < patience_s:
            poster.step()
            time.sleep(0.01)
        assert poster.status().reason.startswith(
            "batch 1: rollup: inbox hash is not the inbox's: it was made"
        )

        watcher = on.watcher(devnet_signer(CHALLENGER), "w", WatchConfig(confirmations=0))
        assert watcher.look()
        assert (watcher.fault, watcher.challenged, watcher.status["batches_posted"]) == (None, None, 0)
        watcher.close()
        assert on.chain.rpc.balance(on.at.sequencers) == BOND_WEI

        # The branch that the batch was made upon is the chain again: the same batch goes.
        on.chain.revert(fork)
        assert [deposit(on, FIRST, 10 * USD), deposit(on, SECOND, 20 * USD)] == messages[-2:]
        on.chain.set_time(batch.time_s + 60)
        assert [one.batch_id for one in poster.drain(60)] == [1]
        manager.close()
