# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title An account in memory, and its positions
@license MIT
@notice Twin of `Account` in `sequencer/protocol/entries.py`; `state.vy` reads and writes the leaf.
@custom:security Counts are within the arrays, because only the transition has ever made a leaf.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants


struct Account:
    number: uint256
    stored: uint256  # value of the leaf as it was read; 0: there is none
    owner: uint256
    order_floor: uint256
    auction_start: uint256
    cash: int256  # 1e-6 USD
    reserved: uint256  # 1e-6 USD
    hole: uint256  # what its equity was below nothing when it was last marked, 1e-6 USD
    orders: uint256  # leaves of its orders, dead ones too
    nonce_floor: uint256
    nonce_bitmap: uint256
    signer_count: uint256
    position_count: uint256
    signers: uint256[4]  # packed as in the leaf
    positions: uint256[64]  # packed as in the leaf, ascending


@internal
@pure
def _quantity(position: uint256) -> int256:
    """
    @notice Lots of a packed position; |lots| <= 2^44.
    """
    return convert(convert(unsafe_sub(position & constants.U64_MAX, constants.QUANTITY_BIAS), bytes32), int256)


@internal
@pure
def _find(account: Account, instrument: uint256) -> uint256:
    """
    @notice Place of the first position that is not below `instrument`.
    """
    for i: uint256 in range(account.position_count, bound=64):
        if account.positions[i] >> 64 >= instrument:
            return i
    return account.position_count


@internal
@pure
def _held(account: Account, instrument: uint256) -> int256:
    """
    @notice Lots that the account holds; 0: none.
    """
    place: uint256 = self._find(account, instrument)
    if place < account.position_count and account.positions[place] >> 64 == instrument:
        return self._quantity(account.positions[place])
    return 0


@internal
@pure
def _set_position(account: Account, instrument: uint256, quantity: int256) -> Account:
    """
    @notice The account with `quantity` lots of `instrument`; a new position must have room (`margin._can_hold`).
    """
    changed: Account = account
    count: uint256 = changed.position_count
    place: uint256 = self._find(changed, instrument)
    packed: uint256 = (instrument << 64) | unsafe_add(convert(convert(quantity, bytes32), uint256), constants.QUANTITY_BIAS)
    if place < count and changed.positions[place] >> 64 == instrument:
        if quantity != 0:
            changed.positions[place] = packed
            return changed
        changed.position_count = unsafe_sub(count, 1)  # count > place
        for i: uint256 in range(63):
            if i >= place:
                changed.positions[i] = changed.positions[unsafe_add(i, 1)]  # what moves in from beyond is never read
        return changed
    if quantity == 0 or count >= constants.POSITIONS_MAX:
        return changed
    changed.position_count = unsafe_add(count, 1)  # <= 64
    carried: uint256 = packed
    for i: uint256 in range(place, unsafe_add(count, 1), bound=64):
        next: uint256 = changed.positions[i]
        changed.positions[i] = carried
        carried = next
    return changed
