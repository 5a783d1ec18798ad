"""One run of the sealer: the feed in its order, then what nobody told of."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import RecordEntry, SealEntry, format_time, parse_entry
from rmos_shared.auditlog.introduction import introduces
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note, NoteInvalid
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.sealer import Sealed
from rmos_shared.errors import BrokerUnavailable, SealerBusy
from rmos_shared.jobs.acts import Act, ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.unsealed import FeedEntry, SealingState
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.unfinished import UnfinishedRuns
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.events import FileCorrupt, KeyUnintroduced
from rmos_shared.telemetry.log import emit

#: Publications of one seal at most, about: an entry of the feed is taken whole. Few large seals write fewer
#: partial tiles than many small ones.
SEAL_PUBLICATIONS = 5_000
#: What one run seals at most, so that each end is recorded soon.
MOST_SEALS = 10
#: Entries of the feed that are read at a time. A group of jobs has one.
_PAGE = 100
#: How often the whole store is looked at, and not only its latest days.
_WHOLE_EVERY = timedelta(days=1)
LOCK = "audit-seal"
_NEVER = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint of the log, whoever made it."""

    checkpoint: Checkpoint
    note: Note
    seal: SealEntry


@dataclass(slots=True)
class Come:
    """What a run has come to."""

    newest: Newest | None = None
    #: Up to where the feed was read, and sealed.
    place: str = ""
    seals: int = 0
    #: Entries that it added beside those that end seals.
    records: int = 0
    #: Of these, what lay in the store and nobody had told of.
    late: int = 0
    #: Keys that acts named and the key in use had not introduced.
    unintroduced: int = 0
    #: Whether there is more to seal at once.
    more: bool = False
    reconciled_at: datetime | None = None
    whole_at: datetime | None = None

    def result(self) -> dict[str, Any]:
        """Return it as the ledger is told by the end of a seal job."""
        told: dict[str, Any] = {
            "seals": self.seals,
            "records": self.records,
            "late": self.late,
            "unintroduced": self.unintroduced,
        }
        if self.place:
            told["feed"] = self.place
        for name, moment in (("reconciled_at", self.reconciled_at), ("whole_at", self.whole_at)):
            if moment is not None:
                told[name] = round(moment.timestamp() * 1_000)
        if (newest := self.newest) is not None:
            signatures = newest.note.signatures
            told |= {
                "size": newest.checkpoint.size,
                "root": newest.checkpoint.root.hex(),
                "at": format_time(newest.seal.at),
                "next": format_time(newest.seal.seal.next),
                "checkpoint": newest.note.to_bytes().decode(),
                "signed_by": signatures[-1].key_id.hex() if signatures else "",
            }
        return told


@dataclass(slots=True)
class _Gathered:
    place: str
    receipts: list[Receipt] = field(default_factory=list)
    #: When the last of it was read, in one step with what was there.
    now: datetime = _NEVER
    at_end: bool = False


class SealingRun:
    """Seals the feed. Killed anywhere, the next run goes on from what the log itself holds."""

    def __init__(self, ledger: JobLedger, parts: SealParts, *, lock_seconds: float) -> None:
        """Read the feed of ``ledger``; others keep away for ``lock_seconds`` from this one's last step."""
        self._ledger = ledger
        self._parts = parts
        self._lock_seconds = lock_seconds
        self._holder = secrets.token_hex(8)
        self._unintroduced = 0

    def run(self, is_reconciliation_due: Callable[[SealingState], bool]) -> Come:
        """Seal all that there is, up to ``MOST_SEALS``, and return what it came to.

        Raises:
            SealerBusy: another run is under way; come again.
            SettingsInvalid: the key is not the one that the log trusts.
            CorruptArtifact: the log is not what its newest checkpoint says, or not what the ledger knows.
            StoreUnavailable: the same call is safe.
        """
        self._renew()
        try:
            return self._run(is_reconciliation_due)
        finally:
            with suppress(BrokerUnavailable):
                self._ledger.queues.unlock(LOCK, self._holder)

    def _run(self, is_reconciliation_due: Callable[[SealingState], bool]) -> Come:
        state = self._ledger.unsealed.state()
        since, come = _remembered(state), Come(more=True)
        self._parts.sealer.complete(since=since)
        while come.more and come.seals < MOST_SEALS:
            self._renew()
            self._take(come, self._gather(come.place), since)
        if not come.more and is_reconciliation_due(state):
            self._reconcile(come, state, since)
        come.newest, come.unintroduced = _newest(self._parts.sealer.log), self._unintroduced
        return come

    def _renew(self) -> None:
        """Keep other sealers from doing the same work. Without it the log would be no other."""
        if not self._ledger.queues.try_lock(LOCK, self._holder, seconds=self._lock_seconds):
            raise SealerBusy("another worker seals the audit log at this moment")

    def _gather(self, after: str) -> _Gathered:
        gathered = _Gathered(after)
        while not gathered.at_end and len(gathered.receipts) < SEAL_PUBLICATIONS:
            page = self._ledger.unsealed.read(after=gathered.place, most=_PAGE)
            taken = _first_of(page.entries, SEAL_PUBLICATIONS - len(gathered.receipts))
            gathered.receipts += self._receipts(taken)
            gathered.place = taken[-1].feed_id if taken else gathered.place
            gathered.now, gathered.at_end = page.now, page.at_end and len(taken) == len(page.entries)
        return gathered

    def _receipts(self, entries: Sequence[FeedEntry]) -> Iterator[Receipt]:
        acts = self._parts.records.publish(entries)
        for entry in entries:
            for item in entry.published:
                yield _receipt(entry, item)
            if entry.feed_id in acts:
                act, item = acts[entry.feed_id]
                yield _receipt(entry, item, self._introduced(act, entry))

    def _introduced(self, act: Act, entry: FeedEntry) -> str | None:
        """Return the key that an act introduces, on the record of its begin alone.

        Only where the key in use says so: that an act is in the ledger proves nothing of who wrote it.
        """
        if act.kind != ActKind.KEY_ROTATION or entry.what != "begun":
            return None
        vkey, note = act.about.get("trusts"), act.about.get("introduction")
        signer = self._parts.signer
        if (
            signer is not None
            and isinstance(vkey, str)
            and isinstance(note, str)
            and introduces(note, vkey, signer.verifier)
        ):
            return vkey
        if signer is not None and vkey == signer.vkey:
            # Read again from a feed that is not trimmed yet: had it not been sealed, this key could not sign.
            return None
        self._unintroduced += 1
        emit(KeyUnintroduced(act_id=act.act_id))
        return None

    def _take(self, come: Come, gathered: _Gathered, since: Checkpoint | None) -> Sealed | None:
        sealed = self._parts.sealer.seal(
            gathered.receipts, now=gathered.now, feed_at_end=gathered.at_end, since=since
        )
        come.more = not gathered.at_end
        if sealed is not None:
            come.seals += 1
            come.records += sealed.seal.seal.entries - 1
            if sealed.more:
                # It left some, so they are read again: what the log holds of them it passes by.
                come.more = True
                return sealed
        come.place = gathered.place
        return sealed

    def _reconcile(self, come: Come, state: SealingState, since: Checkpoint | None) -> None:
        """Seal what lies in the store and nobody told of, with what was told of meanwhile."""
        # A time that lies ahead is of a clock that was set back.
        whole = state.whole_at is None or not timedelta() <= state.now - state.whole_at < _WHOLE_EVERY
        self._renew()
        # Asked anew in each run, for what is under way changes.
        self._parts.reconciler.spare(UnfinishedRuns(self._ledger).may_still_tell)
        found = self._parts.reconciler.find(state.now, whole=whole)
        for damage in found.unreadable:
            emit(FileCorrupt(file=damage.key, reason=damage.reason))
        gathered = self._gather(come.place)
        if found.receipts and not gathered.at_end:
            # What is told of goes first. The next round finds the rest, for it is not called done.
            come.more = True
            return
        told = {receipt.key for receipt in gathered.receipts}
        late = [receipt for receipt in found.receipts if receipt.key not in told]
        gathered.receipts += late
        sealed = self._take(come, gathered, since)
        if late and sealed is not None:
            come.late = self._late_in(sealed)
            # Where it sealed none of what it was given, a next round would be the same, and the one after it.
            come.more = come.more or (found.more and come.late > 0)
            if come.more:
                return
        come.reconciled_at = state.now
        if whole:
            come.whole_at = state.now

    def _late_in(self, sealed: Sealed) -> int:
        """Return how much of a seal is late: the sealer leaves out what it cannot call so."""
        lines = self._parts.sealer.log.entries(sealed.start, size=sealed.size)
        entries = map(parse_entry, lines)
        return sum(isinstance(entry, RecordEntry) and entry.found == "late" for entry in entries)


def _first_of(entries: Sequence[FeedEntry], most: int) -> Sequence[FeedEntry]:
    """Return the first entries, whole, that tell of ``most`` publications or a few more."""
    told = 0
    for number, entry in enumerate(entries):
        if told >= most:
            return entries[:number]
        told += len(entry.published) + (entry.act_id is not None)
    return entries


def _receipt(entry: FeedEntry, item: Publication, trusts: str | None = None) -> Receipt:
    return Receipt(
        key=item.key,
        sha256=item.sha256,
        size=item.size_bytes,
        at=entry.at,
        feed_id=entry.feed_id,
        # The record of an act is published by the sealer, and may have been by one that was killed.
        created=item.created and entry.act_id is None,
        trusts=trusts,
    )


def _newest(log: AuditLog) -> Newest | None:
    # Also of a run that sealed nothing: one that was killed after its checkpoint told nobody of it.
    size = log.newest_size()
    return Newest(*log.note(size), log.seal(size)) if size else None


def _remembered(state: SealingState) -> Checkpoint | None:
    """Return the newest checkpoint that the ledger knows; what is none of ours it does not know."""
    if state.checkpoint is None:
        return None
    try:
        return Checkpoint.parse_note(state.checkpoint.encode())[0]
    except NoteInvalid:
        return None
