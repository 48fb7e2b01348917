# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title PLACE_IN_WORDS: an order whose signature is about a text that a person can read
@license MIT
@notice Twin of `sequencer/protocol/words.py`. The text is made by `OrderText`, a contract without state.
@custom:security Total; bounds stand beside the arithmetic.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import auth
from . import cmap
from . import codec
from . import constants
from . import entries
from . import matching
from . import order_text
from . import pages
from . import reason
from . import state

uses: auth
uses: matching
uses: state


interface IOrderText:
    def struct_hash(order: order_text.Order, account: uint256, nonce: uint256) -> bytes32: view


@internal
def _place(domain: bytes32, speaker: address) -> uint256:
    """
    @notice PLACE_IN_WORDS: as PLACE; after its authority, the instrument's terms must be those of the text.
    @param speaker The OrderText.
    """
    number: uint256 = codec._field(1, 4)
    nonce: uint256 = codec._field(19, 4)
    order: order_text.Order = order_text.Order(
        instrument=codec._field(5, 4),
        flags=codec._field(9, 1),
        price=codec._field(10, 4),
        quantity=codec._field(14, 5),
        expires=codec._field(23, 4),
        fee_max=codec._field(27, 2),
        terms=codec._field(29, 4),
    )
    why: uint256 = matching._check_form(order.flags, order.price, order.quantity)
    if why != reason.OK:
        return why
    digest: bytes32 = staticcall IOrderText(speaker).struct_hash(order, number, nonce)
    signer: uint256 = codec._signer(domain, digest, codec.BODY_124)
    account: entries.Account = empty(entries.Account)
    why, account = auth._authorise(number, signer, constants.SCOPE_TRADE, nonce, order.expires)
    if why != reason.OK:
        return why
    page: uint256 = state._page(order.instrument >> 5)
    row: uint256 = order.instrument & 31
    if page == 0 or row >= cmap._word_at(page) & 255:
        return reason.UNKNOWN_INSTRUMENT
    strike: uint256 = 0
    is_put: bool = False
    strike, is_put = pages._terms(page, row)
    if strike != order.terms & (2**31 - 1) or is_put != (order.terms >> 31 == 1):
        return reason.TERMS
    account.nonce_floor, account.nonce_bitmap = auth._use_nonce(account.nonce_floor, account.nonce_bitmap, nonce)
    return matching._enter(
        matching.Taker(
            account=number,
            instrument=order.instrument,
            flags=order.flags,
            price=order.price,
            quantity=order.quantity,
            expires=order.expires,
            seq=state.seq,
            filled=0,
        ),
        account,
        order.fee_max,
        False,
    )
