"""A worker whose loop hangs when told to, and whose creates last as long as asked: ``celery -A wedged``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from celery.worker.control import control_command

from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app
from rmos_worker.handlers.create import CreateHandler

_honest = CreateHandler.handle


def _handle(self: CreateHandler, claims: Sequence[Claim]) -> list[Finish | Exception]:
    for claim in claims:
        time.sleep(json.loads(claim.payload)["run"]["meta"].get("seconds", 0))
    return _honest(self, claims)


@control_command()
def hang(_state: Any, num: int) -> None:
    """Hold the worker's loop, which reads control messages as well, for so many seconds."""
    time.sleep(num)


CreateHandler.handle = _handle  # type: ignore[method-assign]
app = create_app(WorkerSettings.load())
