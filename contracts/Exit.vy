# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Exit: everybody gets out when the exchange is frozen
@license MIT
@notice After the freeze the last final state (the exit state) is all there is. Accounts, prices and claims are proved
        against it, by anybody for anybody; money goes to the owners that `Vault` knows, and nowhere else.
@dev Steps: `begin` pins the exit state. `exit_now` pays an account at once what no settlement price takes away again.
     `report` and `fix` give each expiry its settlement price. `declare` proves what an account is then worth. When all
     have been declared, or the time for it is over, `claim` pays each its share and `claim_house` the treasury.
     `refund` returns deposits that the exit state has not taken, `Vault.claim` pays withdrawals as ever.

     What there is. Let the exit state have pool, fund, treasury and deficit. The vault holds pool + fund + treasury +
     unclaimed withdrawals + deposits not taken. Positions of an instrument sum to zero, or are of a fixed expiry, so
     that at any settlement prices the accounts' final values sum to pool + deficit. Let claims be the sum of the
     positive ones: it is pool + deficit + losses, the negative ones. Fund and pool pay for them; with
     pool + fund >= claims everybody is paid in full, and what is left of the fund goes to the treasury's owner; else
     each is paid claim x (pool + fund) / claims, what it got at once included. Shares are taken off a running
     remainder (`_share`): the last claimant is paid the rest, and the sum is exact to the unit.

     What is paid at once. x = the smaller of (a) equity after the worst of the 16 scenarios and the short floor, at the
     pages' marks, and (b) cash plus the least that the positions of each expiry can settle at for any price from 0 to
     STRESS_RATIO times the index (at the price itself, once it is fixed). (b) needs no mark, so that stale ones give
     nobody more. Paid: x * pool / (pool + deficit) * now_ppm, floor, at most what is left of the pool: the hard
     bound, whatever the accounts are worth. As x is not above what the account is worth in the end, nobody has
     been paid above its share while (pool + fund) / claims >= now_ppm: with 80 % while losses beyond the fund stay
     below a quarter of all claims. The part kept back is what makes late and early equal in an insolvency up to there.
     Beyond it, or when a price has passed STRESS_RATIO times the index, a payment may have been too much. It is not
     asked back: an account that got its whole claim or more stands apart, with the money it got. If any other got
     more than its share, what is left is shared by what each is still owed. `declare` pays the same part to those who
     come then, so that nobody gains by hurry.
@custom:security Nothing is paid twice: `exit_now` and `declare` are once an account, `claim` needs a declaration and is
        once, `refund` once a message. Σ paid to accounts and house <= pool + fund + treasury, which the vault holds
        beside what withdrawals and refunds need. An account that cannot be paid (a frozen payee) stops nobody else.
@custom:kill Nobody has any privilege: no owner, no pause, no sweep. `now_ppm` and the times are fixed at deployment.
        The feeds' keys of the exit state can price expiries that it has not, by majority; prices only move money
        between the accounts that hold them.
"""

from lib import black76
from lib import cmap
from lib import codec
from lib import constants
from lib import kind
from lib import margin
from lib import params
from lib import reason
from lib import state

initializes: cmap
initializes: state[cmap := cmap]
initializes: margin[state := state]


interface IRollup:
    def exit_batch() -> uint256: view
    def final_root(batch_id: uint256) -> bytes32: view
    def domain_separator() -> bytes32: view


interface IVault:
    def rollup() -> address: view
    def inbox() -> address: view
    def owner_of(account: uint256) -> address: view
    def pay_exit(to: address, amount: uint256): nonpayable


interface IInbox:
    def hash_at(i: uint256) -> bytes32: view


struct Account:
    claim: uint256  # final value, 0 when it is negative; 1e-6 USD
    paid: uint256  # at once, by exit_now or declare; 1e-6 USD
    is_declared: bool
    is_done: bool  # nothing more will be paid


WITNESS_BYTES_MAX: constant(uint256) = 45_056  # an account and 12 pages at the depth of their keys: 44,928
STRESS_RATIO: constant(uint256) = 4
WAD: constant(uint256) = 10**18
KNOWN: constant(uint256) = 2**32  # added to a price that is fixed: 0 is a price too
FEED_TYPE: constant(bytes32) = keccak256("Feed(uint8 underlying,uint8 feed,uint32 time,uint32 price)")
FIRST_SNAPSHOT: constant(uint256) = 6  # word of UNDERLYING
PERIOD_MAX_S: constant(uint256) = 400 * constants.DAY_S

vault: public(immutable(address))
rollup: public(immutable(address))
inbox: public(immutable(address))
report_window_s: public(immutable(uint256))  # after 08:00: times of reports that price an expiry
report_delay_s: public(immutable(uint256))  # after that window, or `begin`: for others to report too
silence_s: public(immutable(uint256))  # after that delay: the last index stands in for feeds that are silent
declare_window_s: public(immutable(uint256))
now_ppm: public(immutable(uint256))  # part of what is certain that is paid at once
DOMAIN: immutable(bytes32)


event Begun:
    batch_id: uint256
    root: bytes32
    accounts: uint256
    declare_until: uint256


event PaidNow:
    account: indexed(uint256)
    owner: indexed(address)
    amount: uint256


event Reported:
    underlying: indexed(uint256)
    day: indexed(uint256)
    feed: uint256
    time: uint256
    price: uint256


event Fixed:
    underlying: indexed(uint256)
    day: indexed(uint256)
    price: uint256


event Declared:
    account: indexed(uint256)
    value: int256
    paid_before: uint256


event Opened:
    available: uint256
    claims: uint256
    house: uint256


event Paid:
    account: indexed(uint256)
    owner: indexed(address)
    amount: uint256


event HousePaid:
    owner: indexed(address)
    amount: uint256


event Refunded:
    index: indexed(uint256)
    owner: indexed(address)
    amount: uint256


# --- the exit state; written by begin ---
root: public(bytes32)  # 0: not begun
accounts: public(uint256)  # numbers 1 to this have a leaf
begun_at: public(uint256)  # seconds
declare_until: public(uint256)  # seconds; without an end one account that nobody declares would hold up all
pool: public(uint256)
deficit: public(uint256)
fund: public(uint256)
treasury: public(uint256)
treasury_account: public(uint256)
inbox_count: public(uint256)  # messages from this index on are refunded
feed_keys: public(uint256[constants.FEEDS_MAX])  # addresses; 0: none
# --- prices ---
# expiry << 3 | feed -> time << 32 | price of its earliest report from 08:00 on. Written by report; "earliest" leaves
# nobody a choice among a feed's reports.
_reports: HashMap[uint256, uint256]
# expiry -> KNOWN + settlement price, 0: not fixed. Written by fix, once.
_prices: HashMap[uint256, uint256]
# --- accounts ---
# Account number -> bits 0..127 claim, 128..191 paid at once, 192 declared, 193 done. Written by exit_now, declare, claim.
_accounts: HashMap[uint256, uint256]
declared: public(uint256)  # accounts; written by declare
paid_now: public(uint256)  # at once, all accounts; never above pool. Written by _pay_now
_paid_live: uint256  # of it, to declared accounts with more to come. Written by declare
claims: public(uint256)  # of declared accounts with more to come. Written by declare
losses: public(uint256)  # of declared accounts below zero; for readers. Written by declare
_paid_share_max: uint256  # greatest paid / claim of accounts with more to come, 1e-18, rounded up. Written by declare
# --- payout; written by _open, claim and claim_house ---
is_open: public(bool)
is_by_rest: public(bool)  # somebody has more than its share: weights are what is still owed
left: public(uint256)  # 1e-6 USD that the weights left share
weights_left: public(uint256)
late_left: public(uint256)  # 1e-6 USD for accounts that were not declared in time
house_left: public(uint256)  # 1e-6 USD
# One bit per inbox message, 256 a word. Written by refund.
_refunded: HashMap[uint256, uint256]


@deploy
def __init__(
    vault_: address,
    report_window_s_: uint256,
    report_delay_s_: uint256,
    silence_s_: uint256,
    declare_window_s_: uint256,
    now_ppm_: uint256,
):
    """
    @param vault_ What pays; it must name this contract as its exit.
    @param report_window_s_ A report prices an expiry when its time is at most this much after 08:00.
    @param report_delay_s_ Seconds in which others can bring earlier reports before a price can be fixed.
    @param silence_s_ Seconds of missing reports after which the exit state's index is the price.
    @param declare_window_s_ Seconds to declare accounts after the last possible price.
    @param now_ppm_ Part of the certain value that is paid at once.
    """
    assert vault_.is_contract, "exit: vault is not a contract"
    assert report_window_s_ > 0, "exit: report window is zero"
    # A report belongs to the day before it: windows must not overlap.
    assert report_window_s_ < constants.DAY_S, "exit: report window is not below a day"
    assert report_delay_s_ > 0, "exit: report delay is zero"
    assert silence_s_ >= report_delay_s_, "exit: silence below the report delay"
    assert silence_s_ <= PERIOD_MAX_S, "exit: silence above 400 days"
    assert declare_window_s_ > 0, "exit: declare window is zero"
    assert declare_window_s_ <= PERIOD_MAX_S, "exit: declare window above 400 days"
    assert now_ppm_ <= constants.PPM, "exit: part above one"
    vault = vault_
    rollup = staticcall IVault(vault_).rollup()
    inbox = staticcall IVault(vault_).inbox()
    report_window_s = report_window_s_
    report_delay_s = report_delay_s_
    silence_s = silence_s_
    declare_window_s = declare_window_s_
    now_ppm = now_ppm_
    DOMAIN = staticcall IRollup(rollup).domain_separator()


# --- the exit state ---------------------------------------------------------------------------------------------------


@external
def begin(accounts: uint256, witness: Bytes[WITNESS_BYTES_MAX]):
    """
    @notice Pins the exit state, once: the last final one of a frozen rollup.
    @dev Accounts have consecutive numbers: the last one's leaf and the absence of the next show how many there are. The
         vault's own number would count owners whose first deposit the exit state has not taken.
    @param accounts How many accounts the exit state has.
    @param witness GLOBAL, path; PARAMS, path; leaf `accounts` (unless 0); absence of leaf `accounts` + 1.
    """
    self._begin(accounts)


@internal
def _begin(accounts: uint256):
    assert self.root == empty(bytes32), "exit: begun already"
    assert accounts < constants.U32_MAX, "exit: account number above 32 bits"
    batch_id: uint256 = staticcall IRollup(rollup).exit_batch()
    root: bytes32 = staticcall IRollup(rollup).final_root(batch_id)
    self._read(root, 100, 36)
    state._open()
    if accounts != 0:
        assert len(state._load(constants.KEY_ACCOUNT | accounts)) != 0, "exit: fewer accounts"
    assert len(state._load(constants.KEY_ACCOUNT | unsafe_add(accounts, 1))) == 0, "exit: more accounts"
    self._read_all(100)

    self.root = root
    self.accounts = accounts
    self.begun_at = block.timestamp
    self.pool = state.pool
    self.deficit = state.deficit
    self.fund = state.fund
    self.treasury = state.treasury
    self.treasury_account = state._param(params.TREASURY_ACCOUNT)
    self.inbox_count = state.inbox_count
    for feed: uint256 in range(constants.FEEDS_MAX):
        self.feed_keys[feed] = state._feed_key(feed)
    # No expiry of a position is later than this: what is listed is at most so many days ahead of the exchange's clock.
    last_expiry: uint256 = state.time + (state._param(params.LISTING_DAYS_MAX) + 1) * constants.DAY_S
    until: uint256 = max(block.timestamp, last_expiry + report_window_s) + report_delay_s + silence_s + declare_window_s
    self.declare_until = until
    log Begun(batch_id=batch_id, root=root, accounts=accounts, declare_until=until)


# --- at once ----------------------------------------------------------------------------------------------------------


@external
def exit_now(account: uint256, witness: Bytes[WITNESS_BYTES_MAX]) -> uint256:
    """
    @notice Pays an account's owner at once what is certain of it (see the title's comment), once.
    @param account Its number.
    @param witness GLOBAL, path; PARAMS, path; the account's leaf; the pages of its positions, in their order.
    @return What was paid, 1e-6 USD.
    """
    return self._exit_now(account)


@internal
def _exit_now(number: uint256) -> uint256:
    self._read(self.root, 100, 36)
    packed: uint256 = self._accounts[number]
    assert not self.is_open, "exit: payouts are open"
    assert packed >> 192 == 0, "exit: declared already"
    assert packed == 0, "exit: paid at once already"
    state._open()
    words: uint256 = unsafe_add(cmap.cursor, 32)  # after their number, which is 0 when there are none
    assert cmap._word_at(cmap.cursor) != 0, "exit: no such account"
    sums: margin.Sums = margin._refresh(state._account(number))
    cash: int256 = self._signed(cmap._word_at(unsafe_add(words, 32)))
    certain: int256 = cash + min(sums.worth - sums.risk, self._least(words))
    self._read_all(100)
    amount: uint256 = 0
    if certain > 0:
        amount = self._part(convert(certain, uint256), 0)
    assert amount > 0, "exit: nothing at once"

    self._accounts[number] = amount << 128
    self._pay_now(number, amount)
    return amount


@internal
@view
def _part(certain: uint256, paid: uint256) -> uint256:
    """
    @notice What is paid at once of a certain value, less what was, floor; at most what is left of the pool.
    """
    pool: uint256 = self.pool
    whole: uint256 = pool + self.deficit
    if whole == 0:
        return 0
    part: uint256 = certain * pool // whole * now_ppm // constants.PPM  # < 2^(128 + 62)
    return min(part - paid, pool - self.paid_now) if part > paid else 0


@internal
def _pay_now(number: uint256, amount: uint256):
    """
    @notice Pays `amount`, which is at most pool - paid_now, at once.
    """
    self.paid_now = unsafe_add(self.paid_now, amount)
    owner: address = staticcall IVault(vault).owner_of(number)
    log PaidNow(account=number, owner=owner, amount=amount)
    extcall IVault(vault).pay_exit(owner, amount)


@internal
def _least(words: uint256) -> int256:
    """
    @notice The least that an account's positions can settle at, each expiry for itself. Their pages have been read.
    @param words Calldata offset of the account's words, which have been proved.
    """
    count: uint256 = cmap._word_at(words) & 255
    first: uint256 = unsafe_add(words, unsafe_add(4, (cmap._word_at(words) >> 8) & 255) << 5)  # after the signers
    total: int256 = 0
    strikes: uint256[constants.POSITIONS_MAX] = empty(uint256[constants.POSITIONS_MAX])
    puts: bool[constants.POSITIONS_MAX] = empty(bool[constants.POSITIONS_MAX])
    lots: int256[constants.POSITIONS_MAX] = empty(int256[constants.POSITIONS_MAX])
    start: uint256 = 0
    top: uint256 = 0
    for i: uint256 in range(count, bound=64):
        position: uint256 = cmap._word_at(unsafe_add(first, i << 5))
        page: uint256 = state._page(position >> 69)
        lots[i] = self._lots(position)
        strikes[i], puts[i] = self._terms(page, (position >> 64) & 31)
        top = max(top, ((cmap._word_at(page) >> 40) & constants.U32_MAX) * STRESS_RATIO)
        end: uint256 = i + 1
        if end < count and cmap._word_at(unsafe_add(first, end << 5)) >> 76 == position >> 76:
            continue
        known: uint256 = self._prices[position >> 76]
        tried: uint256 = start  # the kinks of a piecewise linear function, then its ends
        if known != 0:
            tried = end + 1
            top = known - KNOWN
        worst: int256 = max_value(int256)
        for j: uint256 in range(tried, end + 2, bound=66):
            price: uint256 = 0
            if j < end:
                price = min(strikes[j], top)
            elif j > end:
                price = top
            settled: int256 = 0
            for k: uint256 in range(start, end, bound=64):
                value: uint256 = black76._intrinsic(price, strikes[k], puts[k])
                settled = unsafe_add(settled, unsafe_mul(lots[k], self._signed(value)))  # < 2^84
            worst = min(worst, settled)
        total += worst
        start = end
        top = 0
    return total


@internal
@view
def _terms(page: uint256, row: uint256) -> (uint256, bool):
    """
    @notice Strike of a row in ticks, and whether it is a put. The table of terms follows a page's first word.
    """
    word: uint256 = cmap._word_at(unsafe_add(unsafe_add(page, 32), (row >> 3) << 5)) >> ((row & 7) << 5)
    return word & (2**31 - 1), (word >> 31) & 1 == 1


@internal
@pure
def _lots(position: uint256) -> int256:
    """
    @notice Lots of a packed position.
    """
    return self._signed(unsafe_sub(position & constants.U64_MAX, constants.QUANTITY_BIAS))


@internal
@pure
def _signed(word: uint256) -> int256:
    """
    @notice Two's complement of a word.
    """
    return convert(convert(word, bytes32), int256)


# --- settlement prices ------------------------------------------------------------------------------------------------


@external
def report(record: Bytes[93]):
    """
    @notice Takes a feed's signed FEED record whose time is at or after 08:00 of a day: a price for the expiries of that day.
    @dev Of each feed the earliest such report counts. Reports can be brought until the price is fixed.
    """
    self._report(len(record))


@internal
def _report(length: uint256):
    assert self.root != empty(bytes32), "exit: not begun"
    self._check_canonical(4, 32)
    of_kind: uint256 = 0
    why: uint256 = 0
    assert length == 93, "exit: not a report"
    of_kind, why = codec._decode(length)
    assert why == reason.OK and of_kind == kind.FEED, "exit: not a report"
    underlying: uint256 = codec._field(1, 1)
    feed: uint256 = codec._field(2, 1)
    time: uint256 = codec._field(3, 4)
    price: uint256 = codec._field(7, 4)
    assert feed < constants.FEEDS_MAX and self.feed_keys[feed] != 0, "exit: no such feed"
    digest: bytes32 = keccak256(abi_encode(FEED_TYPE, underlying, feed, time, price))
    assert codec._signer(DOMAIN, digest, codec.BODY_93) == self.feed_keys[feed], "exit: not the feed's signature"
    assert price > 0, "exit: price is zero"
    assert time <= block.timestamp, "exit: report of the future"
    assert time >= constants.EXPIRY_OF_DAY_S, "exit: report outside the window"
    day: uint256 = (time - constants.EXPIRY_OF_DAY_S) // constants.DAY_S
    assert time - state._expiry_time(day) <= report_window_s, "exit: report outside the window"
    expiry: uint256 = (underlying << 16) | day
    assert self._prices[expiry] == 0, "exit: fixed already"
    slot: uint256 = (expiry << 3) | feed
    assert self._reports[slot] == 0 or time < self._reports[slot] >> 32, "exit: not an earlier report"

    self._reports[slot] = (time << 32) | price
    log Reported(underlying=underlying, day=day, feed=feed, time=time, price=price)


@external
def fix(underlying: uint256, day: uint256, witness: Bytes[WITNESS_BYTES_MAX]) -> uint256:
    """
    @notice Fixes the settlement price of an expiry, once: the exit state's own if it was fixed there; else the TWAP of
            its snapshots if both were taken; else the median of the reports of a majority of the feeds; else, after
            `silence_s` more, the exit state's last index.
    @param witness EXPIRY leaf; UNDERLYING leaf, unless the expiry is fixed there.
    @return The price, ticks.
    """
    return self._fix(underlying, day)


@internal
def _fix(underlying: uint256, day: uint256) -> uint256:
    self._read(self.root, 132, 68)
    assert underlying < 16 and day <= constants.U16_MAX, "exit: no such expiry"
    expiry: uint256 = (underlying << 16) | day
    assert self._prices[expiry] == 0, "exit: fixed already"
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_EXPIRY | expiry)
    assert len(words) != 0, "exit: no such expiry"
    price: uint256 = 0
    if (words[0] >> 16) & 255 != 0:
        price = (words[0] >> 24) & constants.U32_MAX
    else:
        words = state._load(constants.KEY_UNDERLYING | underlying)  # exists: the expiry does
        snapshot: uint256 = words[unsafe_add(FIRST_SNAPSHOT, day & 3)]
        if snapshot >> 130 == day and (snapshot >> 128) & 3 == 3:
            # as FIX (settlement.vy): half up
            elapsed: uint256 = unsafe_sub(snapshot >> 64, snapshot) & constants.U64_MAX
            price = min((2 * elapsed + constants.TWAP_S) // (2 * constants.TWAP_S), constants.U32_MAX)
        else:
            price = self._reported(expiry, words[0] & constants.U32_MAX)
    self._read_all(132)

    self._prices[expiry] = KNOWN + price
    log Fixed(underlying=underlying, day=day, price=price)
    return price


@internal
@view
def _reported(expiry: uint256, index: uint256) -> uint256:
    """
    @notice Price of an expiry that the exit state has none of: median of the feeds (the mean of the middle two, floor,
            as for the index), or `index` when they have been silent for long.
    """
    closes: uint256 = state._expiry_time(expiry & constants.U16_MAX) + report_window_s
    ready: uint256 = max(closes, self.begun_at) + report_delay_s
    assert block.timestamp >= ready, "exit: too early"
    feeds: uint256 = 0
    found: uint256 = 0
    prices: uint256[constants.FEEDS_MAX] = empty(uint256[constants.FEEDS_MAX])
    for feed: uint256 in range(constants.FEEDS_MAX):
        if self.feed_keys[feed] == 0:
            continue
        feeds += 1
        price: uint256 = self._reports[(expiry << 3) | feed] & constants.U32_MAX
        if price == 0:
            continue
        at: uint256 = found
        for _: uint256 in range(constants.FEEDS_MAX):
            if at == 0 or prices[at - 1] <= price:
                break
            prices[at] = prices[at - 1]
            at -= 1
        prices[at] = price
        found += 1
    if found * 2 > feeds:
        return (prices[(found - 1) // 2] + prices[found // 2]) // 2
    assert block.timestamp >= ready + silence_s, "exit: too few reports"
    return index


# --- what an account is worth -----------------------------------------------------------------------------------------


@external
def declare(account: uint256, witness: Bytes[WITNESS_BYTES_MAX]) -> int256:
    """
    @notice Fixes what an account is worth at the settlement prices of all its expiries, once, and pays the part at once
            that it has not had. After payouts have opened, pays all that is left for it.
    @param witness The account's leaf; the pages of its positions, in their order.
    @return The value, 1e-6 USD.
    """
    return self._declare(account)


@internal
def _declare(number: uint256) -> int256:
    self._read(self.root, 100, 36)
    packed: uint256 = self._accounts[number]
    assert packed >> 192 == 0, "exit: declared already"
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_ACCOUNT | number)
    assert len(words) != 0, "exit: no such account"
    value: int256 = self._signed(words[1])
    first: uint256 = 4 + ((words[0] >> 8) & 255)  # after the signers
    for i: uint256 in range(words[0] & 255, bound=64):
        position: uint256 = words[first + i]
        known: uint256 = self._prices[position >> 76]
        assert known != 0, "exit: expiry is not fixed"
        strike: uint256 = 0
        is_put: bool = False
        strike, is_put = self._terms(state._page(position >> 69), (position >> 64) & 31)
        intrinsic: uint256 = black76._intrinsic(known - KNOWN, strike, is_put)
        value += unsafe_mul(self._lots(position), self._signed(intrinsic))  # < 2^76
    self._read_all(100)

    claim: uint256 = convert(max(value, 0), uint256)
    paid: uint256 = packed >> 128
    log Declared(account=number, value=value, paid_before=paid)
    if value < 0:
        self.losses += convert(-value, uint256)
    self.declared += 1
    amount: uint256 = 0
    if self.is_open:
        amount = min(claim - paid, self.late_left) if claim > paid else 0
        self.late_left -= amount
        self._accounts[number] = (3 << 192) | (unsafe_add(paid, amount) << 128) | claim
        if amount > 0:
            self._pay(number, amount)
        return value
    amount = self._part(claim, paid)
    paid = unsafe_add(paid, amount)
    if paid < claim:
        self.claims += claim
        self._paid_live += paid
        self._paid_share_max = max(self._paid_share_max, (paid * WAD + claim - 1) // claim)
        self._accounts[number] = (1 << 192) | (paid << 128) | claim
    else:
        self._accounts[number] = (3 << 192) | (paid << 128) | claim
    if amount > 0:
        self._pay_now(number, amount)
    return value


# --- the rest ---------------------------------------------------------------------------------------------------------


@external
def claim(account: uint256) -> uint256:
    """
    @notice Pays the rest of its share to the owner of a declared account, once. The first claim opens the payouts.
    @return What was paid, 1e-6 USD.
    """
    self._open()
    packed: uint256 = self._accounts[account]
    assert (packed >> 192) & 1 == 1, "exit: not declared"
    assert packed >> 193 == 0, "exit: nothing to claim"
    paid: uint256 = (packed >> 128) & constants.U64_MAX
    weight: uint256 = packed & (2**128 - 1)
    had: uint256 = paid
    if self.is_by_rest:
        weight = unsafe_sub(weight, paid)  # paid < claim, or it would be done
        had = 0
    share: uint256 = self._share(weight)
    # Not below what it had: _open has compared the greatest paid / claim, and the running ratio does not fall.
    amount: uint256 = share - had
    self._accounts[account] = packed | (1 << 193)
    if amount > 0:
        self._pay(account, amount)
    return amount


@external
def claim_house() -> uint256:
    """
    @notice Pays the treasury, and what losses have left of the fund, to the treasury account's owner, once.
    @return What was paid, 1e-6 USD.
    """
    self._open()
    owner: address = staticcall IVault(vault).owner_of(self.treasury_account)
    assert owner != empty(address), "exit: the treasury has no owner"
    amount: uint256 = self.house_left
    assert amount > 0, "exit: nothing to claim"
    self.house_left = 0
    log HousePaid(owner=owner, amount=amount)
    extcall IVault(vault).pay_exit(owner, amount)
    return amount


@external
def refund(index: uint256, record: Bytes[31]) -> uint256:
    """
    @notice Returns a deposit that the exit state has not taken to its owner, once.
    @dev The inbox keeps the hash of every prefix: the record is message `index` if it leads from one to the next.
    @param index Of the inbox message.
    @param record Its 31 bytes.
    @return What was paid, 1e-6 USD.
    """
    assert self.root != empty(bytes32), "exit: not begun"
    assert len(record) == 31 and convert(slice(record, 0, 1), bytes1) == constants.KIND_DEPOSIT, "exit: not a deposit"
    assert index >= self.inbox_count, "exit: message was taken"
    before: bytes32 = staticcall IInbox(inbox).hash_at(index)
    assert codec._inbox_hash(before, record) == staticcall IInbox(inbox).hash_at(index + 1), "exit: wrong message"
    bit: uint256 = 1 << (index & 255)
    word: uint256 = self._refunded[index >> 8]
    assert word & bit == 0, "exit: refunded already"
    self._refunded[index >> 8] = word | bit
    owner: address = convert(convert(slice(record, 1, 20), bytes20), address)
    amount: uint256 = convert(slice(record, 25, 6), uint256)
    log Refunded(index=index, owner=owner, amount=amount)
    extcall IVault(vault).pay_exit(owner, amount)
    return amount


@internal
def _open():
    """
    @notice Opens the payouts when all accounts are declared or the time for it is over.
    @dev What undeclared accounts have been paid stays off what is shared. With some undeclared, what the others do not
         need is kept for them, and not given to the house: `declare` pays it, first come.
    """
    if self.is_open:
        return
    assert self.root != empty(bytes32), "exit: not begun"
    is_whole: bool = self.declared == self.accounts
    assert is_whole or block.timestamp > self.declare_until, "exit: accounts are not declared"
    available: uint256 = self.pool + self.fund - (self.paid_now - self._paid_live)  # paid_now <= pool
    claims: uint256 = self.claims
    left: uint256 = min(available, claims)
    rest: uint256 = available - left
    weights: uint256 = claims
    # < 2^63 x 2^60, and 2^61 x 2^160 at most
    if available < claims and available * WAD < self._paid_share_max * claims:
        self.is_by_rest = True
        left = available - self._paid_live
        weights = claims - self._paid_live
    self.is_open = True
    self.left = left
    self.weights_left = weights
    if is_whole:
        self.house_left = self.treasury + rest
    else:
        self.house_left = self.treasury
        self.late_left = rest
    log Opened(available=available, claims=claims, house=self.house_left)


@internal
def _share(weight: uint256) -> uint256:
    """
    @notice Takes a weight's share, floor, off what is left; the last weight's is all of it.
    """
    left: uint256 = self.left
    weights: uint256 = self.weights_left
    share: uint256 = left * weight // weights  # weight > 0 is one of them; < 2^63 x 2^128
    self.left = left - share
    self.weights_left = weights - weight
    return share


@internal
def _pay(number: uint256, amount: uint256):
    """
    @notice Pays an account's owner.
    """
    owner: address = staticcall IVault(vault).owner_of(number)
    log Paid(account=number, owner=owner, amount=amount)
    extcall IVault(vault).pay_exit(owner, amount)


# --- views ------------------------------------------------------------------------------------------------------------


@external
@view
@reentrant
def account(number: uint256) -> Account:
    """
    @notice What is known of an account here.
    """
    packed: uint256 = self._accounts[number]
    return Account(
        claim=packed & (2**128 - 1),
        paid=(packed >> 128) & constants.U64_MAX,
        is_declared=(packed >> 192) & 1 == 1,
        is_done=packed >> 193 == 1,
    )


@external
@view
@reentrant
def price(underlying: uint256, day: uint256) -> (bool, uint256):
    """
    @notice Whether an expiry is fixed, and at which price, ticks.
    """
    known: uint256 = self._prices[(underlying << 16) | (day & constants.U16_MAX)]
    return known != 0, known & constants.U32_MAX


@external
@view
@reentrant
def reported(underlying: uint256, day: uint256, feed: uint256) -> (uint256, uint256):
    """
    @notice Time (seconds, 0: none) and price (ticks) of a feed's report that counts for an expiry.
    """
    packed: uint256 = self._reports[(((underlying << 16) | (day & constants.U16_MAX)) << 3) | (feed & 7)]
    return packed >> 32, packed & constants.U32_MAX


@external
@view
@reentrant
def refunded(index: uint256) -> bool:
    """
    @notice Whether inbox message `index` has been refunded.
    """
    return (self._refunded[index >> 8] >> (index & 255)) & 1 == 1


# --- witnesses --------------------------------------------------------------------------------------------------------


@internal
def _read(root: bytes32, start: uint256, offset_at: uint256):
    """
    @notice Begins to read the witness, whose words stand in calldata from `start` on.
    @param offset_at Where the argument's offset stands: in the canonical form its bytes are where they are read.
    """
    assert root != empty(bytes32), "exit: not begun"
    self._check_canonical(offset_at, start - 36)
    cmap._begin(root, start)
    state.calls = unsafe_add(state.calls, 1)  # pages of an earlier call in this transaction must not serve


@internal
@view
def _check_canonical(offset_at: uint256, offset: uint256):
    assert cmap._word_at(offset_at) == offset, "exit: calldata is not canonical"


@internal
@view
def _read_all(start: uint256):
    """
    @notice The whole witness has been read, and nothing beyond it.
    """
    assert cmap.cursor == start + cmap._word_at(start - 32), "exit: witness is too long or too short"
