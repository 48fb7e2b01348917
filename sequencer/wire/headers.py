"""A signed tick header by itself, as peers hand it to each other: SIGNED_BYTES, whatever the tick holds.

The header as a log stores it (with its records' root, which a receipt leaves to the path), and the signature.
"""

from dataclasses import dataclass
from typing import Final

from sequencer.protocol import receipts
from sequencer.protocol.receipts import Header

STORED_BYTES: Final = receipts.HEAD_BYTES + receipts.NODE_BYTES
SIGNED_BYTES: Final = STORED_BYTES + receipts.SIGNATURE_BYTES
EQUIVOCATION: Final = "equivocation"
CHAIN: Final = "chain"


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header, its signature (64 bytes), and the address that has signed it."""

    header: Header
    signature: bytes
    signer: bytes

    def pack(self) -> bytes:
        """SIGNED_BYTES."""
        return receipts.stored(self.header) + self.signature


def unpack(data: bytes, domain: bytes) -> SignedHeader:
    """The header that `pack` gave, and who has signed it under `domain`. Raises ValueError."""
    if len(data) != SIGNED_BYTES:
        raise ValueError(f"signed header: must be {SIGNED_BYTES} bytes, got {len(data)}")
    header, signature = receipts.load(data[:STORED_BYTES]), data[STORED_BYTES:]
    signer = header.signer(domain, signature)
    if signer is None:
        raise ValueError(f"signed header: nobody has signed that of tick {header.tick}")
    return SignedHeader(header, signature, signer)


def contradiction(one: SignedHeader, other: SignedHeader) -> str:
    """Which misdeed two headers of one member show, as the judge names it; empty: none.

    See docs/PROTOCOL.md section 21: the term of a lead does not count, two processes of one member are one signer.
    """
    a, b = (one.header, other.header) if one.header.tick <= other.header.tick else (other.header, one.header)
    if (a.epoch, a.roll_backs) != (b.epoch, b.roll_backs) or a == b:
        return ""
    if a.tick == b.tick:
        return EQUIVOCATION
    next_seq = a.first_seq + a.records
    is_next = b.tick == a.tick + 1
    if (
        b.time_ns < a.time_ns
        or b.first_seq < next_seq
        or (is_next and (b.first_seq != next_seq or b.parent != a.id))
    ):
        return CHAIN
    return ""
