"""Deploys the contracts and keeps their addresses in a JSON file.

Order: token (unless there is one), inbox, sequencers (with the first one's bond), rollup, vault, data source,
verifiers, arbiter, exit, `set_vault`, `set_rollup`, `set_arbiter`, `set_exit`. Addresses follow from the deployer's
nonces, so that all transactions are sent at once and only the receipts are waited for.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from sequencer.contracts import load
from sequencer.genesis import genesis_root
from sequencer.l1.abi import Contract
from sequencer.l1.errors import DeploymentError, RpcRejected, RpcReverted, RpcUnavailable, Undecodable
from sequencer.l1.fees import DEFAULT_CAPS, gwei, market
from sequencer.l1.parameters import to_object
from sequencer.l1.refusals import Refusal, meaning
from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.l1.signing import Content, SignedTransaction, Signer
from sequencer.protocol import work
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.params import Params

DEPLOY_GAS: Final = 6_500_000  # 24 KiB of code at 200 gas a byte, and its calldata
CALL_GAS: Final = 300_000
RECEIPT_TIMEOUT_S: Final = 120.0
RESEND_S: Final = 5.0  # nodes forget, and answers are lost
TOKEN_DECIMALS: Final = 6
TAKEOVER_S: Final = 225


CONTRACTS: Final = (
    "token",
    "vault",
    "inbox",
    "sequencers",
    "rollup",
    "data_source",
    "verifier_trade",
    "verifier_amend",
    "verifier_words",
    "verifier_forced",
    "verifier_account",
    "verifier_auction",
    "verifier_ledger",
    "verifier_risk",
    "arbiter",
    "exit",
    "receipts",
)
DATA_SOURCES: Final = {"calldata": "DataSourceCalldata", "blob": "DataSourceBlob"}
VERIFIERS: Final = (
    "VerifierTrade",
    "VerifierAmend",
    "VerifierWords",
    "VerifierForced",
    "VerifierAccount",
    "VerifierAuction",
    "VerifierLedger",
    "VerifierRisk",
)
WITH_TEXT: Final = "VerifierWords"  # is told of the OrderText, too


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """`sequencer` leads first, with `bond_wei` of the deployer's; amounts of the vault are 1e-6 USD. `token` None
    deploys the test token.

    `takeover_s`: after what silence of the leader the next of the set may take over (contracts/Sequencers.vy).

    `work_per_s`, `work_max`: how fast the budget of batches grows, and what it holds (sequencer/protocol/work.py).

    `delay_*`, `message_fee_wei`: until when inbox messages must be taken, and what a forced one costs
    (contracts/Inbox.vy). `silence_max_s`: after what time without a batch anybody may freeze.
    `reveal_blocks`: for how long a commitment to a challenge is good, and its reward can be contested.
    `data`: where batches lie, "calldata" or "blob". `params`: what the genesis root follows from; they go into the
    deployment's file, for whoever replays, watches or leaves.
    `receipt_*`: by when a receipted tick must be on L1 (at most the challenge window counts), how long a signer may not
    know of a roll-back, above which fees of L1 nobody is held to post, and what a holder gets (contracts/Receipts.vy).
    `exit_*`: after a freeze (contracts/Exit.vy): how long nobody is paid while accounts are missing, how long they
    are waited for, and the part of a share that is paid between the two.
    """

    genesis_root: bytes
    sequencer: str
    challenge_window_s: int
    drift_max_s: int
    bond_min_wei: int = 10**18
    bond_wei: int = 10**18
    deposit_min: int = 1_000_000
    deposits_total_max: int = 2**60
    reveal_blocks: int = 50
    exit_hold_s: int = 86_400
    exit_declare_window_s: int = 30 * 86_400
    exit_now_ppm: int = 800_000
    data: str = "calldata"
    delay_min_s: int = (
        14_400  # half of it above surface_age_max_s + risk_age_max_s of PARAMS: docs/PROTOCOL.md, 18
    )
    delay_max_s: int = 86_400
    message_fee_wei: int = 10**15
    silence_max_s: int = 3 * 86_400
    receipt_due_s: int = 600
    receipt_notice_s: int = 120
    receipt_base_fee_max_wei: int = 300 * 10**9
    receipt_blob_base_fee_max_wei: int = 300 * 10**9
    receipt_compensation_wei: int = 10**16
    takeover_s: int = TAKEOVER_S  # 32 of them within half of delay_min_s
    work_per_s: int = 33_000
    work_max: int = work.SLOT_MAX
    token: str | None = None
    params: Params | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts are; all that a follower, a poster or a wallet needs to know. `sequencer`: who led first.

    `params`: the exchange's parameters as an object (sequencer/l1/parameters.py), which L1's genesis root confirms.
    `work_*`: the Rollup's budget of batches.
    """

    chain_id: int
    token: str
    vault: str
    inbox: str
    sequencers: str
    rollup: str
    data_source: str
    verifier_trade: str
    verifier_amend: str
    verifier_words: str
    verifier_forced: str
    verifier_account: str
    verifier_auction: str
    verifier_ledger: str
    verifier_risk: str
    arbiter: str
    exit: str
    receipts: str
    sequencer: str
    deploy_block: int
    challenge_window_s: int
    genesis_root: str
    work_per_s: int
    work_max: int
    data: str = "calldata"
    params: dict[str, Any] | None = None

    @property
    def in_blobs(self) -> bool:
        """Whether batches lie in blobs."""
        return self.data == "blob"

    def save(self, path: Path) -> None:
        """Write the file as a whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2) + b"\n")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises DeploymentError, which names the field, when the file is missing or not a deployment."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            hint = "`fairstrike up` or `ape run deploy` writes one"
            raise DeploymentError(f"{path}: not a deployment: {error.strerror}; {hint}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeploymentError(f"{path}: not a deployment: {error}") from error

    def check(self, rpc: Rpc) -> None:
        """Raises DeploymentError unless this is deployed on the chain behind `rpc`."""
        chain_id = rpc.chain_id()
        if chain_id != self.chain_id:
            raise DeploymentError(f"deployed on chain {self.chain_id}, the node is on {chain_id}")
        for name in CONTRACTS:
            if rpc.call("eth_getCode", getattr(self, name), "latest") == "0x":
                raise DeploymentError(f"no {name} at {getattr(self, name)} on chain {chain_id}")
        root = genesis_root_on_l1(rpc, self.rollup)
        if root != self.genesis_root:
            raise DeploymentError(f"the genesis root in the file is {self.genesis_root}, the Rollup's {root}")


def check_token(token: str, has_code: bool, call: Callable[[bytes], bytes]) -> None:
    """Raises DeploymentError unless the vault can hold `token`: an ERC-20 with 6 decimals, the exchange's unit of cash.
    A permit is not needed. `call` gives the result of a call of it, empty when it reverts.
    """
    if not has_code:
        raise DeploymentError(f"token: there is no contract at {token}")
    abi = Contract(load("TestToken").abi)
    try:
        decimals = int(abi.function("decimals").decode_output(call(abi.encode("decimals"))))
        for name, arguments in (("balanceOf", (token,)), ("allowance", (token, token))):
            abi.function(name).decode_output(call(abi.encode(name, *arguments)))
    except Undecodable as error:
        raise DeploymentError(f"token: {token} is no ERC-20 with decimals: {error}") from error
    if decimals != TOKEN_DECIMALS:
        raise DeploymentError(
            f"token: {token} has {decimals} decimals, and the exchange counts in {TOKEN_DECIMALS}: name one with "
            f"{TOKEN_DECIMALS}, or a wrapper"
        )


def _check_token(rpc: Rpc, token: str) -> None:
    def call(data: bytes) -> bytes:
        try:
            return rpc.eth_call(token, data)
        except RpcReverted:
            return b""

    check_token(token, rpc.call("eth_getCode", token, "latest") != "0x", call)


def genesis_root_on_l1(rpc: Rpc, rollup: str) -> str:
    """The root that a Rollup was deployed with, in hex: it commits to the parameters."""
    return "0x" + bytes(Contract(load("Rollup").abi).read(rpc, rollup, "final_root", 0)).hex()


def deploy(rpc: Rpc, deployer: Signer, config: DeployConfig) -> Deployment:
    """Deploy and wire. Raises DeploymentError when a transaction fails, or the parameters are another root's."""
    if config.params is not None and genesis_root(config.params) != config.genesis_root:
        raise DeploymentError("the genesis root is not that of the parameters")
    inbox, sequencers, rollup, vault, arbiter, leave, receipts = (
        Contract(load(name).abi)
        for name in ("Inbox", "Sequencers", "Rollup", "Vault", "Arbiter", "Exit", "Receipts")
    )
    if config.token is not None:
        _check_token(rpc, config.token)
    sender = _Sender(rpc, deployer)
    deploy_block = rpc.block_number() + 1
    token_at = config.token or sender.create("TestToken", b"")
    inbox_at = sender.create(
        "Inbox", inbox.encode_constructor(config.delay_min_s, config.delay_max_s, config.message_fee_wei)
    )
    sequencers_at = sender.create(
        "Sequencers",
        sequencers.encode_constructor(config.sequencer, config.bond_min_wei, config.takeover_s),
        config.bond_wei,
    )
    rollup_at = sender.create(
        "Rollup",
        rollup.encode_constructor(
            config.genesis_root,
            sequencers_at,
            inbox_at,
            config.challenge_window_s,
            config.drift_max_s,
            config.silence_max_s,
            config.work_per_s,
            config.work_max,
        ),
    )
    vault_at = sender.create(
        "Vault", vault.encode_constructor(token_at, rollup_at, config.deposit_min, config.deposits_total_max)
    )
    data_source_at = sender.create(DATA_SOURCES[config.data], b"")
    domain = domain_separator(sender.chain_id, to_bytes(rollup_at))
    text_at = b"\0" * 12 + to_bytes(sender.create("OrderText", b""))
    verifiers_at = [
        sender.create(name, domain + text_at if name == WITH_TEXT else domain) for name in VERIFIERS
    ]
    arbiter_at = sender.create(
        "Arbiter",
        arbiter.encode_constructor(rollup_at, data_source_at, *verifiers_at, config.reveal_blocks),
    )
    exit_at = sender.create(
        "Exit",
        leave.encode_constructor(
            vault_at,
            config.exit_hold_s,
            config.exit_declare_window_s,
            config.exit_now_ppm,
        ),
    )
    due_s = min(config.receipt_due_s, config.challenge_window_s)
    receipts_at = sender.create(
        "Receipts",
        receipts.encode_constructor(
            rollup_at,
            arbiter_at,
            vault_at,
            due_s,
            min(config.receipt_notice_s, due_s),
            config.receipt_base_fee_max_wei,
            config.receipt_blob_base_fee_max_wei,
            config.receipt_compensation_wei,
            config.reveal_blocks,
        ),
    )
    sender.send("set_judge", sequencers_at, sequencers.encode("set_judge", receipts_at), 0, CALL_GAS)
    sender.send("set_vault", inbox_at, inbox.encode("set_vault", vault_at), 0, CALL_GAS)
    sender.send("set_rollup", sequencers_at, sequencers.encode("set_rollup", rollup_at), 0, CALL_GAS)
    sender.send("set_arbiter", rollup_at, rollup.encode("set_arbiter", arbiter_at), 0, CALL_GAS)
    sender.send("set_exit", vault_at, vault.encode("set_exit", exit_at), 0, CALL_GAS)
    sender.wait()
    return Deployment(
        chain_id=sender.chain_id,
        token=token_at,
        vault=vault_at,
        inbox=inbox_at,
        sequencers=sequencers_at,
        rollup=rollup_at,
        data_source=data_source_at,
        verifier_trade=verifiers_at[0],
        verifier_amend=verifiers_at[1],
        verifier_words=verifiers_at[2],
        verifier_forced=verifiers_at[3],
        verifier_account=verifiers_at[4],
        verifier_auction=verifiers_at[5],
        verifier_ledger=verifiers_at[6],
        verifier_risk=verifiers_at[7],
        arbiter=arbiter_at,
        exit=exit_at,
        receipts=receipts_at,
        sequencer=config.sequencer,
        deploy_block=deploy_block,
        challenge_window_s=config.challenge_window_s,
        genesis_root="0x" + config.genesis_root.hex(),
        work_per_s=config.work_per_s,
        work_max=config.work_max,
        data=config.data,
        params=None if config.params is None else to_object(config.params),
    )


class _Sender:
    """Transactions with consecutive nonces, sent without waiting for one another."""

    def __init__(self, rpc: Rpc, signer: Signer) -> None:
        self._rpc = rpc
        self._signer = signer
        self.chain_id = rpc.chain_id()
        self._nonce = rpc.nonce(signer.address, "pending")
        self._sent: list[tuple[str, SignedTransaction]] = []

    def create(self, name: str, arguments: bytes, value: int = 0) -> str:
        from web3.utils import get_create_address

        address = str(get_create_address(self._signer.address, self._nonce))  # type: ignore[arg-type]  # it is one
        self._send(name, Content(b"", to_bytes(load(name).bytecode) + arguments, value, DEPLOY_GAS))
        return address

    def send(self, name: str, to: str, data: bytes, value: int, gas: int) -> None:
        self._send(name, Content(to_bytes(to), data, value, gas))

    def _send(self, name: str, content: Content) -> None:
        now = market(self._rpc, DEFAULT_CAPS)
        if now.base_fee > DEFAULT_CAPS.max_fee:
            raise DeploymentError(f"L1's base fee is {gwei(now.base_fee)}: wait until it falls")
        signed = self._signer.sign_transaction(self.chain_id, self._nonce, now.fees, content)
        self._deliver(name, signed)
        self._nonce += 1
        self._sent.append((name, signed))

    def _deliver(self, name: str, signed: SignedTransaction) -> None:
        """A node has it, or will be asked again: an answer that is lost says nothing of the transaction."""
        try:
            self._rpc.send_raw(signed.raw)
        except RpcUnavailable:
            pass
        except RpcReverted:
            raise
        except RpcRejected as error:
            if meaning(error.message) not in (Refusal.KNOWN, Refusal.USED):
                raise DeploymentError(f"{name}: the node refuses {signed.hash}: {error.message}") from error

    def wait(self) -> None:
        until_s = time.monotonic() + RECEIPT_TIMEOUT_S
        for name, signed in self._sent:
            again_s = time.monotonic() + RESEND_S
            while (receipt := self._receipt(signed.hash)) is None:
                now_s = time.monotonic()
                if now_s > until_s:
                    raise DeploymentError(
                        f"{name}: {signed.hash} is not mined after {RECEIPT_TIMEOUT_S:.0f} s"
                    )
                if now_s > again_s:
                    self._deliver(name, signed)
                    again_s = now_s + RESEND_S
                time.sleep(0.02)
            if to_int(receipt["status"]) != 1:
                raise DeploymentError(f"{name}: {signed.hash} reverted")

    def _receipt(self, tx_hash: str) -> dict[str, Any] | None:
        with contextlib.suppress(RpcUnavailable):
            return self._rpc.receipt(tx_hash)
        return None
