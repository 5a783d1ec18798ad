"""The work that every contender does for one job: read the request, make the artifact, store it durably."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rmos_shared.runs.model import RunRequest
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.local import LocalStore
from rmos_worker.handlers.artifact import artifact_of

_RUNS = RunWriter(LocalStore(Path(os.environ["RMOS_RUNS_DIR"])))


def create(request: dict[str, Any]) -> None:
    """Store one run."""
    artifact, _ = artifact_of(RunRequest.read(request))
    _RUNS.put_runs([artifact])
