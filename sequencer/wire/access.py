"""Access to an account's history: a signature of its owner or a session key, valid for a limited time.

The signed data are EIP-712 in the exchange's domain, with a type that no record has, so they authorise nothing else:

    HistoryAccess(uint32 account,uint32 expires)
"""

from typing import Any, Final

from sequencer.protocol import codec
from sequencer.protocol.hashing import keccak
from sequencer.protocol.hashing import sign as sign_digest

PRIMARY_TYPE: Final = "HistoryAccess"
MEMBERS: Final = (("account", "uint32"), ("expires", "uint32"))
LASTS_MAX_S: Final = 7 * 86_400
_TYPE_HASH: Final = keccak(f"{PRIMARY_TYPE}({','.join(f'{t} {n}' for n, t in MEMBERS)})".encode())


def digest(domain: bytes, account: int, expires: int) -> bytes:
    """Digest to sign for the history of `account` until `expires`, seconds since 1970."""
    told = _TYPE_HASH + account.to_bytes(32, "big") + expires.to_bytes(32, "big")
    return keccak(b"\x19\x01" + domain + keccak(told))


def sign(domain: bytes, account: int, expires: int, key: bytes) -> bytes:
    """The access signature of a private key: 64 bytes."""
    return sign_digest(digest(domain, account, expires), key)


def typed_data(account: int, expires: int, chain_id: int, contract: str) -> codec.TypedData:
    """The typed data that a wallet shows and signs."""
    of_domain: dict[str, Any] = {"name": codec.DOMAIN_NAME, "version": codec.DOMAIN_VERSION}
    return codec.TypedData(
        domain={**of_domain, "chainId": chain_id, "verifyingContract": contract},
        types={PRIMARY_TYPE: [{"name": name, "type": of_type} for name, of_type in MEMBERS]},
        primary_type=PRIMARY_TYPE,
        message={"account": account, "expires": expires},
    )
