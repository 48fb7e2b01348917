"""A wrong batch over RPC: read from L1, challenged by transactions, gone, and the honest one in its place."""

from pathlib import Path

import pytest

from sequencer.contracts import load
from sequencer.engine.engine import Engine
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.abi import Contract
from sequencer.l1.batch import Batch
from sequencer.l1.chains import Chain
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.errors import TransactionFailed
from sequencer.l1.rpc import to_bytes
from sequencer.l1.wallet import Mined, Wallet
from sequencer.local.devnet import devnet_params, feed_key
from sequencer.proof.challenge import arbiter, challenge_header, challenge_segment
from sequencer.proof.witness import Tracer
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import State

from .conftest import DEPLOYER, SEQUENCER, TRADER, Exchange

PARAMS = devnet_params()
SALT = b"\x5a" * 32
REVEAL_BLOCKS = 5
GAS = 8_000_000
BOND_WEI = 10**18
ROLLUP = Contract(load("Rollup").abi)


@pytest.fixture
def exchange(chain: Chain, tmp_path: Path) -> Exchange:
    """The trader is the challenger."""
    sequencer = chain.signer(SEQUENCER)
    config = DeployConfig(genesis_root(PARAMS), sequencer.address, 3600, 3600, reveal_blocks=REVEAL_BLOCKS)
    at = deploy(chain.rpc, chain.signer(DEPLOYER), config)
    challenger = Wallet(chain.rpc, chain.signer(TRADER), at)
    return Exchange(chain, at, sequencer, challenger, challenger, tmp_path)


def genesis(exchange: Exchange) -> State:
    at = exchange.deployment
    return genesis_state(codec.domain_separator(at.chain_id, to_bytes(at.rollup)), PARAMS)


def three_feeds(exchange: Exchange) -> tuple[Batch, State]:
    """An honest batch, and the state after it."""
    state = genesis(exchange)
    now = exchange.chain.head_time_s()
    feeds = [
        codec.sign(
            codec.encode(Kind.FEED, underlying=0, feed=feed, time=now, price=5_000_000),
            state.domain,
            feed_key(feed),
        )
        for feed in range(3)
    ]
    entry = Engine(state).run(now, feeds, []).entry
    assert entry is not None
    segments = entry.batch_segments()
    assert len(segments) == 1
    payload = batches.encode(segments)
    head = (1, genesis_root(PARAMS), segments[0].root, 1, len(segments[0].records), 0, now)
    return Batch(*head, 0, bytes(32), state.globals.work, 1, 1, payload), state


def post(exchange: Exchange, batch: Batch, root: bytes) -> None:
    """Posts the batch under a root of any making."""
    data = ROLLUP.encode(
        "post",
        *(batch.batch_id, batch.pre_root, root, batch.segments, batch.records, batch.first_seq),
        *(batch.time_s, batch.inbox_count, batch.inbox_hash, batch.work, batch.tick),
        root[:31] + batch.payload[31:],
    )
    wallet = Wallet(exchange.rpc, exchange.sequencer, exchange.deployment)
    wallet.transact("post", exchange.deployment.rollup, data, gas=1_000_000)


def send(exchange: Exchange, name: str, data: bytes) -> Mined:
    return exchange.trader.transact(name, exchange.deployment.arbiter, data, gas=GAS)


def test_wrong_batch__is_challenged_over_rpc_and_replaced(exchange: Exchange) -> None:
    at, follower = exchange.deployment, exchange.follower(0)
    honest, _ = three_feeds(exchange)
    post(exchange, honest, b"\x66" * 32)
    (posted,) = follower.batches(at.deploy_block)
    assert posted.post_root == b"\x66" * 32

    check = challenge_segment(posted, 0, Tracer.of(genesis(exchange)))
    answer = exchange.rpc.eth_call(at.arbiter, check.call, "latest", exchange.trader.address)
    assert arbiter().function("check_segment").decode_output(answer) == (
        *(True, 1, check.challenge_id, honest.post_root),
    )
    with pytest.raises(TransactionFailed, match="arbiter: no commitment"):
        send(exchange, "challenge", check.calldata(SALT))
    send(exchange, "commit", arbiter().encode("commit", check.commitment(exchange.trader.address, SALT)))
    mined = send(exchange, "challenge", check.calldata(SALT))
    print(f"challenge of four records: {mined.gas_used} gas, {len(check.calldata(SALT))} bytes")
    assert mined.gas_used < 1_000_000
    assert list(follower.batches(at.deploy_block)) == []

    join = Contract(load("Sequencers").abi).encode("join")
    Wallet(exchange.rpc, exchange.sequencer, at).transact("join", at.sequencers, join, value=BOND_WEI)
    post(exchange, honest, honest.post_root)
    (replaced,) = follower.batches(at.deploy_block)
    assert (replaced.batch_id, replaced.post_root) == (1, honest.post_root)
    with pytest.raises(TransactionFailed, match="arbiter: contest is open"):
        send(exchange, "collect", arbiter().encode("collect", 0))
    exchange.chain.mine(REVEAL_BLOCKS)
    collected = send(exchange, "collect", arbiter().encode("collect", 0))
    event = arbiter().event("Collected").decode(collected.logs[0])
    assert (event["reward"], event["amount"]) == (0, BOND_WEI * 3 // 8)


def test_honest_batch__cannot_be_challenged_over_rpc(exchange: Exchange) -> None:
    honest, state = three_feeds(exchange)
    post(exchange, honest, honest.post_root)
    (posted,) = exchange.follower(0).batches(exchange.deployment.deploy_block)
    assert posted.header()[1] == genesis_root(PARAMS)
    for check in (
        challenge_segment(posted, 0, Tracer.of(genesis(exchange))),
        challenge_header(posted, state),
    ):
        send(exchange, "commit", arbiter().encode("commit", check.commitment(exchange.trader.address, SALT)))
        with pytest.raises(TransactionFailed, match="arbiter: no fraud"):
            send(exchange, "challenge", check.calldata(SALT))
    assert len(list(exchange.follower(0).batches(exchange.deployment.deploy_block))) == 1


def test_roll_back__in_a_block_in_place_of_one_looked_at__is_found(exchange: Exchange) -> None:
    at, follower = exchange.deployment, exchange.follower(0)
    honest, _ = three_feeds(exchange)
    post(exchange, honest, b"\x66" * 32)
    (posted,) = follower.batches(at.deploy_block)
    before = exchange.chain.snapshot()
    exchange.chain.mine(4)
    assert follower.roll_backs(exchange.rpc.block_number()) == []
    exchange.chain.revert(before)
    check = challenge_segment(posted, 0, Tracer.of(genesis(exchange)))
    send(exchange, "commit", arbiter().encode("commit", check.commitment(exchange.trader.address, SALT)))
    mined = send(exchange, "challenge", check.calldata(SALT))
    exchange.chain.mine(4)
    (found,) = follower.roll_backs(exchange.rpc.block_number())
    assert (found.batch_id, found.block_number) == (1, mined.block_number)
    assert follower.roll_backs(exchange.rpc.block_number()) == [found]
