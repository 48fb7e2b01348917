"""A trader's transaction that seemed to fail: what counts is its receipt, and typed again it does not happen twice."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.contracts import load
from sequencer.l1 import wallet as wallet_module
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.errors import DeploymentError, RpcUnavailable, TransactionFailed, TransactionTimeout
from sequencer.l1.fees import GWEI, FeeCaps
from sequencer.l1.journal import Journal
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.wallet import Wallet
from tests.simulation import faulty_l1
from tests.simulation.faulty_l1 import Fault, FaultyL1

from .conftest import GENESIS_ROOT, Exchange

AMOUNT = 7_000_000
INBOX = Contract(load("Inbox").abi)
SEQUENCERS = Contract(load("Sequencers").abi)


@pytest.fixture
def proxy(exchange: Exchange) -> Iterator[FaultyL1]:
    with faulty_l1.faulty(exchange.rpc.url) as made:
        yield made


class Typed:
    """One command after the other, each with a wallet of its own on the same journal, as a shell has them."""

    def __init__(self, exchange: Exchange, proxy: FaultyL1) -> None:
        self.exchange = exchange
        self.path = exchange.directory / "journal.json"
        self.rpc = Rpc(proxy.url, timeout_s=1.0, attempts=1)
        self.resumed: list[str] = []

    def wallet(self) -> Wallet:
        return Wallet(
            self.rpc,
            self.exchange.chain.signer(2),
            self.exchange.deployment,
            Journal(self.path),
            on_resumed=self.resumed.append,
        )

    @property
    def messages(self) -> int:
        return int(INBOX.read(self.exchange.rpc, self.exchange.deployment.inbox, "count"))


@pytest.fixture
def typed(exchange: Exchange, proxy: FaultyL1) -> Iterator[Typed]:
    made = Typed(exchange, proxy)
    wallet = made.wallet()
    wallet.mint(10 * AMOUNT)
    wallet.approve(2**255)
    wallet.told()
    yield made
    made.rpc.close()


def only_sending(fault: Fault) -> Fault:
    def of(one: faulty_l1.Exchange) -> None:
        if one.calls[0].get("method") == "eth_sendRawTransaction":
            fault(one)
        else:
            one.send(one.ask())

    return of


LOST = {
    "lost": faulty_l1.lost_answer,
    "late": faulty_l1.late(2.0),
    "known": faulty_l1.refuses("already known", takes=True),
    "words": faulty_l1.refuses("the moon is in the wrong house", takes=True),
    "null": lambda one: one.send({"jsonrpc": "2.0", "id": one.ask()["id"], "result": None}),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_deposit__whose_answer_is_lost__is_waited_for_by_its_hash(
    typed: Typed, proxy: FaultyL1, fault: Fault
) -> None:
    """Before, it raised, and the next one that was typed deposited once more."""
    before = typed.messages
    proxy.fault = only_sending(fault)
    index = typed.wallet().deposit(AMOUNT)
    assert (typed.messages, index) == (before + 1, before)


@pytest.mark.parametrize("call", ["deposit", "deposit_with_permit", "pay_in", "force_withdraw"])
def test_command__that_did_not_hear_of_its_end__typed_again_does_not_do_it_twice(
    typed: Typed, proxy: FaultyL1, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed.wallet().deposit(AMOUNT + 1)  # there is an account to force something of
    before = typed.messages
    monkeypatch.setattr(wallet_module, "RECEIPT_TIMEOUT_S", 1.5)

    def gone_once_sent(one: faulty_l1.Exchange) -> None:
        answer = one.ask()
        if one.calls[0].get("method") == "eth_sendRawTransaction":
            proxy.fault = faulty_l1.silence
            one.hang_up()
        else:
            one.send(answer)

    proxy.fault = gone_once_sent
    with pytest.raises(TransactionTimeout, match="the same command goes on with it"):
        getattr(typed.wallet(), call)(AMOUNT)
    proxy.fault = None
    again = typed.wallet()
    index = getattr(again, call)(AMOUNT)
    assert (typed.messages, index) == (before + 1, before)
    assert "goes on with transaction 0x" in typed.resumed[0]

    # what failed after it fails before its end was told: the same again
    index = getattr(typed.wallet(), call)(AMOUNT)
    assert (typed.messages, index) == (before + 1, before)
    again.told()
    index = getattr(typed.wallet(), call)(AMOUNT)  # and this is another one
    assert (typed.messages, index) == (before + 2, before + 1)


def test_process__killed_between_signing_and_hearing__goes_on_in_the_next(
    typed: Typed, exchange: Exchange
) -> None:
    before = typed.messages
    exchange.deployment.save(exchange.directory / "deployment.json")
    code = """
import os, sys
from pathlib import Path
from sequencer.l1.deploy import Deployment
from sequencer.l1.journal import Journal
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.l1.wallet import DEVNET_MNEMONIC, Wallet
url, folder = sys.argv[1], Path(sys.argv[2])
class Dies(Rpc):
    def send_raw(self, raw):
        super().send_raw(raw)
        os._exit(9)
signer, at = Signer.from_mnemonic(DEVNET_MNEMONIC, 2), Deployment.load(folder / "deployment.json")
wallet = Wallet(Dies(url), signer, at, Journal(folder / "journal.json"))
wallet.deposit(int(sys.argv[3]))
"""
    arguments = [exchange.rpc.url, str(exchange.directory), str(AMOUNT)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, check=False)
    assert done.returncode == 9
    typed.wallet().deposit(AMOUNT)
    assert typed.messages == before + 1
    assert len(typed.resumed) == 1


def test_join__and_a_claim__are_not_done_twice(typed: Typed, proxy: FaultyL1, exchange: Exchange) -> None:
    at = exchange.deployment
    bond = int(SEQUENCERS.read(exchange.rpc, at.sequencers, "bond_min"))
    proxy.fault = only_sending(faulty_l1.lost_answer)
    first = typed.wallet().transact(
        "join", at.sequencers, SEQUENCERS.encode("join"), bond, 500_000, same="the set"
    )
    # the second asks for what is missing of the bond now: nothing
    again = typed.wallet().transact(
        "join", at.sequencers, SEQUENCERS.encode("join"), 0, 500_000, same="the set"
    )
    assert first.tx_hash == again.tx_hash


def test_refusal__for_good__is_an_error_at_once_and_the_next_is_fresh(
    typed: Typed, exchange: Exchange
) -> None:
    before = typed.messages
    with pytest.raises(TransactionFailed, match="below"):
        typed.wallet().deposit(1)
    typed.wallet().deposit(AMOUNT)
    assert typed.messages == before + 1
    poor = Wallet(typed.rpc, exchange.chain.signer(2), exchange.deployment, Journal(typed.path))
    with pytest.raises(TransactionFailed, match=r"has .* ETH, and this may cost .* ETH"):
        poor.transact("much", exchange.deployment.inbox, b"", 10**30)
    assert typed.resumed == []


def test_outage__before_it_is_signed__sends_nothing(typed: Typed, proxy: FaultyL1) -> None:
    proxy.fault = faulty_l1.status("503 Service Unavailable")
    with pytest.raises(RpcUnavailable):
        typed.wallet().deposit(AMOUNT)
    assert not typed.path.exists() or typed.path.read_text().strip() == "[]"


def test_fees__of_a_trader__are_within_the_caps(typed: Typed, proxy: FaultyL1, exchange: Exchange) -> None:
    past = exchange.rpc.call("eth_feeHistory", hex(20), "latest", [50])
    taken = sorted(to_int(row[0]) for row in past["reward"])
    proxy.fault = faulty_l1.fees(tip_wei=450 * GWEI)
    mined = typed.wallet().approve(5)
    found = exchange.rpc.call("eth_getTransactionByHash", mined.tx_hash)
    assert to_int(found["maxPriorityFeePerGas"]) <= max(GWEI, 2 * taken[len(taken) // 2])
    proxy.fault = faulty_l1.fees(base_wei=600 * GWEI)
    with pytest.raises(TransactionFailed, match="base fee is 600 gwei, above the cap of 500 gwei"):
        typed.wallet().approve(6)
    low = Wallet(typed.rpc, exchange.chain.signer(2), exchange.deployment, caps=FeeCaps(max_fee=1))
    proxy.fault = None
    with pytest.raises(TransactionFailed, match="above the cap"):
        low.approve(7)


def test_token__that_the_vault_cannot_hold__is_refused_at_deployment(exchange: Exchange) -> None:
    config = DeployConfig(GENESIS_ROOT, exchange.sequencer.address, 3600, 3600)
    signer = exchange.chain.signer(0)
    nobody = DeployConfig(**{**vars_of(config), "token": "0x" + "77" * 20})
    with pytest.raises(DeploymentError, match="token: there is no contract at 0x7777"):
        deploy(exchange.rpc, signer, nobody)
    other = DeployConfig(**{**vars_of(config), "token": exchange.deployment.inbox})
    with pytest.raises(DeploymentError, match="is no ERC-20 with decimals"):
        deploy(exchange.rpc, signer, other)
    with faulty_l1.faulty(exchange.rpc.url) as proxy:

        def eighteen(one: faulty_l1.Exchange) -> None:
            call = one.calls[0]
            if call["method"] == "eth_call" and call["params"][0]["data"] == "0x313ce567":
                one.send({"jsonrpc": "2.0", "id": call["id"], "result": "0x" + f"{18:064x}"})
            else:
                one.send(one.ask())

        proxy.fault = eighteen
        rpc = Rpc(proxy.url)
        good = DeployConfig(**{**vars_of(config), "token": exchange.deployment.token})
        with pytest.raises(DeploymentError, match="has 18 decimals, and the exchange counts in 6"):
            deploy(rpc, signer, good)
        proxy.fault = None
        assert deploy(rpc, signer, good).token == exchange.deployment.token
        rpc.close()


def vars_of(config: DeployConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
