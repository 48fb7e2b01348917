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

from lib import cmap
from lib import constants
from lib import params
from lib import state

from . import reader

uses: cmap
uses: reader
uses: state


interface IRollup:
    def exit_batch() -> uint256: view
    def final_root(batch_id: uint256) -> bytes32: view


interface IVault:
    def rollup() -> address: view
    def inbox() -> address: view


PERIOD_MAX_S: constant(uint256) = 400 * constants.DAY_S
WITNESS_AT: constant(uint256) = 100  # calldata offset of the witness of begin: selector, number, offset, length

vault: public(immutable(address))
rollup: public(immutable(address))
inbox: public(immutable(address))
hold_s: public(immutable(uint256))  # after `begin`: time to declare who is insolvent, before anybody is paid a part
declare_window_s: public(immutable(uint256))


event Begun:
    batch_id: uint256
    root: bytes32
    accounts: uint256
    declare_until: uint256


# --- the exit state; written by begin ---
root: public(bytes32)  # 0: not begun
accounts: public(uint256)  # numbers 1 to this have a leaf
time: public(uint256)  # GLOBAL's, seconds: what has expired by then has a price, the rest has marks
hold_until: public(uint256)  # seconds; without it who begins could be paid before losses are known
declare_until: public(uint256)  # seconds; without an end one account that nobody declares would hold up all
pool: public(uint256)
deficit: public(int256)  # below zero: there is more than the accounts come to
holes: public(uint256)  # losses of accounts that the exit state has seen
fund: public(uint256)
treasury: public(uint256)
treasury_account: public(uint256)
inbox_count: public(uint256)  # messages from this index on are refunded


@deploy
def __init__(vault_: address, hold_s_: uint256, declare_window_s_: uint256):
    """
    @param vault_ What pays; it must name this contract as its exit.
    @param hold_s_ Seconds after `begin` in which nobody is paid, unless all accounts are declared.
    @param declare_window_s_ Seconds after `begin` after which the payouts do not wait for more declarations.
    """
    assert vault_.is_contract, "exit: vault is not a contract"
    assert hold_s_ > 0, "exit: hold is zero"
    assert hold_s_ <= declare_window_s_, "exit: hold above the declare window"
    assert declare_window_s_ <= PERIOD_MAX_S, "exit: declare window above 400 days"
    vault = vault_
    rollup = staticcall IVault(vault_).rollup()
    inbox = staticcall IVault(vault_).inbox()
    hold_s = hold_s_
    declare_window_s = declare_window_s_


@external
def begin(accounts: uint256, witness: Bytes[reader.WITNESS_BYTES_MAX]):
    """
    @notice Pins the exit state, once: the last final one of a frozen rollup.
    @dev Accounts have consecutive numbers: the last one's leaf and the absence of the next show how many there are. The
         vault's own number would count owners whose first deposit the exit state has not taken.
    @param accounts How many accounts the exit state has.
    @param witness GLOBAL, path; PARAMS, path; these again where a plan is open, of the state before it; leaf `accounts` (unless 0); absence of leaf `accounts` + 1.
    """
    self._begin(accounts)


@internal
def _begin(accounts: uint256):
    assert self.root == empty(bytes32), "exit: begun already"
    assert accounts < constants.U32_MAX, "exit: account number above 32 bits"
    batch_id: uint256 = staticcall IRollup(rollup).exit_batch()
    root: bytes32 = staticcall IRollup(rollup).final_root(batch_id)
    reader._read(root, WITNESS_AT, 36)
    state._open()
    if state.plan_root != empty(bytes32):  # what it has traded so far may not stand alone
        root = state.plan_root
        cmap.root = root
        state._open()
    if accounts != 0:
        assert len(state._load(constants.KEY_ACCOUNT | accounts)) != 0, "exit: fewer accounts"
    assert len(state._load(constants.KEY_ACCOUNT | unsafe_add(accounts, 1))) == 0, "exit: more accounts"
    reader._read_all(WITNESS_AT)

    self.root = root
    self.accounts = accounts
    self.time = state.time
    self.pool = state.pool
    self.deficit = state.deficit
    self.holes = state.holes
    self.fund = state.fund
    self.treasury = state.treasury
    self.treasury_account = state._param(params.TREASURY_ACCOUNT)
    self.inbox_count = state.inbox_count
    self.hold_until = block.timestamp + hold_s
    until: uint256 = block.timestamp + declare_window_s
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
