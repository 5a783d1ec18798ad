"""What a worker logs: one JSON object a line, who and how long, and nothing of any payload."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rmos_runs import RunsClient
from rmos_shared.jobs.model import JobState

SECRET = "spruce-top-of-a-customer"


def test_a_worker_tells_what_it_answered_and_keeps_the_payload_to_itself(
    start_worker: Callable[..., Any],
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Callable[..., None],
) -> None:
    worker = start_worker("threads", 1)
    request = {**sample_requests[0], "meta": {"customer": SECRET}, "request_id": "req-of-this-test"}
    done = runs_client.create_run(request)
    conflict = runs_client.create_run({**request, "run_id": done.run_id, "tool_id": SECRET})
    assert runs_client.wait(done.job_id, 30).state is JobState.DONE
    assert runs_client.wait(conflict.job_id, 30).state is JobState.DEAD

    def told() -> dict[str, dict[str, Any]]:
        lines = [line for line in worker.log.read_text().splitlines() if line.startswith("{")]
        return {record["event"]: record for record in map(json.loads, lines)}

    eventually(lambda: {"jobs.finished", "job.dead"} <= told().keys())
    answered, buried = told()["jobs.finished"], told()["job.dead"]
    assert answered["request_id"] == buried["request_id"] == "req-of-this-test"
    assert answered["milliseconds"] > 0
    assert (buried["reason"], buried["run_id"], buried["level"]) == ("conflict", done.run_id, "warning")
    text = worker.log.read_text()
    assert SECRET not in text
    assert "Traceback" not in text
