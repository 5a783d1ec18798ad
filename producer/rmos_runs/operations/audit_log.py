"""The audit log of a store, as those who only read it need it."""

from __future__ import annotations

from rmos_shared.auditlog.checkpoint import Checkpoint, origin_of
from rmos_shared.auditlog.layout import COSIGNATURES, grouped
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note, NoteInvalid
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.local import LocalStore


def audit_log_of(store: LocalStore) -> AuditLog:
    """Return the log of a store, which is named after it.

    Raises:
        StoreUnavailable: the store is away.
    """
    return AuditLog(store, origin_of(store.identity().store_id))


def newest_note(store: LocalStore) -> bytes | None:
    """Return the newest checkpoint as it is stored; None while there is none.

    Raises:
        CorruptArtifact: it cannot be read as one of this store.
        StoreUnavailable: the store is away.
    """
    log = audit_log_of(store)
    size = log.newest_size()
    return log.note(size)[1].to_bytes() if size else None


def cosigned_note(store: ArtifactStore, checkpoint: Checkpoint, note: Note) -> Note:
    """Return a checkpoint with what witnesses have signed of it; nothing is proven.

    A cosignature that is none, or of another text, is left out: the verifier tells of it.
    """
    for key in store.list(f"{COSIGNATURES}{grouped(checkpoint.size)}_"):
        try:
            other = Note.parse(store.get(key) or b"")
        except (NoteInvalid, CorruptArtifact):
            continue
        if other.text == note.text:
            for signature in other.signatures:
                note = note.signed(signature)
    return note


def served_checkpoint(store: LocalStore) -> bytes | None:
    """Return the newest checkpoint with the cosignatures that it has; raises as ``newest_note``."""
    log = audit_log_of(store)
    size = log.newest_size()
    if not size:
        return None
    return cosigned_note(store, *log.note(size)).to_bytes()
