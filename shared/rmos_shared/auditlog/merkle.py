"""The Merkle tree of RFC 6962: its hashes, its proofs and their verification. Pure.

A *node* is the root of a complete subtree: ``node(level, index)`` covers the leaves from ``index * 2**level``
to just before ``(index + 1) * 2**level``. Where nodes come from (a list of leaves, tiles on a disk) is the
caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

#: Bytes of a hash.
HASH_BYTES = 32
#: The root of the tree without leaves.
EMPTY_ROOT = sha256(b"").digest()

#: Gives the root of a complete subtree by its level (0: leaves) and its index in that level.
Node = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of an entry as a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two others."""
    return sha256(b"\x01" + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root of a complete subtree from the hashes of one of its levels; there are 2**k of them."""
    row = list(hashes)
    while len(row) > 1:
        row = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row), 2)]
    return row[0]


def nodes_of(leaves: Sequence[bytes]) -> Node:
    """Return the nodes of a tree in memory, by the hashes of its leaves."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
    return lambda level, index: levels[level][index]


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree with these leaf hashes."""
    return tree_root(nodes_of(leaves), len(leaves))


def tree_root(node: Node, size: int) -> bytes:
    """Return the root of the tree of the first ``size`` leaves."""
    return _range(node, 0, size) if size else EMPTY_ROOT


def inclusion_proof(node: Node, index: int, size: int) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of ``size`` leaves, from its sibling upwards.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range(node, middle, end))
            end = middle
        else:
            path.append(_range(node, start, middle))
            start = middle
    path.reverse()
    return path


def consistency_proof(node: Node, old_size: int, new_size: int) -> list[bytes]:
    """Return the proof that the tree of ``new_size`` leaves continues the one of ``old_size``.

    It is empty where there is nothing to prove: for the empty tree, and for two of one size.

    Raises:
        ValueError: the old size is negative or larger than the new one.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(f"a tree of {new_size} leaves does not continue one of {old_size}")
    if old_size in {0, new_size}:
        return []
    path: list[bytes] = []
    start, end = 0, new_size
    whole = True  # Whether the old tree's part of what is left is all of the old tree.
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(_range(node, middle, end))
            end = middle
        else:
            path.append(_range(node, start, middle))
            start = middle
            whole = False
    if not whole:
        path.append(_range(node, start, end))
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether ``proof`` shows that the leaf hash is at ``index`` in the tree of this size and root."""
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    place, last, result = index, size - 1, leaf
    for other in proof:
        if last == 0:
            return False  # longer than the way up
        if place & 1 or place == last:
            result = node_hash(other, result)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            result = node_hash(result, other)
        place, last = place >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Say whether ``proof`` shows that the new tree holds the old one's leaves, first and in their order."""
    if not 0 <= old_size <= new_size or not _are_hashes(old_root, new_root, *proof):
        return False
    if old_size == 0 and old_root != EMPTY_ROOT:
        return False
    if old_size in {0, new_size}:
        return not proof and (old_size != new_size or old_root == new_root)
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    rest = iter(proof)
    # Where the old tree is complete its own root is the first node of the proof, and left out of it.
    first = old_root if place == 0 else next(rest, None)
    if first is None:
        return False
    old = new = first
    for other in rest:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = node_hash(other, old), node_hash(other, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, other)
        place, last = place >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _range(node: Node, start: int, end: int) -> bytes:
    """Return the hash over the leaves from ``start`` to before ``end``: a range as trees are split."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(size)
    return node_hash(_range(node, start, middle), _range(node, middle, end))


def _split(size: int) -> int:
    """Return the largest power of two below ``size``, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
