"""Tiles: their names, what a tree has of them, and that it has the same in whatever steps it grew."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_shared.auditlog import merkle
from rmos_shared.auditlog.tiles import (
    MOST_TILES,
    Edge,
    HashReader,
    Tile,
    bundle,
    edge_of,
    edge_root,
    extend,
    read_bundle,
    read_edge,
    read_tile,
    tile_path,
)
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import check_key
from support.audit_log import tiles_of

EMPTY = Edge(0, (), ())


def grown(steps: list[int]) -> tuple[Edge, dict[str, bytes]]:
    """Return the edge and all files of a tree that grew by so many entries at a time."""
    edge, files = EMPTY, dict[str, bytes]()
    for step in steps:
        edge, new = extend(edge, [b"%d" % number for number in range(edge.size, edge.size + step)])
        assert len(dict(new)) == len(new)
        assert files.keys().isdisjoint(dict(new))
        files |= new
    return edge, files


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "_log/tile/0/000"),
        (Tile(1, 1_234_067), "_log/tile/1/x001/x234/067"),
        (Tile(0, 1_000, 112), "_log/tile/0/x001/000.p/112"),
        (Tile(None, 273, 1), "_log/tile/entries/273.p/1"),
        (Tile(63, MOST_TILES - 1, 255), "_log/tile/63/x999/x999/999.p/255"),
    ],
)
def test_names_are_those_of_the_specification_and_store_keys(tile: Tile, path: str) -> None:
    assert tile.path == check_key(path)


@pytest.mark.parametrize(
    ("level", "index", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 10**9, 1), (0, 0, 0), (0, 0, 257)]
)
def test_there_is_no_tile_elsewhere(level: int, index: int, width: int) -> None:
    with pytest.raises(ValueError, match="no tile has"):
        tile_path(level, index, width)


def test_a_tree_of_70_000_has_the_tiles_that_the_specification_counts() -> None:
    tiles = list(tiles_of(70_000))
    assert [tile for tile in tiles if tile.level is not None and tile.width < 256] == edge_of(70_000)
    assert edge_of(70_000) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    full = [tile for tile in tiles if tile.width == 256]
    assert [sum(tile.level == level for tile in full) for level in (None, 0, 1, 2)] == [273, 273, 1, 0]
    assert edge_of(256) == [Tile(1, 0, 1)]
    assert edge_of(0) == list(tiles_of(0)) == []


STEPS = st.lists(st.integers(0, 700), max_size=6)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_a_tree_has_the_same_files_in_whatever_steps_it_grew(steps: list[int]) -> None:
    edge, files = grown(steps)
    entries = [b"%d" % number for number in range(edge.size)]
    node = merkle.nodes_of([merkle.leaf_hash(entry) for entry in entries])
    expected: dict[str, bytes] = {}
    size = 0
    for step in steps:
        size += step
        for tile in tiles_of(size):
            first = tile.index * 256
            if tile.level is None:
                expected[tile.path] = bundle(entries[first : first + tile.width])
            else:
                row = range(first, first + tile.width)
                expected[tile.path] = b"".join(node(8 * tile.level, index) for index in row)
    assert files == expected
    assert edge_root(edge) == merkle.tree_root(node, edge.size)
    assert read_edge(files.get, edge.size) == edge


@given(STEPS.filter(any), st.data())
@settings(max_examples=60, deadline=None)
def test_proofs_from_tiles_are_those_of_the_tree(steps: list[int], data: st.DataObject) -> None:
    edge, files = grown(steps)
    node = merkle.nodes_of([merkle.leaf_hash(b"%d" % number) for number in range(edge.size)])
    reader = HashReader(files.get, edge.size)
    size = data.draw(st.integers(1, edge.size))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    assert reader.root(size) == merkle.tree_root(node, size)
    assert reader.inclusion_proof(index, size) == merkle.inclusion_proof(node, index, size)
    assert reader.consistency_proof(old, size) == merkle.consistency_proof(node, old, size)


def test_three_levels_of_tiles_agree_with_the_tree() -> None:
    edge, files = grown([65_000, 536, 700])
    assert read_edge(files.get, 66_236) == edge
    node = merkle.nodes_of([merkle.leaf_hash(b"%d" % number) for number in range(edge.size)])
    reader = HashReader(files.get, edge.size)
    for size in (1, 65_000, 65_535, 65_536, 65_537, 66_236):
        assert reader.root(size) == merkle.tree_root(node, size)
        assert reader.consistency_proof(size) == merkle.consistency_proof(node, size, edge.size)
    assert reader.inclusion_proof(40_000) == merkle.inclusion_proof(node, 40_000, edge.size)


@pytest.mark.parametrize("size", [0, 1, 256])
def test_sizes_beyond_the_tree_are_refused(size: int) -> None:
    _, files = grown([size])
    reader = HashReader(files.get, size)
    with pytest.raises(ValueError, match=f"has {size} entries"):
        reader.root(size + 1)
    with pytest.raises(ValueError, match="has no tile"):
        reader.tile(0, 7)


@pytest.mark.parametrize("change", ["gone", "cut", "longer", "empty"])
def test_a_tile_or_bundle_that_is_gone_or_of_another_length_is_named(change: str) -> None:
    _, files = grown([300])
    for tile, read in ((Tile(0, 1, 44), read_tile), (Tile(None, 1, 44), read_bundle)):
        data = files[tile.path]
        changed = {"cut": data[:-1], "longer": data + b"\0", "empty": b""}
        found = {name: data for name, data in files.items() if name != tile.path}
        if change != "gone":
            found[tile.path] = changed[change]
        with pytest.raises(CorruptArtifact) as raised:
            read(found.get, tile)
        assert raised.value.key == tile.path


def test_entries_of_65_535_bytes_fit_and_longer_ones_do_not() -> None:
    entry = b"x" * 0xFFFF
    edge, files = extend(EMPTY, [entry])
    assert read_bundle(dict(files).get, Tile(None, 0, 1)) == [entry]
    with pytest.raises(ValueError, match="65535"):
        extend(edge, [entry + b"x"])


def test_a_tree_has_an_end() -> None:
    last = Edge(MOST_TILES * 256, (), ())
    with pytest.raises(ValueError, match="at most"):
        extend(last, [b"x"])
