# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Atomic orders over several records: a FOK or post-only order holds as a whole, or was never there
@license MIT
@notice Twin of `sequencer/protocol/plans.py`, which says what goes back and what does not.
@custom:security The root to which a state goes back stands in GLOBAL, written when the plan was opened: a witness cannot name
                 another. Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import constants
from . import entries
from . import insurance
from . import queue
from . import state
from . import work

uses: cmap
uses: insurance
uses: queue
uses: state


@internal
@pure
def _is_atomic(flags: uint256) -> bool:
    """
    @notice Whether an order holds as a whole or not at all.
    """
    if flags & constants.FLAG_POST_ONLY != 0:
        return True
    return (flags >> constants.FLAG_TIF_SHIFT) & 3 == constants.TIF_FOK


@internal
@view
def _is_full() -> bool:
    """
    @notice Whether the open plan, with this record, has as many as it may.
    """
    return state.plan >> 16 == constants.PLAN_RECORDS_MAX - 1


@internal
def _note():
    """
    @notice A record of a plan has held, and the next must follow. The first opens the plan.
    """
    if state.plan_root == empty(bytes32):
        state.plan_root = state.opened
    state.plan = unsafe_add(state.plan, 1 << 16)


@internal
def _end():
    """
    @notice No plan is open.
    """
    state.plan_root = empty(bytes32)
    state.plan = 0


@internal
def _fail(taker: entries.Account):
    """
    @notice Takes the state back to where the plan began, and lets its order pay for what it has cost.
    @param taker Its account as the plan has left it, with the nonce used.
    """
    records: uint256 = unsafe_add(state.plan >> 16, 1)
    most: uint256 = unsafe_mul(state.plan & 65_535, constants.FEE_MAX_UNIT)
    cmap.root = state.plan_root
    state._rewind()
    self._end()
    state.work = unsafe_add(state.work, unsafe_mul(work.UNDO, records))
    account: entries.Account = state._account(taker.number)
    account.nonce_floor = taker.nonce_floor
    account.nonce_bitmap = taker.nonce_bitmap
    cash: uint256 = convert(convert(max(account.cash, 0), bytes32), uint256)
    fee: uint256 = unsafe_mul(min(queue._sequencing_fee(), most), records)
    fee = min(min(min(fee, most), cash), state.pool)
    insurance._charge(fee, 0)
    account.cash = unsafe_sub(account.cash, convert(fee, int256))  # at most what is there
    state._put_account(account)
    queue._count_order()
