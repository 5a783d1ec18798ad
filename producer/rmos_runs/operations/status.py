"""The state of the whole system at one moment, for ``rmos status``, the gateway and metrics alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol, TypeVar

from rmos_runs.operations.sealing_status import SealingStatus, sealing_status
from rmos_shared.errors import RmosError
from rmos_shared.index.choice import has_index, index_state
from rmos_shared.jobs.figures.model import LedgerFigures
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import LedgerStats
from rmos_shared.jobs.pauses import SCHEDULE, Pause
from rmos_shared.models.base import Frozen, SafeId, UtcTime
from rmos_shared.runs.query import MAX_LIMIT, RunCatalog, RunFilter
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.nightly import NIGHTLY, NightlySettings
from rmos_shared.store.base import Space
from rmos_shared.store.identity import StoreIdentity

_Value = TypeVar("_Value")
#: A page that is begun ends all the same; without an index it reads up to some thousand files.
_REVIEW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is looked at, at the most. What is left out is marked."""

    #: Of each state and each line.
    jobs: int
    #: Of the newest events, about.
    events: int
    #: Runs that wait for a review.
    reviews: int


#: For who asks once.
THOROUGH = Bounds(jobs=10_000, events=100_000, reviews=1_000)
#: For who asks each second.
QUICK = Bounds(jobs=1_000, events=10_000, reviews=200)


class Storage(Protocol):
    """What is asked of the artifact store."""

    def identity(self) -> StoreIdentity:
        """Return which store it is."""
        ...

    def space(self) -> Space:
        """Return the room that it has."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a status is read. Each is called when its part is read, and may raise that the part is away."""

    ledger: Callable[[], JobLedger]
    store: Callable[[], Storage]
    #: None: there is no index.
    index: Callable[[], IndexSettings | None]
    catalog: Callable[[], RunCatalog]
    #: What beat's settings are taken to be.
    nightly: Callable[[], NightlySettings]


Part = Literal["ledger", "storage", "index", "reviews"]


class Unreachable(Frozen):
    """A part of the system that could not be read, and why."""

    part: Part
    #: Code of the error, for programs.
    code: str
    message: str
    #: With which a command ends for that.
    exit_code: int


class StorageStatus(Frozen):
    """The artifact store. What its files take is not counted."""

    store_id: SafeId
    created_at_utc: UtcTime
    free_bytes: int
    total_bytes: int


class IndexStatus(Frozen):
    """The index of the runs: what was stored before ``complete_until_utc`` is in it."""

    built_at_utc: UtcTime
    complete_until_utc: UtcTime
    behind_seconds: float


class ReviewsStatus(Frozen):
    """What waits for a person."""

    #: Runs with an advisory that waits.
    runs: int
    #: There may be more than these.
    more: bool


class NightlyStatus(Frozen):
    """The batch of each night."""

    #: The last night whose batch was opened; before the first one, when beat began to look.
    last_due_utc: UtcTime | None
    #: None: there is none, or the schedule is paused.
    next_due_utc: UtcTime | None


class SystemStatus(Frozen):
    """The state of the system; a part that could not be read is null, and `unreachable` says why.

    Without an index ``index`` is null as well, and nothing of it is unreachable.
    """

    at_utc: UtcTime
    ledger: LedgerStats | None
    pending: int | None
    #: accepted = done + dead + discarded + pending
    invariant: bool | None
    figures: LedgerFigures | None
    storage: StorageStatus | None
    index: IndexStatus | None
    reviews: ReviewsStatus | None
    #: What operators have paused.
    pauses: tuple[Pause, ...] = ()
    nightly: NightlyStatus | None = None
    audit: SealingStatus | None = None
    unreachable: list[Unreachable]


class _Parts:
    """Reads part by part; one that is away ends none of the others."""

    def __init__(self) -> None:
        self.unreachable: list[Unreachable] = []

    def read(self, part: Part, call: Callable[[], _Value]) -> _Value | None:
        try:
            return call()
        except RmosError as error:
            self.unreachable.append(
                Unreachable(part=part, code=error.code, message=str(error), exit_code=error.exit_code)
            )
            return None


def read_status(sources: Sources, bounds: Bounds = THOROUGH) -> SystemStatus:
    """Return the state of the system, changing nothing.

    Its cost is bounded, however many jobs and runs there are. Raises nothing of ours: what is away is named.
    """
    parts = _Parts()

    def ledger() -> tuple[LedgerStats, LedgerFigures, tuple[Pause, ...], NightlyStatus, SealingStatus]:
        opened = sources.ledger()
        figures = opened.figures.read(most_jobs=bounds.jobs, most_events=bounds.events)
        nightly = _nightly(opened, sources.nightly())
        return opened.stats(), figures, tuple(opened.pauses.all()), nightly, sealing_status(opened)

    read = parts.read("ledger", ledger)
    stats, figures, pauses, nightly, audit = read or (None, None, (), None, None)
    return SystemStatus(
        at_utc=datetime.now(UTC),
        ledger=stats,
        pending=None if stats is None else stats.pending,
        invariant=None if stats is None else stats.invariant,
        figures=figures,
        pauses=pauses,
        nightly=nightly,
        audit=audit,
        storage=parts.read("storage", lambda: _storage(sources.store())),
        index=parts.read("index", lambda: _index(sources)),
        reviews=parts.read("reviews", lambda: _reviews(sources.catalog(), bounds.reviews)),
        unreachable=parts.unreachable,
    )


def _nightly(ledger: JobLedger, settings: NightlySettings) -> NightlyStatus:
    paused = ledger.pauses.is_paused(SCHEDULE)
    return NightlyStatus(
        last_due_utc=ledger.batches.last_due(NIGHTLY),
        next_due_utc=None if paused else settings.next_due(datetime.now(UTC)),
    )


def _storage(store: Storage) -> StorageStatus:
    identity, space = store.identity(), store.space()
    return StorageStatus(
        store_id=identity.store_id,
        created_at_utc=identity.created_at_utc,
        free_bytes=space.free_bytes,
        total_bytes=space.total_bytes,
    )


def _index(sources: Sources) -> IndexStatus | None:
    settings = sources.index()
    if settings is None or not has_index(settings):
        return None
    store_id: str | None = None
    with suppress(RmosError):  # of an index whose store is away it is not known if it is the store's
        store_id = sources.store().identity().store_id
    state = index_state(settings, store_id)
    behind = datetime.now(UTC) - state.complete_until_utc
    return IndexStatus(
        built_at_utc=state.built_at_utc,
        complete_until_utc=state.complete_until_utc,
        behind_seconds=max(behind.total_seconds(), 0.0),
    )


def _reviews(catalog: RunCatalog, most: int) -> ReviewsStatus:
    waiting, runs, cursor = RunFilter(needs_review=True), 0, None
    until = time.monotonic() + _REVIEW_SECONDS
    while True:
        page = catalog.page(waiting, limit=min(MAX_LIMIT, most - runs), cursor=cursor)
        runs += len(page.items)
        cursor = page.next_cursor
        if cursor is None or runs >= most or time.monotonic() > until:
            return ReviewsStatus(runs=runs, more=cursor is not None)
