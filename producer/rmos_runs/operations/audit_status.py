"""How the audit log stands: what it holds, when it was sealed, by whom, and what waits."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import PlainSerializer

from rmos_runs.operations.audit_log import audit_log_of, cosigned_note
from rmos_runs.operations.sealing_status import SealingStatus, sealing_status
from rmos_shared.auditlog.entry import format_time
from rmos_shared.auditlog.layout import checkpoint_key
from rmos_shared.auditlog.note import Note, NoteInvalid, Signer, verified
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.models.base import Frozen
from rmos_shared.store.base import ArtifactStore

Moment = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]


class AuditStatus(Frozen):
    """The state of a log, as far as store, key and ledger tell it."""

    origin: str | None = None
    #: Entries; 0 before the first seal.
    size: int = 0
    root: str | None = None
    sealed_at: Moment | None = None
    #: Since then.
    age_seconds: float | None = None
    #: When the next seal is promised.
    next_at: Moment | None = None
    #: Whether that is past: nobody seals.
    overdue: bool = False
    #: The keys that the newest checkpoint says it is signed by, as public keys begin.
    signed_by: tuple[str, ...] = ()
    #: The configured key, and whether it signed that.
    key: str | None = None
    key_signed: bool | None = None
    #: How far its sealing is, as the ledger knows it; None without a broker.
    sealing: SealingStatus | None = None
    #: Who cosigned it, by what the store holds; nothing of it is proven.
    witnesses: tuple[str, ...] = ()


def audit_status(
    store: ArtifactStore, signer: Signer | None, ledger: JobLedger | None, now: datetime
) -> AuditStatus:
    """Return the state of the log in ``store``.

    Raises:
        CorruptArtifact: the newest checkpoint, or its last entry, is damaged; or the signature of the
            configured key does not hold.
        StoreUnavailable, BrokerUnavailable: one of them is away.
    """
    sealing = None if ledger is None else sealing_status(ledger)
    key = None if signer is None else signer.vkey
    log = audit_log_of(store)
    if log is None:
        return AuditStatus(key=key, sealing=sealing)
    checkpoint, note = log.note(log.newest_size())
    seal = log.seal(checkpoint.size)
    everybody = cosigned_note(store, checkpoint, note)
    return AuditStatus(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        sealed_at=seal.at,
        age_seconds=round((now - seal.at).total_seconds(), 3),
        next_at=seal.seal.next,
        overdue=now > seal.seal.next,
        signed_by=tuple(f"{line.name}+{line.key_id.hex()}" for line in note.signatures),
        key=key,
        key_signed=None if signer is None else _signed(note, signer, checkpoint.size),
        sealing=sealing,
        witnesses=tuple(
            f"{line.name}+{line.key_id.hex()}"
            for line in everybody.signatures
            if line.name != checkpoint.origin
        ),
    )


def _signed(note: Note, signer: Signer, size: int) -> bool:
    if not any(map(signer.verifier.is_of, note.signatures)):
        return False
    try:
        verified(note, [signer.verifier])
    except NoteInvalid as error:
        raise CorruptArtifact(checkpoint_key(size), str(error)) from error
    return True
