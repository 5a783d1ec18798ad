"""A real worker and its ``/livez``: it takes jobs, or it says that it does not, though it answers a ping."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from rmos_runs.cli.up import _sentence
from rmos_runs.client import RunsClient
from rmos_runs.local import liveness
from rmos_runs.local.home import Home
from rmos_runs.local.ports import lasting_port
from rmos_runs.local.processes import Pipeline
from rmos_runs.local.supervisor import Ended
from rmos_shared.errors import SettingsInvalid
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job, JobState
from rmos_shared.tasks.table import ATTACH, QUEUES, SUGGEST
from rmos_worker.monitoring.endpoint import Endpoint
from support.command import piped
from support.proxy import Proxy, proxied
from support.worker import StartWorker, Worker

PATIENCE = 1.0
REQUEST: dict[str, Any] = {
    "mode": "saw",
    "tool_id": "saw:test",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN"},
    "decision": {"risk_level": "GREEN"},
}
Eventually = Callable[..., None]


class Watched:
    """A worker with one slot, behind a proxy, and what it says of itself."""

    def __init__(self, worker: Worker, port: int, broker_url: str) -> None:
        self.worker = worker
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5)
        self.celery = Celery("watcher", broker=broker_url, set_as_current=False)
        self.port = port
        #: Every state that was told, in order.
        self.told: list[str] = []

    def state(self) -> str:
        answer = self.http.get("/livez")
        told = answer.json()
        assert answer.status_code == (200 if told["alive"] else 503)
        if self.told[-1:] != [told["state"]]:
            self.told.append(told["state"])
        return str(told["state"])

    def answers_a_ping(self) -> bool:
        return bool(self.celery.control.broadcast("ping", reply=True, limit=1, timeout=5))

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(name)))

    def events(self) -> list[str]:
        lines = (line for line in self.worker.log.read_text().splitlines() if line.startswith("{"))
        return [json.loads(line)["event"] for line in lines]


def run_of(seconds: float) -> dict[str, Any]:
    return {**REQUEST, "meta": {"seconds": seconds}}


def test_a_worker_that_takes_no_jobs_is_not_alive_and_one_that_is_busy_or_idle_is(
    start_worker: StartWorker,
    broker_url: str,
    runs_client: RunsClient,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    with proxied(broker_url) as proxy:
        port = lasting_port()
        worker = start_worker(
            "threads",
            1,
            app="wedged",
            broker_url=f"redis://127.0.0.1:{proxy.port}/0",
            broker_timeout_seconds=0.5,
            worker_http_port=port,
            worker_stalled_seconds=PATIENCE,
        )
        watched = Watched(worker, port, broker_url)
        _busy_is_alive(watched, runs_client)
        _idle_is_alive(watched)
        _without_its_queue_it_is_stalled(watched, runs_client, eventually)
        _so_says_the_command(watched, tmp_path)
        _with_its_queue_it_is_alive_again(watched, runs_client, eventually)
        _with_a_loop_that_hangs_it_is_not_alive(watched, eventually)
        _without_a_broker_it_is_alive(watched, proxy, eventually)


def _busy_is_alive(watched: Watched, client: RunsClient) -> None:
    # Longer than a worker may take none; the second one is in line all the while.
    receipts = [client.create_run(run_of(seconds)) for seconds in (2 * PATIENCE, 0)]
    while client.job(receipts[1].job_id).state is not JobState.DONE:
        assert watched.state() in {"idle", "working", "busy"}
    assert "busy" in watched.told


def _idle_is_alive(watched: Watched) -> None:
    until = time.monotonic() + 1.5 * PATIENCE
    while time.monotonic() < until:
        assert watched.state() in {"idle", "working", "busy"}
    assert watched.told[-1] == "idle"
    assert watched.metric("rmos_worker_alive ") == 1
    assert "worker.stalled" not in watched.events()


def _without_its_queue_it_is_stalled(watched: Watched, client: RunsClient, eventually: Eventually) -> None:
    watched.celery.control.cancel_consumer("runs.create", reply=True, limit=1)
    begun = time.monotonic()
    client.create_run(run_of(0))
    eventually(lambda: watched.state() == "stalled", 20)
    # The worker looks from time to time, so its own clock may have begun a little before ours.
    assert time.monotonic() - begun >= 0.5 * PATIENCE
    assert watched.answers_a_ping()
    assert watched.metric("rmos_worker_alive ") == 0
    assert watched.metric("rmos_worker_idle_seconds ") >= PATIENCE
    assert watched.events().count("worker.stalled") == 1


def _so_says_the_command(watched: Watched, tmp_path: Path) -> None:
    done = piped("health", "worker", "--json", home=tmp_path, RMOS_WORKER_HTTP_PORT=str(watched.port))
    (row,) = json.loads(done.stdout)
    assert (done.returncode, row["process"], row["alive"], row["state"]) == (6, "worker", False, "stalled")
    assert "NOT_ALIVE: not alive: worker" in done.stderr


def _with_its_queue_it_is_alive_again(watched: Watched, client: RunsClient, eventually: Eventually) -> None:
    watched.celery.control.add_consumer("runs.create", reply=True, limit=1)
    eventually(lambda: watched.state() == "idle", 20)
    assert client.wait(client.create_run(run_of(0)).job_id, 20).state is JobState.DONE
    assert "worker.alive_again" in watched.events()


def _with_a_loop_that_hangs_it_is_not_alive(watched: Watched, eventually: Eventually) -> None:
    # With nothing in line, so that nothing else shows it.
    watched.celery.control.broadcast("hang", arguments={"num": 3})
    eventually(lambda: watched.state() == "loop_hangs", 20)
    eventually(lambda: watched.state() == "idle", 20)


def _without_a_broker_it_is_alive(watched: Watched, proxy: Proxy, eventually: Eventually) -> None:
    proxy.refuse(600)
    eventually(lambda: watched.state() == "broker_away", 20)
    # Its loop waits for the broker, and does not turn.
    until = time.monotonic() + 1.5 * PATIENCE
    while time.monotonic() < until:
        assert watched.state() == "broker_away"


def test_a_worker_whose_port_is_taken_says_so_and_does_not_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"RMOS_WORKER_HTTP_PORT: port {port} of 127.0.0.1"):
            Endpoint("127.0.0.1", port, {})


def test_a_worker_that_stalls_under_rmos_up_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RMOS_WORKER_STALLED_SECONDS", str(PATIENCE))
    monkeypatch.setattr(liveness, "_EVERY_SECONDS", 0.3)
    home = Home(tmp_path / "home")
    with Pipeline(home, names=("worker-create",)) as pipeline:
        addresses = pipeline.start()
        ended: list[Ended] = []
        eventually(lambda: liveness.ask(addresses.worker_urls["worker-create"]).alive)
        done = piped("health", "worker", home=home.root)
        assert (done.returncode, done.stdout.split()[:1]) == (0, ["process"])
        with RunsClient.connect(broker_url=addresses.broker_url) as client:
            celery = Celery("watcher", broker=addresses.broker_url, set_as_current=False)
            celery.control.cancel_consumer("runs.create", reply=True, limit=1)
            receipt = client.create_run(REQUEST)

            def seen_to_end() -> bool:
                ended.extend(pipeline.watch())
                return bool(ended)

            eventually(seen_to_end, 30)
            assert client.wait(receipt.job_id, 30).state is JobState.DONE
    (one,) = ended
    assert _sentence(one, home.logs_dir).startswith(
        "worker-create ended (its state was stalled, so it was killed) and was started again"
    )


def test_what_is_paused_is_no_work(ledger: JobLedger, redis_client: redis.Redis) -> None:
    def accept(task: str) -> None:
        ledger.accept([Job(new_uuid7(), task, new_uuid7(), None, "{}")])

    have_work = ledger.queues.have_work
    assert not have_work(*QUEUES)
    accept(SUGGEST.name)
    assert have_work(*QUEUES)
    assert have_work("runs.advise")
    assert not have_work("runs.create", "runs.batch")
    redis_client.hset("rmos:pauses", "queue:runs.advise", "{}")
    assert not have_work(*QUEUES)
    redis_client.delete("rmos:pauses")
    redis_client.hset("rmos:pauses", f"task:{SUGGEST.name}", "{}")
    assert not have_work(*QUEUES)
    accept(ATTACH.name)
    assert have_work(*QUEUES), "another task on the same queue"
    redis_client.set("rmos:pauses", "of a wrong type")
    assert have_work(*QUEUES)
    redis_client.delete("rmos:ready:runs.advise")
    redis_client.set("rmos:ready:runs.advise", "of a wrong type")
    assert not have_work("runs.advise"), "nobody can take from it"
