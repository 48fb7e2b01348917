# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What an account is paid at once
@license MIT
@notice What no settlement price takes away again, and the part of it that is paid before losses are known: the head of
        `Exit.vy` says why. Also what is known of each account.
@custom:security Once an account; all together at most the pool, whatever the accounts are worth.
@custom:kill Nobody has any privilege; money goes to the owners that `Vault` knows, whoever calls.
"""

from lib import black76
from lib import cmap
from lib import constants
from lib import margin
from lib import state

from . import pinned
from . import prices
from . import reader

uses: cmap
uses: margin
uses: pinned
uses: prices
uses: reader
uses: state


interface IVault:
    def owner_of(account: uint256) -> address: view
    def pay_exit(to: address, amount: uint256): nonpayable


struct Account:
    claim: uint256  # final value, 0 when it is negative; 1e-6 USD
    paid: uint256  # at once, by exit_now or declare; 1e-6 USD
    is_declared: bool
    is_done: bool  # nothing more will be paid


STRESS_RATIO: constant(uint256) = 4

now_ppm: public(immutable(uint256))  # part of what is certain that is paid at once


event PaidNow:
    account: indexed(uint256)
    owner: indexed(address)
    amount: uint256


# Account number -> bits 0..127 claim, 128..191 paid at once, 192 declared, 193 done. Written by exit_now, declare, claim.
_accounts: HashMap[uint256, uint256]
paid_now: public(uint256)  # at once, all accounts; never above pool. Written by _pay_now
is_open: public(bool)  # payouts; written by payouts._open


@deploy
def __init__(now_ppm_: uint256):
    """
    @param now_ppm_ Part of the certain value that is paid at once.
    """
    assert now_ppm_ <= constants.PPM, "exit: part above one"
    now_ppm = now_ppm_


@external
def exit_now(account: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]) -> uint256:
    """
    @notice Pays an account's owner at once what is certain of it, once: the head of `Exit.vy` says what that is.
    @param account Its number.
    @param witness GLOBAL, path; PARAMS, path; the account's leaf; the pages of its positions, in their order.
    @return What was paid, 1e-6 USD.
    """
    return self._exit_now(account)


@internal
def _exit_now(number: uint256) -> uint256:
    reader._read(pinned.root, 100, 36)
    pinned._check_number(number)
    packed: uint256 = self._accounts[number]
    assert not self.is_open, "exit: payouts are open"
    assert packed >> 192 == 0, "exit: declared already"
    assert packed == 0, "exit: paid at once already"
    state._open()
    words: uint256 = unsafe_add(cmap.cursor, 32)  # after their number, which is 0 when there are none
    sums: margin.Sums = margin._refresh(state._account(number))
    cash: int256 = reader._signed(cmap._word_at(unsafe_add(words, 32)))
    certain: int256 = cash + min(sums.worth - sums.risk, self._least(words))
    reader._read_all(100)
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
    pool: uint256 = pinned.pool
    whole: uint256 = pool + pinned.deficit
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
    owner: address = staticcall IVault(pinned.vault).owner_of(number)
    log PaidNow(account=number, owner=owner, amount=amount)
    extcall IVault(pinned.vault).pay_exit(owner, amount)


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
        lots[i] = reader._lots(position)
        strikes[i], puts[i] = reader._terms(page, (position >> 64) & 31)
        top = max(top, ((cmap._word_at(page) >> 40) & constants.U32_MAX) * STRESS_RATIO)
        end: uint256 = i + 1
        if end < count and cmap._word_at(unsafe_add(first, end << 5)) >> 76 == position >> 76:
            continue
        known: uint256 = prices._prices[position >> 76]
        tried: uint256 = start  # the kinks of a piecewise linear function, then its ends
        if known != 0:
            tried = end + 1
            top = known - prices.KNOWN
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
                settled = unsafe_add(settled, unsafe_mul(lots[k], reader._signed(value)))  # < 2^84
            worst = min(worst, settled)
        total += worst
        start = end
        top = 0
    return total


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
