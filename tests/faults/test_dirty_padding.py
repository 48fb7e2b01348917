"""A lie whose calldata has dirt in the padding behind the payload.

Rollup took it, and no follower could decode it: nobody challenged, the batch became final, and the thief claimed all of
the vault's 30,023,000 USD. Now Rollup refuses it, and the same lie without the dirt is challenged.
"""

from collections.abc import Iterator

import pytest

from sequencer.contracts import load
from sequencer.genesis import genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.errors import TransactionFailed
from sequencer.l1.inbox import ROLLUP
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_stage import CHALLENGER, Stage, stage
from sequencer.market.tape import open_tape
from sequencer.proof.watcher import WatchConfig
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.transition import apply

THIEF = 7
VAULT = Contract(load("Vault").abi)


@pytest.fixture
def on() -> Iterator[Stage]:
    with stage("pyevm", open_tape(None, 1)) as built:
        yield built


def all_of_it(on: Stage) -> bytes:
    """Calldata of a batch whose root also holds a withdrawal of all that is in the vault."""
    state = genesis_state(on.domain, on.params)
    pre_root, now_s = state.root(), on.chain.head_time_s()
    tick = codec.encode(Kind.TICK, time=now_s)
    apply(state, tick)
    total = int(VAULT.read(on.chain.rpc, on.at.vault, "deposits_total"))
    assert total > 0
    state.put_withdrawal(0, bytes.fromhex(devnet_signer(THIEF).address[2:]), total)
    payload = batches.encode([batches.Segment(state.root(), (tick,))])
    assert len(payload) % 32
    header = (1, pre_root, state.root(), 1, 1, 0, now_s, 0, bytes(32), state.globals.work, state.globals.tick)
    return ROLLUP.encode("post", *header, payload)


@pytest.mark.timeout(300)
def test_lie__with_dirt_behind_its_payload__is_refused_and_without_it_challenged(on: Stage) -> None:
    data = all_of_it(on)
    leader = Wallet(on.chain.rpc, on.signer, on.at)
    with pytest.raises(TransactionFailed, match="rollup: padding is not zero"):
        leader.transact("post", on.at.rollup, data[:-1] + b"\1", gas=1_000_000)
    assert on.read("next_batch") == 1

    leader.transact("post", on.at.rollup, data, gas=1_000_000)
    watcher = on.watcher(devnet_signer(CHALLENGER), "w", WatchConfig(confirmations=0))
    for _ in range(6):
        assert watcher.look()
        on.chain.mine()
    watcher.close()
    assert watcher.challenged is not None
    assert watcher.challenged.state == "won"
    assert on.read("next_batch") == 1
    assert on.chain.rpc.balance(on.at.sequencers) == 0
