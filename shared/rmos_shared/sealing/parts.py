"""What seals the audit log of a store: its key, the log, and what holds the one against the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.configured import signer_of
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.reconcile import Reconciler
from rmos_shared.auditlog.sealer import Sealer
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.sealing.act_records import ActRecords
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore


@dataclass(frozen=True, slots=True)
class SealParts:
    """Kept for the life of a process, for they remember what they have seen; not for several threads."""

    #: None: the log is sealed unsigned.
    signer: Signer | None
    sealer: Sealer
    records: ActRecords
    reconciler: Reconciler

    @classmethod
    def of(cls, settings: AuditSettings, store: LocalStore, ledger: JobLedger) -> SealParts:
        """Return the parts; raises as ``log_signer``."""
        heartbeat = timedelta(seconds=settings.audit_heartbeat_seconds)
        signer = log_signer(settings, store)
        sealer = Sealer(store, _origin(store), signer, heartbeat=heartbeat)
        return cls(signer, sealer, ActRecords(ledger.acts, store), Reconciler(store, sealer.log))


def log_signer(settings: AuditSettings, store: LocalStore) -> Signer | None:
    """Return the key that the settings name; None: the log is sealed unsigned.

    Raises:
        SettingsInvalid: it cannot be read.
        StoreUnavailable: the store is away, whose identity names the key.
    """
    return signer_of(settings, _origin(store))


def _origin(store: LocalStore) -> str:
    return origin_of(store.identity().store_id)
