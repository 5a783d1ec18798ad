"""The create handler by itself: what it keeps of a group while it works on it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.model import RunArtifact, RunRequest
from rmos_shared.store.base import Outcome
from rmos_shared.store.memory import MemoryStore
from rmos_shared.tasks.payloads import CreateRun
from rmos_shared.tasks.table import CREATE_MANY
from support.handlers import create_handler


def claim(request: dict[str, Any]) -> Claim:
    run = RunRequest.read(request)
    payload = CreateRun(run=run).to_json().encode()
    return Claim(new_uuid7(), CREATE_MANY.name, payload, run.run_id, run.request_id, 0, 1, 0.0)


def alive() -> int:
    # By type: isinstance would wake the proxies that Celery keeps.
    return sum(type(thing) in {RunRequest, RunArtifact} for thing in gc.get_objects())


def test_a_group_is_kept_as_bytes_while_it_is_made(sample_requests: list[dict[str, Any]]) -> None:
    seen: list[int] = []

    class Watching(MemoryStore):
        def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
            seen.append(alive())
            return super().create_many(items)

    claims = [claim(request) for request in sample_requests[:20]]
    gc.collect()
    before = alive()
    store = Watching()
    ends = create_handler(store).handle(claims)
    assert [end.job_id for end in ends if isinstance(end, Finish)] == [made.job_id for made in claims]
    assert seen == [before]
