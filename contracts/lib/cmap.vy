# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Crit-bit Merkle map: verification of a read
@license MIT
@notice Twin of `sequencer/protocol/cmap.py`. leaf = keccak(key || entry), node = keccak(bit || left || right) with
        bit = 2^(branch position), empty map = 0. A path is the set of its branch bits (`bitmap`) and the hashes beside
        it, the leaf's own first.
@custom:security A leaf's preimage has 64 bytes and a node's 96, so that neither can stand for the other. The key is
        part of the leaf and the branch bit part of the node: a path that folds to the root proves the entry, whatever
        the bitmap claims.
@custom:kill Nothing: it holds no state and no privilege.
"""

PATH_MAX: constant(uint256) = 256  # branches: one per bit of a key


@internal
@pure
def _leaf_hash(key: uint256, entry: uint256) -> bytes32:
    """
    @notice Hash of one entry.
    """
    return keccak256(abi_encode(key, entry))


@internal
@pure
def _node_hash(bit: uint256, left: bytes32, right: bytes32) -> bytes32:
    """
    @notice Hash of a branch: keys with `bit` clear lie to the left.
    """
    return keccak256(abi_encode(bit, left, right))


@internal
@pure
def _fold(key: uint256, leaf: bytes32, bitmap: uint256, siblings: DynArray[bytes32, PATH_MAX]) -> bytes32:
    """
    @notice Root that follows from `leaf` at `key`, its branch bits and its siblings, leaf first.
    @dev The caller has checked that there are as many siblings as bits (`_read`): the indexing reverts on too few.
    """
    node: bytes32 = leaf
    branches: uint256 = bitmap
    for sibling: bytes32 in siblings:
        bit: uint256 = branches & unsafe_sub(0, branches)  # the lowest one left; 0 when none is left
        branches ^= bit
        if key & bit == 0:
            node = self._node_hash(bit, node, sibling)
        else:
            node = self._node_hash(bit, sibling, node)
    return node


@internal
@pure
def _count(bitmap: uint256) -> uint256:
    """
    @notice How many bits of `bitmap` are set.
    """
    branches: uint256 = bitmap
    count: uint256 = 0
    for _: uint256 in range(PATH_MAX):
        if branches == 0:
            break
        branches &= unsafe_sub(branches, 1)  # clears the lowest bit; branches > 0
        count = unsafe_add(count, 1)  # <= 256
    return count


@internal
@pure
def _read(
    root: bytes32, key: uint256, entry: uint256, bitmap: uint256, siblings: DynArray[bytes32, PATH_MAX]
) -> bool:
    """
    @notice Whether the map of `root` holds `entry` at `key`.
    @param bitmap Branch bits on the way from the root to the key.
    @param siblings Hash beside the path at each of those bits, the lowest bit first; exactly as many as bits.
    """
    if len(siblings) != self._count(bitmap):
        return False
    return self._fold(key, self._leaf_hash(key, entry), bitmap, siblings) == root
