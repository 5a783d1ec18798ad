"""The same work by dramatiq: acknowledged messages, no results."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from peers import work

broker = RedisBroker(url=os.environ["RMOS_BROKER_URL"])  # type: ignore[no-untyped-call]
dramatiq.set_broker(broker)


@dramatiq.actor
def create(request: dict[str, Any]) -> None:
    """Store one run."""
    work.create(request)


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue a job each."""
    for request in requests:
        create.send(request)
