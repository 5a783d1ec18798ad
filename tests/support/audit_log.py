"""Logs for tests: receipts, sealers, and what a log must be whatever was done to its sealers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from rmos_shared.auditlog import merkle
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import RecordEntry, SealEntry, parse_entry
from rmos_shared.auditlog.layout import LOG, checkpoint_key, seal_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.seal_file import SealFile
from rmos_shared.auditlog.sealer import Sealer
from rmos_shared.auditlog.tiles import HEIGHT, WIDTH, Tile, bundle, width_at
from rmos_shared.store.base import ArtifactStore

ORIGIN = "rmos-runs/01a20d3c3a8b73898836cc2b6ecc4ed6"
START = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)
HEARTBEAT = timedelta(hours=1)


def sealer_of(store: ArtifactStore, signer: Signer | None = None, origin: str = ORIGIN) -> Sealer:
    """Return a sealer of the log in ``store``."""
    return Sealer(store, origin, signer, heartbeat=HEARTBEAT)


def receipt(number: int, at: datetime = START, *, created: bool = True) -> Receipt:
    """Return the receipt of a made-up file, the ``number``-th of the feed."""
    data = f"file {number}".encode()
    return Receipt(
        f"2026-08-01/run_{number}.json", sha256(data).hexdigest(), len(data), at, f"1000-{number}", created
    )


def receipts(numbers: Iterable[int], at: datetime = START) -> list[Receipt]:
    """Return several of them."""
    return [receipt(number, at) for number in numbers]


def keys_of(log: AuditLog) -> list[str]:
    """Return the keys in the log, in its order."""
    entries = map(parse_entry, log.entries())
    return [entry.key for entry in entries if isinstance(entry, RecordEntry)]


def assert_sound(log: AuditLog) -> int:
    """Assert that the log is one tree, each file of which is what its seals say, with nothing beside them.

    Everything is computed anew from the seals. A sealer that was killed must have been followed by another.
    Return how many seals there are.
    """
    store = log.store
    tree = _Growing()
    found = dict.fromkeys(store.list(LOG))
    before: SealEntry | None = None
    seals = 0
    while (data := store.get(seal_key(tree.size))) is not None:
        start = tree.size
        found.pop(seal_key(start))
        sealed = SealFile.parse(log.origin, start, data)
        seal = sealed.seal
        tree.add(list(sealed.lines))
        if before is not None:
            assert seal.at >= before.at
            assert seal.seal.upto >= before.seal.upto
            assert place(seal.seal.feed) >= place(before.seal.feed)
            for record in map(parse_entry, sealed.lines):
                if isinstance(record, RecordEntry) and not record.found:
                    assert before.seal.upto <= record.at <= seal.at
        assert seal.seal.upto <= seal.at < seal.seal.next
        assert log.checkpoint(tree.size) == Checkpoint(log.origin, tree.size, tree.root)
        found.pop(checkpoint_key(tree.size))
        for tile, expected in tree.files(start):
            assert store.get(tile.path) == expected, tile.path
            found.pop(tile.path)
        before, seals = seal, seals + 1
    assert list(found) == []
    assert log.newest_size() == tree.size
    return seals


def place(feed_id: str) -> tuple[int, ...]:
    """Return a place in the feed as numbers."""
    return tuple(map(int, feed_id.split("-"))) if feed_id else ()


class _Growing:
    """A tree, by the hashes of each of its levels."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.levels: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        return len(self.lines)

    @property
    def root(self) -> bytes:
        return merkle.tree_root(lambda level, index: self.levels[level][index], self.size)

    def add(self, lines: list[bytes]) -> None:
        self.lines += lines
        for line in lines:
            self.levels[0].append(merkle.leaf_hash(line))
            level = 0
            while len(self.levels[level]) % 2 == 0:
                if level + 1 == len(self.levels):
                    self.levels.append([])
                self.levels[level + 1].append(merkle.node_hash(*self.levels[level][-2:]))
                level += 1

    def files(self, since: int) -> Iterator[tuple[Tile, bytes]]:
        """Yield the tiles and bundles that this tree has, and the one of ``since`` entries had not."""
        for level in range(-1, (len(self.levels) + 7) // 8):
            row = self.lines if level < 0 else self.levels[8 * level] if 8 * level < len(self.levels) else []
            shift = 8 * max(0, level)
            if len(row) == since >> shift:
                continue  # nothing new at this level
            for index in range((since >> shift) // 256, -(-len(row) // 256)):
                hashes = row[256 * index : 256 * (index + 1)]
                tile = Tile(None if level < 0 else level, index, len(hashes))
                yield tile, bundle(hashes) if level < 0 else b"".join(hashes)


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield every tile and bundle of the tree of ``size`` entries, partial ones of that size included."""
    level: int | None = None
    while (whole := size >> (HEIGHT * (level or 0))) > 0:
        for index in range(-(-whole // WIDTH)):
            yield Tile(level, index, width_at(level, index, size))
        level = 0 if level is None else level + 1
