"""Every proof there is, of every tree up to a size, held against two other implementations.

The tests do so for small ones. The 25 million of 5,000 entries take a quarter of an hour of one core, and
twice that with pymerkle::

    PYTHONPATH=tests .venv/bin/python -m support.every_proof --size 5000 --no-pymerkle
"""

from __future__ import annotations

import argparse
import time

import pymerkle

from rmos_shared.auditlog import merkle
from support.merkle_reference import ReferenceTree, roots_of_proof


class Everything:
    """All proofs of the trees of ``size`` made-up entries."""

    def __init__(self, size: int, *, peer: bool = True) -> None:
        entries = [b"entry %d" % number for number in range(size)]
        self.reference = ReferenceTree(entries)
        self.leaves = [merkle.leaf_hash(entry) for entry in entries]
        self.peer = pymerkle.InmemoryTree(algorithm="sha256") if peer else None
        if self.peer is not None:
            for entry in entries:
                self.peer.append_entry(entry)
        self.roots = [self.reference.mth(0, count) for count in range(size + 1)]
        if self.peer is not None:
            assert self.roots == [self.peer.get_root(count) for count in range(size + 1)]

    def check(self, size: int) -> int:
        """Check every proof that ends in the tree of ``size`` entries; return how many these were."""
        node = merkle.nodes_of(self.leaves[:size])
        root = merkle.tree_root(node, size)
        assert root == self.roots[size]
        for index in range(size):
            proof = merkle.inclusion_proof(node, index, size)
            assert proof == self.reference.path(index, 0, size)
            assert merkle.verify_inclusion(self.leaves[index], index, size, proof, root)
            if self.peer is not None:
                assert proof == self.peer.prove_inclusion(index + 1, size).path[1:]
        for older in range(1, size + 1):
            proof = merkle.consistency_proof(node, older, size)
            assert proof == self.reference.proof(older, size)
            assert merkle.verify_consistency(older, self.roots[older], size, root, proof)
            # Proofs of pymerkle of this kind go deeper than the RFC has them; it has agreed on the roots.
            assert roots_of_proof(older, size, proof, self.roots[older]) == (self.roots[older], root)
        return 2 * size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=5_000, help="entries of the largest tree")
    parser.add_argument("--first", type=int, default=0, help="entries of the smallest one")
    parser.add_argument("--no-pymerkle", action="store_true", help="leave out the second implementation")
    options = parser.parse_args()
    everything = Everything(options.size, peer=not options.no_pymerkle)
    began = time.monotonic()
    proofs = 0
    for size in range(options.first, options.size + 1):
        proofs += everything.check(size)
        if size % 250 == 0:
            seconds = time.monotonic() - began
            print(f"trees up to {size}: {proofs:,} proofs right, {seconds:,.0f} s", flush=True)  # noqa: T201
    print(f"all {proofs:,} proofs of trees of {options.first} to {options.size} entries are right")  # noqa: T201


if __name__ == "__main__":
    main()
