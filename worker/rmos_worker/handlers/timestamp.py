"""``audit.timestamp``: have an authority that knows nothing of us say that the newest checkpoint is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.layout import checkpoint_key, timestamp_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import NoteInvalid
from rmos_shared.errors import CorruptArtifact
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

    def __init__(self, store: ArtifactStore, client: TimestampClient | None) -> None:
        """Read and write ``store``. Without ``client`` nothing is asked."""
        self._store = store
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

    def _newest(self) -> Checkpoint | None:
        # Its origin is of the store that it lies in; whoever verifies the token holds it against that.
        size = AuditLog(self._store, "").newest_size()
        if not size:
            return None
        key = checkpoint_key(size)
        try:
            checkpoint, _ = Checkpoint.parse_note(self._store.get(key) or b"")
        except NoteInvalid as error:
            raise CorruptArtifact(key, str(error)) from error
        if checkpoint.size != size:
            raise CorruptArtifact(key, f"it is the checkpoint of {checkpoint.size} entries")
        return checkpoint

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:
        """Record nothing: the next day asks anew."""
        del claim, failure
        return ()
