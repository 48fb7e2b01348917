"""Portfolio margin: what an account is worth and what it must hold, from its positions and the pages' risk arrays.

    value   = sum q x mark                                  (q lots, negative when short; ticks: the product is cash)
    IM      = sum over underlyings of floor - worst         (exposure.py; nothing offsets between underlyings)
    MM      = ceil(IM x maintenance_ppm / 1e6)
    equity  = cash + value
    free    = equity - IM - reserved - orders x order_hold

The sums over the positions are kept beside the account and moved by each fill; they are made anew when a page has
changed since. All results in 1e-6 USD. Roundings are against the account.
"""

from sequencer.protocol import constants as c
from sequencer.protocol import freshness
from sequencer.protocol.book import Order
from sequencer.protocol.entries import NEVER, Account, Page
from sequencer.protocol.exposure import Exposure, Sums, greatest, mate_of, uncovered
from sequencer.protocol.state import State


def refresh(state: State, account: Account) -> None:
    """Makes `account.sums` those of the present pages."""
    if account.epoch == state.epoch:
        return
    value = 0
    exposures: dict[int, Exposure] = {}
    positions = account.positions
    for instrument, quantity in sorted(positions.items()):
        page = state.page_of(instrument)
        row = instrument & 31
        value += quantity * page.rows[row][0]
        one = exposures.get(instrument >> 28)
        if one is None:
            one = exposures[instrument >> 28] = Exposure()
            state.underlying(instrument >> 28)  # whose index says whether the marks are old
        one.add(page, instrument, 0, quantity)
        if quantity > 0:
            mate = mate_of(page, row)
            lots = uncovered(quantity, 0 if mate is None else positions.get(instrument - row + mate, 0))
            if lots:
                one.add_longs(page, row, lots)
    account.sums = Sums(value, exposures)
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
    positions = account.positions = account.positions.copy()
    held = positions.get(instrument, 0)
    after = held + delta
    if after:
        positions[instrument] = after
    else:
        del positions[instrument]
        account.epoch = NEVER  # the oldest page may be another one now
    if account.epoch == NEVER:
        return
    sums = account.sums
    row = instrument & 31
    mate = mate_of(page, row)
    mate_held = 0 if mate is None else positions.get(instrument - row + mate, 0)
    one = sums.exposures.get(instrument >> 28) or Exposure()
    moved = one.moved(page, instrument, held, delta, mate or 0, mate_held)
    account.sums = sums.moved(delta * page.rows[row][0], instrument >> 28, moved)


def equity(account: Account) -> int:
    """Cash and marks; the sums must be fresh (`refresh`)."""
    return account.cash + account.sums.value


def initial(state: State, account: Account) -> int:
    """IM without orders, rounded up."""
    total = 0
    for number, one in account.sums.exposures.items():
        if one.risk is None:
            one.risk = one.floor(*floors(state, number)) - one.worst(state.shocks[number].third_ppm)
        total += one.risk
    return total


def floors(state: State, underlying: int) -> tuple[int, int]:
    """short_floor_ppm and short_gross_ppm of an underlying."""
    return state.params.of(underlying).short_floor_ppm, state.params.short_gross_ppm


def maintenance(state: State, account: Account) -> int:
    """MM, rounded up."""
    return -(-initial(state, account) * state.params.maintenance_ppm // c.PPM)


def free(state: State, account: Account) -> int:
    """Equity less IM, the resting orders' reserve, and what their leaves hold."""
    return account.cash + account.sums.value - initial(state, account) - held(state, account)


def held(state: State, account: Account) -> int:
    """The resting orders' reserve, and what their leaves hold."""
    return account.reserved + account.orders * state.params.order_hold


def recovers(state: State, before: Account, after: Account, fees: int) -> bool:
    """Whether a change of an account that is short of margin leaves it no worse: neither free nor equity / IM falls.

    `fees` are still to be paid by `after`. Free alone would let an account that is about to be liquidated buy its
    position back at any price from a friend: free rises as IM goes, and the fund pays for the equity that is gone.
    """
    if free(state, after) - fees < free(state, before):
        return False
    equity_before, equity_after = equity(before), equity(after) - fees
    return equity_after * initial(state, before) >= equity_before * initial(state, after)


def cautious(state: State, account: Account) -> tuple[int, int, int]:
    """Equity and IM of an account some of whose marks may be too old, and its equity at the last marks.

    What stands on old pages counts for its value at the last marks less its own IM; the rest has its own IM. An account
    whose equity was IM when its marks grew old has IM still, whatever hedges what on these pages. But old pages of an
    underlying that were not marked together hedge nothing: each has an IM of its own. Without old pages: plain equity,
    and IM.
    """
    old: dict[int, Page] = {}
    fresh: list[int] = []
    for page_id in sorted({instrument >> 5 for instrument in account.positions}):
        page = state.page_of(page_id << 5)
        if freshness.is_old(state, page_id, page):
            old[page_id] = page
        else:
            fresh.append(page_id)
    if not old:
        refresh(state, account)
        return equity(account), initial(state, account), equity(account)
    groups: list[list[int]] = [fresh]
    for number in sorted({page_id >> 23 for page_id in old}):
        of_it = [page_id for page_id in old if page_id >> 23 == number]
        is_apart = freshness.are_apart(state, [old[page_id] for page_id in of_it])
        groups += [[page_id] for page_id in of_it] if is_apart else [of_it]
    worth = account.cash
    risks = []
    for group in groups:
        part = Account(account.owner)
        part.positions = {one: lots for one, lots in account.positions.items() if one >> 5 in group}
        refresh(state, part)
        worth += part.sums.value
        risks.append(initial(state, part))
    return worth - sum(risks[1:]), risks[0], worth


def is_stale(state: State, account: Account) -> bool:
    """Whether a page that the account's sums rest on is too old (freshness.py)."""
    return freshness.is_stale(state, account.sums)


def reserve_rate(state: State, page: Page, instrument: int, side: int, price: int, covered: bool) -> int:
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
        loss = page.rows[instrument & 31][0] - price
        if not covered:
            loss += short_risk(state, page, instrument)
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
    need = page.rows[order.instrument & 31][0] - order.price
    if not (order.flags & c.FLAG_REDUCE_ONLY and is_covered(account)):
        need += short_need(state, page, order.instrument)
    return need <= order.reserve_rate


def short_need(state: State, page: Page, instrument: int) -> int:
    """Ticks per lot that a sell must have reserved beside its loss against the mark: maintenance of its risk."""
    return -(-short_risk(state, page, instrument) * state.params.maintenance_ppm // c.PPM)


def short_risk(state: State, page: Page, instrument: int) -> int:
    """Ticks per lot that selling an option adds to IM at most: its greatest gain in a scenario, and the short floor."""
    floor_ppm = max(floors(state, instrument >> 28))
    return greatest(page.rows[instrument & 31][1]) - (-page.index * floor_ppm // c.PPM)
