"""Webhooks from the end of a job to a real receiver, by real workers, whatever happens on the way."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook

from rmos_runs.client import RunsClient
from rmos_shared.ids import new_uuid7, webhook_message_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobRecord, JobState
from rmos_shared.tasks.table import DELIVER
from support.command import piped
from support.http_server import Call, HttpServer, answer, hangs
from support.worker import StartWorker

Eventually = Callable[..., None]
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ALL = ("run.created", "run.explained", "job.dead", "job.discarded")
LOCAL = ("127.0.0.0/8",)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of endpoints: names and addresses."""

    def write(*, networks: tuple[str, ...] = LOCAL, events: tuple[str, ...] = ALL, **urls: str) -> Path:
        (tmp_path / "key").write_text(SECRET)
        lines = [
            'allowed_hosts = ["127.0.0.1", "localhost"]',
            f"allowed_networks = {json.dumps(networks)}",
            "allow_http = true",
        ]
        for name, url in urls.items():
            lines += [
                "[[endpoints]]",
                f'id = "{name}"',
                f'url = "{url}"',
                'secret_file = "key"',
                f"events = {json.dumps(events)}",
            ]
        path = tmp_path / "webhooks.toml"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def start(start_worker: StartWorker, ledger: JobLedger, eventually: Eventually) -> Callable[..., Any]:
    """Start a worker, and wait until the ledger knows the endpoints."""

    def begin(path: Path, **settings: object) -> Any:
        worker = start_worker("threads", 4, webhooks_file=path, **settings)
        eventually(lambda: [state for state in ledger.webhooks.endpoints() if state.enabled])
        return worker

    return begin


def verified(call: Call) -> dict[str, Any]:
    headers = dict(line.split(": ", 1) for line in call.head.decode().split("\r\n")[1:])
    told: dict[str, Any] = Webhook(SECRET).verify(call.body, headers)
    return told


def message_id(call: Call) -> str:
    return next(
        line.partition(": ")[2]
        for line in call.head.decode().split("\r\n")
        if line.startswith("webhook-id: ")
    )


def deliveries(ledger: JobLedger) -> list[JobRecord]:
    return [record for record in ledger.jobs() if record.task == DELIVER.name]


def ended(ledger: JobLedger, state: JobState, amount: int = 1) -> Callable[[], bool]:
    return lambda: [record.state for record in deliveries(ledger)] == [state] * amount


def test_an_end_is_told_and_proves_who_tells_it(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    with HttpServer(answer(200)) as receiver:
        worker = start(config(erp=f"{receiver.url}/hook"))
        receipt = runs_client.create_run({**sample_requests[0], "request_id": "req-1"})
        dead = runs_client.suggest_and_attach(new_uuid7())  # there is no such run
        eventually(ended(ledger, JobState.DONE, 2), told=lambda: deliveries(ledger))
        told = {message["type"]: message for message in map(verified, receiver.calls)}
    assert len(receiver.calls) == 2
    created = told["run.created"]
    assert created["data"] == {
        "job_id": receipt.job_id,
        "task": "runs.create",
        "state": "done",
        "run_id": receipt.run_id,
        "request_id": "req-1",
        "result": ledger.get(receipt.job_id).result,
    }
    assert created["timestamp"].endswith("Z")
    assert told["job.dead"]["data"]["job_id"] == dead.job_id
    assert told["job.dead"]["data"]["failure"] == {"reason": "run_not_found", "error_type": "RunNotFound"}
    by_id = {webhook_message_id(record.job_id): record for record in deliveries(ledger)}
    assert {message_id(call) for call in receiver.calls} == set(by_id)
    assert all(record.result and record.result["http_status"] == 200 for record in by_id.values())
    assert ledger.stats().invariant
    assert SECRET not in worker.log.read_text()


def test_a_try_that_failed_is_made_again_under_the_same_id(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    with HttpServer(answer(500), answer(429, Retry_After="0"), hangs(), answer(200)) as receiver:
        start(config(erp=receiver.url), webhook_timeout_seconds=0.3)
        runs_client.create_run(sample_requests[0])
        eventually(ended(ledger, JobState.DONE), told=lambda: deliveries(ledger))
        calls = list(receiver.calls)
    assert len(calls) == 4
    assert len({(message_id(call), call.body) for call in calls}) == 1
    (record,) = deliveries(ledger)
    assert [entry["what"] for entry in record.history if entry["what"] != "earlier"][-1] == "done"
    assert record.retry_count == 3


def test_a_worker_killed_in_the_middle_tells_it_once_more(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    with HttpServer(hangs(), answer(200)) as receiver:
        path = config(erp=receiver.url)
        first = start(path, webhook_timeout_seconds=60)
        receipt = runs_client.create_run(sample_requests[0])
        runs_client.wait(receipt.job_id, 30)
        eventually(lambda: len(receiver.calls) == 1)
        first.kill()
        start(path)
        eventually(ended(ledger, JobState.DONE), told=lambda: deliveries(ledger))
        calls = list(receiver.calls)
    assert len(calls) == 2
    assert len({(message_id(call), call.body) for call in calls}) == 1
    assert verified(calls[1])["data"]["job_id"] == receipt.job_id
    stats = ledger.stats()
    assert (stats.invariant, stats.accepted, stats.done) == (True, 2, 2)


def test_gone_disables_until_an_operator_takes_it_up_again(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    broker_url: str,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    def rmos(*arguments: str) -> Any:
        return piped(*arguments, home=tmp_path / "home", RMOS_BROKER_URL=broker_url)

    with HttpServer(answer(410), answer(200)) as receiver:
        worker = start(config(erp=receiver.url))
        runs_client.create_run(sample_requests[0])
        eventually(ended(ledger, JobState.DEAD), told=lambda: deliveries(ledger))
        (letter,) = deliveries(ledger)
        assert letter.failure is not None
        assert letter.failure.reason == "endpoint_disabled"
        assert worker.log.read_text().count("webhook.endpoint_disabled") == 1
        (row,) = json.loads(rmos("webhooks", "list", "--json").stdout)
        assert (row["endpoint"], row["enabled"], row["reason"]) == ("erp", False, "gone")
        assert row["disabled_at_utc"]
        refused = rmos("webhooks", "test", "erp")
        assert (refused.returncode, "ENDPOINT_DISABLED" in refused.stderr) == (5, True)
        # What ends meanwhile is told to nobody.
        runs_client.wait(runs_client.create_run(sample_requests[1]).job_id, 30)
        assert len(deliveries(ledger)) == 1

        assert rmos("webhooks", "enable", "erp").returncode == 0
        assert rmos("dlq", "replay", letter.job_id, "--as", "op", "--why", "it is back").returncode == 0
        eventually(ended(ledger, JobState.DONE), told=lambda: deliveries(ledger))
        tested = rmos("webhooks", "test", "erp", "--json")
        assert (tested.returncode, json.loads(tested.stdout)["state"]) == (0, "done")
        assert [verified(call)["type"] for call in receiver.calls] == [
            "run.created",
            "run.created",
            "webhook.test",
        ]
        assert rmos("webhooks", "enable", "nope").returncode == 4
    assert ledger.stats().invariant


def test_what_is_refused_dies_soon_and_is_replayed(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    redirect = answer(302, Location="http://127.0.0.1:1/")
    with HttpServer(redirect, answer(404), answer(400), answer(200)) as receiver:
        start(config(erp=receiver.url))
        runs_client.create_run(sample_requests[0])
        eventually(ended(ledger, JobState.DEAD), told=lambda: deliveries(ledger))
        (letter,) = deliveries(ledger)
        assert letter.failure is not None
        assert (letter.failure.reason, len(receiver.calls)) == ("webhook_refused", 3)
        ledger.dead_letters.replay(letter.job_id, by="op", why="x")
        eventually(ended(ledger, JobState.DONE), told=lambda: deliveries(ledger))
    assert ledger.stats().invariant


def test_a_receiver_that_is_down_for_good_is_a_dead_letter_and_holds_up_nobody(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    with HttpServer(hangs()) as down, HttpServer(answer(200)) as up:
        start(
            config(down=down.url, up=up.url),
            webhook_timeout_seconds=0.5,
            webhook_endpoint_jobs=2,
            retry_total_seconds=4,
        )
        for request in sample_requests[:20]:
            runs_client.create_run(request)
        eventually(lambda: len(up.calls) == 20)
        assert len(down.calls) <= 20, "it is asked ever less often"
        eventually(lambda: len(list(ledger.jobs(JobState.DEAD))) == 20, told=ledger.stats)
    reasons = {record.failure.reason for record in ledger.dead_letters.dead() if record.failure}
    assert reasons == {"retries_exhausted"}
    stats = ledger.stats()
    assert (stats.invariant, stats.accepted, stats.done, stats.dead) == (True, 60, 40, 20)


def test_a_private_address_is_never_called(
    *,
    start: Callable[..., Any],
    config: Callable[..., Path],
    ledger: JobLedger,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    with HttpServer(answer(200)) as receiver:
        port = receiver.url.rpartition(":")[2]
        start(config(networks=(), erp=receiver.url, named=f"http://localhost:{port}"))
        runs_client.create_run(sample_requests[0])
        eventually(ended(ledger, JobState.DEAD, 2), told=lambda: deliveries(ledger))
        assert receiver.calls == []
    failures = [record.failure for record in deliveries(ledger) if record.failure]
    assert {failure.error_type for failure in failures} == {"WebhookForbidden"}


def test_the_worker_that_delivers_says_which_endpoints_there_are(
    *,
    start_worker: StartWorker,
    config: Callable[..., Path],
    ledger: JobLedger,
    redis_client: redis.Redis,
    eventually: Eventually,
) -> None:
    redis_client.set("rmos:webhooks", "garbage")
    worker = start_worker(webhooks_file=config(erp="http://127.0.0.1:1/"))
    eventually(lambda: "webhooks.not_configured" in worker.log.read_text())
    redis_client.delete("rmos:webhooks")
    eventually(lambda: ledger.webhooks.is_enabled("erp"))
    worker.stop()
    start_worker()
    eventually(lambda: ledger.webhooks.endpoints() == [])


def test_a_wrong_file_keeps_the_worker_from_starting(
    start_worker: StartWorker, config: Callable[..., Path], eventually: Eventually
) -> None:
    worker = start_worker(wait=False, webhooks_file=config(erp="http://elsewhere.example/"))
    eventually(lambda: not worker.alive, 60)
    assert "RMOS_WEBHOOKS_FILE: endpoint erp: url has a host" in worker.log.read_text()
