# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Verifier of AMEND
@license MIT
@notice Re-executes one record from a witness; twin of `sequencer/protocol/transition.py` for these kinds.
@custom:security Total: whatever the record holds, a correct witness returns; a wrong one reverts. No storage.
@custom:kill Nothing: it holds no state and no privilege.
"""

from lib import amend
from lib import auth
from lib import book
from lib import cmap
from lib import fills
from lib import forced
from lib import freshness
from lib import insurance
from lib import kind
from lib import margin
from lib import matching
from lib import orders
from lib import plans
from lib import queue
from lib import reason
from lib import reports
from lib import state
from lib import transition

initializes: cmap
initializes: state[cmap := cmap]
initializes: auth[state := state]
initializes: book[cmap := cmap]
initializes: insurance[state := state]
initializes: freshness[state := state]
initializes: forced[freshness := freshness, reports := reports, state := state]
initializes: margin[freshness := freshness, state := state]
initializes: fills[margin := margin, state := state]
initializes: reports[state := state]
initializes: queue[state := state]
initializes: plans[cmap := cmap, insurance := insurance, queue := queue, state := state]
initializes: matching[
    auth := auth,
    book := book,
    cmap := cmap,
    fills := fills,
    forced := forced,
    insurance := insurance,
    margin := margin,
    plans := plans,
    queue := queue,
    state := state
]
initializes: orders[auth := auth, cmap := cmap, insurance := insurance, margin := margin, state := state]
initializes: amend[
    auth := auth, cmap := cmap, insurance := insurance, matching := matching, orders := orders, state := state
]
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
        if of_kind == kind.AMEND:
            why = amend._amend(DOMAIN)
        else:
            raise "verifier: kind"
        transition._count(of_kind, why)
    return transition._close(pre_root, of_kind, why), why, state.outcome
