"""Reading: one run as readers see it, and the runs, links and reviews of some days.

What cannot be read is reported, never skipped (contract section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from rmos_shared.advisories.model import AdvisoryLink, Attempt, ComposedAdvisory, Review
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.model import JobRecord
from rmos_shared.runs import layout as keys
from rmos_shared.runs.compose import compose, compose_advisories
from rmos_shared.runs.files import RunFiles, parse_run
from rmos_shared.runs.lookup import RunLookup, not_found
from rmos_shared.runs.model import ComposedRun, RunArtifact
from rmos_shared.runs.record import Record
from rmos_shared.store.base import ArtifactStore


class ExplanationJobs(Protocol):
    """What a reader asks of the job ledger."""

    def explanation_job(self, run_id: str) -> JobRecord | None:
        """Return the run's unfinished or dead explanation job; None when there is none."""
        ...

    def explanation_jobs(self, run_ids: Sequence[str]) -> Mapping[str, JobRecord]:
        """Return the same for many runs; those without one are left out."""
        ...


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One file where an artifact should be: the artifact, or what is wrong with the file."""

    key: str
    artifact: RunArtifact | None
    error: CorruptArtifact | None


@dataclass(frozen=True, slots=True)
class LinkEntry:
    """One file where a link should be: the link, or what is wrong with the file."""

    key: str
    link: AdvisoryLink | None
    error: CorruptArtifact | None


@dataclass(frozen=True, slots=True)
class WaitingEntry:
    """An advisory that waits for a person, or damage that may hide one; both when its reviews are damaged."""

    key: str
    advisory: ComposedAdvisory | None
    error: CorruptArtifact | None


class RunReader:
    """Every method raises ``StoreUnavailable`` when the store is away."""

    def __init__(self, store: ArtifactStore, jobs: ExplanationJobs | None = None) -> None:
        """Read ``store``; without ``jobs`` no explanation ever reads PENDING."""
        self._jobs = jobs
        self._files = RunFiles(store)
        self._store = store
        self._lookup = RunLookup(store)

    def artifact_key(self, run_id: str) -> str | None:
        """Return where a run lies, or None; see ``RunLookup.artifact_key``."""
        return self._lookup.artifact_key(run_id)

    def get_artifact(self, run_id: str) -> RunArtifact:
        """Return the artifact as stored.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: there is, and it cannot be read or fails its own proof.
        """
        return self._load(run_id)[2]

    def get_bytes(self, run_id: str) -> bytes:
        """Return the stored bytes, proven to be the artifact; raises as ``get_artifact``."""
        return self._load(run_id)[1]

    def links(self, run_id: str) -> list[AdvisoryLink]:
        """Return the run's links, oldest first.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: one of them cannot be read; a shorter list would be a lie.
        """
        return self._files.links(self._lookup.partition(run_id), run_id)

    def reviews(self, run_id: str) -> list[Review]:
        """Return the reviews of the run's advisories, oldest first; raises as ``links``."""
        return self._files.reviews(self._lookup.partition(run_id), run_id)

    def attempts(self, run_id: str) -> list[Attempt]:
        """Return the run's explanations that failed for good, oldest first; raises as ``links``."""
        return self._files.attempts(self._lookup.partition(run_id), run_id)

    def read(self, run_id: str) -> ComposedRun:
        """Return the run as readers see it (contract section 5).

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: it, or one of its links, reviews or attempts, cannot be read.
            BrokerUnavailable: no explanation is stored, and the ledger cannot say how far it is.
        """
        key, _, artifact = self._load(run_id)
        partition = keys.partition_of(key)
        links, job = self._files.links(partition, run_id), None
        if self._jobs is not None and all(link.kind != "explanation" for link in links):
            job = self._jobs.explanation_job(run_id)
            # The job may have finished since the links were read, and would then be missing from both.
            links = self._files.links(partition, run_id)
        reviews = self._files.reviews(partition, run_id) if links else []
        return compose(artifact, links, reviews, self._files.attempts(partition, run_id), job)

    @property
    def knows_jobs(self) -> bool:
        """Whether there is a ledger to ask, so that an explanation may read PENDING."""
        return self._jobs is not None

    def explanation_jobs(self, run_ids: Sequence[str]) -> Mapping[str, JobRecord]:
        """Return the unfinished or dead explanation job of each run that has one; none without a ledger.

        Raises:
            BrokerUnavailable: the ledger cannot say.
        """
        return {} if self._jobs is None else self._jobs.explanation_jobs(run_ids)

    def list_runs(
        self, date_from: date | None = None, date_to: date | None = None, *, after: str | None = None
    ) -> Iterator[RunEntry]:
        """Yield every run of these days (both inclusive), newest day first, then by id, downwards.

        ``after`` is the key of an entry: only later ones are read. A corrupt file is an entry of
        its own, and so is a partition that cannot be listed. Memory holds the names of one partition.
        """
        for key, artifact, error in self._scan(date_from, date_to, self._files.run, links=False, after=after):
            yield RunEntry(key, artifact, error)

    def list_links(self, date_from: date | None = None, date_to: date | None = None) -> Iterator[LinkEntry]:
        """Yield every link of the runs of these days, as ``list_runs`` does runs."""
        for key, link, error in self._scan(date_from, date_to, self._files.link, links=True):
            yield LinkEntry(key, link, error)

    def waiting_reviews(
        self, date_from: date | None = None, date_to: date | None = None
    ) -> Iterator[WaitingEntry]:
        """Yield the advisories of these days that wait for a person, as ``list_links`` orders them.

        Damage is among them: a corrupt link, and with an advisory, that its reviews cannot be read. It waits.
        """
        for entry in self.list_links(date_from, date_to):
            if entry.link is None:
                yield WaitingEntry(entry.key, None, entry.error)
                continue
            if entry.link.approved:
                continue
            damage, reviews = None, []
            try:
                reviews = self._files.reviews(keys.partition_of(entry.key), entry.link.run_id)
            except CorruptArtifact as error:
                damage = error
            (advisory,) = compose_advisories([entry.link], reviews)
            if advisory.needs_review:
                yield WaitingEntry(entry.key, advisory, damage)

    def _load(self, run_id: str) -> tuple[str, bytes, RunArtifact]:
        stored = self._lookup.find(run_id, self._store.get)
        if stored is None:
            raise not_found(run_id)
        key, data = stored
        return key, data, parse_run(key, data)

    def _scan(
        self,
        date_from: date | None,
        date_to: date | None,
        load: Callable[[str], Record],
        *,
        links: bool,
        after: str | None = None,
    ) -> Iterator[tuple[str, Record | None, CorruptArtifact | None]]:
        # The day of the entry listed last, where we go on. A day that could not be listed is behind us.
        last_day = keys.partition_day(keys.partition_of(after)) if after else None
        for day in self._lookup.days(date_from or date.min, min(date_to or date.max, last_day or date.max)):
            partition = day.isoformat()
            if partition == after:
                continue
            try:
                names = [key for key in self._files.json_keys(f"{partition}/") if keys.is_link(key) is links]
            except CorruptArtifact as error:
                yield partition, None, error
                continue
            for key in sorted(names, key=_place, reverse=True):
                if after and _place(key) >= _place(after):
                    continue
                try:
                    record = load(key)
                except CorruptArtifact as error:
                    yield key, None, error
                else:
                    yield key, record, None


def _place(key: str) -> str:
    # Without ".json", which sorts after "-" and would put the run a-b before the run a.
    return key.removesuffix(".json")
