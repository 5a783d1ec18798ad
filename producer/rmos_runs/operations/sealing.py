"""Sealing by hand: what worker-audit does each minute, now; and what it never does by itself."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from rmos_runs.auditor.key_file import public_file
from rmos_runs.operations.audit_log import audit_log_of, configured_keys
from rmos_runs.operations.on_record import Doing, on_record
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.configured import earlier_keys
from rmos_shared.auditlog.entry import RecordEntry
from rmos_shared.auditlog.introduction import introduce
from rmos_shared.auditlog.keys import load_file, write_public
from rmos_shared.auditlog.layout import act_begun_key
from rmos_shared.auditlog.note import NoteInvalid, Signer, verified
from rmos_shared.auditlog.reconcile import Reconciler, Unsealed
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import FieldProblem, InvalidRequest, SealerBusy, SettingsInvalid, TransitionRefused
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.sealing.parts import SealParts, log_signer
from rmos_shared.sealing.run import Come, SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore

#: Of the lock that keeps worker-audit from the same work.
_LOCK_SECONDS = 60.0
#: How long to wait for a sealer that is at work, and how often to look.
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.2


class _Whole(Reconciler):
    """Looks at the whole store each time."""

    def find(self, now: datetime, *, whole: bool = False) -> Unsealed:  # noqa: ARG002 - that is the point
        """Return what is in no entry, however old it is."""
        return super().find(now, whole=True)


@dataclass(frozen=True, slots=True)
class Sealing:
    """What sealing by hand came to."""

    seals: int
    #: Entries of records that were added, and of these the late ones.
    records: int
    late: int
    #: Size of the log now; 0: nothing is sealed.
    size: int


def seal_now(
    ledger: JobLedger,
    settings: AuditSettings,
    store: LocalStore,
    *,
    whole: bool = False,
    clock: Clock | None = None,
) -> Sealing:
    """Seal what was published since the last seal; with ``whole`` also what nobody told of, wherever it lies.

    A worker-audit may run beside it: one waits for the other, and what both seal is the same.

    Raises:
        SealerBusy: another sealer has been at work for a minute.
        SettingsInvalid: the key is missing, or not the one that the log trusts.
        CorruptArtifact: the log is damaged, or was rolled back: it is not gone on with.
        StoreUnavailable, BrokerUnavailable: the same call is safe.
    """
    clock = clock or SystemClock()
    parts = SealParts.of(settings, store, ledger)
    if whole:
        parts = replace(parts, reconciler=_Whole(store, parts.sealer.log))
    run = SealingRun(ledger, parts, lock_seconds=_LOCK_SECONDS)
    seals = records = late = 0
    while True:
        come = _patient(run, clock, whole=whole)
        seals, records, late = seals + come.seals, records + come.records, late + come.late
        if not come.more:
            size = 0 if come.newest is None else come.newest.checkpoint.size
            return Sealing(seals, records, late, size)


def _patient(run: SealingRun, clock: Clock, *, whole: bool) -> Come:
    until = clock.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return run.run(lambda _: whole)
        except SealerBusy:
            if clock.monotonic() >= until:
                raise
            clock.sleep(_LOOK_SECONDS)


def accept_restored(ledger: JobLedger, store: LocalStore, *, by: str, why: str) -> str:
    """Let a log that was restored from a backup be gone on with; return the id of the act.

    The ledger remembers the newest checkpoint, and refuses a log that lacks it: rightly, unless somebody put
    an older copy back on purpose. That is on record with both checkpoints, before the newer one is forgotten.
    Verifiers that kept it will say so for ever.

    Raises:
        TransitionRefused: the log holds what the ledger remembers; there is nothing to accept.
    """
    remembered = ledger.unsealed.state().checkpoint
    log = audit_log_of(store)
    found = None if log is None else log.checkpoint(log.newest_size())
    known = None if remembered is None else _checkpoint(remembered)
    size = 0 if found is None else found.size
    if known is None or (
        log is not None and known.size <= size and log.hash_reader(size).root(known.size) == known.root
    ):
        raise TransitionRefused(
            "the audit log holds all that the ledger remembers of it: nothing was restored"
        )
    about = {"remembered": known.text, "restored": None if found is None else found.text}
    with on_record(ledger, Doing(ActKind.AUDIT_RESTORED, by, about, why)) as progress:
        ledger.unsealed.forget_checkpoint()
        progress.done = 1
    return str(progress.act_id)


def _checkpoint(text: str) -> Checkpoint | None:
    try:
        return Checkpoint.parse_note(text.encode())[0]
    except NoteInvalid:
        return None


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new key that the log trusts from here on."""

    act_id: str
    old_vkey: str
    new_vkey: str
    #: Size of the first checkpoint that says so, signed by the old key.
    size: int


@dataclass(frozen=True, slots=True)
class _Introduced:
    """The act that introduces a key."""

    act_id: str
    since: datetime
    vkey: str

    @property
    def key(self) -> str:
        """Where the record lies that names the key: that of its begin."""
        return act_begun_key(self.since.date().isoformat(), self.act_id)


def rotate(
    ledger: JobLedger, settings: AuditSettings, store: LocalStore, new_file: Path, *, by: str, why: str
) -> Rotation:
    """Introduce the key in ``new_file``: an act whose entry names it, sealed under the key in use.

    The public keys before it are written beside it, below its own, for whoever verifies by it. Killed
    anywhere, it is to be called again; a key may be introduced twice.

    Raises:
        SettingsInvalid: no key is in use, or one of the two cannot be read, or the file beside the new one
            cannot be written; or another sealer has not the key in use, and came first; and as ``seal_now``.
        InvalidRequest: it is the same key.
    """
    old = log_signer(settings, store)
    if old is None:
        raise SettingsInvalid(
            "no key is in use, so none can introduce another: name the first one in RMOS_AUDIT_KEY_FILE"
        )
    new = load_file(new_file, old.name)
    if new.vkey == old.vkey:
        raise InvalidRequest((FieldProblem("NEW_KEY_FILE", "it holds the key that is in use"),), what="key")
    # What is there must be sealed by the old key as it is: a key that the log does not trust is refused here.
    seal_now(ledger, settings, store)
    _follow(public_file(new_file), new, configured_keys(settings, old))
    act_id = _introduce(ledger, old, new, by=by, why=why)
    seal_now(ledger, settings, store)
    act = _Introduced(act_id, ledger.acts.get(act_id).begun_at_utc, new.vkey)
    until = time.monotonic() + _PATIENCE_SECONDS
    while (size := _size_with(store, act, old)) is None:
        # The act was taken from the feed by another sealer, whose checkpoint is on its way.
        if time.monotonic() >= until:
            raise SealerBusy(
                f"act {act_id} introduces the key, and is not sealed yet; `rmos audit seal` does it"
            )
        time.sleep(_LOOK_SECONDS)
        seal_now(ledger, settings, store)
    return Rotation(act_id, old.vkey, new.vkey, size)


def _follow(file: Path, new: Signer, before: list[str]) -> None:
    earlier_keys(file, new)  # what lies there must be the new key's own
    write_public(file, [new.vkey, *(vkey for vkey in before if vkey != new.vkey)])


def _introduce(ledger: JobLedger, old: Signer, new: Signer, *, by: str, why: str) -> str:
    about = {
        "trusts": new.vkey,
        "introduced_by": old.vkey,
        "introduction": introduce(old, new.vkey),
    }
    with on_record(ledger, Doing(ActKind.KEY_ROTATION, by, about, why)) as progress:
        progress.done = 1
    return str(progress.act_id)


def _size_with(store: LocalStore, act: _Introduced, old: Signer) -> int | None:
    """Return the size of the first checkpoint by which the old key says so; None: the act is in no seal yet.

    Raises:
        SettingsInvalid: another sealer came first, which has not this key: the log trusts no new one.
    """
    log = audit_log_of(store)
    index = None if log is None else log.find({act.key: act.since}).get(act.key)
    if log is None or index is None:
        return None
    entry = log.entry(index, log.newest_size())
    if isinstance(entry, RecordEntry) and entry.trusts == act.vkey:
        for size in log.sizes(index):
            with suppress(NoteInvalid):
                verified(log.note(size)[1], [old.verifier])
                return size
    raise SettingsInvalid(
        f"the log does not trust the new key: act {act.act_id} was sealed by another sealer, without the key "
        "in use; name that one in RMOS_AUDIT_KEY_FILE of worker-audit too, restart it, then rotate again"
    )
