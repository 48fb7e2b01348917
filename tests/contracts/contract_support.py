"""What the contract tests share: deploying by artifact, exact revert reasons, payloads, and naive twins of hashes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import boa
import pytest
from boa import BoaError
from boa.contracts.abi.abi_contract import ABIContract
from boa.util.abi import Address
from eth.exceptions import Revert
from eth_abi import decode, encode
from eth_account.messages import encode_typed_data

from sequencer.contracts import load
from sequencer.l1.deploy import VERIFIERS, WITH_TEXT
from sequencer.protocol.hashing import keccak

USD = 10**6
ETHER = 10**18
INBOX = (3_600, 86_400, 10**15)  # delay_min_s, delay_max_s, message_fee
GENESIS_ROOT = b"\x11" * 32
NO_REASON = "(no reason)"
HEADER_TYPES = ["uint256", *["bytes32"] * 3, *["uint256"] * 6, "bytes32", *["uint256"] * 3]

PERMIT_TYPES = {
    "Permit": [
        {"name": "owner", "type": "address"},
        {"name": "spender", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "nonce", "type": "uint256"},
        {"name": "deadline", "type": "uint256"},
    ]
}


def reason_of(output: bytes) -> str:
    """Reason in the data of a revert."""
    if output[:4] != keccak(b"Error(string)")[:4]:
        return NO_REASON
    return str(decode(["string"], output[4:])[0])


@contextmanager
def reverts(reason: str) -> Iterator[None]:
    """The block must revert, with exactly this reason."""
    with pytest.raises((BoaError, Revert)) as caught:
        yield
    error = caught.value
    output = error.call_trace.computation.output if isinstance(error, BoaError) else error.args[0]
    assert reason_of(output) == reason


def deploy(name: str, *arguments: Any, value: int = 0) -> ABIContract:
    """Deploys a committed artifact."""
    artifact = load(name)
    constructor = next((entry for entry in artifact.abi if entry["type"] == "constructor"), {"inputs": []})
    types = [argument["type"] for argument in constructor["inputs"]]
    creation = bytes.fromhex(artifact.bytecode[2:]) + encode(types, [plain(value) for value in arguments])
    address, computation = boa.env.deploy(bytecode=creation, value=value)
    if computation.is_error:
        raise BoaError(computation.call_trace, [])
    return boa.loads_abi(json.dumps(artifact.abi), name=name).at(address)


def plain(value: Any) -> Any:
    """For eth_abi: of a contract its address, of boa's address a string."""
    value = getattr(value, "address", value)
    return str(value) if isinstance(value, Address) else value


def events_of(contract: ABIContract, name: str) -> list[Any]:
    """Events of that name in the last call of `contract`, those of the contracts it called included."""
    return [log for log in contract.get_logs(strict=False) if type(log).__name__ == name]


@dataclass
class Exchange:
    """A wired exchange."""

    token: Any
    inbox: Any
    sequencers: Any
    rollup: Any
    vault: Any
    data_source: Any
    arbiter: Any
    exit: Any


def deploy_exchange(
    sequencer: Any, token: Any = None, verifiers: tuple[Any, ...] | None = None, **changes: Any
) -> Exchange:
    """Deploys and wires one; `changes` replace constructor arguments, `verifiers` those in the order of VERIFIERS."""
    settings = {
        "genesis_root": GENESIS_ROOT,
        "challenge_window_s": 600,
        "bond_min": ETHER,
        "takeover_s": 50,
        "drift_max_s": 15,
        "silence_max_s": 3 * 86_400,
        "work_per_s": 33_000,
        "work_max": 400_000,
        "inbox": INBOX,
        "deposit_min": USD,
        "deposits_total_max": 10**9 * USD,
        "reveal_blocks": 10,
        "exit": (3_600, 7_200, 800_000),
    } | changes
    token = token or deploy("TestToken")
    inbox = deploy("Inbox", *settings["inbox"])
    boa.env.set_balance(boa.env.eoa, 1_000 * ETHER)
    sequencers = deploy(
        "Sequencers",
        *(sequencer, settings["bond_min"], settings["takeover_s"]),
        value=settings.get("bond", settings["bond_min"]),
    )
    rollup = deploy(
        "Rollup",
        settings["genesis_root"],
        sequencers,
        inbox,
        settings["challenge_window_s"],
        settings["drift_max_s"],
        settings["silence_max_s"],
        settings["work_per_s"],
        settings["work_max"],
    )
    vault = deploy("Vault", token, rollup, settings["deposit_min"], settings["deposits_total_max"])
    inbox.set_vault(vault.address)
    sequencers.set_rollup(rollup.address)
    data_source = deploy("DataSourceCalldata")
    domain = rollup.domain_separator()
    text = deploy("OrderText").address
    verifiers = verifiers or tuple(
        deploy(name, domain, *([text] if name == WITH_TEXT else [])) for name in VERIFIERS
    )
    arbiter = deploy("Arbiter", rollup, data_source, *verifiers, settings["reveal_blocks"])
    rollup.set_arbiter(arbiter.address)
    leave = deploy("Exit", vault, *settings["exit"])
    vault.set_exit(leave.address)
    return Exchange(token, inbox, sequencers, rollup, vault, data_source, arbiter, leave)


def sign_permit(
    token: Any, signer: Any, spender: Any, amount: int, deadline: int, nonce: int = 0
) -> tuple[Any, ...]:
    """EIP-2612 permit of an eth_account signer: v, r, s."""
    domain = {
        "name": token.name(),
        "version": "1",
        "chainId": boa.env.evm.patch.chain_id,
        "verifyingContract": str(token.address),
    }
    message = {
        "owner": signer.address,
        "spender": str(spender),
        "value": amount,
        "nonce": nonce,
        "deadline": deadline,
    }
    signed = signer.sign_message(encode_typed_data(domain, PERMIT_TYPES, message))
    return signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")


# ---------------------------------------------------------------------------------------------- batches


def naive_data_root(payload: bytes) -> bytes:
    """docs/PROTOCOL.md section 6, word for word."""
    padded = payload + bytes(-len(payload) % 992)
    level = [keccak(padded[at : at + 992]) for at in range(0, len(padded), 992)]
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    while len(level) > 1:
        level = [keccak(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


def pack(roots: list[bytes], ends: list[int], records: bytes, ids: bytes = b"") -> bytes:
    """Payload of a batch; `ids`: of its ticks' headers, 31 bytes each."""
    tables = b"".join(root[:31] for root in roots)
    for at in range(0, len(ends), 10):
        tables += b"".join(end.to_bytes(3, "big") for end in ends[at : at + 10]).ljust(31, b"\0")
    return tables + ids + records


@dataclass
class Batch:
    """Arguments of `post`; one record of one element a segment, unless said otherwise. `ticks` begin in it, after
    tick `tick_before`.
    """

    batch_id: int = 1
    post_root: bytes = b"\x22" * 32
    segments: int = 1
    records: int = 1
    first_seq: int = 0
    time: int = 0
    inbox_count: int = 0
    payload: bytes = field(default=b"")
    pre_root: bytes = GENESIS_ROOT
    inbox_hash: bytes = bytes(32)
    work: int = 0
    ticks: int = 0
    tick_before: int = 0

    @property
    def tick(self) -> int:
        return self.tick_before + self.ticks

    def __post_init__(self) -> None:
        if not self.payload:
            roots = [keccak(bytes([index % 256])) for index in range(self.segments - 1)] + [self.post_root]
            tail = b"".join(index.to_bytes(31, "little") for index in range(1, self.records + 1))
            ends = [*range(1, self.segments), self.records]
            ids = b"".join(keccak(index.to_bytes(4, "big"))[:31] for index in range(self.ticks))
            self.payload = pack(roots, ends, tail, ids)

    def arguments(self) -> tuple[Any, ...]:
        return (
            self.batch_id,
            self.pre_root,
            self.post_root,
            self.segments,
            self.records,
            self.first_seq,
            self.time,
            self.inbox_count,
            self.inbox_hash,
            self.work,
            self.tick,
            self.payload,
        )

    def upon(self, rollup: Any, inbox: Any) -> "Batch":
        """The same with what it is to be posted upon: the last root and tick, and the Inbox's hash, as they stand."""
        pre_root = rollup.batch(rollup.next_batch() - 1).post_root
        known = self.inbox_count <= inbox.count()
        running = inbox.hash_at(self.inbox_count) if known else bytes(32)
        return replace(
            self, pre_root=bytes(pre_root), inbox_hash=bytes(running), tick_before=rollup.tip_tick()
        )

    def header(self, pre_root: bytes, inbox_hash: bytes = bytes(32)) -> tuple[Any, ...]:
        return (
            self.batch_id,
            pre_root,
            self.post_root,
            naive_data_root(self.payload),
            len(self.payload) // 31,
            self.segments,
            self.records,
            self.first_seq,
            self.time,
            self.inbox_count,
            inbox_hash,
            self.work,
            self.tick,
            self.ticks,
        )

    def header_hash(self, pre_root: bytes, inbox_hash: bytes) -> bytes:
        return keccak(encode(HEADER_TYPES, list(self.header(pre_root, inbox_hash))))
