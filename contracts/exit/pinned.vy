# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What an exit stands on: its addresses and times, and the exit state
@license MIT
@notice The exit state is the last final one of a frozen rollup. `begin` pins it, once; all else is proved against it.
@custom:security Nothing here is written again after `begin`.
@custom:kill Anybody may begin once the rollup is frozen and its last batch is final; nobody has any privilege.
"""

from lib import constants
from lib import params
from lib import state

from . import reader

uses: reader
uses: state


interface IRollup:
    def exit_batch() -> uint256: view
    def final_root(batch_id: uint256) -> bytes32: view
    def domain_separator() -> bytes32: view


interface IVault:
    def rollup() -> address: view
    def inbox() -> address: view


PERIOD_MAX_S: constant(uint256) = 400 * constants.DAY_S

vault: public(immutable(address))
rollup: public(immutable(address))
inbox: public(immutable(address))
report_window_s: public(immutable(uint256))  # after 08:00: times of reports that price an expiry
report_delay_s: public(immutable(uint256))  # after that window, or `begin`: for others to report too
silence_s: public(immutable(uint256))  # after that delay: the last index stands in for feeds that are silent
declare_window_s: public(immutable(uint256))
DOMAIN: immutable(bytes32)


event Begun:
    batch_id: uint256
    root: bytes32
    accounts: uint256
    declare_until: uint256


# --- the exit state; written by begin ---
root: public(bytes32)  # 0: not begun
accounts: public(uint256)  # numbers 1 to this have a leaf
begun_at: public(uint256)  # seconds
declare_until: public(uint256)  # seconds; without an end one account that nobody declares would hold up all
pool: public(uint256)
deficit: public(uint256)  # what claims are above what there is for them, the accounts' holes included
fund: public(uint256)
treasury: public(uint256)
treasury_account: public(uint256)
inbox_count: public(uint256)  # messages from this index on are refunded
feed_keys: public(uint256[constants.FEEDS_MAX])  # addresses; 0: none


@deploy
def __init__(
    vault_: address,
    report_window_s_: uint256,
    report_delay_s_: uint256,
    silence_s_: uint256,
    declare_window_s_: uint256,
):
    """
    @param vault_ What pays; it must name this contract as its exit.
    @param report_window_s_ A report prices an expiry when its time is at most this much after 08:00.
    @param report_delay_s_ Seconds in which others can bring earlier reports before a price can be fixed.
    @param silence_s_ Seconds of missing reports after which the exit state's index is the price.
    @param declare_window_s_ Seconds to declare accounts after the last possible price.
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
    vault = vault_
    rollup = staticcall IVault(vault_).rollup()
    inbox = staticcall IVault(vault_).inbox()
    report_window_s = report_window_s_
    report_delay_s = report_delay_s_
    silence_s = silence_s_
    declare_window_s = declare_window_s_
    DOMAIN = staticcall IRollup(rollup).domain_separator()


@external
def begin(accounts: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]):
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
    reader._read(root, 100, 36)
    state._open()
    if accounts != 0:
        assert len(state._load(constants.KEY_ACCOUNT | accounts)) != 0, "exit: fewer accounts"
    assert len(state._load(constants.KEY_ACCOUNT | unsafe_add(accounts, 1))) == 0, "exit: more accounts"
    reader._read_all(100)

    self.root = root
    self.accounts = accounts
    self.begun_at = block.timestamp
    self.pool = state.pool
    uncovered: uint256 = unsafe_sub(state.holes, min(state.fund, state.holes))
    self.deficit = convert(max(state.deficit + convert(uncovered, int256), 0), uint256)
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


@internal
@view
def _check_number(account: uint256):
    """
    @notice Reverts unless the exit state has an account of this number.
    @dev The number becomes part of a map key: one above 32 bits would open the same leaf again under another number, or a
         leaf of another type as an account.
    """
    assert account != 0 and account <= self.accounts, "exit: no such account"
