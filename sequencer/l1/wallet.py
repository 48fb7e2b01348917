"""A trader's few transactions on L1: mint (test token), approve, deposit, claim, force. For the demo and the CLI.

Amounts are 1e-6 USD. Each call waits for its receipt; a wallet is not for concurrent use.

A call that failed may have succeeded: its answer was lost, or a node that refused it had it already. What counts is the
receipt of a hash that is known before anything is sent. Until that has been heard of, the same call goes on with the
same transaction (`journal`), and does not happen twice, in another process neither.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tiny_keccak import keccak256

from sequencer.clock import utc
from sequencer.contracts import load
from sequencer.l1 import inbox
from sequencer.l1.abi import Contract
from sequencer.l1.chains import DEVNET_MNEMONIC
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import (
    RpcError,
    RpcRejected,
    RpcReverted,
    RpcUnavailable,
    TransactionFailed,
    TransactionTimeout,
    Undecodable,
)
from sequencer.l1.fees import DEFAULT_CAPS, FeeCaps, bumped, ether, gwei, market
from sequencer.l1.journal import Journal, Signed
from sequencer.l1.refusals import Refusal, meaning
from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.l1.signing import Content, Fees, SignedTransaction, Signer

PERMIT: Final = {  # EIP-2612
    "Permit": (
        ("owner", "address"),
        ("spender", "address"),
        ("value", "uint256"),
        ("nonce", "uint256"),
        ("deadline", "uint256"),
    )
}
PERMIT_DEADLINE_S: Final = 2**32 - 1
CALL_GAS: Final = 400_000
CLAIM_GAS: Final = 1_500_000
RECEIPT_TIMEOUT_S: Final = 120.0
RESEND_S: Final = 10.0  # nodes forget
REFUSED_S: Final = 2.0  # before what a node has refused is sent again
BUMP_S: Final = 30.0  # unmined for so long, it offers more
TAKEN_S: Final = 3.0  # for which its nonce is used and it has no receipt: another transaction's

logger = logging.getLogger(__name__)


def key_from_keystore(path: Path, password: str) -> Signer:
    """A web3 secret storage (v3) file. Raises ValueError on a wrong password."""
    return Signer.from_keystore(path.read_text(), password)


def key_from_environment(name: str) -> Signer:
    """A hex private key in an environment variable. Raises KeyError or ValueError, without the key in it."""
    text = os.environ[name].strip().removeprefix("0x")
    try:
        return Signer(bytes.fromhex(text).rjust(32, b"\0"))
    except ValueError:
        raise ValueError(f"{name} is not a private key in hex") from None


def key_of_devnet(index: int) -> Signer:
    """One of the ten well-known development accounts."""
    return Signer.from_mnemonic(DEVNET_MNEMONIC, index)


@dataclass(frozen=True, slots=True)
class Mined:
    tx_hash: str
    block_number: int
    gas_used: int
    logs: list[dict[str, Any]]


class Wallet:
    """One key at one deployment. `journal`: kept where another process finds it; `on_resumed` hears when a call goes on
    with the transaction of an earlier one.
    """

    def __init__(
        self,
        rpc: Rpc,
        signer: Signer,
        deployment: Deployment,
        journal: Journal | None = None,
        caps: FeeCaps = DEFAULT_CAPS,
        on_resumed: Callable[[str], None] = logger.warning,
    ) -> None:
        self._rpc = rpc
        self._journal = journal or Journal()
        self._keeps = journal is not None
        self._ended: set[str] = set()  # mined well, and to be told by whoever called
        self._caps = caps
        self._on_resumed = on_resumed
        self._signer = signer
        self._at = deployment
        self._token = Contract(load("TestToken").abi)
        self._vault = Contract(load("Vault").abi)

    @property
    def address(self) -> str:
        return self._signer.address

    def balance(self) -> int:
        """Tokens outside the vault."""
        return int(self._token.read(self._rpc, self._at.token, "balanceOf", self.address))

    def account(self) -> int:
        """Number of the exchange account, 0 before the first deposit."""
        return int(self._vault.read(self._rpc, self._at.vault, "account_of", self.address))

    @property
    def chain_id(self) -> int:
        return self._at.chain_id

    def ether_of(self, address: str) -> int:
        """Wei of any address."""
        return to_int(self._rpc.call("eth_getBalance", address, "latest"))

    def mint(self, amount: int, to: str | None = None) -> Mined:
        """Test tokens for oneself, or for `to`."""
        return self.transact("mint", self._at.token, self._token.encode("mint", to or self.address, amount))

    def approve(self, amount: int) -> Mined:
        return self.transact("approve", self._at.token, self._token.encode("approve", self._at.vault, amount))

    def deposit(self, amount: int) -> int:
        """Deposit what has been approved; returns the index of the inbox message."""
        return self._inbox_index(
            self.transact("deposit", self._at.vault, self._vault.encode("deposit", amount))
        )

    def deposit_with_permit(self, amount: int, deadline_s: int = PERMIT_DEADLINE_S) -> int:
        """Deposit in one transaction, without an approval; returns the index of the inbox message."""
        nonce = self._token.read(self._rpc, self._at.token, "nonces", self.address)
        separator = self._token.read(self._rpc, self._at.token, "DOMAIN_SEPARATOR")
        permit = {
            "owner": self.address,
            "spender": self._at.vault,
            "value": amount,
            "nonce": nonce,
            "deadline": deadline_s,
        }
        parity, r, s = self._signer.sign_typed(separator, PERMIT, permit)
        data = self._vault.encode(
            "deposit_with_permit",
            amount,
            deadline_s,
            27 + parity,
            r.to_bytes(32, "big"),
            s.to_bytes(32, "big"),
        )
        # The permit of a second try is another one, and the deposit the same.
        mined = self.transact("deposit_with_permit", self._at.vault, data, same=str(amount))
        return self._inbox_index(mined)

    def pay_in(self, amount: int) -> int:
        """Deposits: with a permit, or, where the token has none, by an approval first. The inbox message's index."""
        try:
            self._token.read(self._rpc, self._at.token, "DOMAIN_SEPARATOR")
        except (RpcReverted, Undecodable):
            self.approve(amount)
            return self.deposit(amount)
        return self.deposit_with_permit(amount)

    def claim(
        self, batch_id: int, n: int, owner: str, amount: int, bitmap: int, siblings: Sequence[bytes]
    ) -> Mined:
        """Claim withdrawal `n` of a final batch by its Merkle path.

        Raises TransactionFailed before anything is sent while the batch is not final, with the time when it will be.
        """
        self._check_final(batch_id)
        data = self._vault.encode("claim", batch_id, n, owner, amount, bitmap, list(siblings))
        return self.transact("claim", self._at.vault, data, gas=CLAIM_GAS)

    def _check_final(self, batch_id: int) -> None:
        try:
            *_, posted_s = inbox.ROLLUP.read(self._rpc, self._at.rollup, "batch", batch_id)
        except RpcReverted:
            raise TransactionFailed(
                "claim", f"rollup: not final: batch {batch_id} is not on L1 yet; claim again when it is"
            ) from None
        head = self._rpc.block("latest")
        final_s, now_s = posted_s + self._at.challenge_window_s, to_int(head["timestamp"]) if head else 0
        if batch_id and now_s < final_s:
            raise TransactionFailed(
                "claim",
                f"rollup: not final: batch {batch_id} is final at {utc(final_s)}, in {final_s - now_s} s of L1's time; "
                "claim again then",
            )

    def force_withdraw(self, amount: int) -> int:
        """Forces a withdrawal, 0 = all that is free; returns the index of the inbox message."""
        return self._force("force_withdraw", amount)

    def force_cancel_all(self) -> int:
        """Forces the end of all resting orders; returns the index of the inbox message."""
        return self._force("force_cancel_all")

    def force_order(
        self,
        instrument: int,
        flags: int,
        price: int,
        quantity: int,
        expires: int = 0,
        fee_max: int = 65_535,
        nearest_expiry_s: int = 0,
    ) -> int:
        """Forces an order in the units of PLACE; returns the index of the inbox message."""
        fields = (instrument, flags, price, quantity, expires, fee_max, nearest_expiry_s)
        return self._force("force_order", *fields)

    def force_liquidate(self, account: int, nearest_expiry_s: int = 0) -> int:
        """Forces a LIQUIDATE of anybody's account; returns the index of the inbox message."""
        return self._force("force_liquidate", account, nearest_expiry_s)

    def force_bid(self, target: int, fraction: int, cash_max: int, nearest_expiry_s: int = 0) -> int:
        """Forces a bid in the units of BID; returns the index of the inbox message."""
        return self._force("force_bid", target, fraction, cash_max, nearest_expiry_s)

    def freeze(self) -> Mined:
        """Freezes the rollup: a message is overdue, or silence lasts. Raises TransactionFailed when neither is so."""
        index = inbox.overdue(self._rpc, self._at) or 0
        return self.transact("freeze", self._at.rollup, inbox.ROLLUP.encode("freeze", index))

    def _force(self, name: str, *arguments: int) -> int:
        fee = int(inbox.INBOX.read(self._rpc, self._at.inbox, "message_fee"))
        mined = self.transact(name, self._at.inbox, inbox.INBOX.encode(name, *arguments), fee)
        event = inbox.INBOX.event("Message")
        entry = next(item for item in mined.logs if item["topics"][0] == event.topic)
        return int(event.decode(entry)["index"])

    def _inbox_index(self, mined: Mined) -> int:
        event = self._vault.event("Deposited")
        entry = next(item for item in mined.logs if item["topics"][0] == event.topic)
        return int(event.decode(entry)["inbox_index"])

    def transact(
        self, name: str, to: str, data: bytes, value: int = 0, gas: int = CALL_GAS, same: str = ""
    ) -> Mined:
        """Send one transaction and wait for it. Raises TransactionFailed with the contract's reason when it has
        certainly not happened, TransactionTimeout when it may: the same call goes on with it. RpcError before it is
        signed.

        `same` says when a call is the same; by default when recipient, data and value are.
        """
        what = f"{name} {same or keccak256(to_bytes(to) + value.to_bytes(32, 'big') + data).hex()}"
        if what in self._ended:  # told already: this is another one
            self._forget(what)
        signed = self._journal.find(what)
        if signed is None:
            signed = self._sign(what, to, data, value, gas)
        else:
            signed.is_doubtful = True
            self._on_resumed(
                f"{name}: goes on with transaction {signed.hashes[-1]}, whose end was not heard of"
            )
        return self._mined(name, signed)

    def told(self) -> None:
        """Whoever called has heard of all that was sent: the same again is another one. With a `journal` of the
        caller's, until then it is not: what comes after a transaction may fail, and the call be made again.
        """
        for what in list(self._ended):
            self._forget(what)

    def _forget(self, what: str) -> None:
        self._ended.discard(what)
        self._journal.drop(what)

    def _sign(self, what: str, to: str, data: bytes, value: int, gas: int) -> Signed:
        """Signed and in the journal, not sent."""
        nonce, balance = self._rpc.batch_strict(
            [
                ("eth_getTransactionCount", (self.address, "pending")),
                ("eth_getBalance", (self.address, "latest")),
            ]
        )
        now = market(self._rpc, self._caps)
        if now.base_fee > self._caps.max_fee:
            raise TransactionFailed(
                what.split()[0],
                f"L1's base fee is {gwei(now.base_fee)}, above the cap of {gwei(self._caps.max_fee)}",
            )
        needed = value + gas * now.fees.max_fee
        if to_int(balance) < needed:
            raise TransactionFailed(
                what.split()[0],
                f"{self.address} has {ether(to_int(balance))}, and this may cost {ether(needed)}",
            )
        signed = Signed(what, to_int(nonce), to, data.hex(), value, gas)
        self._attempt(signed, now.fees)
        return signed

    def _attempt(self, signed: Signed, fees: Fees) -> None:
        signed.fees.append((fees.max_fee, fees.tip))
        signed.hashes.append(self._raw(signed).hash)
        self._journal.put(signed)

    def _raw(self, signed: Signed) -> SignedTransaction:
        content = Content(to_bytes(signed.to), bytes.fromhex(signed.data), signed.value, signed.gas)
        return self._signer.sign_transaction(self._at.chain_id, signed.nonce, Fees(*signed.fees[-1]), content)

    def _mined(self, name: str, signed: Signed) -> Mined:
        """Sends until there is a receipt."""
        began_s = time.monotonic()
        until_s, send_s, bump_s = began_s + RECEIPT_TIMEOUT_S, began_s, began_s + BUMP_S
        taken_since_s: float | None = None
        problem, wait_s = "", 0.01
        receipt: dict[str, Any] | None = None
        while True:
            try:
                receipt = self._receipt(signed)
                if receipt is not None:
                    break
                now_s = time.monotonic()
                if now_s >= send_s:
                    problem, send_s = self._send(name, signed), now_s + RESEND_S
                    if problem:
                        send_s = now_s + REFUSED_S
                elif now_s >= bump_s:
                    bump_s, send_s = now_s + BUMP_S, now_s
                    self._bump(signed)
                if self._rpc.nonce(self.address) <= signed.nonce:
                    taken_since_s = None
                elif taken_since_s is None:
                    taken_since_s = now_s
                elif now_s - taken_since_s > TAKEN_S and self._receipt(signed) is None:
                    self._journal.drop(signed.what)
                    raise TransactionFailed(
                        name,
                        f"another transaction of this key has taken nonce {signed.nonce}",
                        signed.hashes[-1],
                    )
            except RpcUnavailable as error:
                problem, signed.is_doubtful = str(error), True
            if time.monotonic() > until_s:
                raise TransactionTimeout(
                    name, f"on its way as {signed.hashes[-1]}: the same command goes on with it", problem
                )
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 0.25)
        number = to_int(receipt["blockNumber"])
        is_good = to_int(receipt["status"]) == 1
        if is_good and self._keeps:
            self._ended.add(signed.what)
        else:
            self._journal.drop(signed.what)
        if not is_good:
            why = self._why(signed.to, bytes.fromhex(signed.data), number)
            raise TransactionFailed(name, why, receipt["transactionHash"])
        return Mined(receipt["transactionHash"], number, to_int(receipt["gasUsed"]), receipt["logs"])

    def _receipt(self, signed: Signed) -> dict[str, Any] | None:
        for tx_hash in reversed(signed.hashes):
            receipt = self._rpc.receipt(tx_hash)
            if receipt is not None:
                return receipt
        return None

    def _send(self, name: str, signed: Signed) -> str:
        """What a node says against it, empty when it has it. Raises TransactionFailed when no node ever will."""
        try:
            self._rpc.send_raw(self._raw(signed).raw)
        except RpcReverted as error:
            self._journal.drop(signed.what)
            reason = error.reason or error.message
            raise TransactionFailed(name, reason, signed.hashes[-1]) from error
        except RpcRejected as error:
            kind = meaning(error.message)
            if kind in (Refusal.KNOWN, Refusal.USED):
                return ""
            if kind is Refusal.NEVER and not signed.is_doubtful:
                self._journal.drop(signed.what)
                raise TransactionFailed(name, error.message, signed.hashes[-1]) from error
            if kind is Refusal.CHEAP:
                self._bump(signed)
            return error.message
        return ""

    def _bump(self, signed: Signed) -> None:
        """Another attempt with the same nonce and higher fees, within the caps."""
        fees = bumped(Fees(*signed.fees[-1]), market(self._rpc, self._caps).fees)
        if self._caps.within(fees) == fees:
            self._attempt(signed, fees)

    def _why(self, to: str, data: bytes, block_number: int) -> str:
        try:
            self._rpc.eth_call(to, data, block_number - 1, self.address)
        except RpcReverted as error:
            return error.reason or "reverted"
        except RpcError:
            pass
        return "reverted"
