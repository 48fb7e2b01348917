# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title PLACE, FORCED_ORDER and CONTINUE: price-time priority, at most STEPS_MAX fills or sweeps a record
@license MIT
@notice Twin of `sequencer/protocol/matching.py`, and of FORCED_ORDER in `forced.py`: a record is planned on copies of the accounts, and committed when it holds.
@custom:security Total; bounds stand beside the arithmetic. Until a plan is committed, no field of GLOBAL has changed.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import auth
from . import book
from . import cmap
from . import codec
from . import constants
from . import entries
from . import fills
from . import forced
from . import insurance
from . import margin
from . import pages
from . import params
from . import plans
from . import queue
from . import reason
from . import state
from . import work

uses: auth
uses: book
uses: cmap
uses: fills
uses: forced
uses: insurance
uses: margin
uses: plans
uses: queue
uses: state

PLACE_TYPE: constant(bytes32) = keccak256(
    "Place(uint32 account,uint32 instrument,uint8 flags,uint32 price,uint40 quantity,uint32 nonce,uint32 expires,uint16 feeMax)"
)


struct Taker:
    account: uint256
    instrument: uint256
    flags: uint256
    price: uint256  # ticks
    quantity: uint256  # what remains, lots
    expires: uint256
    seq: uint256
    filled: uint256  # lots that have traded


struct Plan:
    taker: Taker
    page: uint256  # calldata offset of the instrument's page
    sums: margin.Sums  # of the taker's account before the record
    equity: int256  # likewise
    free: int256  # likewise
    count: uint256  # accounts
    accounts: entries.Account[4]  # the taker's, then the makers' as they were met
    fee_count: uint256
    fee_payers: uint256[7]  # places in `accounts`
    fee_amounts: uint256[7]  # 1e-6 USD
    pays_sequencing: bool  # the first fee
    has_filled: bool
    trades: bytes32  # chain over the fills: see `_trade`
    more: bool  # still crosses after STEPS_MAX steps
    ended: bool  # the rest must not rest: self-trade, limits


@internal
def _place(domain: bytes32) -> uint256:
    """
    @notice PLACE: an order that trades what it crosses and rests, waits for CONTINUE, or ends.
    """
    number: uint256 = codec._field(1, 4)
    instrument: uint256 = codec._field(5, 4)
    flags: uint256 = codec._field(9, 1)
    price: uint256 = codec._field(10, 4)
    quantity: uint256 = codec._field(14, 5)
    nonce: uint256 = codec._field(19, 4)
    expires: uint256 = codec._field(23, 4)
    fee_max: uint256 = codec._field(27, 2)
    why: uint256 = self._check_form(flags, price, quantity)
    if why != reason.OK:
        return why
    digest: bytes32 = keccak256(
        abi_encode(PLACE_TYPE, number, instrument, flags, price, quantity, nonce, expires, fee_max)
    )
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    account: entries.Account = empty(entries.Account)
    why, account = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, expires)
    if why != reason.OK:
        return why
    account.nonce_floor, account.nonce_bitmap = auth._use_nonce(account.nonce_floor, account.nonce_bitmap, nonce)
    return self._enter(
        Taker(
            account=number,
            instrument=instrument,
            flags=flags,
            price=price,
            quantity=quantity,
            expires=expires,
            seq=state.seq,
            filled=0,
        ),
        account,
        fee_max,
        False,
    )


@internal
def _forced_order() -> uint256:
    """
    @notice FORCED_ORDER: as PLACE, in the order of its checks, of an owner whom L1 has checked. The backlog refuses nothing,
            and raises the fee to `fee_max` at most: the sequencer could fill it up with orders of its own.
    """
    taker: Taker = Taker(
        account=codec._field(1, 4),
        instrument=codec._field(5, 4),
        flags=codec._field(9, 1),
        price=codec._field(10, 4),
        quantity=codec._field(14, 5),
        expires=codec._field(19, 4),
        seq=state.seq,
        filled=0,
    )
    why: uint256 = self._check_form(taker.flags, taker.price, taker.quantity)
    if why != reason.OK:
        return why
    account: entries.Account = state._account(taker.account)
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    if taker.expires != 0 and state.time >= taker.expires:
        return reason.EXPIRED
    why = self._enter(taker, account, codec._field(23, 2), True)
    if why == reason.RISK_STALE:
        page_id: uint256 = taker.instrument >> 5
        is_its_own: bool = forced._is_old(state._page(page_id), taker.instrument)
        why = forced._unless_due(account, page_id if is_its_own else forced.ALL_OF_ACCOUNT)
    return why


@internal
@pure
def _check_form(flags: uint256, price: uint256, quantity: uint256) -> uint256:
    """
    @notice What an order must be, whatever the state.
    """
    tif: uint256 = (flags >> constants.FLAG_TIF_SHIFT) & 3
    if (
        flags & constants.FLAGS_UNUSED != 0
        or tif > constants.TIF_FOK
        or (flags & constants.FLAG_POST_ONLY != 0 and tif != constants.TIF_GTC)
    ):
        return reason.FLAGS
    if quantity == 0:
        return reason.QUANTITY
    if price == 0:
        return reason.PRICE
    return reason.OK


@internal
def _enter(given: Taker, account: entries.Account, fee_max: uint256, is_forced: bool) -> uint256:
    """
    @notice An order that its account may send: the rules of the queue, of its instrument and of its account; then it trades.
    @param account With the nonce used, which counts when the order holds, and without the order in whose place this one comes.
    """
    taker: Taker = given
    instrument: uint256 = taker.instrument
    flags: uint256 = taker.flags
    is_reducing: bool = flags & constants.FLAG_REDUCE_ONLY != 0
    level: uint256 = state.breaker_level if is_forced else state.queue_state  # L1's fee stands in for the queue's
    if level == constants.QUEUE_HALTED or state.seq == constants.U40_MAX:
        return reason.HALTED
    if level == constants.QUEUE_RESTRICTED and not is_reducing:
        return reason.RESTRICTED
    page: uint256 = state._page(instrument >> 5)
    if page == 0 or instrument & 31 >= cmap._word_at(page) & 255:
        return reason.UNKNOWN_INSTRUMENT
    if state.time >= state._instrument_expiry_time(instrument):
        return reason.INSTRUMENT_EXPIRED
    fee: uint256 = queue._sequencing_fee()
    if fee > unsafe_mul(fee_max, constants.FEE_MAX_UNIT):
        if not is_forced:
            return reason.FEE_ABOVE_MAX
        fee = unsafe_mul(fee_max, constants.FEE_MAX_UNIT)
    if forced._is_old(page, instrument):
        return reason.RISK_STALE
    if account.auction_start != 0:
        return reason.UNHEALTHY
    side: uint256 = flags & constants.FLAG_SIDE
    if is_reducing:
        taker.quantity = min(taker.quantity, fills._reducible(account, instrument, side))
        if taker.quantity == 0:
            return reason.REDUCE_ONLY
    else:
        delta: int256 = margin._lots(taker.quantity)
        if side == constants.SELL:
            delta = unsafe_sub(0, delta)
        if not margin._can_hold(account, instrument, delta):
            return reason.POSITION_LIMIT
    why: uint256 = self._trade(taker, page, account, fee)
    if why == reason.OK:
        if state.plan_root != empty(bytes32):
            state.plan |= fee_max
        queue._count_order()
    return why


@internal
def _proceed() -> uint256:
    """
    @notice CONTINUE: the pending taker goes on. If its margin would break, its fills are left out and the order ends; an
            atomic one is undone as a whole.
    """
    word: uint256 = state.taker
    if word == 0:
        return reason.NO_TAKER
    state.taker = 0
    taker: Taker = Taker(
        account=(word >> 112) & constants.U32_MAX,
        instrument=(word >> 144) & constants.U32_MAX,
        flags=(word >> 104) & 255,
        price=(word >> 40) & constants.U32_MAX,
        quantity=word & constants.U40_MAX,
        expires=(word >> 72) & constants.U32_MAX,
        seq=(word >> 176) & constants.U40_MAX,
        filled=word >> 216,
    )
    start: bytes32 = cmap.root
    page: uint256 = state._page(taker.instrument >> 5)
    account: entries.Account = state._account(taker.account)
    if self._trade(taker, page, account, 0) != reason.OK:
        cmap.root = start
        if state.plan_root != empty(bytes32):
            plans._fail(account)
    elif state.taker == 0:
        plans._end()
    return reason.OK


@internal
def _trade(given: Taker, page: uint256, account: entries.Account, fee: uint256) -> uint256:
    """
    @notice Walks at most STEPS_MAX steps along the other side of the book, then rests, checks and commits (`_finish`). Not
            OK: no field of GLOBAL has changed.
    @param fee For its place in the queue; 0: none.
    """
    plan: Plan = empty(Plan)
    plan.taker = given
    plan.page = page
    plan.sums = margin._refresh(account)
    state.work = unsafe_add(state.work, unsafe_mul(work.POSITION, account.position_count))
    plan.equity = margin._equity(account, plan.sums)
    plan.free = margin._free(account, plan.sums)
    plan.count = 1
    plan.accounts[0] = account
    if fee != 0:
        plan.pays_sequencing = True
        plan.fee_count = 1
        plan.fee_amounts[0] = fee
    instrument: uint256 = given.instrument
    side: uint256 = given.flags & constants.FLAG_SIDE
    other: uint256 = unsafe_sub(1, side)
    steps: uint256 = 0
    for _: uint256 in range(4):  # STEPS_MAX + 1: each turn is a step or the last
        if plan.taker.quantity == 0:
            break
        key: uint256 = 0
        entry: uint256 = 0
        path: uint256 = 0
        key, entry, path = book._best(instrument, other)
        price: uint256 = book._price(key)
        if path == 0 or (price > given.price if side == constants.BUY else price < given.price):
            break
        if steps == constants.STEPS_MAX:
            plan.more = True
            break
        number: uint256 = book._account(entry)
        place: uint256 = 0
        for i: uint256 in range(plan.count, bound=4):
            if plan.accounts[i].number == number:
                break
            place = unsafe_add(place, 1)
        if place == plan.count:  # <= 1 + steps
            plan.accounts[place] = state._account(number)
            plan.count = unsafe_add(place, 1)
            state.work = unsafe_add(state.work, work.MAKER)
        steps = unsafe_add(steps, 1)
        verdict: uint256 = fills.DROPS
        quantity: uint256 = entry & constants.U40_MAX
        leaves: bool = True
        is_live: bool = key & constants.U40_MAX >= plan.accounts[place].order_floor
        if is_live and not fills._is_dead(page, plan.accounts[place], instrument, other, price, entry):
            if place != 0:
                if given.flags & constants.FLAG_POST_ONLY != 0:
                    return reason.POST_ONLY_CROSSES
                verdict, quantity, leaves = fills._match(
                    plan.accounts[0], plan.accounts[place], instrument, side, plan.taker.quantity, entry
                )
            elif given.flags & constants.FLAG_STP_TAKER != 0:
                verdict = fills.ENDS
        if verdict == fills.ENDS:
            plan.ended = True
            break
        if is_live:  # what CANCEL_ALL has ended has had its reserve freed
            rate: uint256 = (entry >> 40) & constants.U32_MAX
            freed: uint256 = book._reserve(entry) if leaves else unsafe_mul(rate, quantity)
            plan.accounts[place].reserved = unsafe_sub(plan.accounts[place].reserved, freed)  # it was reserved for it
        if leaves:
            plan.accounts[place].orders = unsafe_sub(plan.accounts[place].orders, 1)  # it was counted
            cmap._remove(key, path)
        else:
            left: uint256 = unsafe_sub(entry, quantity)  # less than what rests
            cmap._replace(key, unsafe_add(left, quantity << 144), path)  # what has traded of an order is a uint40
        if verdict == fills.FILLS:
            delta: int256 = margin._lots(quantity)
            if side == constants.SELL:
                delta = unsafe_sub(0, delta)
            cash: int256 = unsafe_mul(margin._lots(price), delta)  # < 2^72
            plan.accounts[0].cash = unsafe_sub(plan.accounts[0].cash, cash)
            plan.accounts[place].cash = unsafe_add(plan.accounts[place].cash, cash)
            plan.accounts[0] = margin._move(plan.accounts[0], instrument, delta)
            plan.accounts[place] = margin._move(plan.accounts[place], instrument, unsafe_sub(0, delta))
            count: uint256 = plan.fee_count  # <= 5: one, and two for each fill before
            plan.fee_payers[count] = place
            plan.fee_amounts[count] = fills._trading_fee(page, price, quantity, params.MAKER_FEE_PPM)
            count = unsafe_add(count, 1)
            plan.fee_amounts[count] = fills._trading_fee(page, price, quantity, params.TAKER_FEE_PPM)
            plan.fee_count = unsafe_add(count, 1)
            plan.taker.quantity = unsafe_sub(plan.taker.quantity, quantity)
            plan.taker.filled = unsafe_add(plan.taker.filled, quantity)  # of a uint40
            plan.has_filled = True
            trade: uint256 = quantity | (price << 40) | ((key & constants.U40_MAX) << 72)
            plan.trades = keccak256(abi_encode(plan.trades, trade))
    is_fok: bool = (given.flags >> constants.FLAG_TIF_SHIFT) & 3 == constants.TIF_FOK
    if plan.more and plans._is_full():  # no other order has a plan
        return reason.FOK_UNFILLED if is_fok else reason.POST_ONLY_CROSSES
    if is_fok and plan.taker.quantity != 0 and not plan.more:
        return reason.FOK_UNFILLED
    return self._finish(plan)


@internal
def _finish(plan: Plan) -> uint256:
    """
    @notice Rests what is to rest, checks margin and the pool, commits. Not OK: no field of GLOBAL has changed.
    """
    flags: uint256 = plan.taker.flags
    side: uint256 = flags & constants.FLAG_SIDE
    instrument: uint256 = plan.taker.instrument
    quantity: uint256 = plan.taker.quantity
    account: entries.Account = plan.accounts[0]
    is_reducing: bool = flags & constants.FLAG_REDUCE_ONLY != 0
    is_pending: bool = plan.more and not plan.ended and quantity > 0
    if is_reducing:
        quantity = min(quantity, fills._reducible(account, instrument, side))
    is_gtc: bool = (flags >> constants.FLAG_TIF_SHIFT) & 3 == constants.TIF_GTC
    rests: bool = is_gtc and not plan.ended and not is_pending and quantity != 0
    rate: uint256 = 0
    if rests:
        is_covered: bool = is_reducing and margin._is_covered(account)
        rate = margin._reserve_rate(plan.page, instrument, side, plan.taker.price, is_covered)
        account.reserved = unsafe_add(account.reserved, unsafe_mul(rate, quantity))  # < 2^64 + 2^72
        account.orders = unsafe_add(account.orders, 1)  # <= 2^32
    fees: uint256 = 0
    own_fees: uint256 = 0
    for i: uint256 in range(plan.fee_count, bound=7):
        fees = unsafe_add(fees, plan.fee_amounts[i])  # each below 2^104
        if plan.fee_payers[i] == 0:
            own_fees = unsafe_add(own_fees, plan.fee_amounts[i])
    if fees > state.pool:
        return reason.POOL
    sums: margin.Sums = plan.sums
    if plan.has_filled:
        sums = margin._refresh(account)
    if sums.is_stale:
        return reason.RISK_STALE
    if account.reserved > constants.U64_MAX or account.orders > constants.U32_MAX:
        return reason.MARGIN
    free: int256 = unsafe_sub(margin._free(account, sums), margin._lots(own_fees))
    if free < 0:
        equity: int256 = unsafe_sub(margin._equity(account, sums), margin._lots(own_fees))
        if not is_reducing or rests:
            return reason.MARGIN
        if not margin._recovers(plan.free, plan.equity, plan.sums.risk, free, equity, sums.risk):
            return reason.MARGIN
    share: uint256 = state._param(params.FUND_SHARE_PPM)
    for i: uint256 in range(plan.fee_count, bound=7):
        insurance._charge(plan.fee_amounts[i], 0 if plan.pays_sequencing and i == 0 else share)
    account.cash = unsafe_sub(account.cash, margin._lots(own_fees))
    state._put_account(account)
    for place: uint256 in range(1, plan.count, bound=3):
        account = plan.accounts[place]
        for i: uint256 in range(plan.fee_count, bound=7):
            if plan.fee_payers[i] == place:
                account.cash = unsafe_sub(account.cash, margin._lots(plan.fee_amounts[i]))
        state._put_account(account)
    common: uint256 = quantity | (plan.taker.expires << 72) | (flags << 104) | (plan.taker.account << 112)
    if rests:
        key: uint256 = book._order_key(instrument, side, plan.taker.price, plan.taker.seq)
        cmap._insert(key, common | (rate << 40) | (plan.taker.filled << 144))
    if is_pending:
        common |= (instrument << 144) | (plan.taker.seq << 176) | (plan.taker.filled << 216)
        state.taker = common | (plan.taker.price << 40)
        if plans._is_atomic(flags):
            plans._note()
    state.outcome = keccak256(abi_encode(own_fees, quantity if rests else 0, plan.trades))
    return reason.OK
