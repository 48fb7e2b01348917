"""Portfolio margin: what an account is worth and what it must hold, from its positions and the pages' risk arrays.

    value   = sum q x mark                                  (q lots, negative when short; ticks: the product is cash)
    worst   = min(0, min over 16 scenarios of sum q x P&L)
    floor   = ceil(sum over shorts |q| x index x short_floor_ppm / 1e6)
    IM      = floor - worst
    MM      = ceil(IM x maintenance_ppm / 1e6)
    equity  = cash + value
    free    = equity - IM - reserved - orders x order_hold

The sums over the positions are kept beside the account and moved by each fill; they are made anew when a page has
changed since. All results in 1e-6 USD. Roundings are against the account.
"""

from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.entries import NEVER, Account, Page
from sequencer.protocol.state import State

# account.sums: value, short lots x index, oldest page time, then the 16 scenario sums
_VALUE: Final = 0
_SHORT: Final = 1
_OLDEST: Final = 2
_PNL: Final = 3


def refresh(state: State, account: Account) -> None:
    """Makes `account.sums` those of the present pages."""
    if account.epoch == state.epoch:
        return
    value = short = 0
    oldest = c.U32_MAX
    pnl = [0] * c.SCENARIOS
    for instrument, quantity in sorted(account.positions.items()):
        page = state.page_of(instrument)
        mark, row = page.rows[instrument & 31]
        value += quantity * mark
        if quantity < 0:
            short -= quantity * page.index
        oldest = min(oldest, page.time)
        pnl = [total + quantity * one for total, one in zip(pnl, row, strict=True)]
    account.sums = [value, short, oldest, *pnl]
    account.epoch = state.epoch


def can_hold(account: Account, instrument: int, delta: int) -> bool:
    """Whether the position may change by `delta` lots: size, number of positions, number of pages."""
    held = account.positions.get(instrument)
    if held is not None:
        return -c.POSITION_LOTS_MAX <= held + delta <= c.POSITION_LOTS_MAX
    if len(account.positions) >= c.POSITIONS_MAX or not -c.POSITION_LOTS_MAX <= delta <= c.POSITION_LOTS_MAX:
        return False
    page = instrument >> 5
    seen = {one >> 5 for one in account.positions}
    return page in seen or len(seen) < c.PAGES_MAX


def move(account: Account, page: Page, instrument: int, delta: int) -> None:
    """Changes a position by `delta` lots, which `can_hold` has allowed, and the sums if they are fresh."""
    positions = account.positions
    held = positions.get(instrument, 0)
    after = held + delta
    if after:
        positions[instrument] = after
    else:
        del positions[instrument]
        account.epoch = NEVER  # the oldest page may be another one now
    if account.epoch == NEVER:
        return
    mark, row = page.rows[instrument & 31]
    sums = account.sums
    sums[_VALUE] += delta * mark
    sums[_SHORT] += (max(-after, 0) - max(-held, 0)) * page.index
    sums[_OLDEST] = min(sums[_OLDEST], page.time)
    sums[_PNL:] = [total + delta * one for total, one in zip(sums[_PNL:], row, strict=True)]


def equity(account: Account) -> int:
    """Cash and marks; the sums must be fresh (`refresh`)."""
    return account.cash + account.sums[_VALUE]


def initial(state: State, account: Account) -> int:
    """IM without orders, rounded up."""
    sums = account.sums
    worst = min(0, *sums[_PNL:])
    return -(-sums[_SHORT] * state.params.short_floor_ppm // c.PPM) - worst


def maintenance(state: State, account: Account) -> int:
    """MM, rounded up."""
    return -(-initial(state, account) * state.params.maintenance_ppm // c.PPM)


def free(state: State, account: Account) -> int:
    """Equity less IM, the resting orders' reserve, and what their leaves hold."""
    held = account.reserved + account.orders * state.params.order_hold
    return account.cash + account.sums[_VALUE] - initial(state, account) - held


def recovers(state: State, before: Account, after: Account, fees: int) -> bool:
    """Whether a change of an account that is short of margin leaves it no worse: neither free nor equity / IM falls.

    `fees` are still to be paid by `after`. Free alone would let an account that is about to be liquidated buy its
    position back at any price from a friend: free rises as IM goes, and the fund pays for the equity that is gone.
    """
    if free(state, after) - fees < free(state, before):
        return False
    equity_before, equity_after = equity(before), equity(after) - fees
    return equity_after * initial(state, before) >= equity_before * initial(state, after)


def is_stale(state: State, account: Account) -> bool:
    """Whether a page that the account's sums rest on is older than risk_age_max_s."""
    return (
        bool(account.positions) and account.sums[_OLDEST] + state.params.risk_age_max_s < state.globals.time
    )


def reserve_rate(state: State, page: Page, row: int, side: int, price: int, covered: bool) -> int:
    """Ticks per lot that a resting order reserves: the worst that its fill can do to its account's free margin.

    A buy: its premium. A sell: the worst scenario value of the option and the short floor, less the premium; but a
    reduce-only one of a `covered` account: what the price is below the mark. Maker's fee at its cap on top, if there
    is one. Rounded up, at most uint32.
    """
    params = state.params
    fee = -(-price * params.fee_cap_ppm // c.PPM) if params.maker_fee_ppm else 0
    if side == c.BUY:
        loss = price
    else:
        loss = page.rows[row][0] - price
        if not covered:
            loss += _short_risk(state, page, row)
    return min(max(loss, 0) + fee, c.U32_MAX)


def is_covered(account: Account) -> bool:
    """Whether selling what it holds cannot bare a short or call a loan: no short position, no debt.

    The IM of longs alone is at most their value, so that free >= cash - reserved whatever is sold of them.
    """
    return account.cash >= 0 and all(quantity > 0 for quantity in account.positions.values())


def is_backed(state: State, page: Page, account: Account, order: Order) -> bool:
    """Whether a resting order's reserve still bears its fill at the present marks; if not, it is dead when met.

    A buy always: it reserves its premium. A sell: its loss against the mark and the maintenance part of what it adds
    to IM (rounded up), as a position would have to; a reduce-only one of a covered account: its loss. Without this an
    order that the marks have passed would be a position without a margin call: left to a friend when it has become
    worth more than its account, cancelled otherwise.
    """
    if order.side == c.BUY:
        return True
    row = order.instrument & 31
    need = page.rows[row][0] - order.price
    if not (order.flags & c.FLAG_REDUCE_ONLY and is_covered(account)):
        need -= -_short_risk(state, page, row) * state.params.maintenance_ppm // c.PPM
    return need <= order.reserve_rate


def _short_risk(state: State, page: Page, row: int) -> int:
    """Ticks per lot that selling an option adds to IM at most: its greatest gain in a scenario, and the short floor."""
    return max(0, *page.rows[row][1]) - (-page.index * state.params.short_floor_ppm // c.PPM)
