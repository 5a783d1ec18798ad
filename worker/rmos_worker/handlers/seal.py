"""``audit.seal``: bring into the audit log what was published and done since the seal before."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import SealEntry, format_time
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note, NoteInvalid
from rmos_shared.auditlog.sealer import Receipt, Sealer
from rmos_shared.errors import BrokerUnavailable, SealerBusy
from rmos_shared.jobs.acts import Act, ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.unsealed import FeedEntry, FeedPage, SealingState
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import SealLog
from rmos_shared.telemetry.events import LogSealed
from rmos_shared.telemetry.log import emit
from rmos_worker.handlers.act_records import ActRecords
from rmos_worker.handlers.base import each, read_payload

#: Publications of one seal, about: an entry of the feed is taken whole.
SEAL_PUBLICATIONS = 1_000
#: What one job seals at most; the next one goes on at once.
MOST_SEALS = 10
#: Entries of the feed that are read at a time. A group of jobs has one.
_PAGE = 100
#: What was found without a publication, of one seal.
_FOUND = 10_000
LOCK = "audit-seal"
#: As an entry says so.
_ADOPTED = b'"found":"adopted"'


@dataclass(frozen=True, slots=True)
class SealParts:
    """What a seal job needs of its process."""

    sealer: Sealer
    records: ActRecords
    #: What lies in the store and in no entry; called with the time, and whether the log is new.
    unlogged: Callable[[datetime, bool], Iterator[Receipt]]


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest checkpoint of the log, whoever made it."""

    checkpoint: Checkpoint
    note: Note
    seal: SealEntry


@dataclass(slots=True)
class _Come:
    """What a job has come to so far."""

    newest: _Newest | None = None
    #: Up to where the feed was read, and sealed.
    place: str = ""
    seals: int = 0
    late: int = 0
    reconciled_at: datetime | None = None
    more: bool = False
    records: int = 0


@dataclass(slots=True)
class _Gathered:
    receipts: list[Receipt] = field(default_factory=list)
    place: str = ""
    page: FeedPage | None = None

    @property
    def at_end(self) -> bool:
        return self.page is not None and self.page.at_end


class SealHandler:
    """Seals the feed in its order. Killed anywhere, the next job goes on from what the log itself holds."""

    def __init__(
        self,
        ledger: JobLedger,
        parts: Callable[[], SealParts],
        *,
        lock_seconds: float,
        is_reconciliation_due: Callable[[SealingState], bool],
        next_job: Callable[[int], Job],
    ) -> None:
        """Read the feed of ``ledger``; ``parts`` are made by the first job, for few processes have any."""
        self._ledger = ledger
        self._make = parts
        self._parts: SealParts | None = None
        self._lock_seconds = lock_seconds
        self._is_reconciliation_due = is_reconciliation_due
        self._next_job = next_job
        #: A sealer is not for several threads at once, and two jobs at a time are rare.
        self._alone = threading.Lock()

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Do each job."""
        return each(claims, self._seal)

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing: what is published stays in the feed until the job is replayed."""
        return ()

    def _seal(self, claim: Claim) -> Finish:
        number = read_payload(claim, SealLog).number
        with self._alone:
            return self._seal_alone(claim, number)

    def _seal_alone(self, claim: Claim, number: int) -> Finish:
        holder = secrets.token_hex(8)
        self._parts = parts = self._parts or self._make()
        self._renew(holder)
        try:
            return self._end(claim, self._come(parts, holder), number)
        finally:
            with suppress(BrokerUnavailable):
                self._ledger.queues.unlock(LOCK, holder)

    def _come(self, parts: SealParts, holder: str) -> _Come:
        """Seal all that there is, up to what one job may, and return what it came to."""
        state = self._ledger.unsealed.state()
        since = _remembered(state)
        come = _Come()
        parts.sealer.complete(since=since)
        adopting = _is_adopting(parts.sealer.log)
        if adopting:
            # Before anything else is sealed, so that a try that is killed is known as one.
            self._reconcile(come, parts, holder, adopting=True, since=since)
        while come.seals < MOST_SEALS:
            self._renew(holder)
            gathered = self._gather(come.place)
            self._take(come, parts, gathered, since)
            if gathered.at_end:
                break
        else:
            come.more = True
        if not (come.more or adopting) and self._is_reconciliation_due(state):
            self._reconcile(come, parts, holder, adopting=False, since=since)
        come.newest = come.newest or _newest(parts.sealer.log)
        return come

    def _renew(self, holder: str) -> None:
        """Keep other sealers from doing the same work. Without it the log would be no other."""
        if not self._ledger.queues.try_lock(LOCK, holder, seconds=self._lock_seconds):
            raise SealerBusy("another worker seals the audit log at this moment")

    def _gather(self, after: str) -> _Gathered:
        gathered = _Gathered(place=after)
        while not gathered.at_end and len(gathered.receipts) < SEAL_PUBLICATIONS:
            page = self._ledger.unsealed.read(after=gathered.place, most=_PAGE)
            gathered.page = page
            gathered.receipts += self._receipts(page.entries)
            gathered.place = page.entries[-1].feed_id if page.entries else gathered.place
        return gathered

    def _receipts(self, entries: Sequence[FeedEntry]) -> Iterator[Receipt]:
        assert self._parts is not None  # noqa: S101 - made before
        acts = self._parts.records.publish(entries)
        for entry in entries:
            for item in entry.published:
                yield _receipt(entry, item)
            if entry.feed_id in acts:
                act, item = acts[entry.feed_id]
                yield _receipt(entry, item, _introduced(act, entry))

    def _take(self, come: _Come, parts: SealParts, gathered: _Gathered, since: Checkpoint | None) -> None:
        assert gathered.page is not None  # noqa: S101 - it has read one
        sealed = parts.sealer.seal(
            gathered.receipts, now=gathered.page.now, feed_at_end=gathered.at_end, since=since
        )
        come.place = gathered.place
        if sealed is not None:
            come.newest, come.seals = _Newest(sealed.checkpoint, sealed.note, sealed.seal), come.seals + 1
            come.records += sealed.seal.seal.entries - 1

    def _reconcile(
        self, come: _Come, parts: SealParts, holder: str, *, adopting: bool, since: Checkpoint | None
    ) -> None:
        """Seal what lies in the store and nobody told of, a part at a time."""
        began = self._ledger.unsealed.read(after=come.place, most=1).now
        found = parts.unlogged(began, adopting)
        while part := list(islice(found, _FOUND)):
            self._renew(holder)
            # Whatever was told of meanwhile goes first, for it is none of what nobody told of.
            while True:
                gathered = self._gather(come.place)
                if gathered.at_end:
                    break
                self._take(come, parts, gathered, since)
            told = {receipt.key for receipt in gathered.receipts}
            late = [receipt for receipt in part if receipt.key not in told]
            gathered.receipts += late
            self._take(come, parts, gathered, since)
            come.late += sum(receipt.found == "late" for receipt in late)
        come.reconciled_at = began

    def _end(self, claim: Claim, come: _Come, number: int) -> Finish:
        result: dict[str, Any] = {"seals": come.seals, "records": come.records, "late": come.late}
        if come.place:
            result["feed"] = come.place
        if come.reconciled_at is not None:
            result["reconciled_at"] = round(come.reconciled_at.timestamp() * 1_000)
        if (newest := come.newest) is not None:
            signatures = newest.note.signatures
            result |= {
                "size": newest.checkpoint.size,
                "root": newest.checkpoint.root.hex(),
                "at": format_time(newest.seal.at),
                "next": format_time(newest.seal.seal.next),
                "checkpoint": newest.note.to_bytes().decode(),
                "signed_by": signatures[-1].key_id.hex() if signatures else "",
            }
            emit(
                LogSealed(
                    size=newest.checkpoint.size,
                    seals=come.seals,
                    records=come.records,
                    late=come.late,
                    signed=bool(signatures),
                ),
                quiet=not come.seals,
            )
        following = (self._next_job(number + 1),) if come.more else ()
        return Finish(claim.job_id, result, following)


def _receipt(entry: FeedEntry, item: Publication, trusts: str | None = None) -> Receipt:
    return Receipt(
        key=item.key,
        sha256=item.sha256,
        size=item.size_bytes,
        at=entry.at,
        feed_id=entry.feed_id,
        created=item.created or entry.act_id is not None,
        trusts=trusts,
    )


def _introduced(act: Act, entry: FeedEntry) -> str | None:
    """Return the key that an act introduces, on the record of its begin alone."""
    vkey = act.about.get("trusts") if act.kind == ActKind.KEY_ROTATION else None
    return vkey if isinstance(vkey, str) and entry.what == "begun" else None


def _is_adopting(log: AuditLog) -> bool:
    """Say whether what lies in the store is older than its log: there is none, or its newest seal took some."""
    size = log.newest_size()
    if not size:
        return True
    begin = size - log.seal(size).seal.entries
    return any(_ADOPTED in line for line in log.entries(begin, size))


def _newest(log: AuditLog) -> _Newest | None:
    size = log.newest_size()
    if not size:
        return None
    # A job that was killed after its checkpoint told nobody of it.
    return _Newest(*log.note(size), log.seal(size))


def _remembered(state: SealingState) -> Checkpoint | None:
    """Return the newest checkpoint that the ledger knows; one that is none of ours it does not know."""
    if state.checkpoint is None:
        return None
    try:
        return Checkpoint.parse_note(state.checkpoint.encode())[0]
    except NoteInvalid:
        return None
