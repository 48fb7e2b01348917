# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Portfolio margin
@license MIT
@notice Twin of `sequencer/protocol/margin.py`, which has the formulas; results in 1e-6 USD, rounded against the account.
@custom:security Bounds: |q| <= 2^44, 64 positions, marks and P&Ls of 32 bits: sums below 2^82, IM below 2^104, products with
                 ppm below 2^124, so that nothing wraps.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import constants
from . import entries
from . import exposure
from . import freshness
from . import pages
from . import params
from . import reason
from . import state

uses: freshness
uses: state

PUT: constant(uint256) = 2**31  # of a row's terms

struct Sums:
    # of one account at the present pages
    worth: int256  # sum q x mark
    risk: int256  # IM without orders
    is_stale: bool  # a page is old, or behind another of its underlying (freshness.vy)
    is_behind: bool  # of `_cautious`: a page that is not old is behind another
    caution: int256  # IM of what stands on old pages, which `_cautious` has taken off equity and out of `risk`


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
    return self._sums(account, 0)


@internal
def _sums(account: entries.Account, apart: uint256) -> Sums:
    """
    @notice As `_refresh`; pages of the underlyings in `apart` (bit n for underlying n) have an IM each, and hedge nothing.
    """
    worth: int256 = 0
    risk: int256 = 0
    skew: uint256 = state._param(params.MARK_SKEW_MAX_S)
    oldest: uint256 = constants.U32_MAX  # of the underlying's pages that age
    newest: uint256 = 0
    is_stale: bool = False
    gross_ppm: uint256 = state._param(params.SHORT_GROSS_PPM)
    one: exposure.Exposure = empty(exposure.Exposure)
    last: uint256 = account.positions[0]  # the position before
    page: uint256 = 0
    head: uint256 = 0
    tables: uint256 = 0
    first: uint256 = 0  # position of this page
    for i: uint256 in range(account.position_count, bound=64):
        packed: uint256 = account.positions[i]
        if i == 0 or packed >> 69 != last >> 69:
            if packed >> 76 != last >> 76:  # the next expiry
                one.net_short = exposure._net_short(one)
                one.side_calls = 0
                one.side_puts = 0
            number: uint256 = (packed >> 92) & 15
            is_next: bool = packed >> 92 != last >> 92
            if is_next or (i != 0 and (apart >> number) & 1 != 0):
                risk = unsafe_add(risk, exposure._initial(one, state._params_of(last >> 92), gross_ppm))
                one = empty(exposure.Exposure)
            if is_next:
                oldest = constants.U32_MAX
                newest = 0
            page = state._page(packed >> 69)
            if freshness._is_old(number, page):
                is_stale = True
            head = cmap._word_at(page)
            tables = (unsafe_add(head & 255, 7) >> 3) << 5
            time: uint256 = (head >> 8) & constants.U32_MAX
            if time != freshness.MARKED_FOR_GOOD:
                oldest = min(oldest, time)
                newest = max(newest, time)
                if newest > unsafe_add(oldest, skew):
                    is_stale = True
            page = unsafe_add(page, 32)
            first = i
        last = packed
        row: uint256 = (packed >> 64) & 31
        quantity: int256 = entries._quantity(packed)
        mark: uint256 = self._at(unsafe_add(page, tables), row)
        terms: uint256 = self._at(page, row)
        worth = unsafe_add(worth, unsafe_mul(quantity, self._lots(mark)))
        one.total = unsafe_add(one.total, quantity)
        at: uint256 = unsafe_add(page, unsafe_add(tables << 1, row << 6))
        low: uint256 = cmap._word_at(at)
        high: uint256 = cmap._word_at(unsafe_add(at, 32))
        one.net = exposure._with_row(one.net, self._bits(quantity), low, high)
        side: int256 = unsafe_mul(quantity, self._lots((head >> 40) & constants.U32_MAX))
        if terms & PUT != 0:
            one.side_puts = unsafe_sub(one.side_puts, side)
        else:
            one.side_calls = unsafe_sub(one.side_calls, side)
        if quantity < 0:
            one.gross = unsafe_sub(one.gross, self._bits(side))
            continue
        lots: uint256 = self._bits(quantity)  # that no short covers
        for j: uint256 in range(first, account.position_count, bound=64):
            other: uint256 = account.positions[j]
            if other >> 69 != packed >> 69:
                break
            if other & constants.U64_MAX >= constants.QUANTITY_BIAS:
                continue
            if self._at(page, (other >> 64) & 31) == terms ^ PUT:
                lots = self._bits(max(unsafe_add(quantity, entries._quantity(other)), 0))
                break
        if lots != 0:
            one.longs = exposure._with_row(one.longs, lots, low, high)
            one.lots = unsafe_add(one.lots, lots)
            one.long_value = unsafe_add(one.long_value, unsafe_mul(lots, mark))
            slope: uint256 = unsafe_mul(lots, (head >> 72) & constants.U32_MAX)  # x forward
            if terms & PUT != 0:
                one.puts = unsafe_add(one.puts, slope)
            else:
                one.calls = unsafe_add(one.calls, slope)
    if account.position_count != 0:
        risk = unsafe_add(risk, exposure._initial(one, state._params_of(last >> 92), gross_ppm))
    return Sums(worth=worth, risk=risk, is_stale=is_stale, is_behind=False, caution=0)


@internal
@view
def _at(table: uint256, row: uint256) -> uint256:
    """
    @notice Entry of a row in a page's table of terms or of marks, which begins at this calldata offset.
    """
    return (cmap._word_at(unsafe_add(table, (row >> 3) << 5)) >> ((row & 7) << 5)) & constants.U32_MAX


@internal
def _cautious(account: entries.Account) -> Sums:
    """
    @notice As `_refresh`, but what stands on old pages counts for its value at the last marks less its own IM, and the rest
            has its own IM. Old pages of an underlying that were not marked together have an IM each.
    """
    sums: Sums = self._refresh(account)
    if not sums.is_stale:
        return sums
    old: entries.Account = account
    fresh: entries.Account = account
    old.position_count = 0
    fresh.position_count = 0
    for i: uint256 in range(account.position_count, bound=64):
        position: uint256 = account.positions[i]
        if freshness._is_old((position >> 92) & 15, state._page(position >> 69)):
            old.positions[old.position_count] = position  # at most the i-th
            old.position_count = unsafe_add(old.position_count, 1)
        else:
            fresh.positions[fresh.position_count] = position
            fresh.position_count = unsafe_add(fresh.position_count, 1)
    old_sums: Sums = self._sums(old, freshness._underlyings_apart(old))
    sums.caution = old_sums.risk
    old_sums = self._refresh(fresh)
    sums.risk = old_sums.risk
    sums.is_behind = old_sums.is_stale
    return sums


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
    @notice Cash and marks, less what caution takes off.
    """
    return unsafe_sub(unsafe_add(account.cash, sums.worth), sums.caution)


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
def _short_risk(page: uint256, instrument: uint256) -> uint256:
    """
    @notice Ticks per lot that selling an option adds to IM at most: its greatest gain in a scenario, and the short floor.
    """
    most: uint256 = 2**31  # of P&L + 2^31: no gain
    at: uint256 = pages._pnl_at(page, instrument & 31)
    for half: uint256 in range(2):
        word: uint256 = cmap._word_at(unsafe_add(at, half << 5)) ^ exposure.FLIP
        for _: uint256 in range(8):
            most = max(most, word & constants.U32_MAX)
            word >>= 32
    floor_ppm: uint256 = params._of(state._params_of(instrument >> 28), params.SHORT_FLOOR_PPM)
    floor_ppm = max(floor_ppm, state._param(params.SHORT_GROSS_PPM))
    return unsafe_add(unsafe_sub(most, 2**31), self._ceil_ppm(pages._index(page), floor_ppm))


@internal
@view
def _reserve_rate(page: uint256, instrument: uint256, side: uint256, price: uint256, is_covered: bool) -> uint256:
    """
    @notice Ticks per lot that a resting order reserves; rounded up, at most uint32.
    """
    fee: uint256 = 0
    if state._param(params.MAKER_FEE_PPM) != 0:
        fee = self._ceil_ppm(price, state._param(params.FEE_CAP_PPM))
    loss: uint256 = price
    if side == constants.SELL:
        worth: uint256 = pages._mark(page, instrument & 31)
        if not is_covered:
            worth = unsafe_add(worth, self._short_risk(page, instrument))  # < 2^34
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
    need: uint256 = pages._mark(page, instrument & 31)
    if (entry >> 104) & constants.FLAG_REDUCE_ONLY == 0 or not self._is_covered(account):
        need = unsafe_add(need, self._ceil_ppm(self._short_risk(page, instrument), state._param(params.MAINTENANCE_PPM)))
    return need <= unsafe_add(price, (entry >> 40) & constants.U32_MAX)  # need - price <= reserve rate
