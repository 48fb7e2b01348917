# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Portfolio margin
@license MIT
@notice Twin of `sequencer/protocol/margin.py`, which has the formulas; results in 1e-6 USD, rounded against the account.
@dev Eight scenario sums are kept two a word, in lanes of 128 bits: flipping the top bit of each int32 of a row adds 2^31
     to it, so that lanes hold sum q (P&L + 2^31), and the bias 2^31 sum q comes off at the end.
@custom:security Bounds: |q| <= 2^44, 64 positions, marks and P&Ls of 32 bits: sums below 2^82, products with ppm below
                 2^114, so that nothing wraps.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import constants
from . import entries
from . import pages
from . import params
from . import reason
from . import state

uses: state

LANES: constant(uint256) = (2**32 - 1) | ((2**32 - 1) << 128)  # scenarios s and s + 4 of a word, after a shift by 32 s
FLIP: constant(uint256) = max_value(uint256) // (2**32 - 1) * 2**31  # the top bit of each int32


struct Sums:
    # of one account at the present pages
    worth: int256  # sum q x mark
    risk: int256  # IM without orders
    is_stale: bool  # a page is older than risk_age_max_s


@internal
@pure
def _lots(quantity: uint256) -> int256:
    """
    @notice An unsigned quantity, below 2^255, as signed.
    """
    return convert(convert(quantity, bytes32), int256)


@internal
@pure
def _bits(amount: int256) -> uint256:
    """
    @notice The bits of a signed amount.
    """
    return convert(convert(amount, bytes32), uint256)


@internal
@pure
def _ceil_ppm(amount: uint256, ppm: uint256) -> uint256:
    """
    @notice amount x ppm / 1e6, rounded up.
    """
    return unsafe_div(unsafe_add(unsafe_mul(amount, ppm), constants.PPM - 1), constants.PPM)


# --- an account -------------------------------------------------------------------------------------------------------


@internal
def _refresh(account: entries.Account) -> Sums:
    """
    @notice What the account's positions come to at the present pages; reads those that the record has not read.
    """
    worth: int256 = 0
    short: uint256 = 0
    total: int256 = 0  # sum q
    oldest: uint256 = constants.U32_MAX
    lanes: uint256[8] = empty(uint256[8])
    page_id: uint256 = max_value(uint256)
    page: uint256 = 0
    head: uint256 = 0
    tables: uint256 = 0
    for i: uint256 in range(account.position_count, bound=64):
        packed: uint256 = account.positions[i]
        if packed >> 69 != page_id:
            page_id = packed >> 69
            page = state._page(page_id)
            head = cmap._word_at(page)
            tables = (unsafe_add(head & 255, 7) >> 3) << 5
            oldest = min(oldest, (head >> 8) & constants.U32_MAX)
            page = unsafe_add(page, 32)
        row: uint256 = (packed >> 64) & 31
        quantity: int256 = entries._quantity(packed)
        q: uint256 = self._bits(quantity)
        mark: uint256 = cmap._word_at(unsafe_add(page, unsafe_add(tables, (row >> 3) << 5)))
        mark = (mark >> ((row & 7) << 5)) & constants.U32_MAX
        worth = unsafe_add(worth, unsafe_mul(quantity, self._lots(mark)))
        total = unsafe_add(total, quantity)
        if quantity < 0:
            short = unsafe_sub(short, unsafe_mul(q, (head >> 40) & constants.U32_MAX))
        at: uint256 = unsafe_add(page, unsafe_add(tables << 1, row << 6))
        pnl: uint256 = cmap._word_at(at) ^ FLIP
        lanes[0] = unsafe_add(lanes[0], unsafe_mul(q, pnl & LANES))
        lanes[1] = unsafe_add(lanes[1], unsafe_mul(q, (pnl >> 32) & LANES))
        lanes[2] = unsafe_add(lanes[2], unsafe_mul(q, (pnl >> 64) & LANES))
        lanes[3] = unsafe_add(lanes[3], unsafe_mul(q, (pnl >> 96) & LANES))
        pnl = cmap._word_at(unsafe_add(at, 32)) ^ FLIP
        lanes[4] = unsafe_add(lanes[4], unsafe_mul(q, pnl & LANES))
        lanes[5] = unsafe_add(lanes[5], unsafe_mul(q, (pnl >> 32) & LANES))
        lanes[6] = unsafe_add(lanes[6], unsafe_mul(q, (pnl >> 64) & LANES))
        lanes[7] = unsafe_add(lanes[7], unsafe_mul(q, (pnl >> 96) & LANES))
    bias: int256 = unsafe_mul(total, 2**31)
    worst: int256 = 0
    for lane: uint256 in lanes:
        low: int256 = convert(convert(lane << 128, bytes32), int256) >> 128
        high: int256 = convert(convert(unsafe_sub(lane, self._bits(low)), bytes32), int256) >> 128
        worst = min(worst, min(unsafe_sub(low, bias), unsafe_sub(high, bias)))
    lowest: uint256 = self._ceil_ppm(short, state._param(params.SHORT_FLOOR_PPM))
    age: uint256 = state._param(params.RISK_AGE_MAX_S)
    return Sums(
        worth=worth,
        risk=unsafe_sub(self._lots(lowest), worst),
        is_stale=account.position_count != 0 and unsafe_add(oldest, age) < state.time,
    )


@internal
@pure
def _can_hold(account: entries.Account, instrument: uint256, delta: int256) -> bool:
    """
    @notice Whether the position may change by `delta` lots: size, number of positions, number of pages.
    """
    place: uint256 = entries._find(account, instrument)
    limit: int256 = convert(constants.POSITION_LOTS_MAX, int256)
    if place < account.position_count and account.positions[place] >> 64 == instrument:
        after: int256 = unsafe_add(entries._quantity(account.positions[place]), delta)
        return -limit <= after and after <= limit
    if account.position_count >= constants.POSITIONS_MAX or delta < -limit or delta > limit:
        return False
    count: uint256 = 0
    last: uint256 = max_value(uint256)
    for i: uint256 in range(account.position_count, bound=64):
        page_id: uint256 = account.positions[i] >> 69
        if page_id == instrument >> 5:
            return True
        if page_id != last:
            count = unsafe_add(count, 1)
            last = page_id
    return count < constants.PAGES_MAX


@internal
@pure
def _move(account: entries.Account, instrument: uint256, delta: int256) -> entries.Account:
    """
    @notice Changes a position by `delta` lots, which `_can_hold` has allowed.
    """
    return entries._set_position(account, instrument, unsafe_add(entries._held(account, instrument), delta))


@internal
@pure
def _equity(account: entries.Account, sums: Sums) -> int256:
    """
    @notice Cash and marks.
    """
    return unsafe_add(account.cash, sums.worth)


@internal
@view
def _maintenance(sums: Sums) -> int256:
    """
    @notice MM, rounded up.
    """
    return self._lots(self._ceil_ppm(self._bits(sums.risk), state._param(params.MAINTENANCE_PPM)))  # risk >= 0


@internal
@view
def _free(account: entries.Account, sums: Sums) -> int256:
    """
    @notice Equity less IM, the resting orders' reserve, and what their leaves hold.
    """
    held: uint256 = unsafe_add(account.reserved, unsafe_mul(account.orders, state._param(params.ORDER_HOLD)))  # < 2^65
    return unsafe_sub(unsafe_sub(self._equity(account, sums), sums.risk), self._lots(held))


@internal
@pure
def _recovers(
    free_before: int256,
    equity_before: int256,
    risk_before: int256,
    free_after: int256,
    equity_after: int256,
    risk_after: int256,
) -> bool:
    """
    @notice Whether a change of an account that is short of margin leaves it no worse: neither free nor equity / IM falls.
            What is after has paid its fees. Products are below 2^180.
    """
    return free_after >= free_before and unsafe_mul(equity_after, risk_before) >= unsafe_mul(equity_before, risk_after)


# --- orders -----------------------------------------------------------------------------------------------------------


@internal
@view
def _short_risk(page: uint256, row: uint256) -> uint256:
    """
    @notice Ticks per lot that selling an option adds to IM at most: its greatest gain in a scenario, and the short floor.
    """
    most: uint256 = 2**31  # of P&L + 2^31: no gain
    at: uint256 = pages._pnl_at(page, row)
    for half: uint256 in range(2):
        word: uint256 = cmap._word_at(unsafe_add(at, half << 5)) ^ FLIP
        for _: uint256 in range(8):
            most = max(most, word & constants.U32_MAX)
            word >>= 32
    return unsafe_add(
        unsafe_sub(most, 2**31), self._ceil_ppm(pages._index(page), state._param(params.SHORT_FLOOR_PPM))
    )


@internal
@view
def _reserve_rate(page: uint256, row: uint256, side: uint256, price: uint256, is_covered: bool) -> uint256:
    """
    @notice Ticks per lot that a resting order reserves; rounded up, at most uint32.
    """
    fee: uint256 = 0
    if state._param(params.MAKER_FEE_PPM) != 0:
        fee = self._ceil_ppm(price, state._param(params.FEE_CAP_PPM))
    loss: uint256 = price
    if side == constants.SELL:
        worth: uint256 = pages._mark(page, row)
        if not is_covered:
            worth = unsafe_add(worth, self._short_risk(page, row))  # < 2^34
        loss = unsafe_sub(worth, price) if worth > price else 0
    return min(unsafe_add(loss, fee), constants.U32_MAX)


@internal
@pure
def _is_covered(account: entries.Account) -> bool:
    """
    @notice Whether selling what it holds cannot bare a short or call a loan: no short position, no debt.
    """
    if account.cash < 0:
        return False
    for i: uint256 in range(account.position_count, bound=64):
        if entries._quantity(account.positions[i]) <= 0:
            return False
    return True


@internal
@view
def _is_backed(page: uint256, account: entries.Account, instrument: uint256, side: uint256, price: uint256, entry: uint256) -> bool:
    """
    @notice Whether a resting order's reserve still bears its fill at the present marks; if not, it is dead when met.
    @param entry The order's leaf.
    """
    if side == constants.BUY:
        return True
    row: uint256 = instrument & 31
    need: uint256 = pages._mark(page, row)
    if (entry >> 104) & constants.FLAG_REDUCE_ONLY == 0 or not self._is_covered(account):
        need = unsafe_add(need, self._ceil_ppm(self._short_risk(page, row), state._param(params.MAINTENANCE_PPM)))
    return need <= unsafe_add(price, (entry >> 40) & constants.U32_MAX)  # need - price <= reserve rate
