# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What is common to all kinds: the checks before a handler, the end after it
@license MIT
@notice Twin of `sequencer/protocol/transition.py`, in its order. A record that does not hold is a no-op with a reason; it
        still takes its sequence number, and costs its work (`work.vy`).
@custom:security A handler that returns another reason than OK has changed no field of GLOBAL (but the inbox's, by
                 `_count`, and `work`); what it has changed of the root is undone here.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import codec
from . import constants
from . import kind
from . import reason
from . import state
from . import work

uses: cmap
uses: state

WITNESS_AT: constant(uint256) = 196  # calldata offset: selector and six words


@internal
def _open(pre_root: bytes32, length: uint256) -> (uint256, uint256):
    """
    @notice Opens the state of `pre_root`. Returns the record's kind, and OK when its handler is to decide, else why not.
    """
    cmap._begin(pre_root, WITNESS_AT)
    state._open()
    of_kind: uint256 = 0
    why: uint256 = 0
    of_kind, why = codec._decode(length)
    if why != reason.OK or of_kind == kind.PROCEED:
        return of_kind, why
    if state.taker != 0:
        return of_kind, reason.TAKER_PENDING
    if of_kind != kind.TICK and codec._record_class(of_kind) < state.last_class:
        return of_kind, reason.CLASS_ORDER
    return of_kind, reason.OK


@internal
def _count(of_kind: uint256, why: uint256):
    """
    @notice What L1 sends counts, whatever became of it; but a record that waits for RISK is none yet.
    """
    if codec.OF_INBOX >> of_kind & 1 == 1 and why != reason.RISK_DUE:
        message: uint256 = codec._field(0, 31) << 8  # the record and a zero byte
        state.inbox_hash = keccak256(abi_encode(state.inbox_hash, message))
        state.inbox_count = min(unsafe_add(state.inbox_count, 1), constants.U40_MAX)


@internal
def _close(pre_root: bytes32, of_kind: uint256, why: uint256) -> bytes32:
    """
    @notice Root after the record, whose outcome is `why`. The witness must end here.
    """
    if why != reason.OK:
        cmap.root = pre_root
    elif of_kind != kind.PROCEED and of_kind != kind.TICK:
        state.last_class = codec._record_class(of_kind)
    if state.seq < constants.U40_MAX:
        state.seq = unsafe_add(state.seq, 1)
    state.work = min(unsafe_add(state.work, work._of(of_kind)), constants.U48_MAX)
    state._close()
    assert cmap.cursor == len(msg.data), "witness: surplus"
    return cmap.root
