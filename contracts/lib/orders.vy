# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title CANCEL, CANCEL_ALL, FORCED_CANCEL_ALL, SWEEP
@license MIT
@notice Twin of `sequencer/protocol/orders.py`, and of FORCED_CANCEL_ALL in `forced.py`; an order's key and leaf are those of `sequencer/protocol/book.py`.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import auth
from . import book
from . import cmap
from . import codec
from . import constants
from . import entries
from . import fills
from . import insurance
from . import margin
from . import params
from . import reason
from . import state

uses: auth
uses: cmap
uses: insurance
uses: margin
uses: state

CANCEL_TYPE: constant(bytes32) = keccak256(
    "Cancel(uint32 account,uint32 instrument,uint8 side,uint32 price,uint40 seq,uint32 nonce,uint32 expires)"
)
CANCEL_ALL_TYPE: constant(bytes32) = keccak256(
    "CancelAll(uint32 account,uint32 nonceFloor,uint32 nonce,uint32 expires)"
)


@internal
def _find_order(instrument: uint256, side: uint256, price: uint256, seq: uint256) -> (uint256, uint256, uint256):
    """
    @notice Key, leaf and path (0: there is none) of a resting order. No order has a `side` (uint8) above SELL.
    """
    if side > constants.SELL:
        return 0, 0, 0
    key: uint256 = book._order_key(instrument, side, price, seq)
    entry: uint256 = 0
    path: uint256 = 0
    entry, path = state._inline(key)
    return key, entry, path


@internal
@view
def _has_ended(owner: entries.Account, key: uint256, entry: uint256, instrument: uint256, side: uint256) -> bool:
    """
    @notice Whether SWEEP may take a resting order out, at whatever marks there are.
    """
    expires: uint256 = (entry >> 72) & constants.U32_MAX
    return (
        key & constants.U40_MAX < owner.order_floor
        or (expires != 0 and state.time >= expires)
        or state.time >= state._instrument_expiry_time(instrument)
        or fills._is_idle(owner, instrument, side, entry)
    )


@internal
def _remove(owner: entries.Account, key: uint256, entry: uint256, path: uint256) -> entries.Account:
    """
    @notice Takes the order out, frees its reserve unless CANCEL_ALL has freed it, and what its leaf holds.
    """
    freed: entries.Account = owner
    if key & constants.U40_MAX >= owner.order_floor:
        freed.reserved = unsafe_sub(freed.reserved, book._reserve(entry))  # a part of what is reserved
    freed.orders = unsafe_sub(freed.orders, 1)  # it was counted
    cmap._remove(key, path)
    return freed


@internal
def _cancel(domain: bytes32) -> uint256:
    """
    @notice CANCEL: takes one resting order out, named by its key.
    """
    number: uint256 = codec._field(1, 4)
    instrument: uint256 = codec._field(5, 4)
    side: uint256 = codec._field(9, 1)
    price: uint256 = codec._field(10, 4)
    seq: uint256 = codec._field(14, 5)
    nonce: uint256 = codec._field(19, 4)
    expires: uint256 = codec._field(23, 4)
    digest: bytes32 = keccak256(
        abi_encode(CANCEL_TYPE, number, instrument, side, price, seq, nonce, expires)
    )
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    why: uint256 = 0
    found: entries.Account = empty(entries.Account)
    why, found = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, expires)
    if why != reason.OK:
        return why
    key: uint256 = 0
    entry: uint256 = 0
    path: uint256 = 0
    key, entry, path = self._find_order(instrument, side, price, seq)
    if path == 0:
        return reason.UNKNOWN_ORDER
    if book._account(entry) != number:
        return reason.NOT_OWNER_OF_ORDER
    found.nonce_floor, found.nonce_bitmap = auth._use_nonce(found.nonce_floor, found.nonce_bitmap, nonce)
    found = self._remove(found, key, entry, path)
    state._put_account(found)
    return reason.OK


@internal
def _cancel_all(domain: bytes32) -> uint256:
    """
    @notice CANCEL_ALL: every older order of the account is dead from here; its reserve is free. May raise the nonce floor.
    """
    number: uint256 = codec._field(1, 4)
    new_floor: uint256 = codec._field(5, 4)
    nonce: uint256 = codec._field(9, 4)
    expires: uint256 = codec._field(13, 4)
    digest: bytes32 = keccak256(abi_encode(CANCEL_ALL_TYPE, number, new_floor, nonce, expires))
    signer: uint256 = codec._signer(domain, digest, codec.BODY_93)
    why: uint256 = 0
    found: entries.Account = empty(entries.Account)
    why, found = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, expires)
    if why != reason.OK:
        return why
    if new_floor > unsafe_add(found.nonce_floor, constants.NONCE_WINDOW) or new_floor == constants.U32_MAX:
        return reason.NONCE_WINDOW
    lowest: uint256 = 0
    bitmap: uint256 = 0
    lowest, bitmap = auth._use_nonce(found.nonce_floor, found.nonce_bitmap, nonce)
    found.nonce_floor, found.nonce_bitmap = auth._raise_floor(lowest, bitmap, new_floor)
    self._end_all(found)
    return reason.OK


@internal
def _forced_cancel_all() -> uint256:
    """
    @notice FORCED_CANCEL_ALL: as CANCEL_ALL, of an owner whom L1 has checked; nonces stay.
    """
    found: entries.Account = state._account(codec._field(1, 4))
    if found.stored == 0:
        return reason.UNKNOWN_ACCOUNT
    self._end_all(found)
    return reason.OK


@internal
def _end_all(account: entries.Account):
    """
    @notice Every order of `account` that stands is dead from here; its reserve is free.
    """
    ended: entries.Account = account
    ended.order_floor = state.seq
    ended.reserved = 0
    state._put_account(ended)


@internal
def _sweep() -> uint256:
    """
    @notice SWEEP: anyone may have a dead order taken out; one that has not ended, but is not backed at the last marks, too.
            Its account pays for the record, out of cash that is there.
    """
    instrument: uint256 = codec._field(1, 4)
    key: uint256 = 0
    entry: uint256 = 0
    path: uint256 = 0
    side: uint256 = codec._field(5, 1)
    price: uint256 = codec._field(6, 4)
    key, entry, path = self._find_order(instrument, side, price, codec._field(10, 5))
    if path == 0:
        return reason.UNKNOWN_ORDER
    owner: entries.Account = state._account(book._account(entry))
    is_dead: bool = self._has_ended(owner, key, entry, instrument, side)
    if not is_dead and side == constants.SELL:
        is_dead = not margin._is_backed(state._page(instrument >> 5), owner, instrument, side, price, entry)
    if not is_dead:
        return reason.ORDER_ALIVE
    owner = self._remove(owner, key, entry, path)
    cash: uint256 = convert(convert(max(owner.cash, 0), bytes32), uint256)
    fee: uint256 = min(min(state._param(params.ORDER_HOLD), cash), state.pool)
    insurance._charge(fee, 0)
    owner.cash = unsafe_sub(owner.cash, convert(fee, int256))  # a uint32, at most what is there
    state._put_account(owner)
    return reason.OK
