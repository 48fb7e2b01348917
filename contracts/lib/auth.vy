# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Who may sign what, and the nonce window
@license MIT
@notice Twin of `sequencer/protocol/auth.py`: a nonce is good once, in any order, inside 256 from the account's floor.
@custom:security Signer 0 is nobody, even where an account's owner is 0.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import entries
from . import reason
from . import state

uses: state


@internal
def _authorise(
    number: uint256, signer: uint256, scope: uint256, nonce: uint256, expires: uint256
) -> (uint256, entries.Account):
    """
    @notice OK and the account, if `signer` may act for it in `scope` now with this nonce; else why not.
    """
    account: entries.Account = state._account(number)
    if account.stored == 0:
        return reason.UNKNOWN_ACCOUNT, account
    time: uint256 = state.time
    if expires != 0 and time >= expires:
        return reason.EXPIRED, account
    if signer == 0:
        return reason.BAD_SIGNATURE, account
    if signer != account.owner:
        why: uint256 = reason.BAD_SIGNATURE
        for i: uint256 in range(account.signer_count, bound=4):
            slot: uint256 = account.signers[i]
            if slot >> 96 == signer:
                why = reason.OK
                if slot & 255 & scope == 0:
                    why = reason.SCOPE
                elif time >= (slot >> 8) & constants.U32_MAX:
                    why = reason.SIGNER_EXPIRED
                break
        if why != reason.OK:
            return why, account
    offset: uint256 = unsafe_sub(nonce, account.nonce_floor)  # wraps to beyond the window when nonce < floor
    if offset >= constants.NONCE_WINDOW or nonce == constants.U32_MAX:
        return reason.NONCE_WINDOW, account
    if (account.nonce_bitmap >> offset) & 1 == 1:
        return reason.NONCE_USED, account
    return reason.OK, account


@internal
@pure
def _use_nonce(lowest: uint256, bitmap: uint256, nonce: uint256) -> (uint256, uint256):
    """
    @notice Nonce floor and bitmap after a good nonce: the floor moves over all used ones that follow it.
    """
    moved: uint256 = lowest
    rest: uint256 = bitmap | (convert(1, uint256) << unsafe_sub(nonce, lowest))  # nonce in floor .. floor + 255
    if rest & 1 == 0:
        return moved, rest
    size: uint256 = 128
    for _: uint256 in range(8):  # trailing ones, by halving: at most 255 here
        ones: uint256 = max_value(uint256) >> unsafe_sub(256, size)
        if rest & ones == ones:
            rest >>= size
            moved = unsafe_add(moved, size)
        size >>= 1
    if rest & 1 == 1:  # all 256
        rest >>= 1
        moved = unsafe_add(moved, 1)
    return moved, rest


@internal
@pure
def _raise_floor(lowest: uint256, bitmap: uint256, new_floor: uint256) -> (uint256, uint256):
    """
    @notice Nonce floor and bitmap when no nonce below `new_floor` is good any more; a lower one changes nothing.
    """
    if new_floor <= lowest:
        return lowest, bitmap
    rest: uint256 = bitmap >> unsafe_sub(new_floor, lowest)
    if rest & 1 == 1:
        return self._use_nonce(new_floor, rest, new_floor)
    return new_floor, rest


@internal
@pure
def _set_signer(
    account: entries.Account, signer: uint256, scope: uint256, expires: uint256
) -> (uint256, entries.Account):
    """
    @notice Grants, changes or (scope 0) removes a session key; at most SIGNERS_MAX stand.
    """
    changed: entries.Account = account
    if scope > constants.SCOPE_TRADE | constants.SCOPE_WITHDRAW or signer == account.owner:
        return reason.SCOPE, changed
    count: uint256 = 0
    for i: uint256 in range(account.signer_count, bound=4):
        slot: uint256 = account.signers[i]
        if slot >> 96 != signer:
            changed.signers[count] = slot
            count = unsafe_add(count, 1)
    if scope != 0:
        if count >= constants.SIGNERS_MAX:
            return reason.SIGNERS_FULL, changed
        changed.signers[count] = scope | (expires << 8) | (signer << 96)
        count = unsafe_add(count, 1)
    changed.signer_count = count
    return reason.OK, changed
