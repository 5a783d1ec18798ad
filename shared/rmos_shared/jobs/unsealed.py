"""The feed of the audit log: what was published and done since its newest seal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from rmos_shared.auditlog.entry import MOST_SIZE
from rmos_shared.auditlog.layout import is_entry
from rmos_shared.canonical import is_sha256
from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.arguments import publication_args
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.store.base import KEY
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.events import FeedUnreadable, PublicationsUntold
from rmos_shared.telemetry.log import emit

#: How long a broker that was away is asked no more by who need not tell.
_REST_SECONDS = 30.0
#: Publications of one entry; a seal takes entries whole.
_TOLD_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One entry of the feed: publications, or one act of an operator."""

    #: As the stream orders them, ``milliseconds-number``.
    feed_id: str
    #: When the ledger took it, by the server's clock.
    at: datetime
    published: tuple[Publication, ...] = ()
    act_id: str | None = None
    #: What the act did: ``begun`` or ``ended``.
    what: str | None = None


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed, and when it was read, by the server's clock and in the same step."""

    now: datetime
    entries: tuple[FeedEntry, ...]
    #: Whether nothing was behind them.
    at_end: bool


@dataclass(frozen=True, slots=True)
class SealingState:
    """What the ledger knows of the audit log, all of one moment."""

    now: datetime
    #: Publications and acts that no seal holds yet.
    unsealed: int
    oldest_at: datetime | None
    #: Of the next seal job; 0 before the record has begun.
    number: int
    #: When this record began.
    since: datetime
    #: Of the newest seal; None before the first.
    sealed_at: datetime | None
    #: When the seal after it is promised.
    next_at: datetime | None
    #: Entries of the log.
    size: int
    root: str | None
    #: The key that signed the newest checkpoint; empty: none did.
    signed_by: str
    #: The newest checkpoint, as it is written.
    checkpoint: str | None
    #: Seals, and entries without a receipt in time, since this record began.
    seals: int
    late: int
    #: Keys that acts named and the key in use had not introduced, since then.
    unintroduced: int
    #: When the log was last held against the store: against its latest days, and against all of it.
    reconciled_at: datetime | None
    whole_at: datetime | None


class Unsealed:
    """The feed, read in order. Atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script
        self._rests_until = 0.0

    def add(self, published: Sequence[Publication]) -> None:
        """Tell of what was published where no job is."""
        for first in range(0, len(published), _TOLD_AT_ONCE):
            self._script.run("publish", *publication_args(published[first : first + _TOLD_AT_ONCE]))

    def tell(self, published: Sequence[Publication]) -> bool:
        """As ``add``, at best effort, and return if that worked: without it the audit log finds them late.

        A broker that is away is not asked again for a while, for each call may take its whole time.
        """
        if time.monotonic() < self._rests_until:
            return False
        try:
            self.add(published)
        except (BrokerUnavailable, BrokerDamaged) as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            emit(PublicationsUntold(error=str(error)))
            return False
        return True

    def read(self, *, after: str = "", most: int) -> FeedPage:
        """Return up to ``most`` entries after the id ``after``, in order, from the first on if it is empty.

        What another program wrote is reported, and passed by: an entry, or some of the publications in it.

        Raises:
            BrokerDamaged: also when an id tells no time.
        """
        first = f"({after}" if after else "-"
        with broker_errors(), self._script.client.pipeline(transaction=True) as pipe:
            # In one step: whatever comes later than this time comes later than this page.
            pipe.time()
            pipe.xrange(f"{self._script.prefix}unsealed", min=first, count=most)
            (seconds, microseconds), raw = pipe.execute()
        entries = tuple(
            _entry(feed_id.decode(), self._moment(feed_id.partition(b"-")[0]), fields)
            for feed_id, fields in cast("list[_Raw]", raw)
        )
        now = _time(seconds * 1000 + microseconds // 1000)
        return FeedPage(now, entries, at_end=len(entries) < most)

    def state(self, *, begin: bool = False) -> SealingState:
        """Return what the ledger knows of the audit log; with ``begin`` it begins to know.

        Raises:
            BrokerDamaged: also when the record holds what the ledger does not write.
        """
        now, unsealed, oldest, newest, *pairs = self._script.run("sealing", int(begin))
        fields, unreadable = _read_fields(pairs)
        if unreadable:
            raise BrokerDamaged(
                f"the ledger's record of the audit log, {self._script.prefix}seals, cannot be read (field "
                f"{', '.join(unreadable)}); another program wrote it: rmos jobs repair --feed takes it away"
            )
        if newest:
            # An id is never less than one before it, so this speaks for all.
            self._moment(newest)
        return SealingState(
            now=_time(now),
            unsealed=int(unsealed),
            oldest_at=self._moment(oldest) if oldest else None,
            number=fields.get("number", 0),
            since=fields.get("since", _time(now)),
            sealed_at=fields.get("at"),
            next_at=fields.get("next"),
            size=fields.get("size", 0),
            root=fields.get("root"),
            signed_by=fields.get("signed_by", ""),
            checkpoint=fields.get("checkpoint"),
            seals=fields.get("seals", 0),
            late=fields.get("late", 0),
            unintroduced=fields.get("unintroduced", 0),
            reconciled_at=fields.get("reconciled_at"),
            whole_at=fields.get("whole_at"),
        )

    def _moment(self, milliseconds: bytes) -> datetime:
        """Return the time of an id of the feed."""
        try:
            return _time(milliseconds)
        except _UNREADABLE:
            raise BrokerDamaged(
                f"the ids of the audit log's feed, {self._script.prefix}unsealed, tell no time any more; "
                "another program wrote to it: rmos jobs repair --feed gives them times"
            ) from None

    def forget_checkpoint(self) -> None:
        """Forget the newest checkpoint: a log that was restored from a backup may go on from an older one.

        For who has that on record as an act, and for nobody else.
        """
        with broker_errors():
            self._script.client.hdel(f"{self._script.prefix}seals", "checkpoint")

    def repair(self) -> list[str]:
        """Take away what is no feed, and return what that was: keys, fields, ids. What is well stays.

        The audit log finds what a key held, as late.
        """
        gone = self._script.texts("repair_unsealed")
        _, unreadable = _read_fields(self._script.run("sealing", 0)[4:])
        if unreadable:
            # Each with what was read, for a seal may have told something better meanwhile.
            told = [word for name, value in unreadable.items() for word in (name, value)]
            gone += self._script.texts("repair_seals", *told)
        return gone


_Raw = tuple[bytes, dict[bytes, bytes]]


def _entry(feed_id: str, at: datetime, fields: dict[bytes, bytes]) -> FeedEntry:
    try:
        if b"act" in fields:
            return FeedEntry(feed_id, at, act_id=fields[b"act"].decode(), what=fields[b"what"].decode())
        published, foreign = _publications(json.loads(fields[b"p"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        emit(FeedUnreadable(feed_id=feed_id, error=type(error).__name__))
        return FeedEntry(feed_id, at)
    if foreign:
        emit(FeedUnreadable(feed_id=feed_id, error=f"{foreign} of {foreign + len(published)} publications"))
    return FeedEntry(feed_id, at, tuple(published))


def _publications(items: Iterable[Any]) -> tuple[list[Publication], int]:
    """Return what the items tell of, and how many of them another program wrote."""
    published, foreign = [], 0
    for item in items:
        try:
            published.append(_publication(item))
        except (ValueError, TypeError):
            foreign += 1
    return published, foreign


def _publication(item: Any) -> Publication:
    """Return what an item tells of: what an entry of the log can hold, or nothing could be sealed with it.

    Raises:
        ValueError, TypeError: another program wrote it.
    """
    key, sha256, size_bytes, outcome = item
    if not (KEY.fullmatch(key) and is_entry(key) and is_sha256(sha256)):
        raise ValueError
    # A bool is an int, but none that an entry could tell.
    if type(size_bytes) is not int or not 0 <= size_bytes < MOST_SIZE:
        raise ValueError
    return Publication(key, sha256, size_bytes, created=outcome == "c")


def _time(milliseconds: bytes | str | int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, tz=UTC)


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError
    return moment


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number < MOST_SIZE:
        raise ValueError
    return number


#: What ``_time`` raises for a time that no calendar has, and others for what they cannot read.
_UNREADABLE = (ValueError, OverflowError, OSError)
#: How the fields of the ledger's record of the audit log are read.
_FIELDS: Mapping[str, Callable[[str], Any]] = {
    "number": _count,
    "since": _time,
    "size": _count,
    "root": str,
    "at": _aware,
    "next": _aware,
    "signed_by": str,
    "checkpoint": str,
    "seals": _count,
    "late": _count,
    "unintroduced": _count,
    "reconciled_at": _time,
    "whole_at": _time,
}


def _read_fields(pairs: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the values of the fields by name, and the bytes of those that another program wrote."""
    values: dict[str, Any] = {}
    unreadable: dict[str, bytes] = {}
    for raw_name, raw in zip(*[iter(pairs)] * 2, strict=True):
        name = raw_name.decode()
        try:
            values[name] = _FIELDS[name](raw.decode())
        except _UNREADABLE:
            unreadable[name] = raw
    return values, unreadable
