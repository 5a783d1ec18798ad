"""The audit log of a store, as those who only read it need it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from rmos_runs.local.home import Home
from rmos_shared.auditlog.checkpoint import Checkpoint, origin_of
from rmos_shared.auditlog.entry import EntryInvalid, RecordEntry, parse_entry
from rmos_shared.auditlog.layout import COSIGNATURES, checkpoint_key, grouped
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note, NoteInvalid
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.choice import chosen_store

#: In the line of an entry that introduces a key.
_TRUSTS = b'"trusts":'


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
        CorruptArtifact: its newest checkpoint cannot be read.
        StoreUnavailable: the store is away.
    """
    size = AuditLog(store, "").newest_size()
    if not size:
        return None
    key = checkpoint_key(size)
    try:
        checkpoint, _ = Checkpoint.parse_note(store.get(key) or b"")
    except NoteInvalid as error:
        raise CorruptArtifact(key, str(error)) from error
    return AuditLog(store, checkpoint.origin)


def earlier_keys(store: ArtifactStore, vkey: str) -> list[str]:
    """Return the keys by which a log was signed before that of ``vkey``, the newest first, as the log tells.

    They are to be believed as far as ``vkey`` is: what it signed covers all that came before, its own
    introduction too. A log that cannot be read tells of none; the verifier says why.

    Raises:
        StoreUnavailable: the store is away.
    """
    keys: list[str] = []
    with suppress(CorruptArtifact):
        log = audit_log_of(store)
        if log is None or vkey.split("+")[1] in _first_signers(log):
            return []
        introduced_by = dict(_introductions(log))
        while (earlier := introduced_by.get(keys[-1] if keys else vkey)) and earlier not in {*keys, vkey}:
            keys.append(earlier)
    return keys


def _first_signers(log: AuditLog) -> set[str]:
    """Return the ids of the keys that signed the first signed checkpoint."""
    for size in log.sizes():
        if signatures := log.note(size)[1].signatures:
            return {signature.key_id.hex() for signature in signatures}
    return set()


def _introductions(log: AuditLog) -> Iterator[tuple[str, str]]:
    """Yield each key that an entry introduces, and the one in use then, as its act says."""
    for line in log.entries():
        if _TRUSTS not in line:
            continue
        with suppress(EntryInvalid, ValueError, LookupError, TypeError):
            entry = parse_entry(line)
            if isinstance(entry, RecordEntry) and entry.trusts is not None:
                act = json.loads(log.store.get(entry.key) or b"")
                yield entry.trusts, str(act["about"]["introduced_by"])


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
