"""The same work by taskiq on a Redis stream, its broker that acknowledges; no results."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from taskiq_redis import RedisStreamBroker

from peers import work

# From the start of the stream: the backlog lies there before the workers come.
broker = RedisStreamBroker(os.environ["RMOS_BROKER_URL"], consumer_id="0")


@broker.task
def create(request: dict[str, Any]) -> None:
    """Store one run."""
    work.create(request)


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue a job each."""
    asyncio.run(_fill(requests))


async def _fill(requests: Iterable[dict[str, Any]]) -> None:
    await broker.startup()
    for request in requests:
        await create.kiq(request)
    await broker.shutdown()
