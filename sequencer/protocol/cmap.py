"""The crit-bit Merkle map that holds the state; twin of `contracts/lib/cmap.vy`.

Keys and values are words, integers in 0 .. 2^256-1. With 32-byte big-endian words:

    leaf = keccak(key ‖ value)                 64 bytes hashed
    node = keccak(bit ‖ left ‖ right)          96 bytes hashed, bit = 2^(branch position)
    empty map = 32 zero bytes

A node branches at the highest bit in which the keys below it differ; keys with that bit clear are on its
left. Hence the leaves stand in key order, the shape (and so the root) depends on the entries and not on their
history, and a proof has about log2(entries) siblings however wide the keys are. Undoing a change by its
inverse restores the root exactly.

Why it cannot be confused: leaf and node differ in the length of what is hashed, and `bit` is inside the
node's hash, so a verified path reveals at which bits its tree really branches. A **path** is the bitmap of
those bits and the siblings, leaf first, that is by rising bit.

Value 0 is an ordinary value. Presence is the existence of the leaf, keccak(key ‖ 0) is as good a leaf as any
other, and absence is always proved by a neighbour, never by a value; no function here treats 0 apart.

Long because it is one data structure: its changes, its proofs, and what chooses between Python and C.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from sequencer.protocol.hashing import keccak

try:
    from sequencer._kernel import cmap_kernel as _kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _kernel = None  # type: ignore[assignment]  # a module or nothing

if TYPE_CHECKING:
    from collections.abc import Iterable

WORD_MAX: Final = (1 << 256) - 1
EMPTY_ROOT: Final = bytes(32)

_BITS: Final = tuple(1 << position for position in range(256))
_BIT_WORDS: Final = tuple(bit.to_bytes(32, "big") for bit in _BITS)


# -------------------------------------------------------------------------------------------------- hashes


def leaf_hash(key: int, value: int) -> bytes:
    """Hash of an entry; OverflowError if key or value is not a word."""
    return keccak(key.to_bytes(32, "big") + value.to_bytes(32, "big"))


def node_hash(bit: int, left: bytes, right: bytes) -> bytes:
    """Hash of a branch at `bit` = 2^position over two 32-byte hashes; OverflowError if `bit` is no word."""
    return keccak(bit.to_bytes(32, "big") + left + right)


# ----------------------------------------------------------------------------------------------- witnesses


@dataclass(frozen=True, slots=True)
class Path:
    """The way from a leaf to the root: branch bits as a bitmap, a 32-byte sibling for each, leaf first."""

    bitmap: int
    siblings: tuple[bytes, ...]

    def words(self) -> list[int]:
        """Calldata order of cmap.vy: bitmap, siblings. Key and value travel with the caller."""
        return [self.bitmap, *_sibling_words(self.siblings)]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The entry beside which a key is missing, its path, and the bit at which the two part.

    Shows absence, and places an insertion. In an empty map there is no neighbour: `NO_NEIGHBOUR`, the only
    one with bit 0, has no words.
    """

    key: int
    value: int
    bitmap: int
    bit: int
    siblings: tuple[bytes, ...]

    def words(self) -> list[int]:
        """Calldata order of cmap.vy: key, value, bitmap, bit, siblings; nothing for the empty map."""
        if self.bit == 0:
            return []
        return [self.key, self.value, self.bitmap, self.bit, *_sibling_words(self.siblings)]


NO_NEIGHBOUR: Final = Neighbour(0, 0, 0, 0, ())


def _sibling_words(siblings: tuple[bytes, ...]) -> list[int]:
    return [int.from_bytes(sibling, "big") for sibling in siblings]


# -------------------------------------------------------------------------------------------- verification
# Total: a witness comes from an adversary, so whatever it holds, the answer is False or None.


def read(root: bytes, key: int, value: int, path: Path) -> bool:
    """Does the map of `root` hold `value` at `key`?"""
    return _are_words(key, value) and _is_path(path) and _fold_path(key, leaf_hash(key, value), path) == root


def write(root: bytes, key: int, old: int, new: int, path: Path) -> bytes | None:
    """Root after `key` goes from `old` to `new`; None if the map of `root` does not hold `old` there."""
    if not _are_words(new) or not read(root, key, old, path):
        return None
    return _fold_path(key, leaf_hash(key, new), path)


def remove(root: bytes, key: int, old: int, path: Path) -> bytes | None:
    """Root after `key` is taken out; None if the map of `root` does not hold `old` there."""
    if not read(root, key, old, path):
        return None
    if path.bitmap == 0:
        return EMPTY_ROOT
    # The lowest branch collapses: its other side, which `read` has just bound to the root, takes its place.
    lowest = path.bitmap & -path.bitmap
    return _fold(key, path.siblings[0], path.bitmap ^ lowest, path.siblings[1:])


def insert(root: bytes, key: int, value: int, witness: Neighbour) -> bytes | None:
    """Root after `key`, absent until now, gets `value`; None if the witness does not show its absence."""
    if not _are_words(key, value):
        return None
    if root == EMPTY_ROOT:
        return leaf_hash(key, value) if witness == NO_NEIGHBOUR else None
    if not absent_prefix(root, key, 0, witness):
        return None
    bit = witness.bit
    below = witness.bitmap & (bit - 1)
    split = below.bit_count()
    displaced = _fold(witness.key, leaf_hash(witness.key, witness.value), below, witness.siblings[:split])
    added = leaf_hash(key, value)
    branch = node_hash(bit, displaced, added) if key & bit else node_hash(bit, added, displaced)
    return _fold(witness.key, branch, witness.bitmap ^ below, witness.siblings[split:])


def absent_prefix(root: bytes, prefix: int, low_mask: int, witness: Neighbour) -> bool:
    """Is there no key k with `k & ~low_mask == prefix`?

    `low_mask` is 2^j - 1 and disjoint from `prefix`; 0 asks for the absence of one key. The neighbour parts
    from the prefix at a bit above the mask where the tree does not branch, and any key with the prefix would
    have made it branch there.
    """
    if not _are_words(prefix, low_mask) or low_mask & (low_mask + 1) or prefix & low_mask:
        return False
    if root == EMPTY_ROOT:
        return witness == NO_NEIGHBOUR
    if not isinstance(witness, Neighbour) or not _are_words(witness.key, witness.value, witness.bit):
        return False
    bit = witness.bit
    if bit <= low_mask or bit.bit_length() != (prefix ^ witness.key).bit_length() or bit & (bit - 1):
        return False
    path = Path(witness.bitmap, witness.siblings)
    return not path.bitmap & bit if read(root, witness.key, witness.value, path) else False


def _are_words(*numbers: object) -> bool:
    return all(isinstance(number, int) and 0 <= number <= WORD_MAX for number in numbers)


def _is_path(path: Path) -> bool:
    return (
        isinstance(path, Path)
        and _are_words(path.bitmap)
        and isinstance(path.siblings, tuple)
        and path.bitmap.bit_count() == len(path.siblings)
        and all(isinstance(sibling, bytes) and len(sibling) == 32 for sibling in path.siblings)
    )


def _fold_path(key: int, leaf: bytes, path: Path) -> bytes:
    return _fold(key, leaf, path.bitmap, path.siblings)


def _fold(key: int, node: bytes, bitmap: int, siblings: tuple[bytes, ...]) -> bytes:
    """Root above `node`, by rising bit; len(siblings) is the number of bits of the bitmap."""
    for sibling in siblings:
        bit = bitmap & -bitmap
        bitmap ^= bit
        node = node_hash(bit, sibling, node) if key & bit else node_hash(bit, node, sibling)
    return node


# ----------------------------------------------------------------------------------------------------- map

_DIRTY: Final = b""


class _Node:
    """Branch (bit > 0: left, right) or leaf (bit = 0: key, value); the slots of the other kind stay unset.

    One class for both keeps the attribute reads of a descent monomorphic, which the interpreter rewards.
    """

    __slots__ = ("bit", "hash", "head", "key", "left", "right", "value")

    bit: int
    head: bytes  # first 32 bytes of what is hashed: bit or key
    hash: bytes  # _DIRTY until the next root()
    left: _Node
    right: _Node
    key: int
    value: int

    def __init__(self, bit: int, head: bytes) -> None:
        self.bit = bit
        self.head = head
        self.hash = _DIRTY


_bit_of: Final = attrgetter("bit")


class _Witnesses:
    """The witnesses, by one descent that each implementation of the map supplies."""

    __slots__ = ()

    def _descend(self, key: int) -> tuple[int, int, int, tuple[bytes, ...]] | None:
        """Follow `key` to a leaf: its key, value, bitmap, siblings. None in an empty map."""
        raise NotImplementedError

    def path(self, key: int) -> Path:
        """Path of a present key; KeyError if absent."""
        found = self._descend(key) if 0 <= key <= WORD_MAX else None
        if found is None or found[0] != key:
            raise KeyError(key)
        return Path(found[2], found[3])

    def insert_witness(self, key: int) -> Neighbour:
        """Witness for `insert`; KeyError if present, ValueError if not a word. Make it before the put."""
        return self.empty_prefix_witness(key, 0)

    def absence_witness(self, key: int) -> Neighbour:
        """Witness for `absent_prefix(root, key, 0, ...)`; KeyError if present, ValueError if not a word."""
        return self.empty_prefix_witness(key, 0)

    def empty_prefix_witness(self, prefix: int, low_mask: int) -> Neighbour:
        """Witness for `absent_prefix`; KeyError if a key has the prefix, ValueError as `first_in_prefix`."""
        _check_prefix(prefix, low_mask)
        found = self._descend(prefix)
        if found is None:
            return NO_NEIGHBOUR
        key, value, bitmap, siblings = found
        difference = key ^ prefix
        if difference <= low_mask:
            raise KeyError(prefix)
        return Neighbour(key, value, bitmap, _BITS[difference.bit_length() - 1], siblings)


class PureMap(_Witnesses):
    """The map in Python. Changes mark the nodes on their way dirty; `root` hashes each dirty node once."""

    __slots__ = ("_dirty_branches", "_dirty_leaves", "_leaves", "_marked", "_ordered", "_top")

    def __init__(self) -> None:
        self._top: _Node | None = None
        self._leaves: dict[int, _Node] = {}  # get in O(1), and tells an update from an insertion
        # What root() must hash; may name deleted nodes, and hashing those is wasted, not wrong.
        self._dirty_leaves: list[_Node] = []
        self._dirty_branches: list[_Node] = []
        self._marked: list[bytes] = []
        self._ordered = True  # parents before children in _dirty_branches

    def __len__(self) -> int:
        return len(self._leaves)

    def get(self, key: int) -> int | None:
        """Value at `key`, None if absent."""
        leaf = self._leaves.get(key)
        return None if leaf is None else leaf.value

    def put(self, key: int, value: int) -> None:
        """Set `key` to `value`, whether it was present or not; ValueError if either is not a word."""
        if not 0 <= value <= WORD_MAX:
            raise ValueError(f"not a word: value {value}")
        leaf = self._leaves.get(key)
        if leaf is None:
            self._insert(key, value)
            return
        if leaf.value == value:
            return
        leaf.value = value
        if not leaf.hash:
            return  # above a dirty leaf every node is dirty already
        leaf.hash = _DIRTY
        self._dirty_leaves.append(leaf)
        mark = self._dirty_branches.append
        node = self._top
        assert node is not None
        while node is not leaf:
            if node.hash:
                node.hash = _DIRTY
                mark(node)
            node = node.right if key & node.bit else node.left

    def put_leaf(self, leaf: bytes) -> None:
        """Set a key to a value, 32 bytes each, as `put`; ValueError if there are not 64."""
        if len(leaf) != 64:
            raise ValueError(f"a leaf has 64 bytes, not {len(leaf)}")
        self.put(int.from_bytes(leaf[:32], "big"), int.from_bytes(leaf[32:], "big"))

    def put_words(self, key: int, words: bytes) -> None:
        """Set `key` to keccak(words), as `put`."""
        self.put(key, int.from_bytes(keccak(words), "big"))

    def _insert(self, key: int, value: int) -> None:
        if not 0 <= key <= WORD_MAX:
            raise ValueError(f"not a word: key {key}")
        leaf = _Node(0, key.to_bytes(32, "big"))
        leaf.key = key
        leaf.value = value
        self._leaves[key] = leaf
        self._dirty_leaves.append(leaf)
        top = self._top
        if top is None:
            self._top = leaf
            return
        node = top
        while node.bit:
            node = node.right if key & node.bit else node.left
        position = (key ^ node.key).bit_length() - 1
        bit = _BITS[position]
        branch = _Node(bit, _BIT_WORDS[position])
        mark = self._dirty_branches.append
        above: _Node | None = None
        node = top
        while node.bit > bit:
            if node.hash:
                node.hash = _DIRTY
                mark(node)
            above = node
            node = node.right if key & node.bit else node.left
        if not node.hash:
            self._ordered = False  # the new branch is marked after the dirty one that it will stand above
        mark(branch)
        branch.left, branch.right = (node, leaf) if key & bit else (leaf, node)
        self._attach(above, key, branch)

    def delete(self, key: int) -> None:
        """Take `key` out; KeyError if absent."""
        leaf = self._leaves.pop(key)
        mark = self._dirty_branches.append
        above: _Node | None = None
        parent: _Node | None = None
        node = self._top
        assert node is not None
        while node is not leaf:
            if node.hash:
                node.hash = _DIRTY
                mark(node)
            above = parent
            parent = node
            node = node.right if key & node.bit else node.left
        if parent is None:
            self._top = None
        else:
            self._attach(above, key, parent.left if key & parent.bit else parent.right)

    def _attach(self, above: _Node | None, key: int, node: _Node) -> None:
        if above is None:
            self._top = node
        elif key & above.bit:
            above.right = node
        else:
            above.left = node

    def root(self) -> bytes:
        """Root of the map, 32 bytes; hashes what changed since the last call."""
        top = self._top
        if top is None:
            return EMPTY_ROOT
        if top.hash:
            return top.hash
        digest = keccak
        for leaf in self._dirty_leaves:
            leaf.hash = digest(leaf.head + leaf.value.to_bytes(32, "big"))
        self._dirty_leaves.clear()
        branches = self._dirty_branches
        if not self._ordered:
            branches.sort(key=_bit_of, reverse=True)  # a parent branches at a higher bit than its children
            self._ordered = True
        for node in reversed(branches):
            node.hash = digest(node.head + node.left.hash + node.right.hash)
        branches.clear()
        return top.hash

    def mark(self) -> int:
        """Notes the root as it is now for `roots`; its place among those noted. C hashes it later, with others."""
        self._marked.append(self.root())
        return len(self._marked) - 1

    def roots(self) -> list[bytes]:
        """The roots that were noted since the last call, 32 bytes each."""
        noted, self._marked = self._marked, []
        return noted

    def items(self) -> list[tuple[int, int]]:
        """All entries in key order."""
        entries: list[tuple[int, int]] = []
        pending = [] if self._top is None else [self._top]
        while pending:
            node = pending.pop()
            while node.bit:
                pending.append(node.right)
                node = node.left
            entries.append((node.key, node.value))
        return entries

    @classmethod
    def build(cls, items: Iterable[tuple[int, int]]) -> PureMap:
        """Map of many entries, sorted by key and distinct, in linear time.

        Raises ValueError if they are not sorted and distinct, or not words.
        """
        made = cls()
        # Millions of small objects, none of them garbage: collections would take three quarters of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            made._append_all(items)
        finally:
            if collecting:
                gc.enable()
        return made

    def _append_all(self, items: Iterable[tuple[int, int]]) -> None:
        leaves = self._leaves
        mark = self._dirty_branches.append
        spine: list[_Node] = []  # branches from the top to the last leaf along the right edge; bits fall
        last: _Node | None = None
        for key, value in items:
            if not (0 <= value <= WORD_MAX and (-1 if last is None else last.key) < key <= WORD_MAX):
                raise ValueError(f"not a word, or not in rising order: {key}: {value}")
            leaf = _Node(0, key.to_bytes(32, "big"))
            leaf.key = key
            leaf.value = value
            leaves[key] = leaf
            if last is not None:
                position = (key ^ last.key).bit_length() - 1
                bit = _BITS[position]
                left = last
                while spine and spine[-1].bit < bit:
                    left = spine.pop()
                branch = _Node(bit, _BIT_WORDS[position])
                branch.left = left
                branch.right = leaf
                if spine:
                    spine[-1].right = branch
                spine.append(branch)
                mark(branch)
            last = leaf
        self._top = spine[0] if spine else last
        self._dirty_leaves = list(leaves.values())
        self._ordered = False

    def first_in_prefix(self, prefix: int, low_mask: int) -> tuple[int, int] | None:
        """Entry with the smallest key k such that `k & ~low_mask == prefix`, None if there is none.

        Raises ValueError unless both are words, `low_mask` is 2^j - 1 and `prefix` has none of its bits.
        """
        _check_prefix(prefix, low_mask)
        node = self._top
        if node is None:
            return None
        while node.bit > low_mask:
            node = node.right if prefix & node.bit else node.left
        while node.bit:
            node = node.left
        return (node.key, node.value) if node.key ^ prefix <= low_mask else None

    def _descend(self, key: int) -> tuple[int, int, int, tuple[bytes, ...]] | None:
        self.root()  # siblings must be clean
        node = self._top
        if node is None:
            return None
        bitmap = 0
        siblings: list[bytes] = []
        while node.bit:
            bitmap |= node.bit
            if key & node.bit:
                siblings.append(node.left.hash)
                node = node.right
            else:
                siblings.append(node.right.hash)
                node = node.left
        siblings.reverse()
        return node.key, node.value, bitmap, tuple(siblings)


def _check_prefix(prefix: int, low_mask: int) -> None:
    if not (0 <= prefix <= WORD_MAX and 0 <= low_mask <= WORD_MAX):
        raise ValueError(f"not a word: prefix {prefix}, mask {low_mask}")
    if low_mask & (low_mask + 1) or prefix & low_mask:
        raise ValueError(f"not 2^j - 1, or not disjoint: mask {low_mask:#x}, prefix {prefix:#x}")


# ----------------------------------------------------------------------------------------------------- C twin

if TYPE_CHECKING or _kernel is None:
    Map = PureMap
else:

    class KernelMap(_kernel.Map, _Witnesses):
        """The map in C: the same entries, roots and witnesses as `PureMap`, several times faster."""

        __slots__ = ()

    Map = KernelMap
