"""The feed of the audit log: what was published and done since its newest seal."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.arguments import publication_args
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
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

        An entry that another program wrote is reported, and tells of nothing.
        """
        first = f"({after}" if after else "-"
        with broker_errors(), self._script.client.pipeline(transaction=True) as pipe:
            # In one step: whatever comes later than this time comes later than this page.
            pipe.time()
            pipe.xrange(f"{self._script.prefix}unsealed", min=first, count=most)
            (seconds, microseconds), raw = pipe.execute()
        entries = [_entry(feed_id.decode(), fields) for feed_id, fields in cast("list[_Raw]", raw)]
        now = _time(seconds * 1000 + microseconds // 1000)
        return FeedPage(now, tuple(entries), at_end=len(entries) < most)

    def state(self, *, begin: bool = False) -> SealingState:
        """Return what the ledger knows of the audit log; with ``begin`` it begins to know.

        Raises:
            BrokerDamaged: also when the record holds what the ledger does not write.
        """
        now, unsealed, oldest, *pairs = self._script.run("sealing", int(begin))
        fields = dict(zip(*[iter(text.decode() for text in pairs)] * 2, strict=True))
        try:
            return SealingState(
                now=_time(now),
                unsealed=int(unsealed),
                oldest_at=_time(oldest) if oldest else None,
                number=int(fields.get("number", 0)),
                since=_time(fields.get("since", now)),
                sealed_at=_moment(fields.get("at")),
                next_at=_moment(fields.get("next")),
                size=int(fields.get("size", 0)),
                root=fields.get("root"),
                signed_by=fields.get("signed_by", ""),
                checkpoint=fields.get("checkpoint"),
                seals=int(fields.get("seals", 0)),
                late=int(fields.get("late", 0)),
                unintroduced=int(fields.get("unintroduced", 0)),
                reconciled_at=_time(fields["reconciled_at"]) if "reconciled_at" in fields else None,
                whole_at=_time(fields["whole_at"]) if "whole_at" in fields else None,
            )
        except (ValueError, OverflowError) as error:
            raise BrokerDamaged(
                f"the ledger's record of the audit log, {self._script.prefix}seals, cannot be read "
                f"({type(error).__name__}); another program wrote it: move it away (RENAME)"
            ) from None

    def forget_checkpoint(self) -> None:
        """Forget the newest checkpoint: a log that was restored from a backup may go on from an older one.

        For who has that on record as an act, and for nobody else.
        """
        with broker_errors():
            self._script.client.hdel(f"{self._script.prefix}seals", "checkpoint")

    def repair(self) -> list[str]:
        """Take away keys that are no feed, and return them; the audit log finds what they held, as late."""
        return self._script.texts("repair_unsealed")


_Raw = tuple[bytes, dict[bytes, bytes]]


def _entry(feed_id: str, fields: dict[bytes, bytes]) -> FeedEntry:
    at = _time(feed_id.partition("-")[0])
    try:
        if b"act" in fields:
            return FeedEntry(feed_id, at, act_id=fields[b"act"].decode(), what=fields[b"what"].decode())
        return FeedEntry(feed_id, at, tuple(_publication(item) for item in json.loads(fields[b"p"])))
    except (ValueError, TypeError, KeyError) as error:
        emit(FeedUnreadable(feed_id=feed_id, error=type(error).__name__))
        return FeedEntry(feed_id, at)


def _publication(item: Any) -> Publication:
    key, sha256, size_bytes, outcome = item
    if not (isinstance(key, str) and isinstance(sha256, str) and isinstance(size_bytes, int)):
        raise TypeError
    return Publication(key, sha256, size_bytes, created=outcome == "c")


def _time(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, tz=UTC)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
