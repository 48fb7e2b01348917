"""Each intent happens once: through crashes at every step, stalls, reorganisations and gaps."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.l1.errors import ForeignKeyUse, IntentConflict, RpcRejected, TransactionFailed
from sequencer.l1.fees import bumped
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.signing import Content, Fees, Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.txstore import State

from .conftest import SEQUENCER, Exchange

TOKEN = Contract(load("TestToken").abi)
STEPS = ("intent stored", "nonce stored", "before sending", "after sending", "sending stored")
GAS = 200_000


class Crash(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def crash_at(step: str) -> Callable[[str], None]:
    def checkpoint(passed: str) -> None:
        if passed == step:
            raise Crash(step)

    return checkpoint


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def mint(manager: TxManager, exchange: Exchange, intent_id: str, amount: int) -> None:
    """Minting is not idempotent: a second transaction would show in the balance."""
    manager.send(intent_id, exchange.deployment.token, TOKEN.encode("mint", manager.address, amount), 0, GAS)


def minted(exchange: Exchange) -> int:
    return int(TOKEN.read(exchange.rpc, exchange.deployment.token, "balanceOf", exchange.sequencer.address))


def test_intent__sent_twice__happens_once(exchange: Exchange) -> None:
    manager = exchange.manager()
    for _ in range(3):
        mint(manager, exchange, "a", 5)
        first = manager.wait("a", 60)
    assert minted(exchange) == 5
    assert first.state is State.CONFIRMED
    assert first.gas_used
    with pytest.raises(IntentConflict):
        mint(manager, exchange, "a", 6)


@pytest.mark.parametrize("step", STEPS)
def test_crash__at_a_step__neither_loses_nor_repeats(exchange: Exchange, step: str) -> None:
    manager = exchange.manager(checkpoint=crash_at(step))
    with pytest.raises(Crash):
        mint(manager, exchange, "a", 5)
    manager.close()
    manager = exchange.manager()
    mint(manager, exchange, "b", 70)
    mint(manager, exchange, "a", 5)
    manager.wait("a", 60)
    manager.wait("b", 60)
    assert minted(exchange) == 75
    assert exchange.rpc.nonce(manager.address) == exchange.rpc.nonce(manager.address, "pending")


KILLED = """
import os, signal, sys
from pathlib import Path
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxManager
from sequencer.l1.chains import DEVNET_MNEMONIC
url, path, step, index, to, data = sys.argv[1:]
def checkpoint(passed):
    if passed == step:
        os.kill(os.getpid(), signal.SIGKILL)
manager = TxManager(Rpc(url), Signer.from_mnemonic(DEVNET_MNEMONIC, int(index)), Path(path), checkpoint=checkpoint)
manager.send("a", to, bytes.fromhex(data), 0, 200000)
"""


@pytest.mark.parametrize("step", STEPS)
def test_kill__at_a_step__neither_loses_nor_repeats(exchange: Exchange, step: str) -> None:
    if exchange.chain.name != "pyevm" and step != "after sending":
        pytest.skip("the other steps do not touch the chain")
    path = exchange.directory / "tx.sqlite"
    data = TOKEN.encode("mint", exchange.sequencer.address, 5).hex()
    arguments = [exchange.rpc.url, str(path), step, str(SEQUENCER), exchange.deployment.token, data]
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], check=False, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert killed.returncode == -signal.SIGKILL
    manager = exchange.manager()
    mint(manager, exchange, "a", 5)
    manager.wait("a", 60)
    assert minted(exchange) == 5


def test_stall__bumps_the_fee_until_mined_and_happens_once(exchange: Exchange) -> None:
    clock = Clock()
    manager = exchange.manager(TxConfig(stall_s=30), clock=clock)
    exchange.chain.set_automine(False)
    try:
        mint(manager, exchange, "a", 5)
        mint(manager, exchange, "b", 70)
        first = manager.get("a")
        for _ in range(2):
            clock.now_s += 31
            manager.poll()
        assert manager.metrics().bumps == 2
        assert first is not None
        assert manager.get("a").tx_hash != first.tx_hash  # type: ignore[union-attr]
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    a, b = manager.wait("a", 60), manager.wait("b", 10)
    assert a.nonce == first.nonce
    assert b.nonce == a.nonce + 1  # type: ignore[operator]
    assert minted(exchange) == 75
    assert exchange.rpc.receipt(first.tx_hash) is None  # type: ignore[arg-type]


def test_crash__between_storing_and_sending_a_bump__sends_it(exchange: Exchange) -> None:
    clock = Clock()
    manager = exchange.manager(TxConfig(stall_s=30), clock=clock, checkpoint=crash_at("bump stored"))
    exchange.chain.set_automine(False)
    try:
        mint(manager, exchange, "a", 5)
        old = manager.get("a")
        clock.now_s += 31
        with pytest.raises(Crash):
            manager.poll()
        manager.close()
        manager = exchange.manager(clock=clock)
        manager.poll()
        assert old is not None
        assert manager.get("a").tx_hash != old.tx_hash  # type: ignore[union-attr]
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    manager.wait("a", 60)
    assert minted(exchange) == 5


def test_dropped_transaction__is_sent_again(exchange: Exchange) -> None:
    clock = Clock()
    manager = exchange.manager(TxConfig(stall_s=1_000, rebroadcast_s=10), clock=clock)
    exchange.chain.set_automine(False)
    try:
        mint(manager, exchange, "a", 5)
        sent = manager.get("a")
        assert sent is not None
        assert sent.tx_hash is not None
        exchange.chain.drop_transaction(sent.tx_hash)
        clock.now_s += 11
        manager.poll()
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    assert manager.wait("a", 60).tx_hash == sent.tx_hash
    assert minted(exchange) == 5


def test_reorg__of_an_unconfirmed_transaction__sends_it_again(exchange: Exchange) -> None:
    manager = exchange.manager(TxConfig(confirmations=3))
    snapshot = exchange.chain.snapshot()
    mint(manager, exchange, "a", 5)
    while manager.get("a").state is not State.MINED:  # type: ignore[union-attr]
        manager.poll()
    exchange.chain.revert(snapshot)
    exchange.chain.mine()
    assert minted(exchange) == 0
    manager.poll()
    manager.poll()
    exchange.chain.mine(3)
    assert manager.wait("a", 60).state is State.CONFIRMED
    assert minted(exchange) == 5
    assert manager.metrics().reorgs >= 1


def test_reorg__deeper_than_the_confirmations__sends_it_again_all_the_same(exchange: Exchange) -> None:
    manager = exchange.manager()
    snapshot = exchange.chain.snapshot()
    mint(manager, exchange, "a", 5)
    manager.wait("a", 60)
    exchange.chain.revert(snapshot)
    exchange.chain.mine()
    mint(manager, exchange, "b", 70)
    manager.wait("b", 60)
    manager.wait("a", 60)
    assert minted(exchange) == 75


def test_refusal__of_what_is_mined_after_all__gives_way_to_the_truth(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = Rpc.send_raw

    def deliver_and_deny(self: Rpc, raw: bytes) -> str:
        deliver(self, raw)
        raise RpcRejected("eth_sendRawTransaction", -32000, "exceeds block gas limit")

    exchange.chain.set_automine(False)
    try:
        manager = exchange.manager()
        with monkeypatch.context() as patch:
            patch.setattr(Rpc, "send_raw", deliver_and_deny)
            mint(manager, exchange, "a", 5)
        assert manager.get("a").state is State.FAILED  # type: ignore[union-attr]
        manager.close()
        manager = exchange.manager(checkpoint=crash_at("nonce stored"))
        with pytest.raises(Crash):
            manager.poll()
        manager.close()
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    manager = exchange.manager()
    assert manager.wait("a", 60).state is State.CONFIRMED
    assert minted(exchange) == 5
    mint(manager, exchange, "b", 70)
    manager.wait("b", 60)
    assert minted(exchange) == 75


@pytest.mark.parametrize("gas", [21_500, 10**8], ids=["too little", "above the block limit"])
def test_refused_transaction__fails_and_holds_up_no_other(exchange: Exchange, gas: int) -> None:
    manager = exchange.manager()
    data = TOKEN.encode("mint", manager.address, 5)
    manager.send("refused", exchange.deployment.token, data, 0, gas)
    mint(manager, exchange, "b", 70)
    manager.wait("b", 60)
    refused = manager.get("refused")
    assert refused is not None
    assert refused.state is State.FAILED
    with pytest.raises(TransactionFailed):
        manager.wait("refused", 1)
    assert minted(exchange) == 70


def test_reverted_transaction__fails_with_the_contracts_reason(exchange: Exchange) -> None:
    manager = exchange.manager()
    data = TOKEN.encode("transfer", exchange.trader.address, 10**30)
    manager.send("a", exchange.deployment.token, data, 0, GAS)
    with pytest.raises(TransactionFailed, match="token: balance too small"):
        manager.wait("a", 60)
    mint(manager, exchange, "b", 70)
    manager.wait("b", 60)


def test_l1_down__queues_and_sends_when_it_is_back(exchange: Exchange) -> None:
    rpc = Rpc("http://127.0.0.1:9", attempts=1)
    manager = TxManager(rpc, exchange.sequencer, exchange.directory / "tx.sqlite")
    mint(manager, exchange, "a", 5)
    assert manager.metrics().l1_down
    assert manager.get("a").state is State.QUEUED  # type: ignore[union-attr]
    rpc.url = exchange.rpc.url
    manager.wait("a", 60)
    rpc.close()
    assert not manager.metrics().l1_down
    assert minted(exchange) == 5


def test_nonce__used_by_others__fails_the_intent_and_never_moves_it(exchange: Exchange) -> None:
    manager = exchange.manager(checkpoint=crash_at("before sending"))
    with pytest.raises(Crash):
        mint(manager, exchange, "a", 5)
    manager.close()
    nonce = exchange.rpc.nonce(exchange.sequencer.address)
    foreign = Content(exchange.sequencer.address_bytes, b"", 0, 21_000)
    exchange.rpc.send_raw(
        exchange.sequencer.sign_transaction(31_337, nonce, Fees(10**11, 10**9), foreign).raw
    )
    while exchange.rpc.nonce(exchange.sequencer.address) == nonce:
        pass
    clock = Clock()
    manager = exchange.manager(TxConfig(stall_s=5), clock=clock)
    for _ in range(8):
        manager.poll()
        clock.now_s += 1
    with pytest.raises(TransactionFailed, match="not ours"):
        manager.wait("a", 1)
    mint(manager, exchange, "b", 70)
    manager.wait("b", 60)
    assert minted(exchange) == 70


def test_base_fee__above_the_signed_fee__is_met_by_a_bump(exchange: Exchange) -> None:
    head = exchange.rpc.block("latest")
    assert head is not None
    manager = exchange.manager(TxConfig(max_fee_cap=to_int(head["baseFeePerGas"]) // 2, tip_min=1))
    mint(manager, exchange, "a", 5)
    manager.poll()
    assert minted(exchange) == 0
    manager.close()
    manager = exchange.manager(TxConfig(stall_s=0))
    manager.wait("a", 60)
    assert minted(exchange) == 5


def send_over(manager: TxManager, exchange: Exchange, intent_id: str, amount: int) -> None:
    data = TOKEN.encode("mint", manager.address, amount)
    to = exchange.deployment.token
    manager.send_over(intent_id, to, data, 0, GAS, lambda name: name.startswith("batch-"))


@pytest.mark.parametrize("step", ["", "nonce stored", "before sending", "after sending"])
def test_void_transaction__that_is_stuck__gives_its_place_to_what_counts(
    exchange: Exchange, step: str
) -> None:
    """An old leader's batch must not stand before its take-over."""
    manager = exchange.manager(checkpoint=crash_at(step))
    exchange.chain.set_automine(False)
    try:
        if step:
            manager.close()
            manager = exchange.manager()
        mint(manager, exchange, "batch-1", 5)
        mint(manager, exchange, "batch-2", 70)
        stuck = manager.get("batch-1")
        if step:
            manager.close()
            manager = exchange.manager(checkpoint=crash_at(step))
            with pytest.raises(Crash):
                send_over(manager, exchange, "take-over", 900)
            manager.close()
            manager = exchange.manager()
        send_over(manager, exchange, "take-over", 900)
        manager.poll()
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    assert stuck is not None
    assert manager.wait("take-over", 60).nonce == stuck.nonce
    manager.wait("batch-2", 60)
    given_up = manager.get("batch-1")
    assert given_up is not None
    assert (given_up.state, given_up.error) == (State.FAILED, "given up for take-over")
    assert minted(exchange) == 970


def test_void_transaction__that_is_mined_all_the_same__leaves_what_counts_to_be_sent_again(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = exchange.manager()
    exchange.chain.set_automine(False)
    try:
        mint(manager, exchange, "batch-1", 5)
        with monkeypatch.context() as patch:
            patch.setattr(Rpc, "send_raw", lambda _self, _raw: "0x" + "00" * 32)  # nobody hears of it
            send_over(manager, exchange, "take-over", 900)
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    assert manager.wait("batch-1", 60).state is State.CONFIRMED
    assert manager.get("take-over") is None
    send_over(manager, exchange, "take-over", 900)
    manager.wait("take-over", 60)
    assert minted(exchange) == 905


def test_store__of_another_key__is_refused(exchange: Exchange) -> None:
    manager = exchange.manager()
    manager.poll()
    manager.close()
    other = TxManager(exchange.rpc, exchange.chain.signer(8), exchange.directory / "tx.sqlite")
    with pytest.raises(ForeignKeyUse):
        other.poll()


def test_fees__rise_by_an_eighth_at_least_and_not_above_the_cap(exchange: Exchange) -> None:
    assert bumped(Fees(1001, 7), Fees(0, 0)) == Fees(1127, 8)
    assert bumped(Fees(1000, 8), Fees(5000, 9)) == Fees(5000, 9)
    clock = Clock()
    manager = exchange.manager(TxConfig(stall_s=30, max_fee_cap=5 * 10**9), clock=clock)
    exchange.chain.set_automine(False)
    try:
        mint(manager, exchange, "a", 5)
        for _ in range(30):
            clock.now_s += 31
            manager.poll()
        highest = manager.get("a")
        assert highest is not None
        pooled = exchange.rpc.call("eth_getTransactionByHash", highest.tx_hash)
        assert to_int(pooled["maxFeePerGas"]) <= 5 * 10**9
        assert "fee cap" in manager.metrics().last_error
        exchange.chain.mine()
    finally:
        exchange.chain.set_automine(True)
    manager.wait("a", 60)
    assert minted(exchange) == 5


def test_signed_transaction__is_what_eth_account_signs() -> None:
    from eth_account import Account

    secret = b"\x42" * 32
    signer = Signer(secret)
    content = Content(b"\x11" * 20, b"data", 3, 50_000)
    theirs = Account.sign_transaction(
        {
            "type": 2,
            "chainId": 31_337,
            "nonce": 9,
            "maxFeePerGas": 200,
            "maxPriorityFeePerGas": 7,
            "gas": 50_000,
            "to": "0x" + "11" * 20,
            "value": 3,
            "data": b"data",
        },
        secret,
    )
    ours = signer.sign_transaction(31_337, 9, Fees(200, 7), content)
    assert signer.address == Account.from_key(secret).address
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.hash == "0x" + bytes(theirs.hash).hex()
