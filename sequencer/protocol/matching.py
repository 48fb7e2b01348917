"""PLACE and CONTINUE: price-time priority, at most STEPS_MAX fills or sweeps a record; atomic orders: plans.py.

A record is planned on copies of the accounts that it touches and committed only when it holds, so that a refused one
changes nothing.
"""

from sequencer.protocol import constants as c
from sequencer.protocol import insurance, margin, plans, work
from sequencer.protocol.auth import authorise, use_nonce
from sequencer.protocol.book import Order
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import QueueState, Reason
from sequencer.protocol.entries import Account, Page, Taker
from sequencer.protocol.market import is_old
from sequencer.protocol.outcome import Fill, Outcome
from sequencer.protocol.queue import count_order, sequencing_fee
from sequencer.protocol.state import State, instrument_expiry_time


class Plan:
    """What one record would do. `accounts` are copies; `steps` are (maker's order, lots filled, whether it leaves)."""

    __slots__ = (
        *("accounts", "before", "ended", "fees", "fills", "leaving", "more", "steps", "taker"),
        "work_before",
    )

    def __init__(self, taker: Taker, before: Account, account: Account) -> None:
        self.taker = taker
        self.before = before  # the taker's account without this order, its sums fresh
        self.work_before = 0  # GLOBAL's, at the record's beginning
        self.leaving: Order | None = None  # the order that an AMEND puts this one in the place of
        self.accounts: dict[int, Account] = {taker.account: account}
        self.steps: list[tuple[Order, int, bool]] = []
        self.fills: list[Fill] = []
        self.fees: list[tuple[int, int]] = []  # account, amount
        self.more = False  # still crosses after STEPS_MAX steps
        self.ended = False  # the rest must not rest: self-trade, nothing left to reduce, limits


def place(state: State, record: Record, out: Outcome) -> Reason:
    """PLACE: an order that trades what it crosses and rests, waits for CONTINUE, or ends."""
    number, instrument, flags, price, quantity, nonce, expires, fee_max = record.fields
    reason = check_form(flags, price, quantity)
    if reason:
        return reason
    found = authorise(state, number, record.signer, c.SCOPE_TRADE, nonce, expires)
    if isinstance(found, Reason):
        return found
    taker = Taker(number, instrument, flags, price, quantity, expires, state.globals.seq)
    return enter(state, taker, found, nonce, fee_max, out)


def check_form(flags: int, price: int, quantity: int) -> Reason:
    """What an order must be, whatever the state."""
    tif = flags >> c.FLAG_TIF_SHIFT & 3
    post_only = flags & c.FLAG_POST_ONLY
    if flags & c.FLAGS_UNUSED or tif > c.TIF_FOK or (post_only and tif != c.TIF_GTC):
        return Reason.FLAGS
    if quantity == 0:
        return Reason.QUANTITY
    if price == 0:
        return Reason.PRICE
    return Reason.OK


def enter(
    state: State,
    taker: Taker,
    found: Account,
    nonce: int | None,
    fee_max: int,
    out: Outcome,
    leaving: Order | None = None,
) -> Reason:
    """An order that its account may send: the rules of the queue, of its instrument and of its account; then it trades.

    `nonce` is used when the order holds; None: it comes from L1, which needs none. Then the backlog refuses nothing,
    and raises the fee to `fee_max` at most: the sequencer could fill it up with orders of its own. `leaving` is the
    account's order in whose place this one comes; `found` is the account without it.
    """
    instrument, flags, quantity = taker.instrument, taker.flags, taker.quantity
    g = state.globals
    level = g.breaker_level if nonce is None else g.queue_state  # L1's fee stands in for the queue's
    if level == QueueState.HALTED or g.seq == c.U40_MAX:  # the last seq is every later record's, too
        return Reason.HALTED
    if level == QueueState.RESTRICTED and not flags & c.FLAG_REDUCE_ONLY:
        return Reason.RESTRICTED
    page = state.page(instrument >> 5)
    if page is None or instrument & 31 >= len(page.terms):
        return Reason.UNKNOWN_INSTRUMENT
    if g.time >= instrument_expiry_time(instrument):
        return Reason.INSTRUMENT_EXPIRED
    fee = sequencing_fee(state)
    if nonce is None:
        fee = min(fee, fee_max * c.FEE_MAX_UNIT)
    if fee > fee_max * c.FEE_MAX_UNIT:
        return Reason.FEE_ABOVE_MAX
    if is_old(state, page, instrument):
        return Reason.RISK_STALE
    if found.auction_start:
        return Reason.UNHEALTHY

    side = flags & c.FLAG_SIDE
    if flags & c.FLAG_REDUCE_ONLY:
        quantity = taker.quantity = min(quantity, reducible(found, instrument, side))
        if quantity == 0:
            return Reason.REDUCE_ONLY
    elif not margin.can_hold(found, instrument, -quantity if side else quantity):
        return Reason.POSITION_LIMIT
    margin.refresh(state, found)
    account = found.clone()
    if nonce is not None:
        use_nonce(account, nonce)
    plan = Plan(taker, found, account)
    plan.work_before = g.work
    plan.leaving = leaving
    g.work += work.POSITION * len(found.positions)
    if fee:
        plan.fees.append((taker.account, fee))
    reason = _walk(state, plan, page)
    if reason:
        return reason
    reason = _finish(state, plan, page, fee, out)
    if reason:
        return reason
    if g.plan_root:
        g.plan_fee_max = fee_max
    count_order(state)
    out.fee += fee
    return Reason.OK


def proceed(state: State, out: Outcome) -> Reason:
    """CONTINUE: the pending taker goes on.

    If its margin would break, its fills are left out and the order ends; an atomic one is undone as a whole.
    """
    g = state.globals
    taker = g.taker
    if taker is None:
        return Reason.NO_TAKER
    g.taker = None
    page = state.page_of(taker.instrument)
    found = state.owner(taker.account)
    margin.refresh(state, found)
    g.work += work.POSITION * len(found.positions)
    plan = Plan(Taker.from_word(taker.word()), found, found.clone())
    reason = _walk(state, plan, page) or _finish(state, plan, page, 0, out)
    if reason:
        state.trace_back()
        if g.plan_root:
            plans.fail(state, taker, reason, out)
    elif g.plan_root and not out.pending:
        plans.end(state)
    return Reason.OK


def reducible(account: Account, instrument: int, side: int) -> int:
    """Lots that an order of `side` can close of the account's position."""
    held = account.positions.get(instrument, 0)
    return max(held if side else -held, 0)


def is_idle(account: Account, order: Order) -> bool:
    """Whether a resting order is reduce-only and its account holds nothing any more that it could close."""
    return bool(order.flags & c.FLAG_REDUCE_ONLY) and reducible(account, order.instrument, order.side) == 0


def _walk(state: State, plan: Plan, page: Page) -> Reason:
    """Takes up to STEPS_MAX steps along the other side of the book, on the plan's copies only."""
    taker = plan.taker
    side = taker.flags & c.FLAG_SIDE
    time = state.globals.time
    for order in state.crossing(taker.instrument, side, taker.price):
        if taker.quantity == 0:
            break
        state.trace_best(taker.instrument, 1 - side)
        if len(plan.steps) == c.STEPS_MAX:
            plan.more = True
            break
        maker = plan.accounts.get(order.account)
        if maker is None:
            maker = plan.accounts[order.account] = state.owner(order.account).clone()
            state.globals.work += work.MAKER
        if order.seq < maker.order_floor:  # its reserve went with CANCEL_ALL
            maker.orders -= 1
            plan.steps.append((order, 0, True))
            state.trace_remove(order)
            continue
        if (order.expires and time >= order.expires) or is_idle(maker, order):
            _drop(state, plan, maker, order)
            continue
        if not margin.is_backed(state, page, maker, order):
            _drop(state, plan, maker, order)
            continue
        if order.account == taker.account:
            if taker.flags & c.FLAG_STP_TAKER:
                plan.ended = True
                break
            _drop(state, plan, maker, order)
            continue
        if taker.flags & c.FLAG_POST_ONLY:
            return Reason.POST_ONLY_CROSSES
        if not _fill(state, plan, page, maker, order):
            if plan.ended:
                break
            _drop(state, plan, maker, order)
    else:
        if taker.quantity:
            state.trace_best(taker.instrument, 1 - side)
    if plan.more and plans.is_atomic(taker.flags) and plans.is_full(state):
        return plans.refusal(taker.flags)
    if taker.flags >> c.FLAG_TIF_SHIFT & 3 == c.TIF_FOK and taker.quantity and not plan.more:
        return Reason.FOK_UNFILLED
    return Reason.OK


def _drop(state: State, plan: Plan, maker: Account, order: Order) -> None:
    """Plans the removal of a resting order and the release of its reserve."""
    maker.reserved -= order.reserve_rate * order.quantity
    maker.orders -= 1
    plan.steps.append((order, 0, True))
    state.trace_remove(order)


def _fill(state: State, plan: Plan, page: Page, maker: Account, order: Order) -> bool:
    """Plans a fill against `order`. False when the maker's limits forbid it, or the taker's (then `ended`)."""
    taker = plan.taker
    account = plan.accounts[taker.account]
    instrument = taker.instrument
    side = taker.flags & c.FLAG_SIDE
    quantity = min(taker.quantity, order.quantity)
    leaves = quantity == order.quantity
    if order.flags & c.FLAG_REDUCE_ONLY:
        closes = reducible(maker, instrument, order.side)
        if closes <= quantity:  # what is left of it can close nothing, and must not stand in the book
            quantity, leaves = closes, True
    delta = -quantity if side else quantity
    if not margin.can_hold(account, instrument, delta):
        plan.ended = True
        return False
    if not margin.can_hold(maker, instrument, -delta):
        return False
    price = order.price
    cash = price * delta
    account.cash -= cash
    maker.cash += cash
    maker.reserved -= order.reserve_rate * (order.quantity if leaves else quantity)
    maker.orders -= leaves
    margin.move(account, page, instrument, delta)
    margin.move(maker, page, instrument, -delta)
    params = state.params
    maker_fee = trading_fee(page.index, price, quantity, params.maker_fee_ppm, params.fee_cap_ppm)
    taker_fee = trading_fee(page.index, price, quantity, params.taker_fee_ppm, params.fee_cap_ppm)
    plan.fees.append((order.account, maker_fee))
    plan.fees.append((taker.account, taker_fee))
    plan.steps.append((order, quantity, leaves))
    if leaves:
        state.trace_remove(order)
    else:
        state.trace_fill(order, quantity)
    plan.fills.append(
        Fill(
            instrument,
            side,
            order.account,
            order.seq,
            taker.account,
            taker.seq,
            price,
            quantity,
            maker_fee,
            taker_fee,
            0 if leaves else order.quantity - quantity,
            page.rows[instrument & 31][0],
            page.index,
        )
    )
    taker.quantity -= quantity
    taker.filled += quantity
    return True


def trading_fee(index: int, price: int, quantity: int, rate_ppm: int, cap_ppm: int) -> int:
    """Fee of a fill, 1e-6 USD: rate of the index, at most cap of the premium; rounded up."""
    return -(-min(index * rate_ppm, price * cap_ppm) * quantity // c.PPM)


def _finish(state: State, plan: Plan, page: Page, fee: int, out: Outcome) -> Reason:
    """Rests what is to rest, checks margin and the pool, commits. Not OK: nothing has changed."""
    taker = plan.taker
    flags = taker.flags
    account = plan.accounts[taker.account]
    rested: Order | None = None
    pending = plan.more and not plan.ended and taker.quantity > 0
    if flags & c.FLAG_REDUCE_ONLY:
        taker.quantity = min(taker.quantity, reducible(account, taker.instrument, flags & c.FLAG_SIDE))
    rests = flags >> c.FLAG_TIF_SHIFT & 3 == c.TIF_GTC and not plan.ended and not pending
    if rests and taker.quantity:
        rate = margin.reserve_rate(
            state,
            page,
            taker.instrument,
            flags & c.FLAG_SIDE,
            taker.price,
            bool(flags & c.FLAG_REDUCE_ONLY) and margin.is_covered(account),
        )
        account.reserved += rate * taker.quantity
        account.orders += 1
        rested = Order(
            taker.account,
            taker.instrument,
            flags & c.FLAG_SIDE,
            taker.price,
            taker.seq,
            taker.quantity,
            taker.expires,
            rate,
            flags,
            taker.filled,
        )
    fees = sum(amount for _, amount in plan.fees)
    if fees > state.globals.pool:
        return Reason.POOL
    margin.refresh(state, account)
    if margin.is_stale(state, account):
        return Reason.RISK_STALE
    own_fees = sum(amount for number, amount in plan.fees if number == taker.account)
    if account.reserved > c.U64_MAX or account.orders > c.U32_MAX:
        return Reason.MARGIN
    if margin.free(state, account) < own_fees:
        is_closing = flags & c.FLAG_REDUCE_ONLY and not rested
        if not is_closing or not margin.recovers(state, plan.before, account, own_fees):
            out.there = margin.free(state, plan.before)
            out.needed = out.there - margin.free(state, account) + own_fees
            return Reason.MARGIN

    params = state.params
    if pending and plans.is_atomic(flags):
        leaving = [] if plan.leaving is None else [plan.leaving]
        orders = leaving + [order for order, _, _ in plan.steps]
        plans.note(state, list(plan.accounts), orders, plan.work_before)
    if plan.leaving is not None:
        state.remove_order(plan.leaving)
        out.removed.append(plan.leaving)
    for order, quantity, leaves in plan.steps:
        if not leaves:
            state.fill_order(order, quantity)
            continue
        state.remove_order(order)
        if quantity < order.quantity:
            order.quantity -= quantity
            out.removed.append(order)
    for place_in_list, (number, amount) in enumerate(plan.fees):
        sequencing = fee and place_in_list == 0
        insurance.charge(state, plan.accounts[number], amount, 0 if sequencing else params.fund_share_ppm)
    for number, changed in plan.accounts.items():
        state.put_account(number, changed)
    if rested is not None:
        state.insert_order(rested)
    if pending:
        state.globals.taker = taker
    out.fills = plan.fills
    out.paid = own_fees
    out.rested = rested
    out.rests = rested.quantity if rested is not None else 0
    out.pending = pending
    return Reason.OK
