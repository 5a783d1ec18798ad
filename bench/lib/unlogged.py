"""Our worker, whose jobs tell the audit log of nothing while the file ``RMOS_BENCH_UNTOLD`` is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rmos_shared.jobs.work import Finish, JobWork, Lease, Settlement
from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app

__all__ = ["app"]

_UNTOLD = Path(os.environ["RMOS_BENCH_UNTOLD"])
_finish = JobWork.finish


def _told_or_not(
    work: JobWork, finishes: Sequence[Finish], lease: Lease, *, ttl_seconds: int
) -> dict[str, Settlement]:
    if _UNTOLD.exists():
        finishes = [replace(finish, published=()) for finish in finishes]
    return _finish(work, finishes, lease, ttl_seconds=ttl_seconds)


JobWork.finish = _told_or_not  # type: ignore[method-assign, assignment]
app = create_app(WorkerSettings.load())
