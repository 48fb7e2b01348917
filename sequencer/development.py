"""What development exchanges have in common: feeds and receipts whose keys everybody knows, and parameters."""

from dataclasses import replace

from sequencer.protocol.hashing import address_of, keccak, public_key_of
from sequencer.protocol.params import Params

FEEDS = 3


def feed_key(number: int) -> bytes:
    """Private key of a development feed; derived from a constant, worth nothing."""
    return keccak(b"fairstrike devnet feed %d" % number)


def receipt_key(member: int = 0) -> bytes:
    """Private key that signs a development exchange's receipts; derived from a constant, worth nothing."""
    return keccak(b"fairstrike devnet receipts %d" % member)


def devnet_params(**changes: int) -> Params:
    """Parameters of a devnet: the defaults with the development feeds' addresses; `changes` by field name."""
    keys = tuple(address_of(public_key_of(feed_key(number))) for number in range(FEEDS))
    return replace(Params(feed_keys=keys, treasury_account=1), **changes)  # type: ignore[arg-type]  # every changed field is an int
