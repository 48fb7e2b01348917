# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title DEPOSIT, WITHDRAW, FORCED_WITHDRAW, TRANSFER, COLLECT, SET_SIGNER: what an account does with its money and keys
@license MIT
@notice Twin of `sequencer/protocol/cash.py`, of FORCED_WITHDRAW in `forced.py` and of SET_SIGNER in `orders.py`. Cash in 1e-6 USD.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import auth
from . import cmap
from . import codec
from . import constants
from . import entries
from . import forced
from . import insurance
from . import margin
from . import params
from . import reason
from . import state

uses: auth
uses: cmap
uses: forced
uses: insurance
uses: margin
uses: state

VAULT_MAX: constant(uint256) = 2**62  # what the Vault lets in, all together
WITHDRAW_TYPE: constant(bytes32) = keccak256("Withdraw(uint32 account,uint64 amount,uint32 nonce,uint32 expires)")
TRANSFER_TYPE: constant(bytes32) = keccak256(
    "Transfer(uint32 account,uint32 to,uint64 amount,uint32 nonce,uint32 expires)"
)
SET_SIGNER_TYPE: constant(bytes32) = keccak256(
    "SetSigner(uint32 account,address signer,uint8 scope,uint32 signerExpires,uint32 nonce,uint32 expires)"
)


@internal
def _deposit() -> uint256:
    """
    @notice DEPOSIT: money that the Vault has taken; opens the account when it is new.
    """
    owner: uint256 = codec._field(1, 20)
    number: uint256 = codec._field(21, 4)
    amount: uint256 = codec._field(25, 6)
    if number == 0:
        return reason.INBOX_ACCOUNT
    held: uint256 = unsafe_add(unsafe_add(state.pool, state.fund), state.treasury)
    if unsafe_add(held, amount) > VAULT_MAX:
        return reason.AMOUNT
    account: entries.Account = state._account(number)
    if account.stored == 0:
        account.owner = owner
    account.cash = unsafe_add(account.cash, margin._lots(insurance._bring(amount)))
    state._put_account(account)
    return reason.OK


@internal
def _take(
    signer: uint256, scope: uint256, number: uint256, amount: uint256, nonce: uint256, expires: uint256
) -> (uint256, entries.Account):
    """
    @notice OK and the account when it has paid `amount`: authorised, solvent in cash, within its margin.
    """
    account: entries.Account = empty(entries.Account)
    if amount == 0:
        return reason.AMOUNT, account
    why: uint256 = 0
    why, account = auth._authorise(number, signer, scope, nonce, expires)
    if why != reason.OK:
        return why, account
    account.nonce_floor, account.nonce_bitmap = auth._use_nonce(account.nonce_floor, account.nonce_bitmap, nonce)
    paid: uint256 = 0
    why, paid = self._pay(account, amount, False)
    account.cash = unsafe_sub(account.cash, margin._lots(paid))
    return why, account


@internal
def _pay(account: entries.Account, amount: uint256, is_forced: bool) -> (uint256, uint256):
    """
    @notice OK and what the account can pay: `amount`; of 0, all that is free, min(cash, free margin), which must be some.
            Old marks count with caution; marks that are behind others refuse, and a forced payment waits for all those
            that RISK can renew.
    """
    if account.auction_start != 0:
        return reason.UNHEALTHY, 0
    if account.cash < margin._lots(amount):
        return reason.MARGIN, 0
    sums: margin.Sums = margin._cautious(account)
    if is_forced and sums.is_stale and forced._renews(account, forced.ANY_OF_ACCOUNT):
        return reason.RISK_DUE, 0
    if sums.is_behind and not is_forced:
        return reason.RISK_STALE, 0
    free: int256 = margin._free(account, sums)
    paid: int256 = margin._lots(amount)
    if amount == 0:
        paid = min(account.cash, free)
    if paid <= 0 or free < paid:
        return reason.MARGIN, 0
    return reason.OK, margin._bits(paid)


@internal
def _withdraw(domain: bytes32) -> uint256:
    """
    @notice WITHDRAW: makes a WITHDRAWAL leaf for the owner, claimed on L1 when a batch that holds it is final.
    """
    number: uint256 = codec._field(1, 4)
    amount: uint256 = codec._field(5, 8)
    nonce: uint256 = codec._field(13, 4)
    expires: uint256 = codec._field(17, 4)
    digest: bytes32 = keccak256(abi_encode(WITHDRAW_TYPE, number, amount, nonce, expires))
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    why: uint256 = 0
    account: entries.Account = empty(entries.Account)
    why, account = self._take(signer, constants.SCOPE_WITHDRAW, number, amount, nonce, expires)
    if why != reason.OK:
        return why
    return self._pay_out(account, amount)


@internal
def _forced_withdraw() -> uint256:
    """
    @notice FORCED_WITHDRAW: as WITHDRAW, of an owner whom L1 has checked; amount 0 = all that is free.
    """
    account: entries.Account = state._account(codec._field(1, 4))
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    why: uint256 = 0
    amount: uint256 = 0
    why, amount = self._pay(account, codec._field(5, 8), True)
    if why != reason.OK:
        return why
    account.cash = unsafe_sub(account.cash, margin._lots(amount))
    return self._pay_out(account, amount)


@internal
def _pay_out(account: entries.Account, amount: uint256) -> uint256:
    """
    @notice Makes the WITHDRAWAL leaf for `amount` (< 2^127) that `account` has paid, and puts the account.
    """
    paid: uint256 = insurance._payout(amount)
    count: uint256 = state.withdrawals
    if paid == 0 or count == constants.U32_MAX:
        return reason.POOL
    state._put_account(account)
    insurance._take(amount, paid)
    cmap._insert(constants.KEY_WITHDRAWAL | count, (account.owner << 64) | paid)
    state.withdrawals = unsafe_add(count, 1)
    return reason.OK


@internal
def _transfer(domain: bytes32) -> uint256:
    """
    @notice TRANSFER: cash from one account to another; only the owner may sign it.
    """
    number: uint256 = codec._field(1, 4)
    to: uint256 = codec._field(5, 4)
    amount: uint256 = codec._field(9, 8)
    nonce: uint256 = codec._field(17, 4)
    expires: uint256 = codec._field(21, 4)
    digest: bytes32 = keccak256(abi_encode(TRANSFER_TYPE, number, to, amount, nonce, expires))
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    why: uint256 = 0
    account: entries.Account = empty(entries.Account)
    why, account = self._take(signer, constants.SCOPE_OWNER, number, amount, nonce, expires)
    if why != reason.OK:
        return why
    if to == number:
        return reason.UNKNOWN_ACCOUNT
    receiver: entries.Account = state._account(to)
    if receiver.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    receiver.cash = unsafe_add(receiver.cash, margin._lots(amount))
    state._put_account(account)
    state._put_account(receiver)
    return reason.OK


@internal
def _collect() -> uint256:
    """
    @notice COLLECT: the treasury's fees go to the account that PARAMS names, credited as a deposit is.
    """
    amount: uint256 = state.treasury
    if amount == 0:
        return reason.NOTHING_TO_COLLECT
    account: entries.Account = state._account(state._param(params.TREASURY_ACCOUNT))
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    account.cash = unsafe_add(account.cash, margin._lots(insurance._bring(amount)))
    state.treasury = 0
    state._put_account(account)
    return reason.OK


@internal
def _set_signer(domain: bytes32) -> uint256:
    """
    @notice SET_SIGNER: the owner grants, changes or removes a session key.
    """
    number: uint256 = codec._field(1, 4)
    signer: uint256 = codec._field(5, 20)
    scope: uint256 = codec._field(25, 1)
    signer_expires: uint256 = codec._field(26, 4)
    nonce: uint256 = codec._field(30, 4)
    expires: uint256 = codec._field(34, 4)
    digest: bytes32 = keccak256(
        abi_encode(SET_SIGNER_TYPE, number, signer, scope, signer_expires, nonce, expires)
    )
    by: uint256 = codec._signer(domain, digest, codec.BODY_124)
    why: uint256 = 0
    account: entries.Account = empty(entries.Account)
    why, account = auth._authorise(number, by, constants.SCOPE_OWNER, nonce, expires)
    if why != reason.OK:
        return why
    why, account = auth._set_signer(account, signer, scope, signer_expires)
    if why != reason.OK:
        return why
    account.nonce_floor, account.nonce_bitmap = auth._use_nonce(account.nonce_floor, account.nonce_bitmap, nonce)
    state._put_account(account)
    return reason.OK
