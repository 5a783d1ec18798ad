"""A batch as it is asked for, and as the ledger shows it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from rmos_shared.batches.choice import RunChoice
from rmos_shared.models.base import Frozen, Sha256, SingleLine, UtcTime, Utf8Text

#: The most jobs a second that may be asked for, and the fewest: one in a hundred seconds.
MOST_RATE = 1_000.0
LEAST_RATE = 0.01


class BatchState(StrEnum):
    """Where a batch is; the last two are its end."""

    RUNNING = "running"
    PAUSED = "paused"
    #: No more runs are planned; the jobs that were in line come to their end first.
    CANCELLING = "cancelling"
    DONE = "done"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen in it."""
        return self in {BatchState.DONE, BatchState.CANCELLED}


class BatchSpec(Frozen):
    """What a batch is to do, and who asked for it; it never changes."""

    choice: RunChoice
    #: The most runs to explain; None: all that are meant.
    limit: Annotated[int, Field(ge=1)] | None = None
    #: The most jobs a second that get in line; None: as fast as they are worked off.
    rate_per_second: Annotated[float, Field(ge=LEAST_RATE, le=MOST_RATE)] | None = None
    by: Utf8Text
    why: Utf8Text = ""
    #: Of a batch that the schedule opened: its entry, and when that was due.
    entry: SingleLine | None = None
    due_at_utc: UtcTime | None = None


class BatchCounts(Frozen):
    """What a batch has come to so far.

    Every run looked at is in one of ``not_meant``, ``explained``, ``under_way``, ``corrupt`` and ``jobs``;
    every job is pending, or in one of ``done``, ``dead`` and ``discarded``; every job done is in ``linked``,
    or its run had its link before.
    """

    looked_at: int = 0
    #: The choice leaves them out.
    not_meant: int = 0
    #: The engine in use has explained them already.
    explained: int = 0
    #: Another job was about to explain them.
    under_way: int = 0
    #: They, or what lies beside them, cannot be read; `rmos runs verify` names the files.
    corrupt: int = 0
    #: Accepted to explain one run each.
    jobs: int = 0
    done: int = 0
    #: New links, one for each run.
    linked: int = 0
    dead: int = 0
    discarded: int = 0

    @property
    def pending(self) -> int:
        """Jobs still to be done."""
        return self.jobs - self.done - self.dead - self.discarded


class BatchRecord(Frozen):
    """A batch as the ledger has it."""

    batch_id: SingleLine
    state: Annotated[BatchState, Field(strict=False)]
    spec: BatchSpec
    counts: BatchCounts
    created_at_utc: UtcTime
    #: The last time that something in it moved.
    changed_at_utc: UtcTime
    ended_at_utc: UtcTime | None = None
    #: Whether every run that it means has been looked at.
    planned: bool = False
    #: Pages that were looked through, and the key of the run at which the last one stopped.
    pages: int = 0
    place: Utf8Text | None = None
    #: For the sake of the rate no page begins earlier than this.
    next_page_at_utc: UtcTime | None = None
    #: The engine that the last page went by.
    engine_id: Utf8Text | None = None
    engine_version: Utf8Text | None = None
    #: Its report in the artifact store.
    report_key: Utf8Text | None = None
    report_sha256: Sha256 | None = None
    #: Who paused, resumed or cancelled it, when and why.
    history: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def all_planned(self) -> bool:
        """Whether no further run will be looked at, be it for the limit."""
        limit = self.spec.limit
        return self.planned or (limit is not None and self.counts.jobs >= limit)
