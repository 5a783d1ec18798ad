"""The Merkle tree of RFC 6962 a second time, for tests: its definitions as they stand there, nothing clever.

It shares no line with the product, splits lists where that counts in levels, and proves by building the tree
again from the proof, from above, where that walks up with shifted indexes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache


def _leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class ReferenceTree:
    """A tree of entries, and every shorter one. It remembers hashes of ranges: many proofs are quick."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self._leaves = [_leaf(entry) for entry in entries]
        self._known: dict[tuple[int, int], bytes] = {}

    def mth(self, first: int, last: int) -> bytes:
        """Return MTH(D[first:last]), section 2.1."""
        if first == last:
            return hashlib.sha256().digest()
        if last - first == 1:
            return self._leaves[first]
        known = self._known.get((first, last))
        if known is None:
            middle = first + largest_power_below(last - first)
            known = self._known[first, last] = _parent(self.mth(first, middle), self.mth(middle, last))
        return known

    def path(self, wanted: int, first: int, last: int) -> list[bytes]:
        """Return PATH(wanted, D[first:last]), section 2.1.1."""
        if last - first == 1:
            return []
        middle = first + largest_power_below(last - first)
        if wanted < middle:
            below, beside = self.path(wanted, first, middle), self.mth(middle, last)
        else:
            below, beside = self.path(wanted, middle, last), self.mth(first, middle)
        below.append(beside)
        return below

    def proof(self, older: int, newer: int) -> list[bytes]:
        """Return PROOF(older, D[:newer]), section 2.1.2; 0 < older."""
        return self._subproof(older, 0, newer, known=True)

    def _subproof(self, older: int, first: int, last: int, *, known: bool) -> list[bytes]:
        if older == last - first:
            return [] if known else [self.mth(first, last)]
        half = largest_power_below(last - first)
        if older <= half:
            below = self._subproof(older, first, first + half, known=known)
            below.append(self.mth(first + half, last))
        else:
            below = self._subproof(older - half, first + half, last, known=False)
            below.append(self.mth(first, first + half))
        return below


@cache
def largest_power_below(count: int) -> int:
    """Return k of the RFC: the largest power of two smaller than ``count``."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def root_of_path(leaf: bytes, wanted: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to; None where it is not as long as it must be."""
    return _root(leaf, wanted, count, path, len(path))


def _root(leaf: bytes, wanted: int, count: int, path: Sequence[bytes], used: int) -> bytes | None:
    """Go by the first ``used`` hashes of the path."""
    if count == 1:
        return None if used else leaf
    if not used:
        return None
    half = largest_power_below(count)
    if wanted < half:
        below = _root(leaf, wanted, half, path, used - 1)
        return None if below is None else _parent(below, path[used - 1])
    below = _root(leaf, wanted - half, count - half, path, used - 1)
    return None if below is None else _parent(path[used - 1], below)


def roots_of_proof(
    older: int, newer: int, proof: Sequence[bytes], old_root: bytes
) -> tuple[bytes, bytes] | None:
    """Return the roots of both trees that a proof leads to; None where it is not as long as it must be."""
    return _roots(older, newer, proof, len(proof), old_root)


def _roots(
    older: int, count: int, proof: Sequence[bytes], used: int, known: bytes | None
) -> tuple[bytes, bytes] | None:
    """Go by the first ``used`` hashes of the proof; ``known``: the root, where this is the whole old tree."""
    if older == count:
        if known is not None:
            return None if used else (known, known)
        return (proof[0], proof[0]) if used == 1 else None
    if not used:
        return None
    half = largest_power_below(count)
    other = proof[used - 1]
    if older <= half:
        below = _roots(older, half, proof, used - 1, known)
        return None if below is None else (below[0], _parent(below[1], other))
    below = _roots(older - half, count - half, proof, used - 1, None)
    return None if below is None else (_parent(other, below[0]), _parent(other, below[1]))
