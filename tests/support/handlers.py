"""The worker's handlers, as its wiring makes them."""

from __future__ import annotations

from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.told import Tell
from rmos_worker.handlers.attachments import NamedAttachments
from rmos_worker.handlers.create import CreateHandler


def create_handler(
    store: ArtifactStore, *, wait_seconds: float = 0, tell: Tell = lambda _: None
) -> CreateHandler:
    """Return what creates runs in ``store``."""
    named = NamedAttachments(Attachments(store), wait_seconds=wait_seconds)
    return CreateHandler(RunWriter(store), RunReader(store), named, tell)
