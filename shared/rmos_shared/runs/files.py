"""The files of a run as records: each proven when it is read, each damage reported."""

from __future__ import annotations

from collections.abc import Callable

from rmos_shared.advisories.model import AdvisoryLink, Attempt, Review
from rmos_shared.errors import CorruptArtifact
from rmos_shared.runs import layout as keys
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.record import Record, parse
from rmos_shared.store.base import ArtifactStore, KeyInvalid
from rmos_shared.telemetry.events import FileCorrupt
from rmos_shared.telemetry.log import emit


class RunFiles:
    """Reads files by key. Each corrupt one is reported by key and reason, never its content.

    All methods raise ``CorruptArtifact`` for what cannot be read or fails its own proof, and
    ``StoreUnavailable`` when the store is away.
    """

    def __init__(self, store: ArtifactStore) -> None:
        """Read from ``store``."""
        self._store = store

    def run(self, key: str) -> RunArtifact:
        """Return the artifact of a key that was listed."""
        return parse_run(key, self.bytes(key))

    def link(self, key: str) -> AdvisoryLink:
        """Return the link of a key that was listed."""
        return parse_link(key, self.bytes(key))

    def links(self, partition: str, run_id: str) -> list[AdvisoryLink]:
        """Return a run's links, oldest first."""
        links = map(self.link, self.json_keys(keys.link_prefix(partition, run_id)))
        return sorted(
            (link for link in links if link.run_id == run_id),
            key=lambda link: (link.created_at_utc, link.advisory_id),
        )

    def reviews(self, partition: str, run_id: str) -> list[Review]:
        """Return the reviews of a run's advisories, oldest first."""
        return sorted(
            (
                parse_review(key, self.bytes(key))
                for key in self.json_keys(keys.review_prefix(partition, run_id))
            ),
            key=lambda review: (review.created_at_utc, review.review_id),
        )

    def attempts(self, partition: str, run_id: str) -> list[Attempt]:
        """Return a run's explanations that failed for good, oldest first."""
        return sorted(
            (
                parse_attempt(key, self.bytes(key))
                for key in self.json_keys(keys.attempt_prefix(partition, run_id))
            ),
            key=lambda attempt: (attempt.failed_at_utc, attempt.job_id),
        )

    def json_keys(self, prefix: str) -> list[str]:
        """Return the keys of the JSON files in one directory; other files are none of ours."""
        try:
            return [
                key
                for key in self._store.list(prefix)
                if key.endswith(".json") and "/" not in key[prefix.rfind("/") + 1 :]
            ]
        except CorruptArtifact as error:
            raise reported(error) from error.__cause__

    def get(self, key: str) -> bytes | None:
        """Return the bytes of a key, or None."""
        try:
            return self._store.get(key)
        except KeyInvalid:
            raise reported(CorruptArtifact(key, "its name is none that this store gives")) from None
        except CorruptArtifact as error:
            raise reported(error) from error.__cause__

    def bytes(self, key: str) -> bytes:
        """Return the bytes of a key that was listed, not proven yet."""
        data = self.get(key)
        if data is None:
            raise reported(CorruptArtifact(key, "it was listed and is gone"))
        return data


def parse_run(key: str, data: bytes) -> RunArtifact:
    """Return the artifact that these bytes are, of the key that it belongs under."""
    return _parse(RunArtifact, key, data, keys.artifact_key)


def parse_link(key: str, data: bytes) -> AdvisoryLink:
    """Return the link that these bytes are, of the key that it belongs under."""
    partition = keys.partition_of(key)
    return _parse(
        AdvisoryLink, key, data, lambda link: keys.link_key(partition, link.run_id, link.advisory_id)
    )


def parse_review(key: str, data: bytes) -> Review:
    """Return the review that these bytes are, of the key that it belongs under."""
    return _parse(Review, key, data, lambda review: keys.review_key(_day(key), review))


def parse_attempt(key: str, data: bytes) -> Attempt:
    """Return the failed attempt that these bytes are, of the key that it belongs under."""
    return _parse(Attempt, key, data, lambda attempt: keys.attempt_key(_day(key), attempt))


def _day(key: str) -> str:
    # Below the directory of their kind: "_reviews/2026-08-01/...".
    return keys.partition_of(key.partition("/")[2])


def _parse(model: type[Record], key: str, data: bytes, belongs: Callable[[Record], str]) -> Record:
    try:
        return parse(model, key, data, belongs)
    except CorruptArtifact as error:
        raise reported(error) from None


def reported(error: CorruptArtifact) -> CorruptArtifact:
    """Report the damage, and return it to be raised."""
    emit(FileCorrupt(file=error.key, reason=error.reason))
    return error
