"""The audit log of a store, as those who only read it need it."""

from __future__ import annotations

from rmos_runs.local.home import Home
from rmos_shared.auditlog.checkpoint import Checkpoint, origin_of
from rmos_shared.auditlog.layout import (
    CHECKPOINTS,
    COSIGNATURES,
    MOST,
    checkpoint_key,
    checkpoint_size,
    grouped,
    seal_key,
)
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note, NoteInvalid, Signer
from rmos_shared.auditlog.seal_file import SealFile
from rmos_shared.errors import CorruptArtifact
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.choice import chosen_store


def log_origin(home: Home) -> str:
    """Return the name of the log of the home's store.

    Raises:
        StoreUnavailable: the store is away, and no setting tells its identity.
    """
    settings = home.store_settings()
    return origin_of(settings.store_id or chosen_store(settings).identity().store_id)


def audit_log_of(store: ArtifactStore) -> AuditLog | None:
    """Return the log that lies in a store, by the name that it gives itself; None while nothing is sealed.

    Whether that is the name of this store is for the verifier to say.

    Raises:
        CorruptArtifact: its newest checkpoint cannot be read, or something else stands where a newer belongs.
        StoreUnavailable: the store is away.
    """
    size = AuditLog(store, "").newest_size()
    behind = next(store.list(CHECKPOINTS, checkpoint_key(size)), None)
    if behind is not None and checkpoint_size(behind) is None:
        # In a directory in the place of the newest, say: the one before must not be taken for it.
        raise CorruptArtifact(behind, "it is no checkpoint, and stands where only a newer one may")
    if not size:
        return None
    key = checkpoint_key(size)
    try:
        checkpoint, _ = Checkpoint.parse_note(store.get(key) or b"")
    except NoteInvalid as error:
        raise CorruptArtifact(key, str(error)) from error
    begun = store.get(seal_key(size))
    if begun is not None:
        # An empty directory is not listed. A seal tells where its checkpoint comes, or is on its way to.
        end = size + len(SealFile.parse(checkpoint.origin, size, begun).lines)
        store.head(checkpoint_key(min(end, MOST - 1)))
    return AuditLog(store, checkpoint.origin)


def configured_keys(settings: AuditSettings, signer: Signer) -> list[str]:
    """Return the public keys by which a log is proven, newest first: that of ``signer``, and those before it.

    Nothing in the store is asked; see ``earlier_keys``. A key that is given by its value tells of none.

    Raises:
        SettingsInvalid: the file beside the key cannot be believed.
    """
    from rmos_runs.auditor.key_file import public_file  # noqa: PLC0415 - it reads keys, as few commands do
    from rmos_shared.auditlog.configured import earlier_keys  # noqa: PLC0415 - as above

    if settings.audit_key is not None or settings.audit_key_file is None:
        return [signer.vkey]
    return [signer.vkey, *earlier_keys(public_file(settings.audit_key_file), signer)]


def newest_note(store: ArtifactStore) -> bytes | None:
    """Return the newest checkpoint as it is stored; None while there is none. Raises as ``audit_log_of``."""
    log = audit_log_of(store)
    return None if log is None else log.note(log.newest_size())[1].to_bytes()


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


def served_checkpoint(store: ArtifactStore) -> bytes | None:
    """Return the newest checkpoint with the cosignatures that it has; raises as ``audit_log_of``."""
    log = audit_log_of(store)
    return None if log is None else cosigned_note(store, *log.note(log.newest_size())).to_bytes()
