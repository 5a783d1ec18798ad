"""The run log: runs, advisory links, reviews and failed attempts, on any artifact store.

It knows where each lies and how readers see them together. What it writes is never changed, and what it
cannot read is reported, never skipped (contract section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol, TypeVar

from rmos_shared.advisories.model import AdvisoryLink, Attempt, ComposedAdvisory, Review
from rmos_shared.errors import AdvisoryNotFound, CorruptArtifact, RunNotFound
from rmos_shared.ids import is_safe_id, uuid7_time
from rmos_shared.jobs.model import JobRecord
from rmos_shared.runs import layout as keys
from rmos_shared.runs.compose import compose, compose_advisories
from rmos_shared.runs.layout import attachment_key
from rmos_shared.runs.model import ComposedRun, RunArtifact
from rmos_shared.runs.record import Record, parse
from rmos_shared.store.base import ArtifactStore, KeyInvalid, Outcome
from rmos_shared.telemetry.events import FileCorrupt
from rmos_shared.telemetry.log import emit

__all__ = [
    "ExplanationJobs",
    "LinkEntry",
    "RunEntry",
    "RunLog",
    "StoredRun",
    "WaitingEntry",
    "as_stored",
    "attachment_key",
]

_ONE_DAY = timedelta(days=1)
#: Days that are looked at one by one; a longer span is halved first, because most of it may be empty.
_WALK_DAYS = 400

Found = TypeVar("Found")
#: A run as it lies in the store: its key and its bytes.
StoredRun = tuple[str, bytes]


class ExplanationJobs(Protocol):
    """What the run log asks of the job ledger."""

    def explanation_job(self, run_id: str) -> JobRecord | None:
        """Return the run's unfinished or dead explanation job; None when there is none."""
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


def as_stored(artifact: RunArtifact) -> StoredRun:
    """Return the key and the bytes of a run.

    Raises:
        InvalidRequest: see ``keys.artifact_key``.
    """
    return keys.artifact_key(artifact), artifact.to_bytes()


class RunLog:
    """Every verb raises ``StoreUnavailable`` when the store is away; repeating any of them is safe.

    Each corrupt file is logged once each time it is met, by key and reason, never its content.
    """

    def __init__(self, store: ArtifactStore, jobs: ExplanationJobs | None = None) -> None:
        """Read and write ``store``; without ``jobs`` no explanation ever reads PENDING."""
        self._store = store
        self._jobs = jobs

    def put_run(self, artifact: RunArtifact) -> Outcome:
        """Publish an artifact; durable when this returns.

        Raises:
            InvalidRequest: see ``keys.artifact_key``.
        """
        return self.put_runs([artifact])[0]

    def put_runs(self, artifacts: Sequence[RunArtifact]) -> list[Outcome]:
        """As ``put_run`` for each, with shared syncs; one outcome per artifact, in order."""
        return self.publish([as_stored(artifact) for artifact in artifacts])

    def publish(self, runs: Sequence[StoredRun]) -> list[Outcome]:
        """As ``put_runs``, of what ``as_stored`` returned: for who need not hold the artifacts themselves."""
        return self._store.create_many(runs)

    def put_attachment(self, data: bytes, suffix: str) -> str:
        """Publish ``data`` under its own hash and return the key; twice the same is one file.

        Raises:
            InvalidRequest: see ``attachment_key``.
            CorruptArtifact: the file of that hash holds something else.
        """
        key = attachment_key(data, suffix)
        if self._store.create(key, data) is Outcome.CONFLICT:
            raise _logged(CorruptArtifact(key, "the content has another hash than its name says"))
        return key

    def attach(self, link: AdvisoryLink) -> Outcome:
        """Publish a link beside its run. The same advisory again is ``ALREADY_SAME`` (contract section 5).

        That holds whatever request asked and whatever the policy says by now: the first link stays.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: another link has the name, and it cannot be read.
        """
        key = keys.link_key(self._partition(link.run_id), link.run_id, link.advisory_id)
        outcome = self._store.create(key, link.to_bytes())
        if outcome is Outcome.CONFLICT and self._link(key).same_advisory(link):
            return Outcome.ALREADY_SAME
        return outcome

    def add_review(self, review: Review) -> Outcome:
        """Publish a person's verdict; it changes no other file.

        Raises:
            RunNotFound: there is no such run.
            AdvisoryNotFound: no such advisory is linked to it.
            CorruptArtifact: it is, and the link cannot be read: nobody can have judged it.
        """
        partition = self._partition(review.run_id)
        key = keys.link_key(partition, review.run_id, review.advisory_id)
        data = self._get(key)
        if data is None or _parse_link(key, data).run_id != review.run_id:
            raise AdvisoryNotFound(review.advisory_id)
        return self._store.create(keys.review_key(partition, review), review.to_bytes())

    def add_attempt(self, attempt: Attempt) -> Outcome:
        """Publish that an explanation ended in the dead letters.

        Raises:
            RunNotFound: there is no such run.
        """
        return self._store.create(
            keys.attempt_key(self._partition(attempt.run_id), attempt), attempt.to_bytes()
        )

    def artifact_key(self, run_id: str) -> str | None:
        """Return where a run lies, without reading it, or None when it is not stored.

        A UUIDv7 tells its partition, so one path is touched; for an older id every partition is asked.

        Raises:
            CorruptArtifact: it was not found, and something that cannot be read may be hiding it.
        """
        found = self._find(run_id, self._store.head)
        return None if found is None else found[0]

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
        return self._links(self._partition(run_id), run_id)

    def reviews(self, run_id: str) -> list[Review]:
        """Return the reviews of the run's advisories, oldest first; raises as ``links``."""
        return self._reviews(self._partition(run_id), run_id)

    def attempts(self, run_id: str) -> list[Attempt]:
        """Return the run's explanations that failed for good, oldest first; raises as ``links``."""
        return self._attempts(self._partition(run_id), run_id)

    def read(self, run_id: str) -> ComposedRun:
        """Return the run as readers see it (contract section 5).

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: it, or one of its links, reviews or attempts, cannot be read.
            BrokerUnavailable: no explanation is stored, and the ledger cannot say how far it is.
        """
        key, _, artifact = self._load(run_id)
        partition = keys.partition_of(key)
        links, job = self._links(partition, run_id), None
        if self._jobs is not None and all(link.kind != "explanation" for link in links):
            job = self._jobs.explanation_job(run_id)
            # The job may have finished since the links were read, and would then be missing from both.
            links = self._links(partition, run_id)
        reviews = self._reviews(partition, run_id) if links else []
        return compose(artifact, links, reviews, self._attempts(partition, run_id), job)

    def list_runs(
        self, date_from: date | None = None, date_to: date | None = None, *, after: str | None = None
    ) -> Iterator[RunEntry]:
        """Yield every run of these days (both inclusive), newest day first, then by id, downwards.

        ``after`` is the key of an entry: only those that follow it are read. A corrupt file is an entry of
        its own, and so is a partition that cannot be listed. Memory holds the names of one partition.
        """
        for key, artifact, error in self._scan(date_from, date_to, self._run, links=False, after=after):
            yield RunEntry(key, artifact, error)

    def list_links(self, date_from: date | None = None, date_to: date | None = None) -> Iterator[LinkEntry]:
        """Yield every link of the runs of these days, as ``list_runs`` does runs."""
        for key, link, error in self._scan(date_from, date_to, self._link, links=True):
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
                reviews = self._reviews(keys.partition_of(entry.key), entry.link.run_id)
            except CorruptArtifact as error:
                damage = error
            (advisory,) = compose_advisories([entry.link], reviews)
            if advisory.needs_review:
                yield WaitingEntry(entry.key, advisory, damage)

    def _load(self, run_id: str) -> tuple[str, bytes, RunArtifact]:
        found = self._find(run_id, self._store.get)
        if found is None:
            raise _not_found(run_id)
        key, data = found
        return key, data, _parse_run(key, data)

    def _partition(self, run_id: str) -> str:
        key = self.artifact_key(run_id)
        if key is None:
            raise _not_found(run_id)
        return keys.partition_of(key)

    def _find(self, run_id: str, look: Callable[[str], Found | None]) -> tuple[str, Found] | None:
        damage: CorruptArtifact | None = None
        for key in self._places(run_id):
            try:
                found = look(key)
            except CorruptArtifact as error:
                # Another partition may hold the run all the same.
                damage = _logged(error)
            else:
                if found is not None:
                    return key, found
        if damage is not None:
            raise damage
        return None

    def _places(self, run_id: str) -> Iterator[str]:
        if not is_safe_id(run_id):
            return
        moment = uuid7_time(run_id)
        if moment is not None:
            yield keys.run_key(moment.date().isoformat(), run_id)
            return
        for day in self._days(date.min, date.max):
            yield keys.run_key(day.isoformat(), run_id)

    def _run(self, key: str) -> RunArtifact:
        return _parse_run(key, self._bytes(key))

    def _link(self, key: str) -> AdvisoryLink:
        return _parse_link(key, self._bytes(key))

    def _links(self, partition: str, run_id: str) -> list[AdvisoryLink]:
        links = map(self._link, self._json_keys(keys.link_prefix(partition, run_id)))
        return sorted(
            (link for link in links if link.run_id == run_id),
            key=lambda link: (link.created_at_utc, link.advisory_id),
        )

    def _reviews(self, partition: str, run_id: str) -> list[Review]:
        return sorted(
            (
                _parse(Review, key, self._bytes(key), lambda review: keys.review_key(partition, review))
                for key in self._json_keys(keys.review_prefix(partition, run_id))
            ),
            key=lambda review: (review.created_at_utc, review.review_id),
        )

    def _attempts(self, partition: str, run_id: str) -> list[Attempt]:
        return sorted(
            (
                _parse(Attempt, key, self._bytes(key), lambda attempt: keys.attempt_key(partition, attempt))
                for key in self._json_keys(keys.attempt_prefix(partition, run_id))
            ),
            key=lambda attempt: (attempt.failed_at_utc, attempt.job_id),
        )

    def _json_keys(self, prefix: str) -> list[str]:
        """Return the keys of the JSON files in one directory; other files are none of ours."""
        try:
            return [
                key
                for key in self._store.list(prefix)
                if key.endswith(".json") and "/" not in key[prefix.rfind("/") + 1 :]
            ]
        except CorruptArtifact as error:
            raise _logged(error) from error.__cause__

    def _bytes(self, key: str) -> bytes:
        data = self._get(key)
        if data is None:
            raise _logged(CorruptArtifact(key, "it was listed and is gone"))
        return data

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except KeyInvalid:
            raise _logged(CorruptArtifact(key, "its name is none that this store gives")) from None
        except CorruptArtifact as error:
            raise _logged(error) from error.__cause__

    def _scan(
        self,
        date_from: date | None,
        date_to: date | None,
        load: Callable[[str], Record],
        *,
        links: bool,
        after: str | None = None,
    ) -> Iterator[tuple[str, Record | None, CorruptArtifact | None]]:
        # The day of what was listed last, and where in it to go on. What could not be listed is behind us.
        last_day = keys.partition_day(keys.partition_of(after)) if after else None
        for day in self._days(date_from or date.min, min(date_to or date.max, last_day or date.max)):
            partition = day.isoformat()
            if partition == after:
                continue
            try:
                names = [key for key in self._json_keys(f"{partition}/") if keys.is_link(key) is links]
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

    def _days(self, first: date, last: date) -> Iterator[date]:
        """Yield days from ``last`` down to ``first`` that may be partitions, and all that are.

        A store lists upwards only, so a long span is halved, and halves that hold nothing cost one look.
        """
        oldest = self._oldest_partition(first)
        if oldest is not None and oldest <= last:
            yield from self._days_down_to(oldest, last)

    def _days_down_to(self, oldest: date, last: date) -> Iterator[date]:
        span = (last - oldest).days
        if span <= _WALK_DAYS:
            yield from (last - timedelta(days=days) for days in range(span + 1))
            return
        middle = oldest + timedelta(days=span // 2)
        yield from self._days(middle + _ONE_DAY, last)
        yield from self._days_down_to(oldest, middle)

    def _oldest_partition(self, first: date) -> date | None:
        # "0" sorts just after "/", so this passes by all of the day before.
        after = f"{first - _ONE_DAY}0" if first > date.min else ""
        for key in self._store.list("", after):
            if key[0] > "9":
                break  # the partitions are behind us: names of ours that are none begin with "_"
            day = keys.partition_day(keys.partition_of(key))
            if day is not None:
                return day
        return None


def _place(key: str) -> str:
    # Without ".json", which sorts after "-" and would put the run a-b before the run a.
    return key.removesuffix(".json")


def _parse_run(key: str, data: bytes) -> RunArtifact:
    return _parse(RunArtifact, key, data, keys.artifact_key)


def _parse_link(key: str, data: bytes) -> AdvisoryLink:
    partition = keys.partition_of(key)
    return _parse(
        AdvisoryLink, key, data, lambda link: keys.link_key(partition, link.run_id, link.advisory_id)
    )


def _parse(model: type[Record], key: str, data: bytes, belongs: Callable[[Record], str]) -> Record:
    try:
        return parse(model, key, data, belongs)
    except CorruptArtifact as error:
        raise _logged(error) from None


def _logged(error: CorruptArtifact) -> CorruptArtifact:
    emit(FileCorrupt(file=error.key, reason=error.reason))
    return error


def _not_found(run_id: str) -> RunNotFound:
    # Ids come from outside; a lone surrogate in one must not break whoever prints the error.
    return RunNotFound(run_id.encode("ascii", "backslashreplace").decode())
