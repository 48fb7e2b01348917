# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title AMEND: a resting order gets another size or price, under one signature and with one outcome
@license MIT
@notice Twin of `sequencer/protocol/amend.py`. `quantity` is the order's total from here on, what has traded of it included.
@custom:security Total; bounds stand beside the arithmetic. What has left the book when a new order is refused comes back
                 with the root (`transition.vy`).
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import auth
from . import book
from . import cmap
from . import codec
from . import constants
from . import entries
from . import insurance
from . import matching
from . import orders
from . import params
from . import reason
from . import state

uses: auth
uses: cmap
uses: insurance
uses: matching
uses: orders
uses: state

AMEND_TYPE: constant(bytes32) = keccak256(
    "Amend(uint32 account,uint32 instrument,uint8 flags,uint32 price,uint40 seq,uint32 newPrice,uint40 quantity,uint32 nonce,uint32 expires,uint16 feeMax)"
)


@internal
def _amend(domain: bytes32) -> uint256:
    """
    @notice AMEND: less at the same price keeps its place; else a new order takes it, or the old one stays as it was.
    """
    number: uint256 = codec._field(1, 4)
    instrument: uint256 = codec._field(5, 4)
    flags: uint256 = codec._field(9, 1)
    price: uint256 = codec._field(10, 4)
    seq: uint256 = codec._field(14, 5)
    new_price: uint256 = codec._field(19, 4)
    quantity: uint256 = codec._field(23, 5)
    nonce: uint256 = codec._field(28, 4)
    expires: uint256 = codec._field(32, 4)
    fee_max: uint256 = codec._field(36, 2)
    if quantity == 0:
        return reason.QUANTITY
    if new_price == 0:
        return reason.PRICE
    digest: bytes32 = keccak256(
        abi_encode(
            AMEND_TYPE, number, instrument, flags, price, seq, new_price, quantity, nonce, expires, fee_max
        )
    )
    signer: uint256 = codec._signer(domain, digest, codec.BODY_124)
    why: uint256 = 0
    account: entries.Account = empty(entries.Account)
    why, account = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, expires)
    if why != reason.OK:
        return why
    side: uint256 = flags & constants.FLAG_SIDE
    key: uint256 = 0
    entry: uint256 = 0
    path: uint256 = 0
    key, entry, path = orders._find_order(instrument, side, price, seq)
    if path == 0:
        return reason.UNKNOWN_ORDER
    if book._account(entry) != number:
        return reason.NOT_OWNER_OF_ORDER
    if (entry >> 104) & 255 != flags:  # they say what class the record is of
        return reason.FLAGS
    if orders._has_ended(account, key, entry, instrument, side):
        return reason.ORDER_DEAD
    account.nonce_floor, account.nonce_bitmap = auth._use_nonce(account.nonce_floor, account.nonce_bitmap, nonce)
    filled: uint256 = book._filled(entry)
    total: uint256 = unsafe_add(filled, entry & constants.U40_MAX)
    if quantity <= filled or (new_price == price and quantity <= total):
        return self._shrink(account, key, entry, path, quantity, fee_max)
    account = orders._remove(account, key, entry, path)
    return matching._enter(
        matching.Taker(
            account=number,
            instrument=instrument,
            flags=flags,
            price=new_price,
            quantity=unsafe_sub(quantity, filled),
            expires=(entry >> 72) & constants.U32_MAX,
            seq=state.seq,
            filled=filled,
        ),
        account,
        fee_max,
        False,
    )


@internal
def _shrink(
    given: entries.Account, key: uint256, entry: uint256, path: uint256, quantity: uint256, fee_max: uint256
) -> uint256:
    """
    @notice Less of the order, in its place, or nothing if as much has traded. No state of queue, marks or margin forbids it.
            It pays what a place in a calm queue costs. What stays in the book pays the whole of it, out of cash that is there
            or of the reserve that it frees; what leaves, out of cash that is there.
    """
    account: entries.Account = given
    rests: uint256 = 0
    fee: uint256 = state._param(params.SEQUENCING_FEE_MIN)
    if fee > unsafe_mul(fee_max, constants.FEE_MAX_UNIT):
        return reason.FEE_ABOVE_MAX
    cash: uint256 = convert(convert(max(account.cash, 0), bytes32), uint256)
    filled: uint256 = book._filled(entry)
    if quantity <= filled:
        account = orders._remove(account, key, entry, path)
        fee = min(fee, cash)
    else:
        total: uint256 = unsafe_add(filled, entry & constants.U40_MAX)
        less: uint256 = unsafe_sub(total, quantity)  # less than what remains
        freed: uint256 = unsafe_mul((entry >> 40) & constants.U32_MAX, less)
        if fee > max(cash, freed):
            return reason.MARGIN
        account.reserved = unsafe_sub(account.reserved, freed)  # a part of what is reserved
        if less != 0:
            cmap._replace(key, unsafe_sub(entry, less), path)
        rests = unsafe_sub(quantity, filled)
    fee = min(fee, state.pool)
    insurance._charge(fee, 0)
    account.cash = unsafe_sub(account.cash, convert(fee, int256))  # a uint32
    state._put_account(account)
    state.outcome = keccak256(abi_encode(fee, rests, empty(bytes32)))
    return reason.OK
