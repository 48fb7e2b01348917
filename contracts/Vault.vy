# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Vault: holds the collateral
@license MIT
@notice Takes deposits, numbers the accounts, and pays withdrawals that a final state root proves, and what `Exit` says
        once the exchange is frozen.
@dev Cash is 1e-6 USD, the unit of the token (6 decimals). Exit knows this contract's address and is named here after both
     are deployed, once, for the reasons given in `Inbox`; until then no deposit is taken, so that whoever deposits can
     see the only contract beside this one that will ever move the money.
@custom:security Pays nobody but the owner in a WITHDRAWAL leaf, each leaf once, and whom `Exit` names; never more in
        total than was deposited. It trusts final roots: what makes a root final is for `Rollup` to say. The token must be
        a plain ERC-20; one that takes a fee on transfer is refused at the deposit, one whose balances rebase must not be used.
@custom:kill The deployer names the exit, once, before the first deposit; after that nobody has any privilege here: no
        owner, no pause, no upgrade, no sweep. The token's issuer can freeze the vault or a payee with the token's own
        powers. Tokens sent here without `deposit` are lost.
"""

from ethereum.ercs import IERC20
from lib import cmap
from lib import codec
from lib import constants


interface IRollup:
    def inbox() -> address: view
    def final_root(batch_id: uint256) -> bytes32: view


interface IInbox:
    def push_deposit(owner: address, account: uint256, amount: uint256) -> uint256: nonpayable


interface IExit:
    def vault() -> address: view


DEPOSITS_TOTAL_LIMIT: constant(uint256) = 2**62  # 1e-6 USD: L2 sums cash in 64-bit words with room for signs

token: public(immutable(address))
rollup: public(immutable(address))
inbox: public(immutable(address))
deposit_min: public(immutable(uint256))  # 1e-6 USD
deposits_total_max: public(immutable(uint256))  # 1e-6 USD, deposited and not yet claimed
exit_setter: public(immutable(address))


event Deposited:
    owner: indexed(address)
    account: indexed(uint256)
    amount: uint256
    inbox_index: uint256


event Claimed:
    n: indexed(uint256)
    owner: indexed(address)
    amount: uint256


event ExitSet:
    exit: indexed(address)


event PaidExit:
    to: indexed(address)
    amount: uint256


# Account number of an owner, 0 = none yet. Written by _deposit; never reassigned, or L2 cash would change hands.
account_of: public(HashMap[address, uint256])
# Owner of an account number. Written by _deposit.
owner_of: public(HashMap[uint256, address])
# Accounts so far = the highest account number. Written by _deposit.
accounts: public(uint256)
# Deposited minus paid, 1e-6 USD. Written by _deposit and _pay; bounds what a bad root could take.
deposits_total: public(uint256)
# One bit per withdrawal number, 256 a word. Written by claim; without it a leaf would pay twice.
_claimed: HashMap[uint256, uint256]
# The only caller of pay_exit. Written once by set_exit; without the "once", the deployer could take the collateral.
exit: public(address)


@deploy
def __init__(token_: address, rollup_: address, deposit_min_: uint256, deposits_total_max_: uint256):
    """
    @param token_ ERC-20 with 6 decimals.
    @param rollup_ Says which roots are final, and which inbox L2 reads.
    @param deposit_min_ Smallest deposit (1e-6 USD): what makes filling the inbox with dust expensive.
    @param deposits_total_max_ Cap on what is deposited and not yet claimed (1e-6 USD).
    """
    assert token_.is_contract, "vault: token is not a contract"
    assert rollup_.is_contract, "vault: rollup is not a contract"
    assert deposit_min_ > 0, "vault: deposit minimum is zero"
    assert deposit_min_ <= constants.U48_MAX, "vault: deposit minimum above 48 bits"
    assert deposit_min_ <= deposits_total_max_, "vault: deposit minimum above the cap"
    assert deposits_total_max_ <= DEPOSITS_TOTAL_LIMIT, "vault: cap above 2^62"
    token = token_
    rollup = rollup_
    inbox = staticcall IRollup(rollup_).inbox()
    deposit_min = deposit_min_
    deposits_total_max = deposits_total_max_
    exit_setter = msg.sender


@external
def set_exit(exit: address):
    """
    @notice Names the contract that pays everybody out after a freeze.
    @custom:kill Once only, by the deployer; it cannot be changed or revoked.
    """
    assert msg.sender == exit_setter, "vault: caller is not the deployer"
    assert self.exit == empty(address), "vault: exit is set already"
    assert exit.is_contract and staticcall IExit(exit).vault() == self, "vault: exit has another vault"
    self.exit = exit
    log ExitSet(exit=exit)


@external
def deposit(amount: uint256) -> uint256:
    """
    @notice Takes `amount` (1e-6 USD) from the caller, who has approved it, for the caller's account.
    @return Index of the inbox message that carries it to L2.
    """
    return self._deposit(msg.sender, amount)


@external
def deposit_with_permit(amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32) -> uint256:
    """
    @notice `deposit` with an EIP-2612 permit of the caller over exactly `amount` in place of an approval.
    @dev Anybody who sees the permit can use it up first. The allowance then stands all the same, so that a permit
         that fails is no reason to refuse: only a missing allowance is.
    @return Index of the inbox message that carries it to L2.
    """
    _permitted: bool = raw_call(
        token,
        abi_encode(
            msg.sender, self, amount, deadline, v, r, s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    assert staticcall IERC20(token).allowance(msg.sender, self) >= amount, "vault: permit gave no allowance"
    return self._deposit(msg.sender, amount)


@external
def claim(
    batch_id: uint256,
    n: uint256,
    owner: address,
    amount: uint256,
    bitmap: uint256,
    siblings: DynArray[bytes32, cmap.PATH_MAX],
):
    """
    @notice Pays withdrawal `n` to its owner, whoever calls.
    @param batch_id A final batch whose state holds the withdrawal.
    @param n Number of the withdrawal.
    @param owner Who is paid: the owner in the leaf.
    @param amount What is paid (1e-6 USD): the amount in the leaf.
    @param bitmap Branch bits of the leaf's path in the state map.
    @param siblings Hashes beside the path, leaf first.
    """
    # A larger n could be a key of another type, a larger amount another owner's bits.
    assert n <= constants.U32_MAX, "vault: withdrawal number above 32 bits"
    assert amount <= constants.U64_MAX, "vault: amount above 64 bits"
    bit: uint256 = 1 << (n & 255)
    word: uint256 = self._claimed[n >> 8]
    assert word & bit == 0, "vault: claimed already"
    root: bytes32 = staticcall IRollup(rollup).final_root(batch_id)
    assert cmap._read(
        root, codec._withdrawal_key(n), codec._withdrawal_value(owner, amount), bitmap, siblings
    ), "vault: wrong proof"
    self._claimed[n >> 8] = word | bit
    log Claimed(n=n, owner=owner, amount=amount)
    self._pay(owner, amount)


@external
def pay_exit(to: address, amount: uint256):
    """
    @notice Pays `amount` (1e-6 USD) to `to`.
    @custom:kill Exit alone, which has no owner; its code says whom it pays, and when.
    """
    # An unset exit is the zero address, which cannot call.
    assert msg.sender == self.exit, "vault: caller is not the exit"
    log PaidExit(to=to, amount=amount)
    self._pay(to, amount)


@external
@view
def claimed(n: uint256) -> bool:
    """
    @notice Whether withdrawal `n` has been paid.
    """
    return (self._claimed[n >> 8] >> (n & 255)) & 1 == 1


@internal
def _pay(to: address, amount: uint256):
    """
    @notice Pays out of what was deposited, the token last.
    """
    total: uint256 = self.deposits_total
    assert amount <= total, "vault: claims exceed deposits"
    self.deposits_total = unsafe_sub(total, amount)  # amount <= total
    assert extcall IERC20(token).transfer(to, amount, default_return_value=True), "vault: transfer failed"


@internal
def _deposit(owner: address, amount: uint256) -> uint256:
    """
    @notice Credits `amount` to `owner`'s account, tells L2, then takes the money; returns the inbox index.
    @dev The token, the one contract here that others wrote, is called last, after all is written. If it pays short,
         everything is undone.
    """
    assert self.exit != empty(address), "vault: no exit"
    assert amount >= deposit_min, "vault: amount below the minimum"
    assert amount <= constants.U48_MAX, "vault: amount above 48 bits"
    total: uint256 = unsafe_add(self.deposits_total, amount)  # <= 2^62 + 2^48
    assert total <= deposits_total_max, "vault: deposits above the cap"

    self.deposits_total = total
    account: uint256 = self.account_of[owner]
    if account == 0:
        account = unsafe_add(self.accounts, 1)  # <= 2^32 by the next line
        assert account <= constants.U32_MAX, "vault: account numbers exhausted"
        self.accounts = account
        self.account_of[owner] = account
        self.owner_of[account] = owner
    inbox_index: uint256 = extcall IInbox(inbox).push_deposit(owner, account, amount)
    log Deposited(owner=owner, account=account, amount=amount, inbox_index=inbox_index)

    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        owner, self, amount, default_return_value=True
    ), "vault: transfer failed"
    received: uint256 = staticcall IERC20(token).balanceOf(self) - before
    assert received == amount, "vault: fee-on-transfer token"
    return inbox_index
