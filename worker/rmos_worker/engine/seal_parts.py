"""What seals the audit log: its key, its log, and what is in the store and in no entry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.configured import signer_of
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.sealer import Receipt, Sealer
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.local import LocalStore
from rmos_worker.handlers.act_records import ActRecords
from rmos_worker.handlers.seal import SealParts


def log_signer(settings: WorkerSettings, store: LocalStore) -> Signer | None:
    """Return the key that this worker signs with; None: it has none.

    Raises:
        SettingsInvalid: it cannot be read.
        StoreUnavailable: the store is away, whose identity names the key.
    """
    return signer_of(settings, _origin(store))


def seal_parts(settings: WorkerSettings, store: LocalStore, ledger: JobLedger) -> SealParts:
    """Return the parts of a seal job; raises as ``log_signer``."""
    sealer = Sealer(
        store,
        _origin(store),
        log_signer(settings, store),
        heartbeat=timedelta(seconds=settings.audit_heartbeat_seconds),
    )

    def unlogged(now: datetime, adopting: bool) -> Iterator[Receipt]:
        return iter(())

    return SealParts(sealer, ActRecords(ledger.acts, store), unlogged)


def _origin(store: LocalStore) -> str:
    return origin_of(store.identity().store_id)
