"""Publishing: runs, attachments, links, reviews and failed attempts, each once and for good."""

from __future__ import annotations

from collections.abc import Sequence

from rmos_shared.advisories.model import AdvisoryLink, Attempt, Review
from rmos_shared.errors import AdvisoryNotFound
from rmos_shared.runs import layout as keys
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.files import RunFiles, parse_link
from rmos_shared.runs.lookup import RunLookup
from rmos_shared.runs.model import RunArtifact
from rmos_shared.store.base import ArtifactStore, Outcome
from rmos_shared.store.publication import Publication

#: A run as it lies in the store: its key and its bytes.
StoredRun = tuple[str, bytes]


def as_stored(artifact: RunArtifact) -> StoredRun:
    """Return the key and the bytes of a run.

    Raises:
        InvalidRequest: see ``keys.artifact_key``.
    """
    return keys.artifact_key(artifact), artifact.to_bytes()


class RunWriter:
    """Its files never change (contract section 4), and are durable when a call returns.

    Every method raises ``StoreUnavailable`` when the store is away; repeating any of them is safe.
    """

    def __init__(self, store: ArtifactStore) -> None:
        """Write to ``store``."""
        self._store = store
        self._files = RunFiles(store)
        self._attachments = Attachments(store)
        self._lookup = RunLookup(store)

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
        """Publish ``data`` under its own hash and return the key; see ``Attachments.put``."""
        return self.publish_attachment(data, suffix).key

    def publish_attachment(self, data: bytes, suffix: str) -> Publication:
        """As ``put_attachment``, and return all that the audit log is told of it."""
        return self._attachments.publish(data, suffix)

    def attach(self, link: AdvisoryLink) -> Outcome:
        """Publish a link beside its run. The same advisory again is ``ALREADY_SAME`` (contract section 5).

        That holds whatever request asked and whatever the policy says by now: the first link stays.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: another link has the name, and it cannot be read.
        """
        return self.publish_link(link)[0]

    def publish_link(self, link: AdvisoryLink) -> tuple[Outcome, Publication]:
        """As ``attach``, and return what the audit log is told: of the link that stands."""
        key = keys.link_key(self._lookup.partition(link.run_id), link.run_id, link.advisory_id)
        data = link.to_bytes()
        outcome = self._store.create(key, data)
        if outcome is Outcome.CONFLICT:
            stands = self._files.bytes(key)
            if parse_link(key, stands).same_advisory(link):
                outcome, data = Outcome.ALREADY_SAME, stands
        return outcome, Publication.of(key, data, outcome)

    def add_review(self, review: Review) -> Outcome:
        """Publish a person's verdict; it changes no other file.

        Raises:
            RunNotFound: there is no such run.
            AdvisoryNotFound: no such advisory is linked to it.
            CorruptArtifact: it is, and the link cannot be read: nobody can have judged it.
        """
        partition = self._lookup.partition(review.run_id)
        key = keys.link_key(partition, review.run_id, review.advisory_id)
        data = self._files.get(key)
        if data is None or parse_link(key, data).run_id != review.run_id:
            raise AdvisoryNotFound(review.advisory_id)
        return self._store.create(keys.review_key(partition, review), review.to_bytes())

    def add_attempt(self, attempt: Attempt) -> Outcome:
        """Publish that an explanation ended in the dead letters.

        Raises:
            RunNotFound: there is no such run.
        """
        return self.publish_attempt(attempt)[0]

    def publish_attempt(self, attempt: Attempt) -> tuple[Outcome, Publication]:
        """As ``add_attempt``, and return what the audit log is told of it."""
        key = keys.attempt_key(self._lookup.partition(attempt.run_id), attempt)
        data = attempt.to_bytes()
        outcome = self._store.create(key, data)
        return outcome, Publication.of(key, data, outcome)
