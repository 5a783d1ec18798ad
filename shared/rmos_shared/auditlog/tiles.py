"""The tree as tiles: files of up to 256 hashes, or entries, that are written once and never change.

A tile of level L, index N holds the roots of 256**L leaves each, from ``N * 256``. The rightmost ones of a
tree are partial; they have names of their own, and stay when they are full.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rmos_shared.auditlog.layout import BUNDLES, TILES
from rmos_shared.auditlog.merkle import (
    HASH_BYTES,
    complete_root,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
)
from rmos_shared.errors import CorruptArtifact

#: Hashes of a full tile, entries of a full bundle.
WIDTH = 256
#: Its binary logarithm: levels of the tree between two levels of tiles.
HEIGHT = 8
#: Levels that the specification has numbers for.
_LEVELS = 64
#: Tiles and bundles of one level; the next would lie deeper than keys go.
MOST_TILES = 10**9
#: Entries of the largest tree.
MOST_ENTRIES = MOST_TILES * WIDTH
#: Bytes of an entry: its length is told by two bytes.
MOST_ENTRY_BYTES = 0xFFFF

#: Tiles kept by a reader: 64 MiB at most.
_KEPT = 8_192

#: Returns the bytes of a key, or None.
Get = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile by its place. ``level`` None: a bundle of entries."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Its key."""
        return tile_path(self.level, self.index, self.width)


def tile_path(level: int | None, index: int, width: int = WIDTH) -> str:
    """Return the key of a tile, or of a bundle of entries (``level`` None).

    Raises:
        ValueError: no tile has this place.
    """
    if not (0 <= index < MOST_TILES and 1 <= width <= WIDTH and (level is None or 0 <= level < _LEVELS)):
        raise ValueError(f"no tile has level {level}, index {index} and width {width}")
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    name = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    partial = "" if width == WIDTH else f".p/{width}"
    return f"{BUNDLES if level is None else f'{TILES}{level}/'}{name}{partial}"


def width_at(level: int | None, index: int, size: int) -> int:
    """Return how wide a tile is in the tree of ``size`` entries; 0 when it has none there."""
    whole = size >> (HEIGHT * (level or 0))
    return max(0, min(WIDTH, whole - index * WIDTH))


def edge_of(size: int) -> list[Tile]:
    """Return the partial tiles of the tree of ``size`` entries, lowest first: where a longer one goes on."""
    tiles = []
    level = 0
    while (whole := size >> (HEIGHT * level)) > 0:
        if whole % WIDTH:
            tiles.append(Tile(level, whole // WIDTH, whole % WIDTH))
        level += 1
    return tiles


class HashReader:
    """Hashes, roots and proofs of the tree of ``size`` entries, read from its tiles.

    What it returns is what the tiles say: whoever wants to trust it holds a root against a checkpoint. Keeps
    up to 64 MiB of tiles. All methods raise ``CorruptArtifact`` for a tile that is missing or has another
    length, and what ``get`` raises.
    """

    def __init__(self, get: Get, size: int) -> None:
        """Read tiles by ``get``."""
        self.size = size
        self._get = get
        self._kept: OrderedDict[tuple[int, int], Sequence[bytes]] = OrderedDict()
        self._roots: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def tile(self, level: int, index: int) -> Sequence[bytes]:
        """Return the hashes of a tile, as wide as this tree has it."""
        place = (level, index)
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        width = width_at(level, index, self.size)
        if not width:
            raise ValueError(f"a tree of {self.size} entries has no tile {index} at level {level}")
        hashes = read_tile(self._get, Tile(level, index, width))
        self._kept[place] = hashes
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return hashes

    def node(self, level: int, index: int) -> bytes:
        """Return the root of a complete subtree (see ``merkle``)."""
        # The root of a full tile stands in the tile above; only there is it a hash of its own.
        above, inside = divmod(level, HEIGHT)
        if inside == 0:
            return self.tile(above, index // WIDTH)[index % WIDTH]
        place = (level, index)
        if place not in self._roots:
            first = index << inside
            hashes = self.tile(above, first // WIDTH)
            self._roots[place] = complete_root(hashes[first % WIDTH : first % WIDTH + (1 << inside)])
            if len(self._roots) > _KEPT:
                self._roots.popitem(last=False)
        return self._roots[place]

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the tree of the first ``size`` entries; all of them if omitted."""
        return tree_root(self.node, self._at_most(size))

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the proof that entry ``index`` is in the tree of the first ``size`` entries."""
        return inclusion_proof(self.node, index, self._at_most(size))

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the tree of the first ``size`` entries continues that of ``old_size``."""
        return consistency_proof(self.node, old_size, self._at_most(size))

    def _at_most(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"the tree has {self.size} entries, not {size}")
        return size


def read_tile(get: Get, tile: Tile) -> list[bytes]:
    """Return the hashes of a tile.

    Raises:
        CorruptArtifact: it is missing, or not as long as its name says.
    """
    data = get(tile.path)
    if data is None:
        raise CorruptArtifact(tile.path, "this tile of the audit log is missing")
    if len(data) != tile.width * HASH_BYTES:
        raise CorruptArtifact(tile.path, f"a tile of {tile.width} hashes has not {len(data)} bytes")
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]


def read_bundle(get: Get, tile: Tile) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        CorruptArtifact: it is missing, or not of as many entries as its name says.
    """
    data = get(tile.path)
    if data is None:
        raise CorruptArtifact(tile.path, "this bundle of entries of the audit log is missing")
    entries = []
    position = 0
    while position + 2 <= len(data):
        end = position + 2 + int.from_bytes(data[position : position + 2])
        entries.append(data[position + 2 : end])
        position = end
    if position != len(data) or len(entries) != tile.width:
        raise CorruptArtifact(tile.path, f"it is no bundle of {tile.width} entries")
    return entries


def bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bytes of a bundle.

    Raises:
        ValueError: an entry is longer than ``MOST_ENTRY_BYTES``.
    """
    if any(len(entry) > MOST_ENTRY_BYTES for entry in entries):
        raise ValueError(f"an entry has more than {MOST_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree: all that is needed to go on from it."""

    size: int
    #: Hashes of the partial tile of each level; empty where the level ends with a full one.
    levels: tuple[tuple[bytes, ...], ...]
    #: Entries of the partial bundle.
    entries: tuple[bytes, ...]


def read_edge(get: Get, size: int) -> Edge:
    """Return the right edge of the tree of ``size`` entries, as its tiles say: nothing of it is proven.

    Raises:
        CorruptArtifact: a tile or bundle is missing, or of another length.
    """
    levels: list[tuple[bytes, ...]] = []
    for tile in edge_of(size):
        assert tile.level is not None  # noqa: S101 - no bundle is in it
        levels += [()] * (tile.level - len(levels))
        levels.append(tuple(read_tile(get, tile)))
    entries: tuple[bytes, ...] = ()
    if size % WIDTH:
        entries = tuple(read_bundle(get, Tile(None, size // WIDTH, size % WIDTH)))
    return Edge(size, tuple(levels), entries)


def edge_root(edge: Edge) -> bytes:
    """Return the root of the tree whose right edge this is."""

    def node(level: int, index: int) -> bytes:
        above, inside = divmod(level, HEIGHT)
        first = (index << inside) % WIDTH
        return complete_root(edge.levels[above][first : first + (1 << inside)])

    return tree_root(node, edge.size)


def extend(edge: Edge, entries: Sequence[bytes]) -> tuple[Edge, list[tuple[str, bytes]]]:
    """Return the edge after ``entries``, and every file that the longer tree has and the shorter had not.

    Files are a pure function of the arguments: whoever repeats this writes the same bytes.

    Raises:
        ValueError: an entry is too long, or the tree would be larger than ``MOST_ENTRIES``.
    """
    size = edge.size + len(entries)
    if size > MOST_ENTRIES:
        raise ValueError(f"an audit log holds at most {MOST_ENTRIES} entries")
    files: list[tuple[str, bytes]] = []
    row: list[bytes] = [*edge.entries, *entries]
    kept = _cut(files, None, edge.size // WIDTH, row, bundle, changed=bool(entries))
    new: list[bytes] = [leaf_hash(entry) for entry in entries]
    levels: list[tuple[bytes, ...]] = []
    level = 0
    while new or level < len(edge.levels):
        before = edge.levels[level] if level < len(edge.levels) else ()
        hashes = [*before, *new]
        first = (edge.size >> (HEIGHT * level)) // WIDTH
        levels.append(tuple(_cut(files, level, first, hashes, b"".join, changed=bool(new))))
        full = len(hashes) // WIDTH
        new = [complete_root(hashes[at * WIDTH : (at + 1) * WIDTH]) for at in range(full)]
        level += 1
    return Edge(size, tuple(levels), tuple(kept)), files


def _cut(
    files: list[tuple[str, bytes]],
    level: int | None,
    first: int,
    row: list[bytes],
    form: Callable[[Sequence[bytes]], bytes],
    *,
    changed: bool,
) -> list[bytes]:
    """Add the files of a row of hashes or entries, from tile ``first``; return what the partial one holds."""
    full = len(row) // WIDTH
    files += [(tile_path(level, first + at), form(row[at * WIDTH : (at + 1) * WIDTH])) for at in range(full)]
    rest = row[full * WIDTH :]
    if rest and changed:
        files.append((tile_path(level, first + full, len(rest)), form(rest)))
    return rest
