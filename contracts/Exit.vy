# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Exit: everybody gets out when the exchange is frozen
@license MIT
@notice After the freeze the last final state (the exit state) is all there is. Positions are closed against each other at
        what it holds, and everything is proved against it, by anybody for anybody; money goes to the owners that `Vault`
        knows, and nowhere else.
@dev Steps: `begin` pins the exit state. `fix` gives an expiry that had passed its price. `declare` proves what an account
     comes to. `claim` pays each its share, `claim_house` the treasury. `refund` returns deposits that the exit state has
     not taken, `Vault.claim` pays withdrawals as ever.

     What an account comes to: cash + Σ lots x price, with the row's mark as price, or the intrinsic value once the expiry
     has passed (`prices`). The same price stands on both sides of every position: whoever owns both gains nothing by a
     freeze, at any price afterwards, and nobody waits for an expiry.

     What there is. Let the exit state have pool, fund, treasury and deficit. The vault holds pool + fund + treasury +
     unclaimed withdrawals + deposits not taken. Positions of an instrument sum to zero, or are of a fixed expiry, so
     that the values sum to pool + deficit. Let claims be the sum of the positive ones: it is pool + deficit + losses, the
     negative ones. Fund and pool pay for them; with pool + fund >= claims everybody is paid in full, and what is left of
     the fund goes to the treasury's owner; else each is paid claim x (pool + fund) / claims. Shares are taken off a
     running remainder (`_share`): the last claimant is paid the rest, and the sum is exact to the unit.

     When. With all accounts declared, at once. While some are missing (declaring costs gas, and empty accounts are cheap),
     nobody is paid for hold_s: who begins can be in the same block, and losses are known only when somebody declares them.
     Then a claim is paid now_ppm of its share of what is known: of max(claims, pool + deficit + losses), both as declared
     so far. As that is the least that all claims can be, a part is above the share in the end only if losses that nobody
     has declared in hold_s take more than 1 - now_ppm off it. It is not asked back: what is left is then shared by
     what each is still owed. After declare_window_s the shares are paid, and those of the missing are set aside as if they
     came to pool + deficit together with the others: late ones are paid the same part of their claims, first come, while
     that lasts. When the last has come, what is left of it goes to the treasury's owner.
@custom:security Nothing is paid twice: `declare` is once an account, which is a number that `begin` has counted, a part
        or a share needs a declaration and is once, `refund` once a message. Σ paid to accounts and house <= pool + fund +
        treasury, which the vault holds beside what withdrawals and refunds need. An account that cannot be paid (a frozen
        payee) stops nobody: it is declared like all others, and its claim stays until it can be paid.
@custom:kill Nobody has any privilege: no owner, no pause, no sweep. `now_ppm` and the times are fixed at deployment. No
        feed is asked after the freeze.
"""

from lib import cmap
from lib import codec
from lib import constants
from lib import state

from exit import payouts
from exit import pinned
from exit import prices
from exit import reader

initializes: cmap
initializes: state[cmap := cmap]
initializes: reader[cmap := cmap, state := state]
initializes: pinned[cmap := cmap, reader := reader, state := state]
initializes: prices[pinned := pinned, reader := reader, state := state]
initializes: payouts[pinned := pinned, prices := prices, reader := reader]

exports: (
    pinned.begin,
    pinned.vault,
    pinned.rollup,
    pinned.inbox,
    pinned.hold_s,
    pinned.declare_window_s,
    pinned.root,
    pinned.accounts,
    pinned.time,
    pinned.hold_until,
    pinned.declare_until,
    pinned.pool,
    pinned.deficit,
    pinned.holes,
    pinned.fund,
    pinned.treasury,
    pinned.treasury_account,
    pinned.inbox_count,
)
exports: (
    prices.fix,
    prices.price,
)
exports: (
    payouts.declare,
    payouts.claim,
    payouts.claim_house,
    payouts.account,
    payouts.now_ppm,
    payouts.declared,
    payouts.claims,
    payouts.losses,
    payouts.paid_now,
    payouts.is_open,
    payouts.is_by_rest,
    payouts.left,
    payouts.weights_left,
    payouts.late_left,
    payouts.late_paid,
    payouts.late_of,
    payouts.house_left,
)


interface IVault:
    def pay_exit(to: address, amount: uint256): nonpayable


interface IInbox:
    def hash_at(i: uint256) -> bytes32: view


event Refunded:
    index: indexed(uint256)
    owner: indexed(address)
    amount: uint256


# One bit per inbox message, 256 a word. Written by refund.
_refunded: HashMap[uint256, uint256]


@deploy
def __init__(vault_: address, hold_s_: uint256, declare_window_s_: uint256, now_ppm_: uint256):
    """
    @param vault_ What pays; it must name this contract as its exit.
    @param hold_s_ Seconds after `begin` in which nobody is paid, unless all accounts are declared.
    @param declare_window_s_ Seconds after `begin` after which the payouts do not wait for more declarations.
    @param now_ppm_ Part of a share that is paid while accounts are missing.
    """
    pinned.__init__(vault_, hold_s_, declare_window_s_)
    payouts.__init__(now_ppm_)


@external
def refund(index: uint256, record: Bytes[31]) -> uint256:
    """
    @notice Returns a deposit that the exit state has not taken to its owner, once.
    @dev The inbox keeps the hash of every prefix: the record is message `index` if it leads from one to the next.
    @param index Of the inbox message.
    @param record Its 31 bytes.
    @return What was paid, 1e-6 USD.
    """
    assert pinned.root != empty(bytes32), "exit: not begun"
    assert len(record) == 31 and convert(slice(record, 0, 1), bytes1) == constants.KIND_DEPOSIT, "exit: not a deposit"
    assert index >= pinned.inbox_count, "exit: message was taken"
    before: bytes32 = staticcall IInbox(pinned.inbox).hash_at(index)
    assert codec._inbox_hash(before, record) == staticcall IInbox(pinned.inbox).hash_at(index + 1), "exit: wrong message"
    bit: uint256 = 1 << (index & 255)
    word: uint256 = self._refunded[index >> 8]
    assert word & bit == 0, "exit: refunded already"
    self._refunded[index >> 8] = word | bit
    owner: address = convert(convert(slice(record, 1, 20), bytes20), address)
    amount: uint256 = convert(slice(record, 25, 6), uint256)
    log Refunded(index=index, owner=owner, amount=amount)
    extcall IVault(pinned.vault).pay_exit(owner, amount)
    return amount


@external
@view
@reentrant
def refunded(index: uint256) -> bool:
    """
    @notice Whether inbox message `index` has been refunded.
    """
    return (self._refunded[index >> 8] >> (index & 255)) & 1 == 1
