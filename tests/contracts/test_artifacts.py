"""What ships equals the sources, fits the chain's limits, and changes only where a diff shows it.

FAIRSTRIKE_UPDATE_SNAPSHOTS=1 rewrites gas_snapshot.json and interface_snapshot.json.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contract_support import ETHER, INBOX, PERMIT_TYPES, USD, Batch
from eth_account import Account
from web3 import EthereumTesterProvider, Web3

from sequencer.contracts import NAMES, load
from sequencer.l1.deploy import VERIFIERS, WITH_TEXT
from sequencer.protocol import constants as c
from sequencer.protocol.cmap import Map

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
EIP_170_BYTES = 24_576
ELEMENTS_POSTED = (1, 32, 100, 300, 1_000, 3_932)


def check_snapshot(name: str, found: dict[str, Any]) -> None:
    path = HERE / name
    text = json.dumps(found, indent=1) + "\n"
    if os.environ.get("FAIRSTRIKE_UPDATE_SNAPSHOTS"):
        path.write_text(text)
    assert found == json.loads(path.read_text())


def test_artifacts__are_what_the_sources_compile_to() -> None:
    script = ROOT / "scripts" / "compile_contracts.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)


def test_artifacts__fit_eip_170() -> None:
    for name in NAMES:
        artifact = load(name)
        print(f"{name}: {artifact.deployed_bytes} of {EIP_170_BYTES} bytes")
        assert artifact.deployed_bytes <= EIP_170_BYTES
        assert (artifact.vyper_version, artifact.evm_version) == ("0.4.3", "cancun")


def test_load__unknown_name__raises() -> None:
    with pytest.raises(KeyError):
        load("../pyproject")


def signature(entry: dict[str, Any]) -> str:
    """One line an ABI entry."""

    def type_of(item: dict[str, Any]) -> str:
        if item["type"].startswith("tuple"):
            return "(" + ",".join(f"{type_of(part)} {part['name']}" for part in item["components"]) + ")"
        return str(item["type"])

    inputs = ",".join(
        type_of(item) + (" indexed" if item.get("indexed") else "") + f" {item['name']}"
        for item in entry.get("inputs", [])  # a fallback has none
    )
    outputs = ",".join(type_of(item) for item in entry.get("outputs", []))
    head = f"{entry['type']} {entry.get('name', '')}({inputs})"
    return f"{head} {entry.get('stateMutability', '')}" + (f" -> {outputs}" if outputs else "")


def flat(layout: dict[str, Any], module: str = "") -> dict[str, Any]:
    """Variables by name, those of a module as module.name."""
    found = {}
    for name, slot in layout.items():
        if isinstance(slot.get("type"), str):
            found[module + name] = slot
        else:
            found |= flat(slot, f"{name}.")
    return found


def test_interface__equals_the_snapshot() -> None:
    found = {}
    for name in NAMES:
        raw = json.loads((ROOT / "sequencer" / "artifacts" / f"{name}.json").read_text())
        layout = raw["storage_layout"]
        found[name] = {
            "abi": sorted(signature(entry).rstrip() for entry in raw["abi"]),
            "storage": {
                key: [slot["slot"], slot["type"]]
                for key, slot in flat(layout.get("storage_layout", {})).items()
            },
            "immutables": {key: slot["type"] for key, slot in flat(layout.get("code_layout", {})).items()},
        }
    check_snapshot("interface_snapshot.json", found)


class Chain:
    """A py-evm chain with an exchange on it: real transactions, so that gas is what a receipt says."""

    def __init__(self) -> None:
        self.provider = EthereumTesterProvider()
        self.w3 = Web3(self.provider)
        self.deployer, self.sequencer, self.trader, self.other_trader, *_ = self.w3.eth.accounts
        self.token = self.create("TestToken")
        self.inbox = self.create("Inbox", *INBOX)
        self.sequencers = self.create("Sequencers", self.sequencer, ETHER, 50, value=ETHER)
        self.rollup = self.create(
            "Rollup",
            b"\x11" * 32,
            self.sequencers.address,
            self.inbox.address,
            60,
            15,
            86_400,
            33_000,
            400_000,
        )
        self.send(self.sequencers.functions.set_rollup(self.rollup.address), self.deployer)
        self.vault = self.create("Vault", self.token.address, self.rollup.address, USD, 10**9 * USD)
        self.send(self.inbox.functions.set_vault(self.vault.address), self.deployer)
        data_source = self.create("DataSourceCalldata")
        domain = self.rollup.functions.domain_separator().call()
        text = self.create("OrderText").address
        verifiers = [
            self.create(name, domain, *([text] if name == WITH_TEXT else [])).address for name in VERIFIERS
        ]
        self.arbiter = self.create("Arbiter", self.rollup.address, data_source.address, *verifiers, 10)
        self.send(self.rollup.functions.set_arbiter(self.arbiter.address), self.deployer)
        self.exit = self.create("Exit", self.vault.address, 3_600, 7_200, 800_000)
        self.send(self.vault.functions.set_exit(self.exit.address), self.deployer)
        self.seq = 0

    def create(self, name: str, *arguments: Any, value: int = 0) -> Any:
        artifact = load(name)
        factory = self.w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        receipt = self.w3.eth.wait_for_transaction_receipt(
            factory.constructor(*arguments).transact({"from": self.deployer, "value": value})
        )
        return self.w3.eth.contract(address=receipt["contractAddress"], abi=artifact.abi)

    def send(self, call: Any, sender: str, value: int = 0) -> int:
        receipt = self.w3.eth.wait_for_transaction_receipt(
            call.transact({"from": sender, "value": value, "gas": 16_000_000})
        )
        assert receipt["status"] == 1
        return int(receipt["gasUsed"])

    def post(self, elements: int, post_root: bytes) -> tuple[int, int]:
        """Posts one-element records, 15 a segment, of pseudo-random bytes; returns payload bytes and gas."""
        segments = -(-elements // 15)
        tables = segments + -(-segments // 10)
        records = min(elements, 3_936 - tables)
        number = self.rollup.functions.next_batch().call()
        pre_root = self.rollup.functions.batch(number - 1).call()[1]
        batch = Batch(number, post_root, segments, records, self.seq, pre_root=pre_root)
        noise = Web3.keccak(text="record")[:31]
        payload = batch.payload[: tables * 31] + noise * records
        self.seq += records
        call = self.rollup.functions.post(*batch.arguments()[:-1], payload)
        return len(payload), self.send(call, self.sequencer)


def test_gas__equals_the_snapshot() -> None:
    chain = Chain()
    vault = chain.vault.functions
    gas: dict[str, Any] = {}
    for owner in (chain.trader, chain.other_trader):
        chain.send(chain.token.functions.mint(owner, 1_000 * USD), owner)
        chain.send(chain.token.functions.approve(chain.vault.address, 2**256 - 1), owner)
    gas["deposit, first of an owner, first of all"] = chain.send(vault.deposit(10 * USD), chain.trader)
    gas["deposit, first of an owner"] = chain.send(vault.deposit(10 * USD), chain.other_trader)
    gas["deposit"] = chain.send(vault.deposit(10 * USD), chain.trader)

    inbox = chain.inbox.functions
    fee = INBOX[2]
    gas["force_withdraw"] = chain.send(inbox.force_withdraw(0), chain.trader, fee)
    gas["force_cancel_all"] = chain.send(inbox.force_cancel_all(), chain.trader, fee)
    order = inbox.force_order(2**32 - 1, 0, 10_000, 10_000, 2**32 - 1, 65_535, 0)
    gas["force_order"] = chain.send(order, chain.trader, fee)
    gas["force_liquidate"] = chain.send(inbox.force_liquidate(2, 0), chain.trader, fee)

    key = b"\x07" * 32
    signer = chain.provider.ethereum_tester.add_account("0x" + key.hex())
    chain.w3.eth.send_transaction({"from": chain.deployer, "to": signer, "value": ETHER})
    chain.send(chain.token.functions.mint(signer, 1_000 * USD), chain.trader)
    deadline = 2**32 - 1
    domain = {
        "name": chain.token.functions.name().call(),
        "version": "1",
        "chainId": chain.w3.eth.chain_id,
        "verifyingContract": chain.token.address,
    }
    message = {
        "owner": signer,
        "spender": chain.vault.address,
        "value": 10 * USD,
        "nonce": 0,
        "deadline": deadline,
    }
    signed = Account.sign_typed_data(key, domain, PERMIT_TYPES, message)
    r, s = signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")
    gas["deposit_with_permit, first of an owner"] = chain.send(
        vault.deposit_with_permit(10 * USD, deadline, signed.v, r, s), signer
    )

    state = Map()
    for index in range(10_000):
        state.put(c.KEY_ACCOUNT | index, index)
    for n in range(5_000):
        state.put(c.KEY_WITHDRAWAL | n, int(chain.trader, 16) << 64 | USD)
    chain.post(1, state.root())
    gas["post, by payload bytes"] = {}
    for elements in ELEMENTS_POSTED:
        size, used = chain.post(elements, state.root())
        gas["post, by payload bytes"][str(size)] = used
    chain.provider.ethereum_tester.time_travel(chain.w3.eth.get_block("latest")["timestamp"] + 61)
    for n, label in ((0, "claim, first of its word"), (1, "claim")):
        path = state.path(c.KEY_WITHDRAWAL | n)
        claim = vault.claim(1, n, chain.trader, USD, path.bitmap, list(path.siblings))
        gas[f"{label}, {len(path.siblings)} siblings"] = chain.send(claim, chain.deployer)
    overdue = chain.inbox.functions.deadline_at(0).call() + 1
    chain.provider.ethereum_tester.time_travel(overdue)
    gas["freeze"] = chain.send(chain.rollup.functions.freeze(0), chain.deployer)
    print(json.dumps(gas, indent=1))
    check_snapshot("gas_snapshot.json", gas)
