# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Resting orders as leaves of the state map
@license MIT
@notice Twin of `order_key`, `order_value` and `book_prefix` in `sequencer/protocol/book.py`. Side 0 buys, side 1 sells.
@custom:security A better order has a smaller key: the best of a side is the left-most leaf of its prefix, and a path shows
                 that it is, because it then has the bits at which the tree branches below the prefix all clear.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import cmap
from . import constants

uses: cmap

ORDER_LOW_MASK: constant(uint256) = 2**72 - 1  # bits below the prefix: price priority and seq


@internal
@pure
def _book_prefix(instrument: uint256, side: uint256) -> uint256:
    """
    @notice The bits above ORDER_LOW_MASK that all keys of one side (0 or 1) of one instrument share.
    """
    return constants.KEY_ORDER | (instrument << 73) | (side << 72)


@internal
@pure
def _order_key(instrument: uint256, side: uint256, price: uint256, seq: uint256) -> uint256:
    """
    @notice Leaf key of an order; side is 0 or 1.
    """
    priority: uint256 = price if side == constants.SELL else unsafe_sub(constants.U32_MAX, price)
    return self._book_prefix(instrument, side) | (priority << 40) | seq


@internal
@pure
def _price(key: uint256) -> uint256:
    """
    @notice Price of the order at `key`, ticks.
    """
    priority: uint256 = (key >> 40) & constants.U32_MAX
    return priority if (key >> 72) & 1 == constants.SELL else unsafe_sub(constants.U32_MAX, priority)


@internal
@pure
def _account(entry: uint256) -> uint256:
    """
    @notice Whose order it is.
    """
    return (entry >> 112) & constants.U32_MAX


@internal
@pure
def _filled(entry: uint256) -> uint256:
    """
    @notice Lots of a resting order that have traded.
    """
    return entry >> 144


@internal
@pure
def _reserve(entry: uint256) -> uint256:
    """
    @notice What a resting order has reserved: rate x remaining quantity, below 2^72.
    """
    return unsafe_mul((entry >> 40) & constants.U32_MAX, entry & constants.U40_MAX)


@internal
def _best(instrument: uint256, side: uint256) -> (uint256, uint256, uint256):
    """
    @notice Key, leaf and path of the best order of a side; path 0: none rests.
    """
    prefix: uint256 = self._book_prefix(instrument, side)
    key: uint256 = cmap._word()
    if key == 0:
        cmap._absent(prefix, ORDER_LOW_MASK)
        return 0, 0, 0
    entry: uint256 = cmap._word()
    path: uint256 = cmap._prove(key, entry)
    assert (
        key & ~ORDER_LOW_MASK == prefix and key & cmap._word_at(path) & ORDER_LOW_MASK == 0
    ), "witness: best"
    return key, entry, path
