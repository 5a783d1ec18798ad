"""The records of acts in the store: what the ledger has of an act, as files that never change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmos_shared.auditlog.layout import act_begun_key, act_ended_key
from rmos_shared.canonical import canonical_json
from rmos_shared.errors import ActNotFound, BrokerDamaged, InvalidRequest
from rmos_shared.jobs.acts import Act, JobActs
from rmos_shared.jobs.unsealed import FeedEntry
from rmos_shared.store.base import ArtifactStore, Outcome
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.events import RecordUnreadable
from rmos_shared.telemetry.log import emit

_BEGUN = ("act_id", "kind", "by", "why", "origin", "about", "found", "begun_at_utc")
_ENDED = ("act_id", "kind", "outcome", "done", "refused", "begun_at_utc", "ended_at_utc")


class ActRecords:
    """Writes what the feed tells of acts. The same entry is the same bytes, however often it is read."""

    def __init__(self, acts: JobActs, store: ArtifactStore) -> None:
        """Read ``acts``, write to ``store``."""
        self._acts = acts
        self._store = store

    def publish(self, entries: Sequence[FeedEntry]) -> dict[str, tuple[Act, Publication]]:
        """Publish the records that these entries tell of; return them by the ids of the entries.

        An act whose record is gone or damaged is reported and left out.

        Raises:
            StoreUnavailable: the store is away; the same call is safe.
        """
        found, items = [], []
        for entry in entries:
            act = self._read(entry)
            file = None if act is None else _file(entry, act)
            if act is not None and file is not None:
                found.append((entry, act))
                items.append(file)
        published = {}
        outcomes = self._store.create_many(items) if items else []
        for (entry, act), (key, data), outcome in zip(found, items, outcomes, strict=True):
            # What lies there stays, and is what the log tells of.
            stands = (self._store.get(key) or data) if outcome is Outcome.CONFLICT else data
            published[entry.feed_id] = (act, Publication.of(key, stands, outcome))
        return published

    def _read(self, entry: FeedEntry) -> Act | None:
        if entry.act_id is None:
            return None
        try:
            act = self._acts.get(entry.act_id)
        except (ActNotFound, BrokerDamaged) as error:
            emit(RecordUnreadable(job_id=entry.act_id, error=str(error)))
            return None
        if entry.what == "ended" and act.ended_at_utc is None:
            emit(RecordUnreadable(job_id=entry.act_id, error="another program took its end away"))
            return None
        return act


def _file(entry: FeedEntry, act: Act) -> tuple[str, bytes] | None:
    """Return the record of an act, and where it lies; None for what no store can hold, which is reported."""
    day = act.begun_at_utc.date().isoformat()
    ended = entry.what == "ended"
    try:
        fields: dict[str, Any] = act.dump()
        told = {name: fields[name] for name in (_ENDED if ended else _BEGUN)}
        key = act_ended_key(day, act.act_id) if ended else act_begun_key(day, act.act_id)
        return key, canonical_json({"schema_version": "1", **told})
    except (InvalidRequest, ValueError) as error:
        emit(RecordUnreadable(job_id=act.act_id, error=f"another program wrote it ({type(error).__name__})"))
        return None
