"""What the framework costs by itself: a Celery task that takes nothing and does nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peers.celery_app import QUEUE, celery_app

app = celery_app("empty")


@app.task(name="bench.empty", queue=QUEUE)
def nothing() -> None:
    """Do nothing."""


@app.task(name="bench.timed", queue=QUEUE, bind=True)
def timed(self: Any) -> None:
    """Do nothing but say when, as ``lib/timed.py`` does for ours."""
    with Path(os.environ["BENCH_TIMES"]).open("a") as times:
        times.write(f"{self.request.id} {time.monotonic()}\n")


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue an empty task for each request."""
    for _ in requests:
        nothing.apply_async()
