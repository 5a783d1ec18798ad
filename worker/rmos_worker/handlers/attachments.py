"""The attachments that a request names, proven before the artifact that names them is published."""

from __future__ import annotations

from rmos_shared.errors import AttachmentNotFound, AttachmentPending, FieldProblem, InvalidRequest
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.model import Outputs, attached
from rmos_shared.store.base import Outcome
from rmos_shared.store.publication import Publication


class NamedAttachments:
    """Looks for what requests name among the attachments; any other path is the caller's own."""

    def __init__(self, attachments: Attachments, *, wait_seconds: float) -> None:
        """Look among ``attachments``; a job waits for one that is missing for ``wait_seconds``."""
        self._attachments = attachments
        self._wait_seconds = wait_seconds

    def told(self, data: bytes, suffix: str) -> tuple[Publication, ...]:
        """Return what the audit log is told of ``data`` when it is stored: by a try before, or by anybody."""
        key = attachment_key(data, suffix)
        if self._attachments.head(key) is None:
            return ()
        return (Publication.of(key, data, Outcome.ALREADY_SAME),)

    def prove(self, outputs: Outputs, *, written: str | None, waiting_seconds: float) -> None:
        """Read each attachment that ``outputs`` name, and prove its hash; ``written`` needs none.

        ``waiting_seconds`` is how long the job has been put off already.

        Raises:
            AttachmentPending: one is not stored yet; come again.
            InvalidRequest: one is not stored, and the time for it is over; its field is named.
            CorruptArtifact: one holds something else than its name says.
        """
        for field, path, _ in attached(outputs):
            if path == written:
                continue
            try:
                self._attachments.verify(path)
            except AttachmentNotFound:
                if waiting_seconds < self._wait_seconds:
                    raise AttachmentPending(f"outputs.{field}") from None
                reason = f"names an attachment that was not stored within {self._wait_seconds:g} s"
                raise InvalidRequest((FieldProblem(f"outputs.{field}", reason),)) from None
