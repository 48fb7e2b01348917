# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Crit-bit Merkle map
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


# --- the root that a witness moves -----------------------------------------------------------------------------------
# What follows is for verifiers: witness words stand in calldata and are consumed in order. A wrong one reverts, so that
# whatever returns was true of the root. One path has as many siblings as its bitmap has bits: none can be left over.

root: transient(bytes32)  # of the map as the record has left it so far
cursor: transient(uint256)  # calldata offset of the next witness word, bytes


@internal
def _begin(root: bytes32, start: uint256):
    """
    @notice The map of `root` is the one of which the witness at calldata offset `start` speaks.
    """
    self.root = root
    self.cursor = start


@internal
@view
def _word_at(offset: uint256) -> uint256:
    """
    @notice Word at a calldata offset; reverts beyond the end.
    """
    return convert(slice(msg.data, offset, 32), uint256)


@internal
def _word() -> uint256:
    """
    @notice Next word of the witness.
    """
    offset: uint256 = self.cursor
    self.cursor = unsafe_add(offset, 32)  # the slice bounds it by the calldata
    return convert(slice(msg.data, offset, 32), uint256)


@internal
@view
def _climb(key: uint256, leaf: bytes32, bitmap: uint256, start: uint256) -> (bytes32, uint256):
    """
    @notice Root above `leaf`, whose siblings stand from calldata offset `start`, and where they end.
    """
    node: bytes32 = leaf
    branches: uint256 = bitmap
    offset: uint256 = start
    for _: uint256 in range(PATH_MAX):
        if branches == 0:
            break
        bit: uint256 = branches & unsafe_sub(0, branches)
        branches ^= bit
        if key & bit == 0:
            node = keccak256(abi_encode(bit, node, convert(slice(msg.data, offset, 32), bytes32)))
        else:
            node = keccak256(abi_encode(bit, convert(slice(msg.data, offset, 32), bytes32), node))
        offset = unsafe_add(offset, 32)
    return node, offset


@internal
def _climb_both(key: uint256, old: bytes32, new: bytes32, bitmap: uint256):
    """
    @notice Takes the root from the one above `old`, which it must be, to the one above `new`; siblings are the next words.
    """
    before: bytes32 = old
    after: bytes32 = new
    branches: uint256 = bitmap
    offset: uint256 = self.cursor
    for _: uint256 in range(PATH_MAX):
        if branches == 0:
            break
        bit: uint256 = branches & unsafe_sub(0, branches)
        branches ^= bit
        sibling: bytes32 = convert(slice(msg.data, offset, 32), bytes32)
        offset = unsafe_add(offset, 32)
        if key & bit == 0:
            before = keccak256(abi_encode(bit, before, sibling))
            after = keccak256(abi_encode(bit, after, sibling))
        else:
            before = keccak256(abi_encode(bit, sibling, before))
            after = keccak256(abi_encode(bit, sibling, after))
    assert before == self.root, "witness: path"
    self.root = after
    self.cursor = offset


@internal
def _reach(key: uint256, leaf: bytes32, bitmap: uint256, start: uint256):
    """
    @notice The root is the one above `leaf`, whose siblings stand from calldata offset `start`: the witness goes on behind them.
    """
    node: bytes32 = empty(bytes32)
    end: uint256 = 0
    node, end = self._climb(key, leaf, bitmap, start)
    assert node == self.root, "witness: path"
    self.cursor = end


@internal
def _prove(key: uint256, entry: uint256) -> uint256:
    """
    @notice The map holds `entry` at `key`. Returns the calldata offset of the path, for `_replace` and `_remove`.
    """
    path: uint256 = self.cursor
    self._reach(key, self._leaf_hash(key, entry), self._word_at(path), unsafe_add(path, 32))
    return path


@internal
def _replace(key: uint256, entry: uint256, path: uint256):
    """
    @notice `entry` comes to stand at `key`, whose `path` has been proved since the root last moved.
    """
    self.root = self._climb(key, self._leaf_hash(key, entry), self._word_at(path), unsafe_add(path, 32))[0]


@internal
def _remove(key: uint256, path: uint256):
    """
    @notice `key`, whose `path` has been proved since the root last moved, is taken out: its lowest branch collapses, and
            the other side, which the proof has bound to the root, takes its place.
    """
    bitmap: uint256 = self._word_at(path)
    if bitmap == 0:
        self.root = empty(bytes32)
        return
    sibling: bytes32 = convert(self._word_at(unsafe_add(path, 32)), bytes32)
    self.root = self._climb(key, sibling, bitmap & unsafe_sub(bitmap, 1), unsafe_add(path, 64))[0]


@internal
def _write(key: uint256, old: uint256, new: uint256):
    """
    @notice `key` goes from `old` to `new`; witness: path.
    """
    self._climb_both(key, self._leaf_hash(key, old), self._leaf_hash(key, new), self._word())


@internal
def _neighbour(prefix: uint256, low_mask: uint256) -> (uint256, bytes32, uint256, uint256):
    """
    @notice Reads key, entry, bitmap and bit of a neighbour and checks that the tree does not branch where the two part;
            returns key, leaf, bitmap, bit. The caller must still prove the leaf.
    """
    key: uint256 = self._word()
    leaf: bytes32 = self._leaf_hash(key, self._word())
    bitmap: uint256 = self._word()
    bit: uint256 = self._word()
    difference: uint256 = prefix ^ key
    # a power of two above the mask, the highest bit of the difference, and no branch of the path
    assert (
        bit > low_mask
        and bit & unsafe_sub(bit, 1) == 0
        and bit <= difference
        and difference >> 1 < bit
        and bitmap & bit == 0
    ), "witness: bit"
    return key, leaf, bitmap, bit


@internal
def _absent(prefix: uint256, low_mask: uint256):
    """
    @notice No key k has `k & ~low_mask == prefix`; witness: neighbour. The mask is 2^j - 1, 0 for one key. Of a map that
            is not empty: a state never is.
    """
    key: uint256 = 0
    leaf: bytes32 = empty(bytes32)
    bitmap: uint256 = 0
    bit: uint256 = 0
    key, leaf, bitmap, bit = self._neighbour(prefix, low_mask)
    self._reach(key, leaf, bitmap, self.cursor)


@internal
def _insert(key: uint256, entry: uint256):
    """
    @notice `key`, absent until now, gets `entry`; witness: neighbour. Of a map that is not empty.
    """
    other: uint256 = 0
    displaced: bytes32 = empty(bytes32)
    bitmap: uint256 = 0
    bit: uint256 = 0
    other, displaced, bitmap, bit = self._neighbour(key, 0)
    low: uint256 = unsafe_sub(bit, 1)  # bit > 0
    end: uint256 = 0
    displaced, end = self._climb(other, displaced, bitmap & low, self.cursor)
    self.cursor = end
    added: bytes32 = self._leaf_hash(key, entry)
    branch: bytes32 = empty(bytes32)
    if key & bit == 0:
        branch = self._node_hash(bit, added, displaced)
    else:
        branch = self._node_hash(bit, displaced, added)
    self._climb_both(other, displaced, branch, bitmap & ~low)
