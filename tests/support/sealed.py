"""A store whose records are sealed, as worker-audit does it; nothing in it is a stand-in."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_shared.auditlog.checkpoint import Checkpoint, origin_of
from rmos_shared.auditlog.layout import is_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import KeyKind, Signer
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.sealer import Sealed, Sealer
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
from support.runs import Runs

HEARTBEAT = timedelta(hours=1)


def new_signer(name: str, kind: KeyKind = KeyKind.ED25519) -> Signer:
    return Signer(name, Ed25519PrivateKey.generate(), kind)


class SealedStore:
    """A directory, its log's key, and what a sealer does."""

    def __init__(self, root: Path, signer: Signer | None = None) -> None:
        init_store(root)
        self.root = root
        self.store = LocalStore(root)
        self.origin = origin_of(self.store.identity().store_id)
        self.signer = signer or new_signer(self.origin)
        self.runs = Runs(self.store)

    @property
    def log(self) -> AuditLog:
        return AuditLog(self.store, self.origin)

    @property
    def newest(self) -> Checkpoint:
        found = self.log.newest()
        assert found is not None
        return found

    def unsealed(self) -> list[str]:
        log = self.log
        keys = [key for key in self.store.list("") if is_entry(key)]
        held = log.find(dict.fromkeys(keys, datetime(2000, 1, 1, tzinfo=UTC)))
        return [key for key in keys if key not in held]

    def seal(self, *, now: datetime | None = None, trusts: dict[str, str] | None = None) -> Sealed:
        """Seal all that no seal holds, as if the ledger had taken its receipts a moment ago."""
        now = now or datetime.now(UTC)
        receipts = []
        for number, key in enumerate(self.unsealed(), 1):
            data = self.store.get(key) or b""
            at = now - timedelta(milliseconds=1)
            feed_id = f"{int(now.timestamp() * 1000)}-{number}"
            digest = hashlib.sha256(data).hexdigest()
            receipts.append(Receipt(key, digest, len(data), at, feed_id, trusts=(trusts or {}).get(key)))
        sealer = Sealer(self.store, self.origin, self.signer, heartbeat=HEARTBEAT)
        sealed = sealer.seal(receipts, now=now, feed_at_end=True)
        assert sealed is not None
        return sealed

    def grow(self, records: int = 1) -> Sealed:
        """Publish some records, and seal them."""
        first = len(list(self.store.list("_batches/")))
        items = [
            (f"_batches/{number:06d}.json", f'{{"number":{number}}}'.encode())
            for number in range(first, first + records)
        ]
        self.store.create_many(items)
        return self.seal()

    def copy(self, root: Path) -> Self:
        """Return the same store, which may go another way from here."""
        shutil.copytree(self.root, root)
        return type(self)(root, self.signer)
