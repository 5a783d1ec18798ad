"""Streamed jobs through the ledger: each a job of its own, a hundred to a notification."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rmos_runs import RunsClient


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue a job each."""
    with RunsClient.connect() as client:
        for _ in client.create_runs(requests):
            pass
