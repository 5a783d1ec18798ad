"""Create-run as a plain Celery task that carries its payload: no ledger, no gate, no leases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peers import work
from peers.celery_app import QUEUE, celery_app

app = celery_app("plain")


@app.task(name="bench.create", queue=QUEUE)
def create(request: dict[str, Any]) -> None:
    """Store one run."""
    work.create(request)


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue a job each."""
    for request in requests:
        create.apply_async((request,))
