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

from lib import cmap
from lib import codec
from lib import constants
from lib import margin
from lib import state

from exit import at_once
from exit import payouts
from exit import pinned
from exit import prices
from exit import reader

initializes: cmap
initializes: state[cmap := cmap]
initializes: margin[state := state]
initializes: reader[cmap := cmap, state := state]
initializes: pinned[reader := reader, state := state]
initializes: prices[pinned := pinned, reader := reader, state := state]
initializes: at_once[
    cmap := cmap, margin := margin, pinned := pinned, prices := prices, reader := reader, state := state
]
initializes: payouts[at_once := at_once, pinned := pinned, prices := prices, reader := reader, state := state]

exports: (
    pinned.begin,
    pinned.vault,
    pinned.rollup,
    pinned.inbox,
    pinned.report_window_s,
    pinned.report_delay_s,
    pinned.silence_s,
    pinned.declare_window_s,
    pinned.root,
    pinned.accounts,
    pinned.begun_at,
    pinned.declare_until,
    pinned.pool,
    pinned.deficit,
    pinned.fund,
    pinned.treasury,
    pinned.treasury_account,
    pinned.inbox_count,
    pinned.feed_keys,
)
exports: (
    prices.report,
    prices.fix,
    prices.price,
    prices.reported,
)
exports: (
    at_once.exit_now,
    at_once.account,
    at_once.now_ppm,
    at_once.paid_now,
    at_once.is_open,
)
exports: (
    payouts.declare,
    payouts.claim,
    payouts.claim_house,
    payouts.declared,
    payouts.claims,
    payouts.losses,
    payouts.is_by_rest,
    payouts.left,
    payouts.weights_left,
    payouts.late_left,
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
    pinned.__init__(vault_, report_window_s_, report_delay_s_, silence_s_, declare_window_s_)
    at_once.__init__(now_ppm_)


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
