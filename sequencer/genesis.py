"""Genesis: the state before the first record, from the parameters alone.

The genesis root does not depend on the EIP-712 domain (which names the Rollup, which is deployed with this root).
"""

from sequencer.protocol.params import Params
from sequencer.protocol.state import State

UNDERLYINGS = ("BTC", "ETH")
"""Names of the underlyings; the index in the tuple is the protocol's number."""


def genesis_state(domain: bytes, params: Params) -> State:
    """The empty exchange."""
    return State(domain, params, tuple(range(len(UNDERLYINGS))))


def genesis_root(params: Params) -> bytes:
    """Root of the empty exchange: what Rollup is deployed with."""
    return genesis_state(bytes(32), params).root()
