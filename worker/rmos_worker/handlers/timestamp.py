"""``audit.timestamp``: have an authority that knows nothing of us say that the newest checkpoint is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.layout import timestamp_key
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.models.base import format_utc
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import TimestampCheckpoint
from rmos_worker.handlers.base import each, read_payload
from rmos_worker.timestamps.client import TimestampClient


class TimestampHandler:
    """Stores tokens beside the checkpoints, create-only: the first one of a checkpoint stands."""

    def __init__(
        self, store: ArtifactStore, newest: Callable[[], Checkpoint | None], client: TimestampClient | None
    ) -> None:
        """Write to ``store``; ``newest`` reads its newest checkpoint. Without ``client`` nothing is asked."""
        self._store = store
        self._newest = newest
        self._client = client

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Stamp each."""
        return each(claims, self._stamp)

    def _stamp(self, claim: Claim) -> Finish:
        told: dict[str, Any] = {"day": read_payload(claim, TimestampCheckpoint).day}
        if self._client is None:
            # Accepted by a process that has the setting, done by one that has not.
            return Finish(claim.job_id, told | {"outcome": "no RMOS_TSA_URL"})
        checkpoint = self._newest()
        if checkpoint is None:
            return Finish(claim.job_id, told | {"outcome": "no checkpoint"})
        key = timestamp_key(checkpoint.size)
        told |= {"key": key, "size": checkpoint.size}
        if self._store.head(key) is not None:
            return Finish(claim.job_id, told | {"outcome": "already_stamped"})
        token, at = self._client.stamp(checkpoint.text.encode())
        outcome = self._store.create(key, token)
        return Finish(claim.job_id, told | {"outcome": outcome.value, "stamped_at_utc": format_utc(at)})

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:
        """Record nothing: the next day asks anew."""
        del claim, failure
        return ()
