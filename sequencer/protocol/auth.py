"""Who may sign what, and the nonce window: a nonce is good once, in any order, inside 256 from the account's floor."""

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.state import State


def authorise(
    state: State, number: int, signer: bytes | None, scope: int, nonce: int, expires: int
) -> Account | Reason:
    """The account, if `signer` may act for it in `scope` now with this nonce; else why not. Changes nothing.

    Checked in this order: account, expiry of the record, signature, scope and expiry of the session key, nonce.
    """
    account = state.account(number)
    if account is None:
        return Reason.UNKNOWN_ACCOUNT
    time = state.globals.time
    if expires and time >= expires:
        return Reason.EXPIRED
    if signer is None:
        return Reason.BAD_SIGNATURE
    if signer != account.owner:
        for address, granted, until in account.signers:
            if address == signer:
                if not granted & scope:
                    return Reason.SCOPE
                if time >= until:
                    return Reason.SIGNER_EXPIRED
                break
        else:
            return Reason.BAD_SIGNATURE
    offset = nonce - account.nonce_floor
    if not 0 <= offset < c.NONCE_WINDOW or nonce == c.U32_MAX:
        return Reason.NONCE_WINDOW
    if account.nonce_bitmap >> offset & 1:
        return Reason.NONCE_USED
    return account


def use_nonce(account: Account, nonce: int) -> None:
    """Marks a good nonce as used and moves the floor over all used ones that follow it."""
    bitmap = account.nonce_bitmap | 1 << (nonce - account.nonce_floor)
    shift = (bitmap & ~(bitmap + 1)).bit_length() if bitmap & 1 else 0
    account.nonce_bitmap = bitmap >> shift
    account.nonce_floor += shift


def raise_floor(account: Account, floor: int) -> None:
    """No nonce below `floor` is good any more; a floor below the present one changes nothing."""
    if floor <= account.nonce_floor:
        return
    account.nonce_bitmap >>= floor - account.nonce_floor
    account.nonce_floor = floor
    if account.nonce_bitmap & 1:
        use_nonce(account, floor)


def set_signer(
    state: State, number: int, account: Account, address: bytes, scope: int, expires: int
) -> Reason:
    """Grants, changes or (scope 0) removes a session key of `account`; at most SIGNERS_MAX stand."""
    if scope > c.SCOPE_TRADE | c.SCOPE_WITHDRAW or address == account.owner:
        return Reason.SCOPE
    kept = [one for one in account.signers if one[0] != address]
    if scope:
        if len(kept) >= c.SIGNERS_MAX:
            return Reason.SIGNERS_FULL
        kept.append((address, scope, expires))
    account.signers = kept
    state.put_account(number, account)
    return Reason.OK
