"""Who takes part: how each fills its queue, and how its workers are started. All get two processes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

PROCESSES = 2
_APP = "rmos_worker.celery_app.main"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing jobs."""

    name: str
    #: The module below ``peers`` that fills the queue.
    module: str
    worker: tuple[str, ...]
    #: The list whose length tells what is left, for workers that store nothing.
    queue: str | None = None


def celery(app: str, queue: str, *, pool: str = "prefork", processes: int = PROCESSES) -> tuple[str, ...]:
    """Return the command of a Celery worker."""
    options = ("worker", "-P", pool, "-c", str(processes), "-Q", queue)
    return (sys.executable, "-m", "celery", "-A", app, *options)


def single(processes: int = PROCESSES) -> Contender:
    """Return ours for single jobs."""
    return Contender("rmos", "ours", celery(_APP, "runs.create", processes=processes))


def bulk(processes: int = PROCESSES) -> Contender:
    """Return ours for streamed jobs."""
    return Contender("rmos, bulk", "ours_bulk", celery(_APP, "runs.batch", processes=processes))


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


_N = str(PROCESSES)
EMPTY = Contender("empty Celery task", "empty", celery("peers.empty", "runs.create"), queue="runs.create")
PLAIN = Contender("plain Celery task", "plain", celery("peers.plain", "runs.create"))
#: Each with the settings that its documentation gives for throughput.
PEERS = (
    Contender("dramatiq", "dramatiq", (_script("dramatiq"), "peers.dramatiq", "-p", _N, "-t", "8")),
    Contender("rq", "rq", (_script("rq"), "worker-pool", "-n", _N, "-w", "rq.SimpleWorker", "-q")),
    Contender("huey", "huey", (_script("huey_consumer"), "peers.huey.huey", "-k", "process", "-w", _N, "-q")),
    Contender(
        "taskiq",
        "taskiq",
        (_script("taskiq"), "worker", "peers.taskiq:broker", "--workers", _N, "--log-level", "WARNING"),
    ),
)
