"""Keys and signed transactions, by eth-account: EIP-1559, and EIP-4844 where there are blobs.

Signing is deterministic (RFC 6979): the same content gives the same bytes and hash, so that the transaction
manager can store the content alone and rebuild what it has sent. By hand is the sidecar of EIP-7594 alone: eth-account
0.13 knows that of EIP-4844, which nodes since Osaka do not take.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sequencer.l1.blobs import Sidecar

if TYPE_CHECKING:
    from eth_account.datastructures import SignedMessage

HDPATH = "m/44'/60'/0'/0/{}"
V_OFFSET = 27  # of a signature's v above its y parity
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


class Signer:
    """A secp256k1 key that signs transactions and digests."""

    __slots__ = ("_account", "address", "address_bytes")

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError, without the key in it, when it is none."""
        from eth_account import Account

        self._account = Account.from_key(secret)
        self.address = str(self._account.address)
        self.address_bytes = bytes.fromhex(self.address[2:])

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def secret(self) -> bytes:
        """The key itself, for a process that signs in this one's place."""
        return bytes(self._account.key)

    @classmethod
    def from_mnemonic(cls, mnemonic: str, index: int) -> "Signer":
        from eth_account import Account

        Account.enable_unaudited_hdwallet_features()
        return cls(bytes(Account.from_mnemonic(mnemonic, account_path=HDPATH.format(index)).key))

    @classmethod
    def from_keystore(cls, keystore: dict[str, Any] | str, password: str) -> "Signer":
        """Of a web3 secret storage (v3) file. Raises ValueError on a wrong password."""
        from eth_account import Account

        return cls(bytes(Account.decrypt(keystore, password)))

    def sign_digest(self, digest: bytes) -> tuple[int, int, int]:
        """(y parity, r, s) over a 32-byte digest."""
        return _parts(self._account.unsafe_sign_hash(digest))

    def sign_typed(
        self,
        separator: bytes,
        types: Mapping[str, Sequence[tuple[str, str]]],
        message: Mapping[str, Any],
    ) -> tuple[int, int, int]:
        """(y parity, r, s) of EIP-712 typed data, under a domain separator as the contract says it itself: fields of
        a domain are each token's own. `types`: (name, type) of the fields.
        """
        from eth_account.messages import SignableMessage, encode_typed_data

        listed = {
            name: [{"name": one, "type": kind} for one, kind in fields] for name, fields in types.items()
        }
        body = encode_typed_data({}, listed, dict(message)).body
        return _parts(self._account.sign_message(SignableMessage(b"\x01", separator, body)))

    def sign_transaction(
        self, chain_id: int, nonce: int, fees: Fees, content: Content, sidecar: Sidecar | None = None
    ) -> SignedTransaction:
        """A transaction as it is sent; of one with blobs, the hash is that of the part without the sidecar."""
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "maxPriorityFeePerGas": fees.tip,
            "maxFeePerGas": fees.max_fee,
            "gas": content.gas,
            "to": content.to,
            "value": content.value,
            "data": content.data,
        }
        if sidecar is not None:
            fields |= {"type": 3, "maxFeePerBlobGas": fees.blob_fee, "blobVersionedHashes": sidecar.hashes}
        signed = self._account.sign_transaction(fields)
        raw = bytes(signed.raw_transaction)
        if sidecar is not None:
            raw = _with_sidecar(raw, sidecar)
        return SignedTransaction(raw, "0x" + bytes(signed.hash).hex())


def _parts(signed: "SignedMessage") -> tuple[int, int, int]:
    return signed.v - V_OFFSET, signed.r, signed.s


def _with_sidecar(raw: bytes, sidecar: Sidecar) -> bytes:
    """A signed transaction of type 3 as it goes to a node (EIP-7594)."""
    import rlp

    parts = [list(sidecar.blobs), list(sidecar.commitments), list(sidecar.cell_proofs)]
    return raw[:1] + bytes(rlp.encode([rlp.decode(raw[1:]), WRAPPER_VERSION, *parts]))
