"""A worker whose create task does to its process what a run's meta asks for: ``celery -A poisoned``."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from celery.exceptions import Ignore, Reject

from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app
from rmos_worker.handlers.create import CreateHandler


def _raise(error: BaseException) -> None:
    raise error


# Not spelt out here, for the traceback's lines of source are shown.
_SECRET = "noitpecxe-na-ni-terces"[::-1]
POISON: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "os_exit": lambda: os._exit(3),
    "out_of_memory_kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hard_limit": lambda: time.sleep(600),
    "memory_error": lambda: _raise(MemoryError()),
    "sys_exit": lambda: sys.exit(1),
    "reject": lambda: _raise(Reject("no", requeue=True)),
    "ignore": lambda: _raise(Ignore()),
    "keyboard_interrupt": lambda: _raise(KeyboardInterrupt()),
    "recursion": lambda: _raise(RecursionError(_SECRET)),
}

_honest = CreateHandler.handle


def _handle(self: CreateHandler, claims: Sequence[Claim]) -> list[Finish | Exception]:
    for claim in claims:
        poison = json.loads(claim.payload)["run"]["meta"].get("poison")
        if poison:
            POISON[poison]()
    return _honest(self, claims)


CreateHandler.handle = _handle  # type: ignore[method-assign]
app = create_app(WorkerSettings.load())
app.conf.update(task_time_limit=3, task_soft_time_limit=None)
