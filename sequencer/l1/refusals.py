"""What nodes say of a raw transaction that they do not take, in the words of geth, nethermind, Besu, erigon and reth.

The words make things faster, and nothing depends on them: what is not listed is `UNKNOWN`, and an unknown refusal of
what has no receipt is a stall, which is tried again and bumped.
"""

from enum import Enum
from typing import Final


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
