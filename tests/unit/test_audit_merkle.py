"""The Merkle tree against published vectors and other implementations, and against what must be refused."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_shared.auditlog import merkle
from rmos_shared.auditlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from support.every_proof import Everything
from support.merkle_reference import ReferenceTree, root_of_path, roots_of_proof

# -- the vectors of Certificate Transparency's own implementations -------------------------------------

ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
#: Of the trees of 0 to 8 of these.
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
A, B = ROOTS[1], "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
CD = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
E = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
EF = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
GH = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
EFGH = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
#: Index, size, path.
INCLUSION = [
    (0, 1, []),
    (0, 8, [B, CD, EFGH]),
    (5, 8, [E, GH, ROOTS[4].hex()]),
    (2, 3, [ROOTS[2].hex()]),
    (1, 5, [A.hex(), CD, E]),
]
#: Old size, new size, path.
CONSISTENCY = [(1, 1, []), (1, 8, [B, CD, EFGH]), (6, 8, [EF, GH, ROOTS[4].hex()]), (2, 5, [CD, E])]

#: Roots of larger trees, whose entries are their index as two bytes, the lower first.
LARGER = {
    10: "VjWMPSYNtCuCNlF/RLnQy6HcwSk6CIipfxm+hettA+4=",
    15: "j4SulYmocFuxdeyp12xXCIgK6PekBcxzAIj4zbQzNEI=",
    16: "c+4Uc6BCMOZf/v3NZK1kqTUJe+bBoFtOhP+P3SayKRE=",
    100: "dUh9hYH88p0CMoHkdr1wC2szbhcLAXOejWpINIooKUY=",
    255: "SmdsuKUqiod3RX2jyF2M6JnbdE4QuTwwipfAowI4/i0=",
    256: "qFI0t/tZ1MdOYgyPpPzHFiZVw86koScXy9q3FU5casA=",
    1_000: "RXrgb8xHd55Y48FbfotJwCbV82Kx22LZfEbmBGAvwlQ=",
    4_095: "cWRFdQhPcjn9WyBXE/r1f04ejxIm5lvg40DEpRBVS0w=",
    4_096: "6uU/phfHg1n/GksYT6TO9aN8EauMCCJRl3dIK0HDs2M=",
    10_000: "VZcav65F9haHVRk3wre2axFoBXRNeUh/1d9d5FQfxIg=",
    65_535: "iPuVYJhP6SEE4gUFp8qbafd2rYv9YTCDYqAxCj8HdLM=",
}


def test_hashes_are_those_of_the_rfc() -> None:
    assert merkle.root([]) == merkle.EMPTY_ROOT == ROOTS[0]
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    node = "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    assert merkle.node_hash(b"N123", b"N456").hex() == node


def test_roots_of_small_trees_are_the_published_ones() -> None:
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    assert [merkle.root(leaves[:size]) for size in range(9)] == ROOTS


def test_roots_of_larger_trees_are_the_published_ones() -> None:
    leaves = [leaf_hash(number.to_bytes(2, "little")) for number in range(max(LARGER))]
    node = merkle.nodes_of(leaves)
    found = {size: base64.b64encode(merkle.tree_root(node, size)).decode() for size in LARGER}
    assert found == LARGER


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int, path: list[str]) -> None:
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    proof = merkle.inclusion_proof(merkle.nodes_of(leaves), index, size)
    assert [part.hex() for part in proof] == path
    assert verify_inclusion(leaves[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize(("old", "new", "path"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(old: int, new: int, path: list[str]) -> None:
    proof = merkle.consistency_proof(merkle.nodes_of([leaf_hash(entry) for entry in ENTRIES]), old, new)
    assert [part.hex() for part in proof] == path
    assert verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)


# -- other implementations -----------------------------------------------------------------------------


def test_every_proof_of_small_trees_is_that_of_other_implementations() -> None:
    everything = Everything(130)
    assert sum(everything.check(size) for size in range(131)) == 130 * 131


@pytest.mark.parametrize("size", [255, 256, 257, 511, 512, 513, 700])
def test_every_proof_of_a_larger_tree_is_that_of_other_implementations(size: int) -> None:
    assert Everything(size, peer=False).check(size) == 2 * size


# -- what must be refused ------------------------------------------------------------------------------

SIZES = st.integers(1, 300)
TREE = [b"entry %d" % number for number in range(300)]
LEAVES = [leaf_hash(entry) for entry in TREE]
NODE = merkle.nodes_of(LEAVES)
REFERENCE = ReferenceTree(TREE)
HASHES = st.binary(min_size=32, max_size=32)


@st.composite
def spoiled(draw: st.DrawFn, proof: Sequence[bytes]) -> list[bytes]:
    """Return another list than ``proof``: a hash changed, left out, added or moved."""
    other = list(proof)
    at = draw(st.integers(0, max(0, len(other) - 1)))
    match draw(st.sampled_from(["change", "leave out", "add", "swap", "cut"] if other else ["add"])):
        case "change":
            bit = draw(st.integers(0, 255))
            other[at] = (int.from_bytes(other[at]) ^ 1 << bit).to_bytes(32)
        case "leave out":
            del other[at]
        case "add":
            other.insert(draw(st.integers(0, len(other))), draw(HASHES))
        case "swap":
            other[at], other[-1] = other[-1], other[at]
        case "cut":
            other[at] = other[at][:-1]
    return other


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_other_inclusion_proof_holds(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    index = data.draw(st.integers(0, size - 1))
    root = REFERENCE.mth(0, size)
    proof = merkle.inclusion_proof(NODE, index, size)
    other = data.draw(spoiled(proof))
    assert verify_inclusion(LEAVES[index], index, size, other, root) is (other == proof)
    assert not verify_inclusion(data.draw(HASHES), index, size, proof, root)
    assert not verify_inclusion(LEAVES[index], index, size, proof, data.draw(HASHES))
    elsewhere, count = data.draw(st.integers(-1, 400)), data.draw(st.integers(-1, 400))
    holds = verify_inclusion(LEAVES[index], elsewhere, count, proof, root)
    # A path of the same turns holds for trees of other sizes too: only the checkpoint tells the size.
    may = 0 <= elsewhere < count and root_of_path(LEAVES[index], elsewhere, count, proof) == root
    assert holds is may


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_other_consistency_proof_holds(data: st.DataObject) -> None:
    new = data.draw(SIZES)
    old = data.draw(st.integers(1, new))
    old_root, new_root = REFERENCE.mth(0, old), REFERENCE.mth(0, new)
    proof = merkle.consistency_proof(NODE, old, new)
    other = data.draw(spoiled(proof))
    assert verify_consistency(old, old_root, new, new_root, other) is (other == proof)
    assert not verify_consistency(old, data.draw(HASHES), new, new_root, proof)
    assert not verify_consistency(old, old_root, new, data.draw(HASHES), proof)
    count, larger = data.draw(st.integers(-1, 400)), data.draw(st.integers(-1, 400))
    holds = verify_consistency(count, old_root, larger, new_root, proof)
    may = 0 < count <= larger and roots_of_proof(count, larger, proof, old_root) == (old_root, new_root)
    assert holds is may


@given(SIZES, st.data())
@settings(deadline=None)
def test_a_tree_with_another_entry_is_not_consistent(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, old - 1))
    forged = merkle.nodes_of([*LEAVES[:changed], leaf_hash(b"forged"), *LEAVES[changed + 1 : size]])
    root = merkle.tree_root(forged, size)
    proof = merkle.consistency_proof(forged, old, size)
    assert not verify_consistency(old, REFERENCE.mth(0, old), size, root, proof)


def test_the_empty_tree_is_consistent_with_any_and_only_by_the_empty_proof() -> None:
    root = REFERENCE.mth(0, 5)
    assert merkle.consistency_proof(NODE, 0, 5) == []
    assert verify_consistency(0, merkle.EMPTY_ROOT, 5, root, [])
    assert verify_consistency(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, [])
    assert not verify_consistency(0, merkle.EMPTY_ROOT, 5, root, [root])
    assert not verify_consistency(0, root, 5, root, [])
    assert not verify_consistency(0, root, 0, root, [])
    assert not verify_consistency(5, root, 4, REFERENCE.mth(0, 4), [])


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        merkle.inclusion_proof(NODE, index, size)
    with pytest.raises(ValueError, match="does not continue"):
        merkle.consistency_proof(NODE, size + 1, size)
