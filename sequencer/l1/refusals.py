"""What nodes' errors mean: reverts, limits of providers, and what they say of a raw transaction that they do not take,
in the words of geth, nethermind, Besu, erigon and reth.

The words make things faster, and nothing depends on them: what is not listed is `UNKNOWN`, and an unknown refusal of
what has no receipt is a stall, which is tried again and bumped.
"""

from enum import Enum
from typing import Any, Final

from sequencer.l1 import answers
from sequencer.l1.errors import RpcRejected, RpcReverted

TEXT_CHARS_MAX: Final = 300  # of a node's error that are kept
ERROR_SELECTOR: Final = bytes.fromhex("08c379a0")  # of Error(string)
RATE_CODES: Final = (429, -32005, -32029, -32097)
# Words of providers that want fewer requests, not smaller ones.
RATE_WORDS: Final = (
    "rate limit",
    "ratelimit",
    "rate-limit",
    "too many requests",
    "per second",
    "compute units",
    "quota",
)
# Besu, geth and providers: what was asked for at once was too much; some of them with a code of RATE_CODES.
SIZE_WORDS: Final = (
    "range",
    "batch",
    "too large",
    "response size",
    "results",
    "blocks",
    "logs",
    "too many requests in",
)


class Refusal(Enum):
    """What it means for the transaction."""

    KNOWN = "known"  # the node has it
    USED = "used"  # its nonce is used
    NEVER = "never"  # no node will ever take it
    CHEAP = "cheap"  # its fees are too low, alone or to replace another
    OTHER_SORT = "other sort"  # the pool holds the key's blobs, or its other transactions, and not both
    UNKNOWN = "unknown"


_WORDS: Final[tuple[tuple[Refusal, tuple[str, ...]], ...]] = (
    (
        Refusal.KNOWN,
        (
            "already known",
            "alreadyknown",
            "already imported",
            "known transaction",
            "already exists",
            "already added",
            "same hash",
        ),
    ),
    (
        Refusal.USED,
        (
            "nonce too low",
            "nonce has already been used",
            "invalid nonce: too low",
            "oldnonce",
            "nonce is too low",
        ),
    ),
    (
        Refusal.NEVER,
        (
            "intrinsic gas too low",
            "intrinsic gas exceeds",
            "intrinsicgas",
            "exceeds block gas limit",
            "oversized data",
            "requires at least",
            "initcode size",
            "initcode too large",
            "gas too high",
            "gas floor",
            "insufficient gas for floor",
        ),
    ),
    (
        Refusal.OTHER_SORT,
        (
            "address already reserved",
            "conflicting",
            "conflicts with existing",
            "conflictingtype",
            "type conflict",
            "replace blob-txn",
            "existing transaction had different type",
        ),
    ),
    (
        Refusal.CHEAP,
        (
            "underpriced",
            "base fee",
            "basefee",
            "too low for the next block",
            "fee too low",
            "feetoolow",
            "feecap",
            "fee cap less",
            "gas price below",
            "gas price too low",
            "insufficient gas price",
            "could not replace",
            "replacementnotallowed",
            "replacement not allowed",
            "less than block",
        ),
    ),
)


def meaning(message: str) -> Refusal:
    """Of a node's words."""
    text = message.lower().replace("unknown", "other")
    if "fund" in text or "balance" in text:
        return Refusal.UNKNOWN  # the key can get more, whatever the rest of the words
    return next((kind for kind, words in _WORDS if any(word in text for word in words)), Refusal.UNKNOWN)


def refusal(method: str, error: dict[str, Any]) -> RpcRejected:
    """The exception for a JSON-RPC error object; knows the shapes in which nodes report reverts."""
    code = error.get("code", 0)
    code = code if isinstance(code, int) else 0
    message, data = str(error.get("message", ""))[:TEXT_CHARS_MAX], error.get("data")
    if isinstance(data, dict):  # hardhat: {"message", "data"}
        data = data.get("data")
    text = data if answers.is_data(data) else None
    if "revert" not in message.lower():
        return RpcRejected(method, code, message, text)
    reason = revert_reason(bytes.fromhex(text[2:])) if text else ""
    if not reason and "reverted with reason string '" in message:
        reason = message.split("reverted with reason string '", 1)[1].rsplit("'", 1)[0]
    return RpcReverted(method, code, message, text, reason[:TEXT_CHARS_MAX])


def revert_reason(data: bytes) -> str:
    """The text of `Error(string)`, or empty."""
    from eth_abi import abi as eth_abi_coder
    from eth_abi.exceptions import DecodingError

    if data[:4] != ERROR_SELECTOR:
        return ""
    try:  # as bytes: the text is a node's, and may be none
        (text,) = eth_abi_coder.decode(["bytes"], data[4:], strict=False)
    except DecodingError:
        return ""
    return bytes(text).decode("utf-8", "replace")


def is_rate(error: RpcRejected) -> bool:
    """Whether a refusal says nothing of what was asked, only that too much is: it is as if there were no answer."""
    text = error.message.lower()
    if any(part in text for part in SIZE_WORDS):
        return False
    return error.code in RATE_CODES or any(part in text for part in RATE_WORDS)
