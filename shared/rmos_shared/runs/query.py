"""A question about many runs, and a page of its answer (contract section 6): values, no IO."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from rmos_shared.models.base import Frozen, IsoDate, SafeId, Sha256, SingleLine, UtcTime, Utf8Text, Word
from rmos_shared.runs.model import RiskField, RunRecord, Score, StatusField, StatusOfExplanation

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


class RunFilter(Frozen):
    """Which runs are meant; a field that is None leaves all runs in."""

    status: StatusField | None = None
    mode: SingleLine | None = None
    tool_id: SingleLine | None = None
    tool_id_prefix: SingleLine | None = None
    risk_level: RiskField | None = None
    event_type: SingleLine | None = None
    #: UTC dates, both inclusive.
    date_from: IsoDate | None = None
    date_to: IsoDate | None = None
    request_id: SingleLine | None = None
    session_id: Word | None = None
    batch_label: Word | None = None
    parent_run_id: SafeId | None = None
    machine_id: Word | None = None
    material_id: Word | None = None
    explanation_status: StatusOfExplanation | None = None
    #: Whether an advisory of it waits for a person.
    needs_review: bool | None = None


class RunItem(Frozen):
    """A run in a list."""

    run_id: SafeId
    created_at_utc: UtcTime
    status: StatusField
    mode: SingleLine
    tool_id: SingleLine
    event_type: SingleLine | None
    risk_level: RiskField
    score: Score | None
    feasibility_sha256: Sha256
    toolpaths_sha256: Sha256 | None
    #: The key in the store.
    artifact_path: Utf8Text

    @classmethod
    def of(cls, run: RunRecord, key: str) -> RunItem:
        """Return the item of a run that lies under ``key``."""
        return cls(
            run_id=run.run_id,
            created_at_utc=run.created_at_utc,
            status=run.status,
            mode=run.mode,
            tool_id=run.tool_id,
            event_type=run.event_type,
            risk_level=run.decision.risk_level,
            score=run.decision.score,
            feasibility_sha256=run.hashes.feasibility_sha256,
            toolpaths_sha256=run.hashes.toolpaths_sha256,
            artifact_path=key,
        )


class RunPage(Frozen):
    """Some runs, newest day first, then by id downwards, and how the list goes on.

    A page may end early: where few runs pass the filter it holds less than was asked for, even none, and has
    a cursor all the same. A list is at its end only when there is none.

    A stored run that the page lacks is never passed over in silence: ``complete_until_utc`` says up to when
    everything that was stored is sure to be seen. None: nothing is known.
    """

    items: list[RunItem]
    #: For the next page; None at the end.
    next_cursor: str | None
    complete_until_utc: UtcTime | None
    #: Keys of files in the page's range that should be artifacts and cannot be read as such. Which filter
    #: they would pass nobody knows, so all of its days are named; they count as runs do.
    corrupt: list[Utf8Text] = Field(default_factory=list)


class RunCatalog(Protocol):
    """Answers questions about many runs: from an index, or from the store itself."""

    def page(self, choice: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return up to ``limit`` runs (1 to ``MAX_LIMIT``) that follow the cursor.

        Raises:
            InvalidRequest: the cursor is damaged, of another version, or of another filter.
            StoreUnavailable: the store, or the index, is away.
        """
        ...
