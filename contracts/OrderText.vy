# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Orders in words, for VerifierWords and for whoever wants to see what a signature is about
@license MIT
@notice A contract of its own: the verifier has no room for it.
@custom:security Pure: no storage, no call. A field beyond its width reverts or gives a text that no record has.
@custom:kill Nothing: it holds no state and no privilege.
"""

from lib import order_text


@external
@pure
def struct_hash(order: order_text.Order, account: uint256, nonce: uint256) -> bytes32:
    """
    @notice EIP-712 hashStruct of an order in words.
    @param order Its fields, within the widths of PLACE_IN_WORDS.
    @param account Whose it is.
    @param nonce Its nonce.
    """
    return order_text._struct_hash(order, account, nonce)


@external
@pure
def text(order: order_text.Order) -> String[400]:
    """
    @notice The order in words.
    @param order Its fields, within the widths of PLACE_IN_WORDS.
    """
    return order_text._text(order)
