"""A run as the index keeps it, and which filters it passes: values, no IO."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rmos_shared.advisories.model import AdvisoryLink, Review
from rmos_shared.jobs.model import JobState
from rmos_shared.models.base import format_utc
from rmos_shared.runs.compose import compose_advisories
from rmos_shared.runs.model import ExplanationStatus, RunArtifact
from rmos_shared.runs.query import RunFilter, RunItem
from rmos_shared.runs.vocabulary import meta_text

#: Fields of a filter that a run passes when its own field of that name is equal.
EQUALITIES = (
    "status",
    "mode",
    "tool_id",
    "risk_level",
    "event_type",
    "request_id",
    "session_id",
    "batch_label",
    "parent_run_id",
    "machine_id",
    "material_id",
    "needs_review",
)
#: Longest text of ``meta`` that is kept; contract section 7 allows no longer one, and no filter asks for it.
_TEXT_CHARACTERS = 512
_SUFFIX = ".json"


def place_of(file: str) -> str:
    """Return the place of a file in a list: its key without ``.json``, which would sort ``a-b`` before ``a``.

    Lists run down by it: newest day first, then by id. A partition that cannot be read has the place of its
    day.
    """
    return file.removesuffix(_SUFFIX)


def file_at(place: str) -> str:
    """Return the key of the file, or of the unreadable partition, that has this place."""
    return f"{place}{_SUFFIX}" if "/" in place else place


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files beside an artifact say: its links, reviews and attempts.

    The three counts are of files. Files only come, so of two facts on one run those of more files are newer.
    """

    #: READY, ERROR or NONE. Whether one is PENDING only the ledger knows.
    explanation: ExplanationStatus = ExplanationStatus.NONE
    needs_review: bool = False
    links: int = 0
    reviews: int = 0
    attempts: int = 0

    @property
    def files(self) -> int:
        """How many files they are drawn from."""
        return self.links + self.reviews + self.attempts


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A readable run in the index."""

    place: str
    created_at_utc: str
    status: str
    mode: str
    tool_id: str
    event_type: str | None
    risk_level: str
    #: As JSON writes it: 87 and 87.0 stay apart.
    score: str | None
    feasibility_sha256: str
    toolpaths_sha256: str | None
    request_id: str | None
    session_id: str | None
    batch_label: str | None
    parent_run_id: str | None
    machine_id: str | None
    material_id: str | None
    facts: Facts

    @property
    def needs_review(self) -> bool:
        """Whether an advisory of it waits for a person."""
        return self.facts.needs_review

    @classmethod
    def of(cls, run: RunArtifact, file: str, facts: Facts) -> IndexRow:
        """Return the row of a run that lies under ``file``."""
        score = run.decision.score
        words = {
            name: _filterable(meta_text(run.meta, name))
            for name in ("session_id", "batch_label", "parent_run_id", "machine_id", "material_id")
        }
        return cls(
            place=place_of(file),
            created_at_utc=format_utc(run.created_at_utc),
            status=run.status.value,
            mode=run.mode,
            tool_id=run.tool_id,
            event_type=run.event_type,
            risk_level=run.decision.risk_level.value,
            score=None if score is None else json.dumps(score),
            feasibility_sha256=run.hashes.feasibility_sha256,
            toolpaths_sha256=run.hashes.toolpaths_sha256,
            request_id=run.request_id,
            facts=facts,
            **words,
        )

    def item(self) -> RunItem:
        """Return the run as a list shows it."""
        return Listed(
            self.place,
            self.created_at_utc,
            self.status,
            self.mode,
            self.tool_id,
            self.event_type,
            self.risk_level,
            self.score,
            self.feasibility_sha256,
            self.toolpaths_sha256,
            self.facts.explanation,
        ).item()

    def passes(self, choice: RunFilter) -> bool:
        """Say whether it passes the filter, save for its dates and ``explanation_status``."""
        return all(
            wanted is None or getattr(self, name) == wanted
            for name in EQUALITIES
            for wanted in (getattr(choice, name),)
        ) and self.tool_id.startswith(choice.tool_id_prefix or "")


class Listed(NamedTuple):
    """The fields of a row that a list needs."""

    place: str
    created_at_utc: str
    status: str
    mode: str
    tool_id: str
    event_type: str | None
    risk_level: str
    score: str | None
    feasibility_sha256: str
    toolpaths_sha256: str | None
    explanation: str

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.place.partition("/")[2]

    def item(self) -> RunItem:
        """Return the run as a list shows it.

        Raises:
            InvalidRequest: no run has such fields, so the row is damaged.
            ValueError: its score is no number.
        """
        fields = self._asdict()
        score, place = fields.pop("score"), fields.pop("place")
        del fields["explanation"]
        fields["score"] = None if score is None else json.loads(score)
        return RunItem.read({"run_id": self.run_id, "artifact_path": file_at(place), **fields})


#: Their names, in order.
LISTED = Listed._fields


@dataclass(frozen=True, slots=True)
class CorruptRow:
    """A file where an artifact should be, or a partition, that cannot be read as such."""

    place: str
    reason: str
    #: Size and time of the file when it was found so; None when not even that can be told.
    seen: str | None


def facts_of(
    links: Sequence[AdvisoryLink], reviews: Iterable[Review], *, counts: tuple[int, int, int], damaged: bool
) -> Facts:
    """Return what the readable links and reviews of a run say.

    ``counts`` are the files: links, reviews, attempts. ``damaged``: a link could not be read, and may be one
    that waits for a person, so the run does.
    """
    waits = damaged or any(each.needs_review for each in compose_advisories(links, [*reviews]))
    if any(link.kind == "explanation" for link in links):
        explanation = ExplanationStatus.READY
    else:
        explanation = ExplanationStatus.ERROR if counts[2] else ExplanationStatus.NONE
    return Facts(explanation, waits, *counts)


def live_explanation(stored: ExplanationStatus, job: JobState | None) -> ExplanationStatus:
    """Return the status as readers see it: of what the files say, and of the run's explanation job.

    ``job`` is the state of the latest one that is not done; see ``compose.explanation`` for the rule.
    """
    if stored is ExplanationStatus.READY or job is None:
        return stored
    if job is JobState.DEAD:
        return ExplanationStatus.ERROR
    return ExplanationStatus.PENDING if job.pending else stored


def _filterable(text: str | None) -> str | None:
    # A run that was migrated may say anything there; NUL is nothing that a database keeps.
    return None if text is None or len(text) > _TEXT_CHARACTERS or "\0" in text else text
