"""A liar's friend that commits to the challenge before the batch is posted, and lets others do the work.

The older commitment took the whole reward: the honest challenger paid its gas and had nothing, and a lie cost half a
bond. Now who reveals keeps two thirds of the reward, a quarter of the bond; such a lie costs seven eighths.
"""

from collections.abc import Iterator

import pytest

from sequencer.genesis import genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.l1.inbox import ROLLUP
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer
from sequencer.local.lie_stage import BOND_WEI, CHALLENGER, Stage, stage
from sequencer.market.tape import open_tape
from sequencer.proof.challenge import Challenge, arbiter, challenge_by
from sequencer.proof.watcher import WatchConfig
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol.constants import ELEMENT_BYTES, Kind
from sequencer.protocol.hashing import keccak
from sequencer.protocol.transition import apply

FRIEND = 6
SALT = keccak(b"salt")
GAS_PRICE_WEI = 25 * 10**9  # up to which a bond of 1 ETH pays the dearest challenge
CHALLENGE_GAS_MAX = 8_000_000


@pytest.fixture
def on() -> Iterator[Stage]:
    with stage("pyevm", open_tape(None, 1)) as built:
        yield built


def the_lie(on: Stage) -> tuple[bytes, Challenge]:
    """Calldata of a wrong batch, and what its maker knows of the challenge to come."""
    now_s, root = on.chain.head_time_s() + 60, keccak(b"a lie")
    tick = codec.encode(Kind.TICK, time=now_s)
    payload = batches.encode([batches.Segment(root, (tick,))])
    state = genesis_state(on.domain, on.params)
    pre_root = state.root()
    apply(state, tick)
    work = state.globals.work
    data = ROLLUP.encode("post", 1, pre_root, root, 1, 1, 0, now_s, 0, bytes(32), work, 1, payload)
    posted = PostedBatch(
        batch_id=1, pre_root=pre_root, post_root=root, data_root=batches.data_root(payload), header_hash=b"",
        elements=len(payload) // ELEMENT_BYTES, segments=1, records=1, first_seq=0, time_s=now_s, inbox_count=0,
        inbox_hash=bytes(32), work=work, tick=1, ticks=1, payload=payload, block_number=0, block_hash="", tx_hash="",
    )  # fmt: skip
    return data, challenge_by(posted, "check_segment", 0, 0, pre_root, b"", b"")


@pytest.mark.timeout(300)
def test_friend_of_the_liar__with_the_oldest_commitment__leaves_the_honest_challenger_its_part(
    on: Stage,
) -> None:
    rpc = on.chain.rpc
    data, foreseen = the_lie(on)
    friend = Wallet(rpc, devnet_signer(FRIEND), on.at)
    commitment = foreseen.commitment(friend.address, SALT)
    friend.transact("commit", on.at.arbiter, arbiter().encode("commit", commitment))
    Wallet(rpc, on.signer, on.at).transact("post", on.at.rollup, data, gas=1_000_000)

    honest = devnet_signer(CHALLENGER)
    before = rpc.balance(honest.address), rpc.balance(friend.address)
    watcher = on.watcher(honest, "w", WatchConfig(confirmations=0))
    for _ in range(8):
        watcher.step()
        on.chain.mine()
        if watcher.challenged is not None and watcher.challenged.state == "won":
            break
    friend.transact("contest", on.at.arbiter, arbiter().encode("contest", 0, SALT))
    on.chain.mine(int(arbiter().read(rpc, on.at.arbiter, "reveal_blocks")))
    for _ in range(4):
        watcher.step()
        on.chain.mine()
    friend.transact("collect_contest", on.at.arbiter, arbiter().encode("collect_contest", 0))
    watcher.close()

    spent_at_most = BOND_WEI // 100
    assert BOND_WEI // 4 - spent_at_most < rpc.balance(honest.address) - before[0] < BOND_WEI // 4
    assert BOND_WEI // 8 - spent_at_most < rpc.balance(friend.address) - before[1] < BOND_WEI // 8
    assert rpc.balance(on.at.arbiter) == rpc.balance(on.at.sequencers) == 0
    assert BOND_WEI // 4 >= CHALLENGE_GAS_MAX * GAS_PRICE_WEI
