"""Our worker, whose jobs tell the audit log of nothing: what sealing costs is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rmos_shared.jobs.work import Finish, JobWork, Lease, Settlement
from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app

__all__ = ["app"]

_finish = JobWork.finish


def _untold(
    work: JobWork, finishes: Sequence[Finish], lease: Lease, *, ttl_seconds: int
) -> dict[str, Settlement]:
    return _finish(
        work, [replace(finish, published=()) for finish in finishes], lease, ttl_seconds=ttl_seconds
    )


JobWork.finish = _untold  # type: ignore[method-assign, assignment]
app = create_app(WorkerSettings.load())
