"""Atomic orders over several records: a FOK is filled whole, a post-only order rests, or it was never there.

An order that still crosses after its record's steps waits for CONTINUE, and nothing else may come before. When it is
atomic, GLOBAL remembers the root before its first record. If a later one cannot go on, the state is that one again, but
for what must not go back: sequence numbers, work, the inbox, the class of the tick. The order has then used its nonce,
counts in the backlog, and pays its sequencing fee for each record, at most its own `fee_max` in all.

Twin: `contracts/lib/plans.vy`, to which the state of before is proved.
"""

from sequencer.protocol import constants as c
from sequencer.protocol import insurance, work
from sequencer.protocol.book import Order, order_key, order_value
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account, Taker
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.queue import count_order, sequencing_fee
from sequencer.protocol.state import State, Undo


def is_atomic(flags: int) -> bool:
    """Whether an order holds as a whole or not at all."""
    return bool(flags & c.FLAG_POST_ONLY) or flags >> c.FLAG_TIF_SHIFT & 3 == c.TIF_FOK


def refusal(flags: int) -> Reason:
    """Why an atomic order does not hold that has too much before it."""
    return Reason.POST_ONLY_CROSSES if flags & c.FLAG_POST_ONLY else Reason.FOK_UNFILLED


def is_full(state: State) -> bool:
    """Whether the open plan, with this record, has as many as it may."""
    return state.globals.plan_records == c.PLAN_RECORDS_MAX - 1


def note(state: State, accounts: list[int], orders: list[Order], work_before: int) -> None:
    """Keeps what stands now of what a record of a plan is about to change. The first record opens the plan.

    `work_before`: GLOBAL's at the record's beginning.
    """
    g = state.globals
    if state.undo is None:
        counted, g.work = g.work, work_before
        g.plan_root = state.root()
        before = g.copy()
        before.plan_root = b""
        state.undo = Undo(before.words())
        g.work = counted
    g.plan_records += 1
    undo = state.undo
    for number in accounts:
        undo.accounts.setdefault(number, state.accounts[number])
    for order in orders:
        key = order_key(order.instrument, order.side, order.price, order.seq)
        undo.orders.setdefault(key, order_value(order))


def end(state: State) -> None:
    """The plan has held."""
    g = state.globals
    g.plan_root, g.plan_records, g.plan_fee_max = b"", 0, 0
    state.undo = None


def fail(state: State, taker: Taker, reason: Reason, out: Outcome) -> None:
    """The plan cannot go on: takes the state back to where it began, and lets its order pay for what it has cost."""
    g = state.globals
    used = state.owner(taker.account)
    records, most = g.plan_records + 1, g.plan_fee_max * c.FEE_MAX_UNIT
    before, restored = state.rewind(taker.account)
    g.excess, g.queue_state = before.excess, before.queue_state
    g.fund, g.treasury, g.pool = before.fund, before.treasury, before.pool
    g.deficit, g.holes = before.deficit, before.holes
    end(state)
    g.work += work.UNDO * records
    account: Account = restored.clone()
    account.nonce_floor, account.nonce_bitmap = used.nonce_floor, used.nonce_bitmap
    fee = min(sequencing_fee(state), most)
    out.fee = min(fee * records, most, max(account.cash, 0), g.pool)
    insurance.charge(state, account, out.fee, 0)
    state.put_account(taker.account, account)
    count_order(state)
    out.failed = reason
