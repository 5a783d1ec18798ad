"""Both sides of one store of runs."""

from __future__ import annotations

from rmos_shared.runs.reader import ExplanationJobs, RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.base import ArtifactStore


class Runs:
    """What writes a store and what reads it."""

    def __init__(self, store: ArtifactStore, jobs: ExplanationJobs | None = None) -> None:
        self.store = store
        self.writer = RunWriter(store)
        self.reader = RunReader(store, jobs)
