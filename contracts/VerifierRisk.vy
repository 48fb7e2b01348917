# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Verifier of TICK, FEED, SURFACE, LIST, RISK, FIX, and of what is no record
@license MIT
@notice Re-executes one record from a witness; twin of `sequencer/protocol/transition.py` for these kinds, for unknown ones
        and for byte strings of any kind that are malformed.
@custom:security Total: whatever the record holds, a correct witness returns; a wrong one reverts. No storage.
@custom:kill Nothing: it holds no state and no privilege.
"""

from lib import cmap
from lib import insurance
from lib import kind
from lib import market
from lib import pages
from lib import queue
from lib import reason
from lib import reports
from lib import settlement
from lib import state
from lib import transition

initializes: cmap
initializes: state[cmap := cmap]
initializes: insurance[state := state]
initializes: queue[state := state]
initializes: reports[state := state]
initializes: pages[reports := reports, state := state]
initializes: market[cmap := cmap, pages := pages, queue := queue, reports := reports, state := state]
initializes: settlement[insurance := insurance, state := state]
initializes: transition[cmap := cmap, state := state]

DOMAIN: immutable(bytes32)  # EIP-712 domain separator under which records are signed


@deploy
def __init__(domain: bytes32):
    """
    @param domain EIP-712 domain separator of the exchange.
    """
    DOMAIN = domain


@external
def apply(
    pre_root: bytes32, length: uint256, r0: bytes32, r1: bytes32, r2: bytes32, r3: bytes32
) -> (bytes32, uint256, bytes32):
    """
    @notice Root after a record, its reason code, and the hash of its outcome (docs/PROTOCOL.md section 21). The witness
            words follow the arguments in calldata.
    @param pre_root Root before it.
    @param length Bytes of the record: the first of r0 || r1 || r2 || r3.
    """
    of_kind: uint256 = 0
    why: uint256 = 0
    of_kind, why = transition._open(pre_root, length)
    if why == reason.OK:
        if of_kind == kind.TICK:
            why = queue._tick()
        elif of_kind == kind.FEED:
            why = market._feed(DOMAIN)
        elif of_kind == kind.SURFACE:
            why = market._report_surface(DOMAIN)
        elif of_kind == kind.LIST:
            why = market._list_instrument()
        elif of_kind == kind.RISK:
            why = market._risk()
        elif of_kind == kind.FIX:
            why = settlement._fix()
        else:
            raise "verifier: kind"
    return transition._close(pre_root, of_kind, why), why, state.outcome
