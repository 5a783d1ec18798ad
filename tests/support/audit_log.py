"""Logs for tests: receipts, sealers, and what a log must be whatever was done to its sealers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from rmos_shared.auditlog import merkle
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.layout import CHECKPOINTS, LOG, checkpoint_key, checkpoint_size, seal_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.sealer import Sealer, read_seal
from rmos_shared.auditlog.tiles import Tile, bundle, tiles_of
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


def assert_sound(log: AuditLog) -> None:
    """Assert that the log is one tree, each file of which is what its seals say, with nothing beside them.

    Everything is computed anew from the seals. A sealer that was killed must have been followed by another.
    """
    store = log.store
    leaves: list[bytes] = []
    lines: list[bytes] = []
    expected: dict[str, bytes] = {}
    sizes = [size for key in store.list(CHECKPOINTS) if (size := checkpoint_size(key))]
    start = 0
    for size in sizes:
        seal = store.get(seal_key(start))
        assert seal is not None, f"no seal at {start}, but a checkpoint of {size}"
        expected[seal_key(start)] = seal
        lines += read_seal(seal_key(start), seal)[0]
        leaves += map(merkle.leaf_hash, lines[len(leaves) :])
        assert len(leaves) == size, f"seal {start} ends at {len(leaves)}, its checkpoint at {size}"
        node = merkle.nodes_of(leaves)
        assert log.checkpoint(size) == Checkpoint(log.origin, size, merkle.tree_root(node, size))
        data = store.get(checkpoint_key(size))
        assert data is not None
        expected[checkpoint_key(size)] = data
        for tile in tiles_of(size):
            expected[tile.path] = _tile(tile, lines, node)
        start = size
    found = {key: store.get(key) for key in store.list(LOG)}
    assert found == expected


def _tile(tile: Tile, lines: list[bytes], node: merkle.Node) -> bytes:
    first = tile.index * 256
    if tile.level is None:
        return bundle(lines[first : first + tile.width])
    return b"".join(node(8 * tile.level, index) for index in range(first, first + tile.width))
