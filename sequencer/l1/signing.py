"""Keys and signed transactions: EIP-1559, and EIP-4844 where there are blobs, with the sidecar of EIP-7594.

Signing is deterministic (RFC 6979): the same content gives the same bytes and hash, so that the transaction
manager can store the content alone and rebuild what it has sent.
"""

from dataclasses import dataclass
from typing import Any

import rlp
from coincurve import PrivateKey
from eth_account import Account
from eth_utils import to_checksum_address
from tiny_keccak import keccak256

from sequencer.l1.blobs import Sidecar

HDPATH = "m/44'/60'/0'/0/{}"
WRAPPER_VERSION = b"\x01"  # of a sidecar with cell proofs: nodes take no other since Osaka


@dataclass(frozen=True, slots=True)
class Fees:
    """Wei a unit of gas: the most in total, and the tip within it; the most a unit of blob gas, 0 without blobs."""

    max_fee: int
    tip: int
    blob_fee: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """What a transaction does; `to` is 20 bytes, or empty to create a contract. `payload` goes in blobs."""

    to: bytes
    data: bytes
    value: int
    gas: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    raw: bytes
    hash: str


def _word(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class Signer:
    """A secp256k1 key that signs transactions and digests."""

    __slots__ = ("_key", "address", "address_bytes")

    def __init__(self, secret: bytes) -> None:
        self._key = PrivateKey(secret)
        self.address_bytes = keccak256(self._key.public_key.format(compressed=False)[1:])[12:]
        self.address = str(to_checksum_address(self.address_bytes))

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    @classmethod
    def from_mnemonic(cls, mnemonic: str, index: int) -> "Signer":
        Account.enable_unaudited_hdwallet_features()
        return cls(bytes(Account.from_mnemonic(mnemonic, account_path=HDPATH.format(index)).key))

    @classmethod
    def from_keystore(cls, keystore: dict[str, Any] | str, password: str) -> "Signer":
        return cls(bytes(Account.decrypt(keystore, password)))

    def sign_digest(self, digest: bytes) -> tuple[int, int, int]:
        """(y parity, r, s) over a 32-byte digest."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[64], int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")

    def sign_transaction(
        self, chain_id: int, nonce: int, fees: Fees, content: Content, sidecar: Sidecar | None = None
    ) -> SignedTransaction:
        """A transaction as it is sent; of one with blobs, the hash is that of the part without the sidecar."""
        fields: list[Any] = [
            _word(chain_id),
            _word(nonce),
            _word(fees.tip),
            _word(fees.max_fee),
            _word(content.gas),
            content.to,
            _word(content.value),
            content.data,
            [],
        ]
        kind = b"\x02"
        if sidecar is not None:
            kind = b"\x03"
            fields += [_word(fees.blob_fee), list(sidecar.hashes)]
        parity, r, s = self.sign_digest(keccak256(kind + rlp.encode(fields)))
        signed = [*fields, _word(parity), _word(r), _word(s)]
        raw = kind + bytes(rlp.encode(signed))
        name = "0x" + keccak256(raw).hex()
        if sidecar is not None:
            parts = [list(sidecar.blobs), list(sidecar.commitments), list(sidecar.cell_proofs)]
            raw = kind + bytes(rlp.encode([signed, WRAPPER_VERSION, *parts]))
        return SignedTransaction(raw, name)
