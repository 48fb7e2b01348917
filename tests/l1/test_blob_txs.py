"""Transactions with blobs happen once, on a node as strict as mainnet's: its pool takes of one key blobs or the rest,
never both, blobs without a gap in the nonces, and a replacement at twice every fee.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import rlp

from sequencer.contracts import load
from sequencer.l1 import chains
from sequencer.l1.abi import Contract
from sequencer.l1.chains import Chain
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.errors import RpcRejected
from sequencer.l1.follower import Follower
from sequencer.l1.poster import Poster, PosterConfig
from sequencer.l1.rpc import Rpc, to_hex, to_int
from sequencer.l1.signing import Content, Fees, Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.txstore import State
from sequencer.protocol.hashing import keccak

from .conftest import DEPLOYER, GENESIS_ROOT, GENESIS_TIME_S, SEQUENCER, BatchMaker, install_or_skip
from .test_txmgr import GAS, STEPS, TOKEN, Clock, Crash, crash_at

ROLLUP = Contract(load("Rollup").abi)
SEQUENCERS = Contract(load("Sequencers").abi)
PAYLOAD = b"\5" * 31 * 9
STALL_S = 30


@dataclass
class Pooled:
    """A pending transaction: `fees` are the most a unit of gas, the tip, the most a unit of blob gas."""

    hash: str
    has_blobs: bool
    fees: tuple[int, int, int]


class StrictNode(Rpc):
    """anvil behind the rules of a mainnet node's pool (go-ethereum, core/txpool/blobpool); anvil knows none of them."""

    sender = ""

    def pool(self) -> dict[int, Pooled]:
        """What is pending of the sender, by nonce."""
        found: dict[int, Pooled] = {}
        for part in self.call("txpool_content").values():
            for address, listed in part.items():
                if address.lower() != self.sender.lower():
                    continue
                for nonce, one in listed.items():
                    fees = [to_int(one.get(name) or "0x0") for name in FEES]
                    found[int(nonce)] = Pooled(one["hash"], one["type"] == "0x3", (fees[0], fees[1], fees[2]))
        return found

    def send_raw(self, raw: bytes) -> str:
        has_blobs = raw[0] == 3
        body = rlp.decode(raw[1:])
        body = body[0] if has_blobs else body
        nonce, tip, fee = (int.from_bytes(one, "big") for one in body[1:4])
        blob_fee = int.from_bytes(body[9], "big") if has_blobs else 0
        pool = self.pool()
        name = "0x" + keccak(raw[:1] + rlp.encode(body)).hex()
        old = pool.get(nonce)
        if old is None or old.hash != name:
            self._check(pool, old, nonce, has_blobs, (fee, tip, blob_fee))
        return super().send_raw(raw)

    def _check(
        self,
        pool: dict[int, Pooled],
        old: Pooled | None,
        nonce: int,
        has_blobs: bool,
        fees: tuple[int, int, int],
    ) -> None:
        def refuse(why: str) -> RpcRejected:
            return RpcRejected("eth_sendRawTransaction", -32000, why)

        if any(one.has_blobs != has_blobs for one in pool.values()):
            raise refuse("address already reserved")
        if has_blobs and old is None and nonce > self.nonce(self.sender) + len(pool):
            raise refuse(
                f"nonce too high: tx nonce {nonce}, gapped nonce {self.nonce(self.sender) + len(pool)}"
            )
        if old is not None:
            ratio = (2, 1) if has_blobs else (11, 10)
            if any(new * ratio[1] < before * ratio[0] for new, before in zip(fees, old.fees, strict=True)):
                raise refuse("replacement transaction underpriced")


FEES = ("maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas")


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    install_or_skip()
    with chains.start(
        "anvil", genesis_time_s=GENESIS_TIME_S, log_dir=tmp_path_factory.mktemp("a")
    ) as started:
        yield started


class Desk:
    """A key on a strict node; minting is not idempotent: what happens twice shows in the balance."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        self.signer: Signer = chain.signer(SEQUENCER)
        config = DeployConfig(GENESIS_ROOT, self.signer.address, 3600, 3600)
        self.at: Deployment = deploy(chain.rpc, chain.signer(DEPLOYER), config)
        self.rpc = StrictNode(chain.url)
        self.rpc.sender = self.signer.address
        self.folder = folder
        self.clock = Clock()

    def manager(self, **options: object) -> TxManager:
        config = TxConfig(stall_s=STALL_S, rebroadcast_s=10)
        return TxManager(
            self.rpc, self.signer, self.folder / "tx.sqlite", config, clock=self.clock, **options
        )  # type: ignore[arg-type]

    def mint(
        self, manager: TxManager, name: str, amount: int, payload: bytes = PAYLOAD, gas: int = GAS
    ) -> None:
        data = TOKEN.encode("mint", manager.address, amount)
        manager.send(name, self.at.token, data, 0, gas, payload)

    @property
    def minted(self) -> int:
        return int(TOKEN.read(self.rpc, self.at.token, "balanceOf", self.signer.address))


@pytest.fixture
def desk(anvil: Chain, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(anvil, tmp_path)
    yield made
    anvil.set_automine(True)
    anvil.mine()
    made.rpc.close()


@pytest.mark.node
@pytest.mark.parametrize("step", STEPS)
def test_crash__at_a_step__neither_loses_nor_repeats_a_blob(desk: Desk, step: str) -> None:
    manager = desk.manager(checkpoint=crash_at(step))
    with pytest.raises(Crash):
        desk.mint(manager, "a", 5)
    manager.close()
    manager = desk.manager()
    desk.mint(manager, "b", 70)
    desk.mint(manager, "a", 5)
    manager.wait("a", 120)
    manager.wait("b", 120)
    assert desk.minted == 75
    manager.close()


@pytest.mark.node
def test_blob__stuck_with_others_behind_it__is_replaced_at_twice_the_fees_and_all_happen_once(
    desk: Desk,
) -> None:
    manager = desk.manager()
    desk.chain.set_automine(False)
    desk.mint(manager, "a", 5)
    desk.mint(manager, "b", 70)
    first = min(desk.rpc.pool())
    before = desk.rpc.pool()
    for _ in range(2):
        desk.clock.now_s += STALL_S + 1
        manager.poll()
    after = desk.rpc.pool()
    assert (manager.metrics().bumps, manager.metrics().last_error) == (2, "")
    assert all(new >= 4 * old for new, old in zip(after[first].fees, before[first].fees, strict=True))
    assert after[first + 1] == before[first + 1]  # it only waits for the first
    desk.chain.set_automine(True)
    desk.chain.mine()
    manager.wait("a", 120)
    manager.wait("b", 120)
    assert desk.minted == 75
    manager.close()


@pytest.mark.node
def test_transaction_without_blobs__among_blobs__waits_for_them_and_keeps_its_place(desk: Desk) -> None:
    """A bond that is made up while batches are on their way."""
    manager = desk.manager()
    desk.chain.set_automine(False)
    desk.mint(manager, "a", 5)
    desk.mint(manager, "bond", 70, b"")
    desk.mint(manager, "c", 900)
    for _ in range(3):
        manager.poll()
    states = {name: manager.get(name).state for name in ("a", "bond", "c")}  # type: ignore[union-attr]
    assert states == {"a": State.SENT, "bond": State.QUEUED, "c": State.QUEUED}
    assert len(desk.rpc.pool()) == 1
    assert manager.metrics().last_error == ""
    desk.chain.set_automine(True)
    desk.chain.mine()
    nonces = [manager.wait(name, 120).nonce for name in ("a", "bond", "c")]
    assert nonces == sorted(nonces)  # type: ignore[type-var]
    assert desk.minted == 975
    manager.close()


@pytest.mark.node
def test_nonce__freed_among_blobs__is_filled_by_a_blob(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node will never take gives its nonce away; those behind it are on their way all the same."""
    manager = desk.manager()
    desk.chain.set_automine(False)
    deliver = StrictNode.send_raw
    desk.mint(manager, "a", 5)
    with monkeypatch.context() as patch:

        def refuse(node: StrictNode, raw: bytes) -> str:
            raise RpcRejected("eth_sendRawTransaction", -32000, "exceeds block gas limit")

        patch.setattr(StrictNode, "send_raw", refuse)
        desk.mint(manager, "refused", 30)
    assert StrictNode.send_raw is deliver
    desk.mint(manager, "c", 900)
    until_s = time.monotonic() + 10  # what a node refused goes to it again after a while
    while len(desk.rpc.pool()) < 3 and time.monotonic() < until_s:
        manager.poll()
        time.sleep(0.05)
    pool = desk.rpc.pool()
    assert [one.has_blobs for one in pool.values()] == [True] * 3
    assert manager.metrics().gaps_filled == 1
    desk.chain.set_automine(True)
    desk.chain.mine()
    manager.wait("a", 120)
    manager.wait("c", 120)
    assert desk.minted == 905
    assert manager.get("refused").state is State.FAILED  # type: ignore[union-attr]
    manager.close()


@pytest.mark.node
def test_calldata__in_the_place_of_a_pending_blob__is_what_such_a_node_refuses(desk: Desk) -> None:
    """The node of these tests is as strict as it says."""
    manager = desk.manager()
    desk.chain.set_automine(False)
    desk.mint(manager, "a", 5)
    other = TxManager(desk.rpc, desk.signer, desk.folder / "other.sqlite", clock=desk.clock)
    desk.mint(other, "b", 7, b"")
    assert other.get("b").state is State.QUEUED  # type: ignore[union-attr]
    rich, nothing = Fees(10**12, 10**11), Content(b"\1" * 20, b"", 0, 21_000)
    with pytest.raises(RpcRejected, match="address already reserved"):
        desk.rpc.send_raw(desk.signer.sign_transaction(31_337, min(desk.rpc.pool()), rich, nothing).raw)
    other.close()
    manager.close()
    assert len(desk.rpc.pool()) == 1


@pytest.mark.node
def test_old_leaders_blob__that_is_stuck__gives_its_place_to_the_take_over(desk: Desk) -> None:
    """Before, the take-over waited until the pool had let go of it."""
    manager = desk.manager()
    desk.chain.set_automine(False)
    desk.mint(manager, "batch-1", 5)
    desk.mint(manager, "batch-2", 70)
    data = TOKEN.encode("mint", manager.address, 900)
    manager.send_over("take-over", desk.at.token, data, 0, GAS, lambda name: name.startswith("batch-"))
    pool = desk.rpc.pool()
    sent = manager.get("take-over")
    assert sent is not None
    assert (sent.state, pool[min(pool)].hash) == (State.SENT, sent.tx_hash)
    assert all(one.has_blobs for one in pool.values())
    desk.chain.set_automine(True)
    desk.chain.mine()
    assert manager.wait("take-over", 120).nonce == min(pool)
    manager.wait("batch-2", 120)
    assert desk.minted == 970
    manager.close()


@pytest.mark.node
def test_roll_back__with_a_blob_of_before_stuck_in_the_pool__posts_again_behind_it(
    anvil: Chain, tmp_path: Path, make_batch: BatchMaker
) -> None:
    """Its nonce cannot be had: it is bumped until it is mined and refused by L1; what comes again comes behind it."""
    sequencer, rpc = anvil.signer(SEQUENCER), StrictNode(anvil.url)
    rpc.sender = sequencer.address
    at = deploy(
        rpc, anvil.signer(DEPLOYER), DeployConfig(GENESIS_ROOT, sequencer.address, 3600, 3600, data="blob")
    )
    clock = Clock()
    config = PosterConfig(confirmations=1, in_blobs=True)
    steps: list[str] = []

    def open_manager() -> TxManager:
        def checkpoint(step: str) -> None:
            if steps and step == steps[0]:
                steps.pop(0)
                raise Crash

        return TxManager(
            rpc,
            sequencer,
            tmp_path / "tx.sqlite",
            TxConfig(stall_s=STALL_S),
            clock=clock,
            checkpoint=checkpoint,
        )

    manager = open_manager()
    before = Poster(rpc, manager, at.rollup, config)
    assert before.offer(make_batch(1))
    before.drain(120)
    anvil.set_automine(False)
    assert before.offer(make_batch(2))
    before.step()
    assert len(rpc.pool()) == 1

    # batch 1 is rolled back, in a block that has room for nothing else
    rpc.call("evm_setBlockGasLimit", hex(250_000))
    rpc.call("anvil_impersonateAccount", at.arbiter)
    rpc.call("anvil_setBalance", at.arbiter, hex(10**20))
    data = ROLLUP.encode("roll_back", 1, anvil.signer(DEPLOYER).address)
    call = {
        "from": at.arbiter,
        "to": at.rollup,
        "data": to_hex(data),
        "gasPrice": hex(5 * 10**9),
        "gas": hex(200_000),
    }
    rolled_back = rpc.call("eth_sendTransaction", call)
    anvil.mine()
    rpc.call("evm_setBlockGasLimit", hex(chains.GAS_LIMIT))
    receipt = rpc.receipt(rolled_back)
    assert receipt is not None
    assert receipt["status"] == "0x1"
    assert len(rpc.pool()) == 1
    assert ROLLUP.read(rpc, at.rollup, "next_batch") == 1

    # the sequencer's key makes up the bond, and posts again; it crashes at each step
    manager.send("rebond-1", at.sequencers, SEQUENCERS.encode("join"), 10**18, 300_000)
    again = [replace(make_batch(number), post_root=bytes([0xA0 + number]) * 32) for number in (1, 2, 3)]
    again = [replace(one, payload=one.post_root[:31] + one.payload[31:]) for one in again]
    again[1:] = [replace(one, pre_root=before_it.post_root) for before_it, one in pairwise(again)]
    for step in (
        "bump stored",
        "intent stored",
        "nonce stored",
        "before sending",
        "after sending",
        "sending stored",
    ):
        steps[:] = [step]
        after = Poster(rpc, manager, at.rollup, config, clock, epoch=1)
        for one in again:
            assert after.offer(one)
        # what is pending is replaced where that is what the step is of
        is_of_a_bump = step in ("bump stored", "after sending", "sending stored")
        with contextlib.suppress(Crash):
            for _ in range(6):
                clock.now_s += STALL_S + 1 if is_of_a_bump else 1
                after.step()
        assert steps == [], step
        manager.close()
        manager = open_manager()
    anvil.set_automine(True)
    anvil.mine()
    after = Poster(rpc, manager, at.rollup, config, clock, epoch=1)
    for one in again:
        assert after.offer(one)
    after.drain(120)
    assert after.status().queued == 0, after.status().reason
    posted = list(Follower(rpc, at.inbox, at.rollup, at.deploy_block, 0).batches(at.deploy_block))
    assert [one.post_root for one in posted] == [one.post_root for one in again]
    old = manager.get("batch-2")
    assert old is not None
    assert old.state is State.FAILED
    assert "reverted" in old.error
    names = ("batch-1", "batch-2", "rebond-1", *(f"batch-{number}-epoch-1" for number in (1, 2, 3)))
    nonces = [manager.get(name).nonce for name in names]  # type: ignore[union-attr]
    assert nonces == list(range(nonces[0], nonces[0] + len(names)))  # type: ignore[arg-type,operator]
    manager.close()
    rpc.close()
