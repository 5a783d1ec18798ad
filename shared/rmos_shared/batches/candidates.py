"""Going through the runs of some days for those that a batch means; the decision on each is pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import islice

from packaging.version import InvalidVersion, Version

from rmos_shared.advisories.engine import Engine
from rmos_shared.advisories.model import AdvisoryLink, Attempt, DetailLevel
from rmos_shared.batches.choice import RunChoice
from rmos_shared.errors import CorruptArtifact, FieldProblem, InvalidRequest
from rmos_shared.ids import advisory_id
from rmos_shared.jobs.model import JobRecord
from rmos_shared.runs import layout as keys
from rmos_shared.runs.compose import explanation
from rmos_shared.runs.files import RunFiles
from rmos_shared.runs.model import ExplanationStatus, RunArtifact
from rmos_shared.runs.reader import ExplanationJobs, RunReader
from rmos_shared.store.base import ArtifactStore

#: Runs for which the ledger is asked in one go.
_GROUP = 100
_DETAILS: tuple[DetailLevel, ...] = ("summary", "full")


class Fate(StrEnum):
    """What a batch makes of a run; by these names they are counted."""

    MEANT = "meant"
    NOT_MEANT = "not_meant"
    EXPLAINED = "explained"
    UNDER_WAY = "under_way"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that was looked at."""

    #: Where it lies; the walk goes on after this.
    key: str
    fate: Fate
    #: None only if it cannot be read.
    run_id: str | None
    #: Of the explanation that is to be made: that of the newest one, so that nothing is lost by it.
    detail: DetailLevel


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of each run."""

    choice: RunChoice
    #: As ``version_of`` reads it.
    older_than: Version | None
    #: The engine that is to explain.
    engine: Engine


class Candidates:
    """Looks at runs, newest day first, then by id downwards. Memory holds the names of one day.

    What it says of a run was so a moment ago: whoever explains it looks again.
    """

    def __init__(self, store: ArtifactStore, jobs: ExplanationJobs, engine: Engine) -> None:
        """Read ``store``; ask ``jobs`` what is under way. ``engine`` is the one that is to explain."""
        self._files = RunFiles(store)
        self._runs = RunReader(store)
        self._jobs = jobs
        self._engine = engine

    def walk(self, choice: RunChoice, *, after: str | None = None) -> Iterator[Candidate]:
        """Yield every run of the choice's days that follows the key ``after``, with what becomes of it.

        Raises:
            InvalidRequest: ``engine_older_than`` is no version.
            StoreUnavailable: the store is away.
            BrokerUnavailable: the ledger cannot say what is under way.
        """
        asked = Asked(choice, version_of(choice), self._engine)
        entries = self._runs.list_runs(
            date.fromisoformat(choice.date_from), date.fromisoformat(choice.date_to), after=after
        )
        links = _LinkKeys(self._files)
        while group := list(islice(entries, _GROUP)):
            meant = [
                entry.artifact.run_id for entry in group if entry.artifact and choice.takes(entry.artifact)
            ]
            jobs = self._jobs.explanation_jobs(meant)
            for entry in group:
                run = entry.artifact
                if run is None:
                    # Reported where it was listed; there is nothing to explain in it.
                    yield Candidate(entry.key, Fate.CORRUPT, None, "summary")
                elif not choice.takes(run):
                    yield Candidate(entry.key, Fate.NOT_MEANT, run.run_id, "summary")
                else:
                    yield self._candidate(entry.key, run, asked, jobs.get(run.run_id), links)

    def _candidate(
        self,
        key: str,
        run: RunArtifact,
        asked: Asked,
        job: JobRecord | None,
        link_keys: _LinkKeys,
    ) -> Candidate:
        try:
            links = [self._files.link(link) for link in link_keys.of(key, run.run_id)]
            explained = any(link.kind == "explanation" for link in links)
            attempts: Sequence[Attempt] = ()
            if (asked.choice.missing_only or asked.choice.failed_only) and not explained:
                attempts = self._files.attempts(keys.partition_of(key), run.run_id)
        except CorruptArtifact:
            # Reported by the reader. Whether the run is explained nobody can say.
            return Candidate(key, Fate.CORRUPT, run.run_id, "summary")
        own = own_links(links, self._engine)
        fate = fate_of(links, attempts, job, asked)
        return Candidate(key, fate, run.run_id, detail_of(own[-1]) if own else "summary")


class _LinkKeys:
    """The links of each run of a day, from one listing of it: asking for each run would list it as often."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._partition = ""
        self._of: dict[str, list[str]] = {}

    def of(self, key: str, run_id: str) -> Sequence[str]:
        partition = keys.partition_of(key)
        if partition != self._partition:
            of: dict[str, list[str]] = {}
            for name in filter(keys.is_link, self._files.json_keys(f"{partition}/")):
                of.setdefault(keys.run_of_link(name), []).append(name)
            self._partition, self._of = partition, of
        return self._of.get(run_id, ())


def fate_of(
    links: Sequence[AdvisoryLink],
    attempts: Sequence[Attempt],
    job: JobRecord | None,
    asked: Asked,
) -> Fate:
    """Say what a batch makes of a run whose status, risk and tool it means.

    ``job`` is the run's unfinished or dead explanation job.
    """
    choice, engine = asked.choice, asked.engine
    own = own_links(links, engine)
    if any(link.engine_version == engine.engine_version for link in own):
        return Fate.EXPLAINED
    if job is not None and job.state.pending:
        return Fate.UNDER_WAY
    status, _ = explanation(links, attempts, job)
    meant = (
        (not choice.missing_only or status is ExplanationStatus.NONE)
        and (not choice.failed_only or status is ExplanationStatus.ERROR)
        and (asked.older_than is None or (bool(own) and _is_older(own[-1].engine_version, asked.older_than)))
    )
    return Fate.MEANT if meant else Fate.NOT_MEANT


def own_links(links: Sequence[AdvisoryLink], engine: Engine) -> list[AdvisoryLink]:
    """Return the explanations by this engine, in any version, oldest first."""
    own = [link for link in links if link.kind == "explanation" and link.engine_id == engine.engine_id]
    return sorted(own, key=lambda link: (link.created_at_utc, link.advisory_id))


def detail_of(link: AdvisoryLink) -> DetailLevel:
    """Return at which level of detail an explanation was made: no field tells, but its id derives from it."""
    made = advisory_ids(link.run_id, link.engine_id, link.engine_version, link.inputs_sha256)
    return next((detail for detail, made_id in made.items() if made_id == link.advisory_id), "summary")


def advisory_ids(
    run_id: str, engine_id: str, engine_version: str, inputs_sha256: str
) -> dict[DetailLevel, str]:
    """Return the id that an explanation has at each level of detail."""
    return {
        detail: advisory_id(
            run_id=run_id,
            engine_id=engine_id,
            engine_version=engine_version,
            detail=detail,
            inputs_sha256=inputs_sha256,
        )
        for detail in _DETAILS
    }


def version_of(choice: RunChoice) -> Version | None:
    """Return the version that an engine must be older than; None if any will do.

    Raises:
        InvalidRequest: it is no version as Python packages have them (PEP 440).
    """
    if choice.engine_older_than is None:
        return None
    try:
        return Version(choice.engine_older_than)
    except InvalidVersion:
        problem = FieldProblem("engine_older_than", "is no version, such as 2 or 1.4")
        raise InvalidRequest((problem,), what="choice of runs") from None


def _is_older(version: str, than: Version) -> bool:
    try:
        return Version(version) < than
    except InvalidVersion:
        # Nobody can say; what cannot be compared is left as it is.
        return False
