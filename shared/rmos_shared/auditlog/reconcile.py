"""The log held against the store: what lies there, and is in no entry, is late.

A part of the store is passed by while the stamps of its directories are those of before. It is remembered
only when all in it was in the log, and had not changed for so long that names which came since would show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from rmos_shared.auditlog.layout import ACTS, ATTACHMENTS, is_day, is_ours
from rmos_shared.auditlog.log import SLACK, AuditLog
from rmos_shared.auditlog.moment import time_in
from rmos_shared.auditlog.receipt import LATE_AFTER, Receipt, receipt_of
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore, KeyInvalid, StampedStore

#: Late files that one round tells of; the next goes on.
MOST_LATE = 10_000

#: A stamp that is younger may be kept by names that come after it: clocks of file systems tick slowly.
_SETTLED_AFTER = timedelta(seconds=2.5)
#: Keys that are searched for at a time, and held in memory.
_BATCH = 200_000
#: Branches by days; "" are the partitions. Those of the second kind have a directory for each run below the
#: day.
_FLAT = ("", ACTS, "_batches/")
_NESTED = ("_reviews/", "_attempts/")


@dataclass(slots=True)
class Unsealed:
    """What a round has found."""

    #: Of what is late, to be sealed with those of the feed, once that is read to its end.
    receipts: list[Receipt] = field(default_factory=list)
    #: Directories and files that could not be read, so nothing is known of them.
    unreadable: list[CorruptArtifact] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the store that is looked at or passed by as one: what lies below this directory."""

    prefix: str
    nested: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    """All in a part was in the log when its stamp was this."""

    stamp: str
    at: datetime
    #: False: it is not known of files with times from before the last look.
    whole: bool = True


@dataclass(slots=True)
class _Look:
    """What is to be held against the log of one part."""

    stamp: str | None
    #: With the times of those whose names tell none.
    keys: dict[str, datetime | None]
    whole: bool = True


class Reconciler:
    """Remembers, as long as it lives, what it has seen: keep one for the life of a process.

    Its methods raise ``StoreUnavailable`` when the store is away, and ``CorruptArtifact`` where the log is
    damaged.
    """

    def __init__(self, store: ArtifactStore, log: AuditLog, *, clock: Clock | None = None) -> None:
        """Hold ``log`` against ``store``; ``clock`` is that of the store's file system."""
        self._store = store
        self._log = log
        self._clock = clock or SystemClock()
        self._seen: dict[str, _Seen] = {}
        self._replaced = log.replaced

    def find(self, now: datetime, *, whole: bool = False) -> Unsealed:
        """Return what has lain there for ``LATE_AFTER`` and is in no entry; ``now`` is the ledger's time.

        Looks at today's and yesterday's records, and at what is new among those that lie by no day; with
        ``whole`` at all. In a log that still adopts what was there before it, nothing is late.
        """
        size = self._log.newest_size()
        if self._replaced != self._log.replaced:
            # What was in the log before may not be in this one.
            self._seen.clear()
            self._replaced = self._log.replaced
        result = Unsealed()
        if not size or self._log.adopted_last(size) is not None:
            return result
        looks: dict[str, _Look] = {}
        parts = self._all() if whole else _recent(now)
        for part in parts:
            look = self._look(part, result, whole=whole)
            if look is not None:
                looks[part.prefix] = look
            if sum(len(look.keys) for look in looks.values()) >= _BATCH:
                self._hold(looks, size, now, result)
                looks = {}
            if len(result.receipts) >= MOST_LATE:
                return result
        self._hold(looks, size, now, result)
        return result

    # -- what is to be looked at ----------------------------------------------------------------------

    def _all(self) -> Iterator[_Part]:
        for branch in (*_FLAT, *_NESTED):
            for name in self._names(branch):
                if is_day(name):
                    yield _Part(f"{branch}{name}/", nested=branch in _NESTED)
        yield from _attachments()

    def _names(self, branch: str) -> Iterator[str]:
        """Yield the names in one directory, passing by what lies below them."""
        after = ""
        while (key := next(iter(self._store.list(branch, after)), None)) is not None:
            name, below, _ = key.removeprefix(branch).partition("/")
            yield name
            # "0" sorts just after "/".
            after = f"{branch}{name}0" if below else key

    def _look(self, part: _Part, result: Unsealed, *, whole: bool) -> _Look | None:
        """Return the names of a part, and its stamp unless that may change yet; None: nothing has come."""
        began = self._clock.now()
        seen = self._seen.get(part.prefix)
        try:
            stamp = None if part.nested else self._stamp([part.prefix], began)
            if seen is not None and stamp == seen.stamp and (seen.whole or not whole):
                return None
            listed = list(self._store.list(part.prefix))
        except CorruptArtifact as error:
            result.unreadable.append(error)
            return None
        keys = [key for key in listed if is_ours(key)]
        if part.nested:
            result.unreadable += self._planted(key for key in listed if not is_ours(key))
            below = sorted({key[: key.rfind("/") + 1] for key in keys})
            stamp = self._stamp([part.prefix, *below], began)
            if seen is not None and stamp == seen.stamp:
                return None
        if not part.prefix.startswith(ATTACHMENTS):
            return _Look(stamp, dict.fromkeys(keys))
        # Their names tell no time. What is no younger than the last look was in the log then; only a copy
        # with its old time can have come since, and the look at all finds that.
        since = None if whole or seen is None else seen.at - SLACK
        times = self._times(keys, result)
        recent: dict[str, datetime | None] = {
            key: at for key, at in times.items() if since is None or at >= since
        }
        return _Look(stamp, recent, whole=len(recent) == len(times))

    def _stamp(self, directories: Iterable[str], began: datetime) -> str | None:
        """Return what changes with the names in these directories; None where it may miss what comes now."""
        if not isinstance(self._store, StampedStore):
            return None
        digest = sha256()
        for directory in directories:
            stamp = self._store.stamp(directory[:-1])
            if stamp is not None and began - stamp.changed_at <= _SETTLED_AFTER:
                return None
            digest.update(f"{directory} {stamp.token if stamp else ''}\n".encode())
        return digest.hexdigest()

    def _planted(self, names: Iterable[str]) -> Iterator[CorruptArtifact]:
        """Yield what is wrong with names that stand where a run's directory should: a list goes past them."""
        for name in names:
            try:
                self._store.head(name)
            except CorruptArtifact as error:
                yield error
            except KeyInvalid:
                continue

    # -- what is in the log ---------------------------------------------------------------------------

    def _hold(self, looks: Mapping[str, _Look], size: int, now: datetime, result: Unsealed) -> None:
        """Add what is missing in the log; remember the parts in which nothing is."""
        at = self._clock.now()
        keys = {key: time for look in looks.values() for key, time in look.keys.items()}
        missing = self._missing(keys, size, result)
        for prefix, look in looks.items():
            lacking = [key for key in look.keys if key in missing]
            if look.stamp is not None and not lacking:
                self._seen[prefix] = _Seen(look.stamp, at, look.whole)
            for key in lacking:
                modified_at = missing[key]
                if modified_at is None or now - modified_at < LATE_AFTER or len(result.receipts) >= MOST_LATE:
                    continue
                try:
                    result.receipts.append(receipt_of(self._store, key, now, "late"))
                except CorruptArtifact as error:
                    result.unreadable.append(error)

    def _missing(
        self, keys: Mapping[str, datetime | None], size: int, result: Unsealed
    ) -> dict[str, datetime | None]:
        """Return which keys are in no entry, with the times of their files; None where none can be read."""
        first = {key: at for key, time in keys.items() if (at := time_in(key) or time) is not None}
        found = self._log.find(first, size=size)
        missing: dict[str, datetime | None] = dict.fromkeys(key for key in keys if key not in found)
        times = self._times(missing, result)
        # Ids may be of a clock that was ahead.
        earlier = {key: at for key, at in times.items() if key not in first or at < first[key]}
        found = self._log.find(earlier, size=size)
        return {key: times.get(key) for key in missing if key not in found}

    def _times(self, keys: Iterable[str], result: Unsealed) -> dict[str, datetime]:
        times = {}
        for key in keys:
            try:
                head = self._store.head(key)
            except CorruptArtifact as error:
                result.unreadable.append(error)
                continue
            if head is not None:
                times[key] = head.modified_at
        return times


def _recent(now: datetime) -> Iterator[_Part]:
    for day in (now - timedelta(days=1), now):
        for branch in (*_FLAT, *_NESTED):
            yield _Part(f"{branch}{day.date().isoformat()}/", nested=branch in _NESTED)
    yield from _attachments()


def _attachments() -> Iterator[_Part]:
    for first in range(256):
        yield _Part(f"{ATTACHMENTS}{first:02x}/")
