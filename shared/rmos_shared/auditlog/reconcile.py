"""The log held against the store: what lies there, and is in no entry, is late.

A part of the store is passed by while the stamps of its directories are those of before. It is remembered
only when all in it was in the log, and had not changed for so long that names which came since would show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import chain, islice

from rmos_shared.auditlog.layout import ACTS, ATTACHMENTS, is_day, is_ours
from rmos_shared.auditlog.log import SLACK, AuditLog
from rmos_shared.auditlog.moment import time_in
from rmos_shared.auditlog.receipt import LATE_AFTER, Receipt, receipt_of
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore, KeyInvalid, StampedStore

#: Late files that one round tells of; the next goes on.
MOST_LATE = 10_000
#: Says of a key, and of the time of its file, whether what published it is still to tell of it.
MayStillTell = Callable[[str, datetime], bool]

#: A stamp that is younger may be kept by names that come after it: clocks of file systems tick slowly.
_SETTLED_AFTER = timedelta(seconds=2.5)
#: Names of a part that are taken at a time, and keys after which all that was taken is searched for: memory
#: holds fewer than twice as many.
_BATCH = 100_000
#: Before anything that may be searched for.
_ALWAYS = datetime(1970, 1, 2, tzinfo=UTC)
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
    #: Whether it ended at ``MOST_LATE``, and what lies behind was not looked at.
    more: bool = False


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


@dataclass(frozen=True, slots=True)
class _Look:
    """What is to be held against the log of one part, or of a piece of one that is large."""

    prefix: str
    #: With the times of those whose names tell none.
    keys: Mapping[str, datetime | None]
    #: Of the last piece: what to remember, if all of the part is in the log.
    seen: _Seen | None = None


@dataclass(slots=True)
class _Round:
    """One look at the store."""

    now: datetime
    #: Of the log.
    size: int
    whole: bool
    result: Unsealed = field(default_factory=Unsealed)
    #: Parts of which something is not in the log.
    lacking: set[str] = field(default_factory=set)


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
        self._may_still_tell: MayStillTell = lambda _key, _modified_at: False
        self._seen: dict[str, _Seen] = {}
        self._replaced = log.replaced

    def spare(self, may_still_tell: MayStillTell) -> None:
        """From now on leave alone what this says may still be told of; asked before a file is read."""
        self._may_still_tell = may_still_tell

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
        round_ = _Round(now, size, whole)
        if not size or self._log.adopted_last(size) is not None:
            return round_.result
        looks: list[_Look] = []
        taken = 0
        for look in self._looks(round_):
            looks.append(look)
            taken += len(look.keys)
            if taken >= _BATCH:
                self._hold(looks, round_)
                looks, taken = [], 0
                if round_.result.more:
                    return round_.result
        self._hold(looks, round_)
        return round_.result

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

    def _looks(self, round_: _Round) -> Iterator[_Look]:
        for part in self._all() if round_.whole else _recent(round_.now):
            try:
                yield from self._look(part, round_)
            except CorruptArtifact as error:
                # What was yielded of it is looked at, and the part not remembered.
                round_.result.unreadable.append(error)

    def _look(self, part: _Part, round_: _Round) -> Iterator[_Look]:
        """Yield what a part holds, in pieces; nothing if nothing has come.

        Raises:
            CorruptArtifact: its directory could not be read.
        """
        began = self._clock.now()
        seen = self._seen.get(part.prefix)
        stamp = None if part.nested else self._stamp([part.prefix], began)
        if seen is not None and stamp == seen.stamp and (seen.whole or not round_.whole):
            return
        names = iter(self._store.list(part.prefix))
        piece = list(islice(names, _BATCH))
        if part.nested:
            below = self._directories(chain(piece, names), round_.result)
            stamp = self._stamp(chain([part.prefix], below), began)
            if seen is not None and stamp == seen.stamp:
                return
            # What is more than a piece is listed once more rather than held.
            names = iter(self._store.list(part.prefix, piece[-1]) if len(piece) == _BATCH else ())
        # Names of attachments tell no time. What is no younger than the last look was in the log then; only a
        # copy with its old time can have come since, and the look at all finds that.
        timed = part.prefix.startswith(ATTACHMENTS)
        since = None if round_.whole or seen is None else seen.at - SLACK
        whole, is_last = True, False
        while not is_last:
            is_last = len(piece) < _BATCH
            ours = [key for key in piece if is_ours(key)]
            keys: dict[str, datetime | None] = dict.fromkeys(ours)
            if timed:
                times = self._times(ours, round_.result)
                keys = {key: at for key, at in times.items() if since is None or at >= since}
                whole = whole and len(keys) == len(times)
            at_end = _Seen(stamp, began, whole) if is_last and stamp is not None else None
            yield _Look(part.prefix, keys, at_end)
            piece = list(islice(names, _BATCH))

    def _directories(self, names: Iterable[str], result: Unsealed) -> Iterator[str]:
        """Yield the directories in which records lie; tell of what is wrong with other names."""
        last = ""
        for name in names:
            directory = name[: name.rfind("/") + 1]
            if not is_ours(name):
                result.unreadable += self._planted(name)
            elif directory != last:
                last = directory
                yield directory

    def _stamp(self, directories: Iterable[str], began: datetime) -> str | None:
        """Return what changes with the names in these directories; None where it may miss what comes now.

        Goes through all of them in any case.
        """
        digest, is_settled = sha256(), isinstance(self._store, StampedStore)
        for directory in directories:
            stamp = self._store.stamp(directory[:-1]) if isinstance(self._store, StampedStore) else None
            is_settled = is_settled and (stamp is None or began - stamp.changed_at > _SETTLED_AFTER)
            digest.update(f"{directory} {stamp.token if stamp else ''}\n".encode())
        return digest.hexdigest() if is_settled else None

    def _planted(self, name: str) -> Iterator[CorruptArtifact]:
        """Yield what is wrong with a name that stands where a run's directory should: a list goes past it."""
        try:
            self._store.head(name)
        except CorruptArtifact as error:
            yield error
        except KeyInvalid:
            return

    # -- what is in the log ---------------------------------------------------------------------------

    def _hold(self, looks: Sequence[_Look], round_: _Round) -> None:
        """Add what is missing in the log; remember the parts in which nothing is."""
        keys = {key: time for look in looks for key, time in look.keys.items()}
        missing = self._missing(keys, round_)
        for look in looks:
            lacking = [key for key in look.keys if key in missing]
            if lacking:
                round_.lacking.add(look.prefix)
            elif look.seen is not None and look.prefix not in round_.lacking:
                self._seen[look.prefix] = look.seen
            for key in lacking:
                modified_at = missing[key]
                if modified_at is None or _is_recent(modified_at, round_.now):
                    continue
                if len(round_.result.receipts) >= MOST_LATE:
                    round_.result.more = True
                    return
                if not self._may_still_tell(key, modified_at):
                    self._add(key, round_)

    def _add(self, key: str, round_: _Round) -> None:
        try:
            round_.result.receipts.append(receipt_of(self._store, key, round_.now, "late"))
        except CorruptArtifact as error:
            round_.result.unreadable.append(error)

    def _missing(self, keys: Mapping[str, datetime | None], round_: _Round) -> dict[str, datetime | None]:
        """Return which keys are in no entry, with the times of their files; None where none can be read."""
        first = {key: at for key, time in keys.items() if (at := time_in(key) or time) is not None}
        found = self._log.find(first, size=round_.size)
        missing: dict[str, datetime | None] = dict.fromkeys(key for key in keys if key not in found)
        times = self._times(missing, round_.result)
        earlier = {}
        for key, modified_at in times.items():
            searched = first.get(key)
            # Ids may be of a clock that was ahead. Where both times lie ahead, neither tells anything.
            at = modified_at if searched is None else min(modified_at, searched)
            at = _ALWAYS if _is_ahead(at, round_.now) else at
            if searched is None or at < searched:
                earlier[key] = at
        found = self._log.find(earlier, size=round_.size)
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


def _is_recent(modified_at: datetime, now: datetime) -> bool:
    """Say whether the receipt of a file of this time may be on the way.

    A time that lies ahead tells nothing of that, and may not come for years.
    """
    return now - modified_at < LATE_AFTER and not _is_ahead(modified_at, now)


def _is_ahead(at: datetime, now: datetime) -> bool:
    return at - now > SLACK


def _recent(now: datetime) -> Iterator[_Part]:
    for day in (now - timedelta(days=1), now):
        for branch in (*_FLAT, *_NESTED):
            yield _Part(f"{branch}{day.date().isoformat()}/", nested=branch in _NESTED)
    yield from _attachments()


def _attachments() -> Iterator[_Part]:
    for first in range(256):
        yield _Part(f"{ATTACHMENTS}{first:02x}/")
