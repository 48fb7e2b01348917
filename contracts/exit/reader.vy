# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title How the exit reads what is proved to it
@license MIT
@notice A witness is one `bytes` argument, its leaves are read where they stand in calldata; form: docs/PROTOCOL.md §17.
@custom:security Calldata must be in the canonical form, and a witness is read to its end: nothing in it is not proved.
@custom:kill Nothing: it holds no state and no privilege.
"""

from lib import cmap
from lib import constants
from lib import state

uses: cmap
uses: state

WITNESS_BYTES_MAX: constant(uint256) = 45_056  # an account and 12 pages at the depth of their keys: 44,224


@internal
def _read(root: bytes32, start: uint256, offset_at: uint256):
    """
    @notice Begins to read the witness, whose words stand in calldata from `start` on.
    @param offset_at Where the argument's offset stands: in the canonical form its bytes are where they are read.
    """
    assert root != empty(bytes32), "exit: not begun"
    self._check_canonical(offset_at, start - 36)
    cmap._begin(root, start)
    state.calls = unsafe_add(state.calls, 1)  # pages of an earlier call in this transaction must not serve


@internal
@view
def _check_canonical(offset_at: uint256, offset: uint256):
    assert cmap._word_at(offset_at) == offset, "exit: calldata is not canonical"


@internal
@view
def _read_all(start: uint256):
    """
    @notice The whole witness has been read, and nothing beyond it.
    """
    assert cmap.cursor == start + cmap._word_at(start - 32), "exit: witness is too long or too short"


@internal
@view
def _terms(page: uint256, row: uint256) -> (uint256, bool):
    """
    @notice Strike of a row in ticks, and whether it is a put. The table of terms follows a page's first word.
    """
    word: uint256 = cmap._word_at(unsafe_add(unsafe_add(page, 32), (row >> 3) << 5)) >> ((row & 7) << 5)
    return word & (2**31 - 1), (word >> 31) & 1 == 1


@internal
@view
def _mark(page: uint256, row: uint256) -> uint256:
    """
    @notice Mark of a row in ticks. The table of marks follows the table of terms, which has a word for 8 rows.
    """
    terms: uint256 = unsafe_add(cmap._word_at(page) & 255, 7) >> 3
    return (cmap._word_at(unsafe_add(page, unsafe_add(1, unsafe_add(terms, row >> 3)) << 5)) >> ((row & 7) << 5)) & constants.U32_MAX


@internal
@pure
def _lots(position: uint256) -> int256:
    """
    @notice Lots of a packed position.
    """
    return self._signed(unsafe_sub(position & constants.U64_MAX, constants.QUANTITY_BIAS))


@internal
@pure
def _signed(word: uint256) -> int256:
    """
    @notice Two's complement of a word.
    """
    return convert(convert(word, bytes32), int256)
