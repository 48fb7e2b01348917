# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What an account is worth, and the rest of its share
@license MIT
@notice Values at the settlement prices, and what is shared once they are known; formulas: the head of `Exit.vy`.
@custom:security A declaration and a claim are once an account. Shares come off a running remainder: the last one is
        paid the rest, and Σ paid to accounts and house <= pool + fund + treasury. An account that cannot be paid stops
        nobody else.
@custom:kill Nobody has any privilege; money goes to the owners that `Vault` knows, whoever calls.
"""

from lib import black76
from lib import constants
from lib import state

from . import at_once
from . import pinned
from . import prices
from . import reader

uses: at_once
uses: pinned
uses: prices
uses: reader
uses: state


interface IVault:
    def owner_of(account: uint256) -> address: view
    def pay_exit(to: address, amount: uint256): nonpayable


WAD: constant(uint256) = 10**18


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


# --- declarations; written by declare ---
declared: public(uint256)  # accounts
_paid_live: uint256  # of paid_now, to declared accounts with more to come
claims: public(uint256)  # of declared accounts with more to come
losses: public(uint256)  # of declared accounts below zero; for readers
_paid_share_max: uint256  # greatest paid / claim of accounts with more to come, 1e-18, rounded up
# --- payout; written by _open, claim and claim_house ---
is_by_rest: public(bool)  # somebody has more than its share: weights are what is still owed
left: public(uint256)  # 1e-6 USD that the weights left share
weights_left: public(uint256)
late_left: public(uint256)  # 1e-6 USD for accounts that were not declared in time
house_left: public(uint256)  # 1e-6 USD


@external
def declare(account: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]) -> int256:
    """
    @notice Fixes what an account is worth at the settlement prices of all its expiries, once, and pays the part at once
            that it has not had. After payouts have opened, pays all that is left for it.
    @param witness The account's leaf; the pages of its positions, in their order.
    @return The value, 1e-6 USD.
    """
    return self._declare(account)


@internal
def _declare(number: uint256) -> int256:
    reader._read(pinned.root, 100, 36)
    pinned._check_number(number)
    packed: uint256 = at_once._accounts[number]
    assert packed >> 192 == 0, "exit: declared already"
    words: DynArray[uint256, state.LEAF_WORDS_MAX] = state._load(constants.KEY_ACCOUNT | number)
    value: int256 = reader._signed(words[1])
    first: uint256 = 4 + ((words[0] >> 8) & 255)  # after the signers
    for i: uint256 in range(words[0] & 255, bound=64):
        position: uint256 = words[first + i]
        known: uint256 = prices._prices[position >> 76]
        assert known != 0, "exit: expiry is not fixed"
        strike: uint256 = 0
        is_put: bool = False
        strike, is_put = reader._terms(state._page(position >> 69), (position >> 64) & 31)
        intrinsic: uint256 = black76._intrinsic(known - prices.KNOWN, strike, is_put)
        value += unsafe_mul(reader._lots(position), reader._signed(intrinsic))  # < 2^76
    reader._read_all(100)

    claim: uint256 = convert(max(value, 0), uint256)
    paid: uint256 = packed >> 128
    log Declared(account=number, value=value, paid_before=paid)
    if value < 0:
        self.losses += convert(-value, uint256)
    self.declared += 1
    amount: uint256 = 0
    if at_once.is_open:
        amount = min(claim - paid, self.late_left) if claim > paid else 0
        self.late_left -= amount
        at_once._accounts[number] = (3 << 192) | (unsafe_add(paid, amount) << 128) | claim
        if amount > 0:
            self._pay(number, amount)
        return value
    amount = at_once._part(claim, paid)
    paid = unsafe_add(paid, amount)
    if paid < claim:
        self.claims += claim
        self._paid_live += paid
        self._paid_share_max = max(self._paid_share_max, (paid * WAD + claim - 1) // claim)
        at_once._accounts[number] = (1 << 192) | (paid << 128) | claim
    else:
        at_once._accounts[number] = (3 << 192) | (paid << 128) | claim
    if amount > 0:
        at_once._pay_now(number, amount)
    return value


@external
def claim(account: uint256) -> uint256:
    """
    @notice Pays the rest of its share to the owner of a declared account, once. The first claim opens the payouts.
    @return What was paid, 1e-6 USD.
    """
    self._open()
    packed: uint256 = at_once._accounts[account]
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
    at_once._accounts[account] = packed | (1 << 193)
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
    owner: address = staticcall IVault(pinned.vault).owner_of(pinned.treasury_account)
    assert owner != empty(address), "exit: the treasury has no owner"
    amount: uint256 = self.house_left
    assert amount > 0, "exit: nothing to claim"
    self.house_left = 0
    log HousePaid(owner=owner, amount=amount)
    extcall IVault(pinned.vault).pay_exit(owner, amount)
    return amount


@internal
def _open():
    """
    @notice Opens the payouts when all accounts are declared or the time for it is over.
    @dev What undeclared accounts have been paid stays off what is shared. With some undeclared, what the others do not
         need is kept for them, and not given to the house: `declare` pays it, first come.
    """
    if at_once.is_open:
        return
    assert pinned.root != empty(bytes32), "exit: not begun"
    is_whole: bool = self.declared == pinned.accounts
    assert is_whole or block.timestamp > pinned.declare_until, "exit: accounts are not declared"
    available: uint256 = pinned.pool + pinned.fund - (at_once.paid_now - self._paid_live)  # paid_now <= pool
    claims: uint256 = self.claims
    left: uint256 = min(available, claims)
    rest: uint256 = available - left
    weights: uint256 = claims
    # < 2^63 x 2^60, and 2^61 x 2^160 at most
    if available < claims and available * WAD < self._paid_share_max * claims:
        self.is_by_rest = True
        left = available - self._paid_live
        weights = claims - self._paid_live
    at_once.is_open = True
    self.left = left
    self.weights_left = weights
    if is_whole:
        self.house_left = pinned.treasury + rest
    else:
        self.house_left = pinned.treasury
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
    owner: address = staticcall IVault(pinned.vault).owner_of(number)
    log Paid(account=number, owner=owner, amount=amount)
    extcall IVault(pinned.vault).pay_exit(owner, amount)
