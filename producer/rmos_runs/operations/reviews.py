"""A person's verdicts on advisories: what waits for one, how it is recorded, and what others said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta

from rmos_shared.advisories.model import AdvisoryLink, Review, ReviewReason
from rmos_shared.errors import AdvisoryNotFound, CorruptArtifact, FieldProblem, InvalidRequest, RunNotFound
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.events import EventState
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.compose import in_order
from rmos_shared.runs.model import RiskLevel, RunArtifact
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter

#: An age that is asked for is no more: more than a hundred years.
MOST_HOURS = 1_000_000


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Which of the waiting advisories are meant; what is None leaves all in."""

    risk_level: RiskLevel | None = None
    tool_id_prefix: str | None = None
    #: UTC days of the runs, both inclusive.
    date_from: date | None = None
    date_to: date | None = None
    #: Only what has waited at least so long.
    age_hours: float | None = None

    def told(self) -> dict[str, str]:
        """Return it as the record of an act tells it: what it asks for, and nothing else."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}

    def takes(self, waiting: WaitingReview, now: datetime) -> bool:
        """Say whether the advisory is meant; of a run that cannot be read nobody knows risk and tool."""
        run = waiting.run
        if run is None and (self.risk_level is not None or self.tool_id_prefix is not None):
            return False
        return (
            (self.risk_level is None or run is None or run.decision.risk_level is self.risk_level)
            and (self.tool_id_prefix is None or run is None or run.tool_id.startswith(self.tool_id_prefix))
            and (self.age_hours is None or waiting.age(now) >= timedelta(hours=self.age_hours))
        )


@dataclass(frozen=True, slots=True)
class WaitingReview:
    """An advisory that waits for a person, and the run that it explains; None if that cannot be read."""

    link: AdvisoryLink
    run: RunArtifact | None

    def age(self, now: datetime) -> timedelta:
        """Return how long it has waited: since the policy left it to a person."""
        return now - self.link.created_at_utc


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a person says of an advisory's words: who, which way, and why."""

    approved: bool
    #: As ``Identity`` is written, or the name of an API key.
    reviewed_by: str
    reason: ReviewReason | None = None
    note: str | None = None

    def of(self, run_id: str, advisory_id: str, *, act_id: str | None = None) -> Review:
        """Return it as the review of an advisory, made now.

        Raises:
            InvalidRequest: a field breaks the contract, or the reason does not fit the verdict.
        """
        return Review.read(
            {
                "review_id": new_uuid7(),
                "run_id": run_id,
                "advisory_id": advisory_id,
                "created_at_utc": datetime.now(UTC),
                "approved": self.approved,
                "reviewed_by": self.reviewed_by,
                "note": self.note,
                "reason": self.reason,
                "act_id": act_id,
            }
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """A review that is stored, and what its reviewer must be told beside it."""

    review: Review
    run: RunArtifact
    #: Verdicts of others on the same advisory, or earlier ones of the same person, oldest first.
    others: tuple[Review, ...] = ()
    #: One of them cannot be read; the review itself is stored all the same.
    damage: CorruptArtifact | None = None

    @property
    def counts(self) -> bool:
        """Whether this verdict is the last one, which counts."""
        return in_order([*self.others, self.review])[-1] == self.review


@dataclass(slots=True)
class BulkVerdict:
    """How far an act on many advisories came; what is left can be done by the same command again."""

    act_id: str = field(default_factory=new_uuid7)
    recorded: int = 0
    #: Judged by somebody else since they were chosen, and left as they are.
    judged_meanwhile: int = 0
    #: Of these another verdict came at the same moment; both are kept.
    also_judged: list[Recorded] = field(default_factory=list)
    damage: list[CorruptArtifact] = field(default_factory=list)


class Reviews:
    """Reads and records verdicts; every method raises ``StoreUnavailable`` when the store is away."""

    def __init__(self, reader: RunReader, writer: RunWriter, ledger: JobLedger | None = None) -> None:
        """Work on the store of both; ``ledger`` tells who follows the events, if it answers."""
        self._reader = reader
        self._writer = writer
        self._ledger = ledger

    @property
    def ledger(self) -> JobLedger | None:
        """The ledger, unless it did not answer."""
        return self._ledger

    def waiting(self, choice: ReviewFilter) -> Iterator[WaitingReview | CorruptArtifact]:
        """Yield the advisories that wait for a person and pass the filter, newest day first.

        Damage that may hide one is among them. Memory holds the names of one day.
        """
        now = datetime.now(UTC)
        for entry in self._reader.waiting_reviews(choice.date_from, choice.date_to):
            if entry.error is not None:
                yield entry.error
            if entry.advisory is None:
                continue
            link = entry.advisory.link
            run, damage = None, None
            try:
                run = self._reader.get_artifact(link.run_id)
            except CorruptArtifact as error:
                damage = error
            except RunNotFound:
                damage = CorruptArtifact(entry.key, "the run that it explains is not in the store")
            if damage is not None:
                yield damage
            found = WaitingReview(link, run)
            if choice.takes(found, now):
                yield found

    def history(self, run_id: str) -> list[Review]:
        """Return every verdict on every advisory of a run, oldest first.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: one of them cannot be read; a shorter list would be a lie.
        """
        return self._reader.reviews(run_id)

    def record(
        self, opinion: Opinion, run_id: str, advisory_id: str, *, act_id: str | None = None
    ) -> Recorded:
        """Add a verdict on the words of an advisory, not on the cut; no other file changes.

        The other verdicts are read after this one is stored. So of two reviewers at the same moment both
        verdicts are kept, and at least the one who stored last is told of the other.

        Raises:
            InvalidRequest: a field breaks the contract, or the reason does not fit the verdict.
            RunNotFound: there is no such run.
            AdvisoryNotFound: no such advisory is linked to it.
            CorruptArtifact: the run or the link cannot be read; nothing was recorded.
        """
        run = self._reader.get_artifact(run_id)
        review = opinion.of(run_id, advisory_id, act_id=act_id)
        self._writer.add_review(review)
        if self._ledger is not None and not self._ledger.announce(
            EventState.REVIEWED, run_id, request_id=run.request_id
        ):
            # Asked no more: each call may take its whole time, and the file is what counts.
            self._ledger = None
        try:
            others = [other for other in self._of_advisory(run_id, advisory_id) if other != review]
        except CorruptArtifact as error:
            return Recorded(review, run, damage=error)
        return Recorded(review, run, tuple(others))

    def record_many(
        self, opinion: Opinion, chosen: Iterable[tuple[str, str]], bulk: BulkVerdict
    ) -> Iterator[BulkVerdict]:
        """Record the opinion on each advisory, a run id and its own, that still waits; yield after each.

        What was judged since it was chosen is passed over: nobody acts on more than they saw. ``bulk`` says
        how far it came, also when an error ends it.
        """
        for run_id, advisory_id in chosen:
            try:
                if self._of_advisory(run_id, advisory_id):
                    bulk.judged_meanwhile += 1
                else:
                    recorded = self.record(opinion, run_id, advisory_id, act_id=bulk.act_id)
                    bulk.recorded += 1
                    if recorded.others:
                        bulk.also_judged.append(recorded)
                    if recorded.damage is not None:
                        bulk.damage.append(recorded.damage)
            except CorruptArtifact as error:
                bulk.damage.append(error)
            except (RunNotFound, AdvisoryNotFound):
                bulk.damage.append(CorruptArtifact(run_id, "it was there when it was chosen and is gone"))
            yield bulk

    def _of_advisory(self, run_id: str, advisory_id: str) -> list[Review]:
        return [review for review in self._reader.reviews(run_id) if review.advisory_id == advisory_id]


def check_bulk(opinion: Opinion) -> None:
    """Raise ``InvalidRequest`` unless an opinion on many says why, by a reason that fits."""
    if opinion.reason is None:
        raise InvalidRequest((FieldProblem("reason", "a verdict on many advisories needs one"),))
    # Before anything is chosen, for it would fail for each.
    opinion.of(new_uuid7(), "x")
