"""The same work by huey: blocking pops, no results. A message is gone once it is popped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from huey import RedisHuey

from peers import work

huey = RedisHuey("bench", url=os.environ["RMOS_BROKER_URL"], results=False, blocking=True)


@huey.task()  # type: ignore[untyped-decorator]  # huey has no types
def create(request: dict[str, Any]) -> None:
    """Store one run."""
    work.create(request)


def fill(requests: Iterable[dict[str, Any]]) -> None:
    """Enqueue a job each."""
    for request in requests:
        create(request)
