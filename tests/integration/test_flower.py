"""Flower on a real pipeline: it tells the truth about every job, and nothing about any payload."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from rmos_runs import RunsClient
from rmos_runs.local.home import Addresses, Home
from rmos_runs.local.processes import MAIN_JOB, Pipeline
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.model import JobState

SECRET = "spruce-top-of-a-customer"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    home = Home(tmp_path_factory.mktemp("flower"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMOS_RETRY_BASE_SECONDS", "600")  # what is put off stays so while we look
        with Pipeline(home, names=(*MAIN_JOB, "flower")) as pipeline:
            yield pipeline.start()


def ask(addresses: Addresses, path: str) -> str:
    token = base64.b64encode((addresses.flower_auth or "").encode()).decode()
    request = Request(f"{addresses.flower_url}{path}", headers={"Authorization": f"Basic {token}"})
    with urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def task(addresses: Addresses, task_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        told: dict[str, Any] = json.loads(ask(addresses, "/api/tasks")).get(task_id, {})
        if told.get("state") in {"SUCCESS", "FAILURE", "RETRY"}:
            return told
        assert time.monotonic() < deadline, f"Flower never told how {task_id} ended: {told.get('state')}"
        time.sleep(0.1)


def test_each_job_ends_in_the_state_that_the_ledger_has(
    watched: Addresses, sample_requests: list[dict[str, Any]]
) -> None:
    request = {**sample_requests[0], "meta": {"customer": SECRET}}
    with RunsClient.connect(broker_url=watched.broker_url) as client:
        done = client.create_run(request)
        other = {**request, "run_id": done.run_id, "tool_id": "another"}
        assert client.wait(done.job_id, 30).state is JobState.DONE
        conflict = client.create_run(other)
        assert client.wait(conflict.job_id, 30).state is JobState.DEAD
        # Its run is accepted and its notification is never notified, so this job has to wait for it.
        unborn = new_uuid7()
        client.ledger._client.hset("rmos:subjects", f"create:{unborn}", conflict.job_id)
        client.ledger._client.hset(f"rmos:job:{conflict.job_id}", "state", "accepted")
        waiting = client.suggest_and_attach(unborn)

        states = [task(watched, job.job_id)["state"] for job in (done, conflict, waiting)]
        failure = task(watched, conflict.job_id)["exception"]
        client.ledger._client.hset(f"rmos:job:{conflict.job_id}", "state", "dead")
        assert client.ledger.get(waiting.job_id).state is JobState.WAITING

    assert states == ["SUCCESS", "FAILURE", "RETRY"]
    assert "conflict" in failure


def test_no_payload_reaches_flower_and_dead_letters_show_their_number(
    watched: Addresses, sample_requests: list[dict[str, Any]]
) -> None:
    request = {**sample_requests[1], "meta": {"customer": SECRET}}
    with RunsClient.connect(broker_url=watched.broker_url) as client:
        first = client.create_run(request)
        client.wait(first.job_id, 30)
        dead = client.create_run({**request, "run_id": first.run_id, "tool_id": "another"})
        client.wait(dead.job_id, 30)
        task(watched, dead.job_id)
        length = client.ledger.stats().queues["runs.dead_letter"]

    pages = [
        ask(watched, path) for path in ("/broker", "/api/tasks", f"/task/{dead.job_id}", "/tasks", "/workers")
    ]

    assert length >= 1
    row = pages[0].partition('id="runs.dead_letter"')[2].partition("</tr>")[0]
    assert f">{length}<" in row
    assert not [page for page in pages if SECRET in page]


def test_nobody_looks_without_the_password(watched: Addresses) -> None:
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{watched.flower_url}/api/tasks", timeout=10)


def test_flower_itself_refuses_and_names_the_variable() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWER_", "RMOS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "rmos_worker.celery_app.flower", "flower", "--port=0"],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "set FLOWER_BASIC_AUTH to user:password" in done.stderr
