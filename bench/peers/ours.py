"""Single jobs through the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rmos_runs import RunsClient


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue a job each."""
    with RunsClient.connect() as client:
        for request in requests:
            client.create_run(request)
