"""A trader's few transactions on L1: mint (test token), approve, deposit, claim, force. For the demo and the CLI.

Amounts are 1e-6 USD. Each call waits for its receipt; a wallet is not for concurrent use.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_abi import abi as eth_abi_coder
from tiny_keccak import keccak256

from sequencer.contracts import load
from sequencer.l1 import inbox
from sequencer.l1.abi import Contract
from sequencer.l1.chains import DEVNET_MNEMONIC
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import RpcError, RpcReverted, TransactionFailed, TransactionTimeout
from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.l1.signing import Content, Fees, Signer

PERMIT_TYPEHASH: Final = keccak256(
    b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
PERMIT_DEADLINE_S: Final = 2**32 - 1
CALL_GAS: Final = 400_000
CLAIM_GAS: Final = 1_500_000
TIP_WEI: Final = 10**9
RECEIPT_TIMEOUT_S: Final = 120.0


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
    """One key at one deployment."""

    def __init__(self, rpc: Rpc, signer: Signer, deployment: Deployment) -> None:
        self._rpc = rpc
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
        struct = eth_abi_coder.encode(
            ("bytes32", "address", "address", "uint256", "uint256", "uint256"),
            (PERMIT_TYPEHASH, self.address, self._at.vault, amount, nonce, deadline_s),
        )
        parity, r, s = self._signer.sign_digest(keccak256(b"\x19\x01" + separator + keccak256(bytes(struct))))
        data = self._vault.encode(
            "deposit_with_permit",
            amount,
            deadline_s,
            27 + parity,
            r.to_bytes(32, "big"),
            s.to_bytes(32, "big"),
        )
        return self._inbox_index(self.transact("deposit_with_permit", self._at.vault, data))

    def claim(
        self, batch_id: int, n: int, owner: str, amount: int, bitmap: int, siblings: Sequence[bytes]
    ) -> Mined:
        """Claim withdrawal `n` of a final batch by its Merkle path."""
        data = self._vault.encode("claim", batch_id, n, owner, amount, bitmap, list(siblings))
        return self.transact("claim", self._at.vault, data, gas=CLAIM_GAS)

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

    def transact(self, name: str, to: str, data: bytes, value: int = 0, gas: int = CALL_GAS) -> Mined:
        """Send one transaction and wait for it. Raises TransactionFailed with the contract's reason."""
        nonce, block = self._rpc.batch_strict(
            [
                ("eth_getTransactionCount", (self.address, "pending")),
                ("eth_getBlockByNumber", ("latest", False)),
            ]
        )
        fees = Fees(2 * to_int(block["baseFeePerGas"]) + TIP_WEI, TIP_WEI)
        signed = self._signer.sign_transaction(
            self._at.chain_id, to_int(nonce), fees, Content(to_bytes(to), data, value, gas)
        )
        try:
            self._rpc.send_raw(signed.raw)
        except RpcReverted as error:
            raise TransactionFailed(name, error.reason or error.message, signed.hash) from error
        deadline = time.monotonic() + RECEIPT_TIMEOUT_S
        while (receipt := self._rpc.receipt(signed.hash)) is None:
            if time.monotonic() > deadline:
                raise TransactionTimeout(name, "sent")
            time.sleep(0.01)
        number = to_int(receipt["blockNumber"])
        if to_int(receipt["status"]) != 1:
            raise TransactionFailed(name, self._why(to, data, number), signed.hash)
        return Mined(signed.hash, number, to_int(receipt["gasUsed"]), receipt["logs"])

    def _why(self, to: str, data: bytes, block_number: int) -> str:
        try:
            self._rpc.eth_call(to, data, block_number - 1, self.address)
        except RpcReverted as error:
            return error.reason or "reverted"
        except RpcError:
            pass
        return "reverted"
