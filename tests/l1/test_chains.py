"""Chains start, say why when they do not, and end with their object; the deployment file survives a round trip."""

from pathlib import Path

import pytest

from sequencer.clock import utc
from sequencer.contracts import load
from sequencer.l1 import chains
from sequencer.l1.abi import Contract
from sequencer.l1.batch import Batch
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import ChainStartError, DeploymentError, RpcUnavailable, TransactionFailed
from sequencer.l1.poster import Poster
from sequencer.l1.rpc import Rpc
from sequencer.l1.wallet import key_from_environment, key_from_keystore
from sequencer.protocol.batch import data_root

from .conftest import GENESIS_ROOT, BatchMaker, Exchange


def test_start__of_an_unknown_name_or_a_dead_url__says_so() -> None:
    with pytest.raises(ChainStartError, match="unknown chain"):
        chains.start("ganache")
    with pytest.raises(ChainStartError, match="no answer"):
        chains.start("http://127.0.0.1:9")


def test_start__on_a_taken_port__names_the_log(tmp_path: Path) -> None:
    with chains.start("pyevm", log_dir=tmp_path) as first:
        port = int(first.url.rsplit(":", 1)[1])
        process = first.process
        with pytest.raises(ChainStartError) as caught:
            chains.start("pyevm", port=port, log_dir=tmp_path / "other")
        assert caught.value.log_path is not None
        attached = chains.start(first.url)
        assert attached.process is None
        attached.stop()
        assert first.rpc.block_number() == 0
    assert process is not None
    assert process.poll() is not None
    with pytest.raises(RpcUnavailable):
        Rpc(first.url, attempts=1).block_number()


@pytest.mark.node
@pytest.mark.parametrize("name", ["anvil", "hardhat"])
def test_start_of_anvil_or_hardhat__on_a_taken_port__raises(
    name: str, tmp_path: Path, installed_devnets: None
) -> None:
    with (
        chains.start("pyevm", log_dir=tmp_path) as first,
        pytest.raises(ChainStartError, match=r"(?i)in use"),
    ):
        chains.start(name, port=int(first.url.rsplit(":", 1)[1]), log_dir=tmp_path)


@pytest.mark.node
def test_anvil__over_a_thousand_blocks__writes_no_state_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(chains.install_dir().parents[2]))
    monkeypatch.setenv("HOME", str(tmp_path))
    with chains.start("anvil", log_dir=tmp_path) as anvil:
        anvil.mine(1000)
        kept = anvil.rpc.block_number() - chains.STATES_MAX // 2
        assert anvil.rpc.call("eth_getBalance", anvil.signer(0).address, hex(kept)) == hex(10_000 * 10**18)
        assert anvil.rpc.block(1) is not None
        assert [path for path in tmp_path.rglob("*") if path.suffix == ".json"] == []


def test_install__without_node__says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ChainStartError, match=r"Node\.js"):
        chains.start("anvil")


def test_deployment__is_saved_loaded_and_checked(exchange: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "a" / "deployment.json"
    exchange.deployment.save(path)
    loaded = Deployment.load(path)
    assert loaded == exchange.deployment
    loaded.check(exchange.rpc)
    path.write_text("{}")
    with pytest.raises(DeploymentError):
        Deployment.load(path)


def test_claim__of_a_proven_withdrawal__pays_its_owner(exchange: Exchange) -> None:
    """A state of one entry, the withdrawal: its leaf is the root, and the path is empty."""
    from tiny_keccak import keccak256

    owner = exchange.other_trader.address
    exchange.trader.deposit(9_000_000)
    key = (8 << 252).to_bytes(32, "big")
    leaf = keccak256(key + bytes(4) + bytes.fromhex(owner[2:]) + (4_000_000).to_bytes(8, "big"))
    payload = leaf[:31] + (1).to_bytes(3, "big").ljust(31, b"\0") + b"\x07" * 31
    manager = exchange.manager()
    poster = Poster(exchange.rpc, manager, exchange.deployment.rollup)
    inbox = Contract(load("Inbox").abi)
    running = bytes(inbox.read(exchange.rpc, exchange.deployment.inbox, "hash_at", 1))
    time_s = exchange.chain.head_time_s()
    poster.offer(Batch(1, GENESIS_ROOT, leaf, 1, 1, 0, time_s, 1, running, 0, 0, 0, payload))
    assert len(poster.drain(60)) == 1
    window_s = exchange.deployment.challenge_window_s
    final = utc(exchange.chain.head_time_s() + window_s)
    with pytest.raises(TransactionFailed, match=f"not final: batch 1 is final at {final}, in {window_s} s"):
        exchange.trader.claim(1, 0, owner, 4_000_000, 0, [])
    with pytest.raises(TransactionFailed, match="not final: batch 2 is not on L1 yet"):
        exchange.trader.claim(2, 0, owner, 4_000_000, 0, [])
    exchange.chain.set_time(exchange.chain.head_time_s() + exchange.deployment.challenge_window_s)
    before = exchange.other_trader.balance()
    exchange.trader.claim(1, 0, owner, 4_000_000, 0, [])
    assert exchange.other_trader.balance() == before + 4_000_000
    with pytest.raises(TransactionFailed, match="vault: claimed already"):
        exchange.trader.claim(1, 0, owner, 4_000_000, 0, [])


def test_keys__come_from_keystore_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from eth_account import Account

    secret = b"\x42" * 32
    path = tmp_path / "key.json"
    path.write_text(json.dumps(Account.encrypt(secret, "word", iterations=2)))
    monkeypatch.setenv("A_KEY", "0x" + secret.hex())
    expected = Account.from_key(secret).address
    assert key_from_keystore(path, "word").address == expected
    assert key_from_environment("A_KEY").address == expected
    monkeypatch.setenv("A_KEY", "0xnothex")
    with pytest.raises(ValueError, match="A_KEY") as caught:
        key_from_environment("A_KEY")
    assert "nothex" not in str(caught.value)


def test_pyevm__takes_thirty_full_batches_one_after_the_other(
    exchange: Exchange, make_batch: BatchMaker
) -> None:
    if exchange.chain.name != "pyevm":
        pytest.skip("what the embedded chain bears")
    poster = Poster(exchange.rpc, exchange.manager(), exchange.deployment.rollup)
    for batch_id in range(1, 31):
        poster.offer(make_batch(batch_id, 99_975))
    assert len(poster.drain(100, interval_s=0)) == 30


def test_data_root__of_small_payloads__by_hand() -> None:
    from tiny_keccak import keccak256

    def chunk(byte: bytes) -> bytes:
        return keccak256(byte * 992)

    assert data_root(b"\x07" * 992) == chunk(b"\x07")
    assert data_root(b"\x07" * 31) == keccak256((b"\x07" * 31).ljust(992, b"\0"))
    three = data_root(b"\x01" * 992 + b"\x02" * 992 + b"\x03" * 992)
    left = keccak256(chunk(b"\x01") + chunk(b"\x02"))
    assert three == keccak256(left + keccak256(chunk(b"\x03") + bytes(32)))
