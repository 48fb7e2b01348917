# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Who is paid what, and when
@license MIT
@notice Declarations, and claims against them; formulas: the head of `Exit.vy`.
@custom:security A declaration is once an account of the exit state, and pays nothing: no payee can stop one. Parts and
        shares are paid by `claim`, each once. Shares come off a running remainder: the last one is paid the rest, and
        Σ paid to accounts and house <= pool + fund + treasury. An account that cannot be paid stops nobody else.
@custom:kill Nobody has any privilege; money goes to the owners that `Vault` knows, whoever calls.
"""

from lib import constants

from . import pinned
from . import prices
from . import reader

uses: pinned
uses: prices
uses: reader


interface IVault:
    def owner_of(account: uint256) -> address: view
    def pay_exit(to: address, amount: uint256): nonpayable


struct Account:
    claim: uint256  # what it comes to, 0 when that is negative; 1e-6 USD
    paid: uint256  # of it, in part; 1e-6 USD
    set_aside: uint256  # of it, when it was declared late; 1e-6 USD
    is_declared: bool
    is_done: bool  # nothing more will be paid


WAD: constant(uint256) = 10**18
WITNESS_AT: constant(uint256) = 100
# Bits of an account's word: 0..127 claim, 128..191 paid in part, or set aside for a late one.
CLAIM: constant(uint256) = 2**128 - 1
DECLARED: constant(uint256) = 1 << 192
DONE: constant(uint256) = 1 << 193
LATE: constant(uint256) = 1 << 194  # declared after the payouts had opened

now_ppm: public(immutable(uint256))  # part of a share that is paid while accounts are missing


event Declared:
    account: indexed(uint256)
    value: int256


event PaidNow:
    account: indexed(uint256)
    owner: indexed(address)
    amount: uint256


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


# Account number -> what is known of it, packed as above. Written by declare and claim.
_accounts: HashMap[uint256, uint256]
# --- declarations; written by declare ---
declared: public(uint256)  # accounts
claims: public(uint256)  # of declared accounts above zero; of those in time once the payouts are open
losses: public(uint256)  # of declared accounts below zero, likewise
# --- parts; written by claim before the payouts open ---
paid_now: public(uint256)  # all parts together; never above pool + fund
_paid_share_max: uint256  # greatest part / claim, 1e-18, rounded up
# --- payouts; written by _open, claim, declare of a late account, and claim_house ---
is_open: public(bool)
is_by_rest: public(bool)  # somebody was paid more than its share: weights are what is still owed
left: public(uint256)  # 1e-6 USD that the weights left share
weights_left: public(uint256)
late_left: public(uint256)  # 1e-6 USD for accounts that were not declared in time
late_paid: public(uint256)  # a late claim is paid late_paid / late_of of it, as those in time
late_of: public(uint256)
house_left: public(uint256)  # 1e-6 USD


@deploy
def __init__(now_ppm_: uint256):
    """
    @param now_ppm_ Part of a share that is paid while accounts are missing.
    """
    assert now_ppm_ <= constants.PPM, "exit: part above one"
    now_ppm = now_ppm_


@external
def declare(account: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]) -> int256:
    """
    @notice Fixes what an account comes to, once. After the payouts have opened, sets aside what is left for it.
    @param account Its number.
    @param witness The account's leaf; the pages of its positions, in their order.
    @return The value, 1e-6 USD.
    """
    return self._declare(account)


@internal
def _declare(number: uint256) -> int256:
    reader._read(pinned.root, WITNESS_AT, 36)
    pinned._check_number(number)
    assert self._accounts[number] == 0, "exit: declared already"
    value: int256 = prices._value(number)
    reader._read_all(WITNESS_AT)

    # Below 2^114: positions are below 64 x 2^44 x 2^32, cash is what 2^40 records of at most 2^72 can move.
    claim: uint256 = convert(max(value, 0), uint256)
    self.declared += 1
    log Declared(account=number, value=value)
    if not self.is_open:
        self._accounts[number] = DECLARED | claim
        self.claims += claim
        self.losses += convert(max(-value, 0), uint256)
        return value
    aside: uint256 = min(claim * self.late_paid // self.late_of, self.late_left)
    self._accounts[number] = DECLARED | LATE | (aside << 128) | claim
    self.late_left -= aside
    if self.declared == pinned.accounts:  # nobody else can come
        self.house_left += self.late_left
        self.late_left = 0
    return value


@external
def claim(account: uint256) -> uint256:
    """
    @notice Pays the owner of a declared account its share, once; while accounts are missing, once `pinned.hold_until` has
            passed, the part of it that is safe to pay. The first claim of a share opens the payouts.
    @return What was paid, 1e-6 USD.
    """
    can_open: bool = self._open()
    packed: uint256 = self._accounts[account]
    assert packed & DECLARED != 0, "exit: not declared"
    assert packed & DONE == 0, "exit: nothing to claim"
    owner: address = staticcall IVault(pinned.vault).owner_of(account)
    weight: uint256 = packed & CLAIM
    paid: uint256 = (packed >> 128) & constants.U64_MAX
    amount: uint256 = 0
    if not can_open:
        amount = self._part(weight, paid)
        paid = unsafe_add(paid, amount)  # <= pool + fund
        self._accounts[account] = DECLARED | (paid << 128) | weight
        self.paid_now += amount
        self._paid_share_max = max(self._paid_share_max, (paid * WAD + weight - 1) // weight)
        log PaidNow(account=account, owner=owner, amount=amount)
    else:
        if packed & LATE != 0:
            amount = paid
        elif self.is_by_rest:
            amount = self._share(weight - paid)  # paid <= claim
        else:
            # Not below what it had: _open has compared the greatest part, and the running ratio does not fall.
            amount = self._share(weight) - paid
        self._accounts[account] = packed | DONE
        log Paid(account=account, owner=owner, amount=amount)
    if amount > 0:
        extcall IVault(pinned.vault).pay_exit(owner, amount)
    return amount


@external
def claim_house() -> uint256:
    """
    @notice Pays the treasury, and what the accounts' claims have left of pool and fund, to the treasury account's owner.
            While accounts are missing that is the treasury alone.
    @return What was paid, 1e-6 USD.
    """
    assert self._open(), "exit: accounts are not declared"
    owner: address = staticcall IVault(pinned.vault).owner_of(pinned.treasury_account)
    assert owner != empty(address), "exit: the treasury has no owner"
    amount: uint256 = self.house_left
    assert amount > 0, "exit: nothing to claim"
    self.house_left = 0
    log HousePaid(owner=owner, amount=amount)
    extcall IVault(pinned.vault).pay_exit(owner, amount)
    return amount


@internal
@view
def _wanted(losses: uint256) -> uint256:
    """
    @notice The least that all claims can come to while accounts are missing: those declared, and what the missing ones
            come to together. All values sum to pool + deficit; which of the missing ones are below zero is not known.
    @param losses Of accounts below zero, as far as they are known.
    """
    known: int256 = convert(pinned.pool, int256) + pinned.deficit + convert(losses, int256)
    return max(self.claims, convert(max(known, 0), uint256))


@internal
@view
def _part(claim: uint256, paid: uint256) -> uint256:
    """
    @notice What is paid of a claim, less what was, while accounts are missing: now_ppm of its share, as far as losses are
            known, floor; at most what is left of pool and fund. Reverts when that is nothing.
    """
    assert block.timestamp > pinned.hold_until, "exit: accounts are not declared"
    available: uint256 = pinned.pool + pinned.fund
    # What the exit state has seen of losses counts here before anybody declares it, and in no share: marks have moved on.
    wanted: uint256 = self._wanted(max(self.losses, pinned.holes))
    part: uint256 = claim * now_ppm // constants.PPM
    if wanted > available:
        part = claim * available // wanted * now_ppm // constants.PPM  # < 2^(114 + 64)
    part = min(part - paid, available - self.paid_now) if part > paid else 0
    assert part > 0, "exit: no more before all are declared"
    return part


@internal
def _open() -> bool:
    """
    @notice Opens the payouts when all accounts are declared or the time for it is over; whether they are open.
    @dev With some missing, their part is kept for them, and not given to the house.
    """
    if self.is_open:
        return True
    assert pinned.root != empty(bytes32), "exit: not begun"
    is_whole: bool = self.declared == pinned.accounts
    if not is_whole and block.timestamp <= pinned.declare_until:
        return False
    available: uint256 = pinned.pool + pinned.fund
    claims: uint256 = self.claims
    wanted: uint256 = claims if is_whole else self._wanted(self.losses)  # >= claims
    left: uint256 = claims
    self.late_paid = 1
    self.late_of = 1
    if available < wanted:
        left = available * claims // wanted  # < 2^(64 + 146)
        self.late_paid = available
        self.late_of = wanted
    weights: uint256 = claims
    # Parts of those that came early can exceed the share of all, when losses have been found later.
    if left < claims and left * WAD < self._paid_share_max * claims:
        self.is_by_rest = True
        left = max(left, self.paid_now)  # <= available
    rest: uint256 = available - left
    if self.is_by_rest:
        left -= self.paid_now
        weights -= self.paid_now
    self.is_open = True
    self.left = left
    self.weights_left = weights
    if is_whole:
        self.house_left = pinned.treasury + rest
    else:
        self.house_left = pinned.treasury
        self.late_left = rest
    log Opened(available=available, claims=claims, house=self.house_left)
    return True


@internal
def _share(weight: uint256) -> uint256:
    """
    @notice Takes a weight's share, floor, off what is left; the last weight's is all of it.
    """
    if weight == 0:
        return 0
    left: uint256 = self.left
    weights: uint256 = self.weights_left
    share: uint256 = left * weight // weights  # weight is one of them; < 2^(64 + 114)
    self.left = left - share
    self.weights_left = weights - weight
    return share


@external
@view
@reentrant
def account(number: uint256) -> Account:
    """
    @notice What is known of an account here.
    """
    packed: uint256 = self._accounts[number]
    amount: uint256 = (packed >> 128) & constants.U64_MAX
    is_late: bool = packed & LATE != 0
    return Account(
        claim=packed & CLAIM,
        paid=0 if is_late else amount,
        set_aside=amount if is_late else 0,
        is_declared=packed & DECLARED != 0,
        is_done=packed & DONE != 0,
    )
