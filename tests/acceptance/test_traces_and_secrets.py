"""What ``rmos up`` tells of its work, through every kind of failure: traces for a collector, and no secret.

One pipeline serves all tests of the file: the gateway, all workers, Flower and a reference advisory store
behind a front that answers as told. Two of its logs lie on a disk that is full from the start.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rmos_runs import RunsClient
from rmos_runs.local.home import Addresses, Home
from rmos_runs.local.ports import lasting_port
from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.jobs.model import Job, JobState
from rmos_shared.tasks.table import CREATE
from support.advisory_front import AdvisoryFront
from support.collector import Collector, SeenSpan, tree
from support.gateway import RUNS, keys_in
from support.http_server import HttpServer, answer

RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, CALLER_SPAN = CALLER.split("-")[1:3]
PAYLOAD = "spruce-top-of-a-customer"
ANSWER = "what-the-advisory-store-says-of-it"
FLOWER = "flower-password-of-this-test"
COLLECTOR = "token-for-the-collector"
WEBHOOK = "whsec_" + base64.b64encode(b"secret of the webhook receiver").decode()
ADVISORY = "token-for-the-advisory-store"
WRONG_KEY = "rmos_a-key-that-nobody-made"
QUERY = "asked-for-in-a-query"
IDEMPOTENCY = "idempotency-key-of-an-order"
#: Logs that cannot be written: of a worker, whose banner alone once ended it, and of beat.
FULL = ("worker-notify", "beat")


@dataclass
class Observed:
    """A pipeline, and everything that it may tell somebody."""

    home: Home
    addresses: Addresses
    output: Path
    store_log: Path
    collector: Collector
    front: AdvisoryFront
    receiver: HttpServer
    key: str
    process: subprocess.Popen[bytes]
    jobs: list[str] = field(default_factory=list)

    def http(self, key: str | None = None) -> httpx.Client:
        assert self.addresses.gateway_url
        token = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.addresses.gateway_url, headers=token, trust_env=False, timeout=30)

    def logs(self) -> dict[str, str]:
        files = [*self.home.logs_dir.glob("*.log"), self.output, self.store_log]
        return {file.name: file.read_text() for file in files if file.stem not in FULL}

    def events(self, key: str) -> list[dict[str, Any]]:
        lines = [line for text in self.logs().values() for line in text.splitlines() if line.startswith("{")]
        return [told for told in map(json.loads, lines) if told["event"] == key]

    def flower(self, path: str) -> str:
        user, _, password = (self.addresses.flower_auth or "").partition(":")
        done = httpx.get(f"{self.addresses.flower_url}{path}", auth=(user, password), trust_env=False)
        return done.text


def clean(**variables: str) -> dict[str, str]:
    dropped = ("RMOS_", "FLOWER_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | variables


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    place = tmp_path_factory.mktemp("observed")
    home = Home(place / "home")
    home.make()
    home.logs_dir.mkdir()
    for name in FULL:
        (home.logs_dir / f"{name}.log").symlink_to("/dev/full")
    with ExitStack() as running:
        collector = running.enter_context(Collector())
        receiver = running.enter_context(HttpServer(answer(200)))
        store_url, store_log = _advisory_store(place, collector, running)
        front = running.enter_context(AdvisoryFront(store_url, json.dumps({"message": ANSWER}).encode()))
        key = keys_in(home.make_keys_file(), together=True)["all"]
        environment = clean(
            RMOS_ADVISORY_URL=front.url,
            RMOS_ADVISORY_TOKEN=ADVISORY,
            RMOS_WEBHOOKS_FILE=str(_webhooks(place, receiver)),
            FLOWER_BASIC_AUTH=f"rmos:{FLOWER}",
            RMOS_LOG_LEVEL="debug",
            RMOS_ADVISORY_TRIES="1",
            RMOS_RETRY_BASE_SECONDS="0.1",
            RMOS_RETRY_CAP_SECONDS="0.2",
            RMOS_MAX_TRIES="2",
            RMOS_BREAKER_FAILURES="1000",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization={COLLECTOR}",
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        output = place / "up.log"
        with output.open("wb") as log:
            process = subprocess.Popen(
                [*RMOS, "up", "--home", str(home.root)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.callback(_end, process)
        yield Observed(
            home=home,
            addresses=_started(home, process, output),
            output=output,
            store_log=store_log,
            collector=collector,
            front=front,
            receiver=receiver,
            key=key,
            process=process,
        )
        process.terminate()
        assert process.wait(60) == 0
        assert "was started again" not in output.read_text(), "a full disk ends no process"


def _advisory_store(place: Path, collector: Collector, running: ExitStack) -> tuple[str, Path]:
    port, log = lasting_port(), place / "store.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rmos_advisory_store"],
            env=clean(
                RMOS_ADVISORY_DIR=str(place / "advisories"),
                RMOS_ADVISORY_PORT=str(port),
                RMOS_ADVISORY_TOKEN=ADVISORY,
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
                OTEL_BSP_SCHEDULE_DELAY="100",
            ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running.callback(_end, process)
    return f"http://127.0.0.1:{port}", log


def _webhooks(place: Path, receiver: HttpServer) -> Path:
    (place / "secret").write_text(WEBHOOK)
    file = place / "webhooks.toml"
    file.write_text(
        'allowed_hosts = ["127.0.0.1"]\nallowed_networks = ["127.0.0.0/8"]\nallow_http = true\n'
        f'[[endpoints]]\nid = "erp"\nurl = "{receiver.url}/hook"\nsecret_file = "secret"\n'
        'events = ["run.created", "run.explained", "job.dead"]\n'
    )
    return file


def _started(home: Home, process: subprocess.Popen[bytes], output: Path) -> Addresses:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        addresses = home.addresses()
        if addresses is not None:
            return addresses
        time.sleep(0.05)
    pytest.fail(f"rmos up did not start: {output.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(40)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait(10)


@pytest.fixture(scope="module")
def request_of(sample_requests: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make a request that holds the marker wherever a caller may write what it likes."""

    def make(**changes: Any) -> dict[str, Any]:
        sample = next(one for one in sample_requests if one["status"] == "OK")
        return {
            **{name: value for name, value in sample.items() if name != "request_id"},
            "feasibility": {**sample["feasibility"], "details": {"drawing": PAYLOAD}},
            "request_summary": {"customer": PAYLOAD},
            "outputs": {"gcode_text": f"G21\n({PAYLOAD})\nM30\n"},
            "meta": {"customer": PAYLOAD, "notes": f"for {PAYLOAD}"},
            **changes,
        }

    return make


def _ended(observed: Observed, job_id: str) -> JobState:
    with RunsClient.connect(broker_url=observed.addresses.broker_url) as client:
        observed.jobs.append(job_id)
        return client.wait(job_id, 30).state


@pytest.fixture(scope="module")
def traced(observed: Observed, request_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Post one run that is explained at the second try; return the answer."""
    with observed.http() as http:
        observed.front.statuses = [503]
        headers = {"traceparent": CALLER, "X-Request-ID": "req-traced", "Idempotency-Key": IDEMPOTENCY}
        done = http.post(f"{RUNS}?explain=summary", json=request_of(), headers=headers)
    assert done.status_code == 202, done.text
    accepted: dict[str, Any] = done.json()
    assert _ended(observed, explain_job_id(accepted["job_id"])) is JobState.DONE
    return accepted


CALL = "PUT /api/advisory/assets/{asset_id}"
SUGGEST = "process runs.suggest_and_attach"
#: As ``tree`` sorts it; the two deliveries tell of the stored run and of its explanation.
EXPECTED = [
    (
        f"POST {RUNS}",
        [
            (
                "process runs.create",
                [(SUGGEST, [CALL]), (SUGGEST, [(CALL, [CALL])]), "process webhooks.deliver"],
            ),
            "process webhooks.deliver",
        ],
    )
]


def test_one_request_is_one_trace_down_to_the_advisory_store(
    observed: Observed, traced: dict[str, Any], eventually: Callable[..., None]
) -> None:
    def seen() -> list[Any]:
        return tree(observed.collector.trace(TRACE), CALLER_SPAN)

    eventually(lambda: seen() == EXPECTED, told=lambda: json.dumps(seen(), indent=1))
    spans = observed.collector.trace(TRACE)
    by_service = {
        service: [s for s in spans if s.service == service] for service in {s.service for s in spans}
    }
    assert {service: len(found) for service, found in by_service.items()} == {
        "rmos-gateway": 1,
        "rmos-worker": 7,
        "rmos-advisory-store": 1,
    }
    (posted,) = by_service["rmos-gateway"]
    assert posted.attributes["http.response.status_code"] == 202
    first, second = sorted((span for span in spans if span.name == SUGGEST), key=_retries)
    assert (first.failed, first.attributes["rmos.outcome"]) == (True, "waiting")
    assert first.attributes["error.type"] == "AdvisoryUnavailable"
    assert (second.failed, second.attributes["rmos.outcome"], _retries(second)) == (False, "done", 1)
    assert second.attributes["messaging.message.id"] == explain_job_id(traced["job_id"])
    assert second.attributes["messaging.destination.name"] == "runs.advise"
    assert {second.attributes["rmos.run_id"], second.attributes["rmos.request_id"]} == {
        traced["run_id"],
        "req-traced",
    }
    # What the store was sent names the span of that very call.
    calls = {
        span.span_id
        for span in spans
        if span.attributes.get("url.template") and span.service == "rmos-worker"
    }
    sent = [headers["traceparent"].split("-") for headers in observed.front.headers]
    assert {span for _, trace, span, _ in sent if trace == TRACE} == calls


def _retries(span: SeenSpan) -> int:
    return int(span.attributes["rmos.retry_count"])


def test_log_lines_bear_the_ids_of_what_they_are_about(
    observed: Observed, traced: dict[str, Any], eventually: Callable[..., None]
) -> None:
    def lines(key: str) -> list[dict[str, Any]]:
        return [line for line in observed.events(key) if line.get("trace_id") == TRACE]

    # The line of a job comes after its settlement, for which the test has waited.
    eventually(
        lambda: (
            {"runs.create", "runs.suggest_and_attach"} <= {line["task"] for line in lines("jobs.finished")}
        )
    )
    found = [*lines("jobs.finished"), *lines("job.rescheduled")]
    assert {(line["run_id"], line["request_id"]) for line in found} == {(traced["run_id"], "req-traced")}
    assert all(line["milliseconds"] > 0 for line in lines("jobs.finished"))
    assert [line["reason"] for line in lines("job.rescheduled")] == ["advisory_unavailable"]
    assert [line["request_id"] for line in lines("request.finished")] == ["req-traced"]


def test_every_line_of_every_process_is_json(observed: Observed, traced: dict[str, Any]) -> None:
    assert traced
    for name, text in observed.logs().items():
        # The server's lines are its own, and those of the supervisor are for whoever started it.
        if name not in {"valkey.log", "up.log"}:
            assert [line for line in text.splitlines() if not line.startswith("{")] == [], name


def test_no_secret_and_no_payload_is_in_anything_but_the_record(
    observed: Observed, traced: dict[str, Any], request_of: Callable[..., dict[str, Any]]
) -> None:
    failed = _fail_in_every_way(observed, traced["run_id"], request_of)
    told = _all_that_is_told(observed, failed)
    passwords = re.findall(r"://:([^@]+)@", observed.addresses.broker_url)
    assert len(passwords) == 1
    markers = {
        *(PAYLOAD, ANSWER, FLOWER, COLLECTOR, WEBHOOK, ADVISORY, WRONG_KEY, QUERY, IDEMPOTENCY),
        *(observed.key, *passwords),
        base64.b64encode(f"rmos:{FLOWER}".encode()).decode(),
    }
    found = [(place, marker) for place, text in told.items() for marker in markers if marker in text]
    assert found == []
    assert all(told.values()), "a place that tells nothing shows nothing"
    dead = {(line["reason"], line["level"]) for line in observed.events("job.dead") if line["run_id"]}
    assert {("conflict", "warning"), ("corrupt_artifact", "warning")} <= dead
    assert not [name for name, text in observed.logs().items() if "Traceback" in text]
    with observed.http() as http:
        assert PAYLOAD in http.get(f"{RUNS}/{traced['run_id']}").text, "the record itself has it"


def _fail_in_every_way(
    observed: Observed, run_id: str, request_of: Callable[..., dict[str, Any]]
) -> dict[str, str]:
    """Make each kind of failure; return what its callers were answered, by kind."""
    answers = {}
    with observed.http() as http, observed.http(WRONG_KEY) as stranger:
        answers["wrong key"] = _refused(stranger.get(f"{RUNS}/{run_id}"), 401)
        wrong = {**request_of(), "mode": [PAYLOAD], "surprise": PAYLOAD, "decision": {"risk_level": PAYLOAD}}
        answers["refused payload"] = _refused(http.post(RUNS, json=wrong), 400)
        answers["no JSON"] = _refused(http.post(RUNS, content=f'{{"{PAYLOAD}'), 400)
        answers["wrong path"] = _refused(http.get(f"/{QUERY}?{QUERY}={QUERY}"), 404)
        answers["list"] = http.get(RUNS, params={"tool_id_prefix": QUERY}).text
        answers["other body under a key"] = _refused(
            http.post(RUNS, json=request_of(mode="other"), headers={"Idempotency-Key": IDEMPOTENCY}), 422
        )
        for kind, statuses in {"advisory 500": [500, 500], "advisory 400": [400]}.items():
            observed.front.statuses = statuses
            accepted = http.post(f"{RUNS}?explain=full", json=request_of())
            answers[kind] = accepted.text
            assert _ended(observed, explain_job_id(accepted.json()["job_id"])) is JobState.DEAD, kind
        taken = http.post(RUNS, json=request_of(run_id=run_id, tool_id="another"))
        assert _ended(observed, taken.json()["job_id"]) is JobState.DEAD
        (file,) = observed.home.runs_dir.glob(f"*/{run_id}.json")
        whole = file.read_bytes()
        damaged = _exchanged(file, f'{{"{PAYLOAD}": "{PAYLOAD}"'.encode())
        answers["corrupt artifact"] = _refused(http.get(f"{RUNS}/{run_id}"), 500)
        again = http.post(RUNS, json=request_of(run_id=run_id, tool_id="a third"))
        assert _ended(observed, again.json()["job_id"]) is JobState.DEAD
        answers["corrupt list"] = http.get(RUNS).text
        _exchanged(damaged, whole)
    with RunsClient.connect(broker_url=observed.addresses.broker_url) as client:
        junk = f'{{"run": {{"mode": 1, "meta": "{PAYLOAD}"}}, "explain": "{PAYLOAD}"}}'
        client.ledger.accept([job := Job(new_uuid7(), CREATE.name, new_uuid7(), "req-junk", junk)])
        assert _ended(observed, job.job_id) is JobState.DEAD
        foreign = {"body": PAYLOAD, "headers": {"task": PAYLOAD, "id": PAYLOAD}, "properties": PAYLOAD}
        client.ledger._client.lpush(CREATE.queue, json.dumps(foreign))
        deadline = time.monotonic() + 20
        while not [*client.ledger.dead_letters.raw_letters()]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return answers


def _refused(done: httpx.Response, status: int) -> str:
    assert done.status_code == status, done.text
    return done.text


def _exchanged(file: Path, content: bytes) -> Path:
    draft = file.parents[1] / "_draft-of-this-test"
    draft.write_bytes(content)
    draft.replace(file)
    return file


def _all_that_is_told(observed: Observed, answers: dict[str, str]) -> dict[str, str]:
    told = {f"answer: {kind}": text for kind, text in answers.items()}
    with RunsClient.connect(broker_url=observed.addresses.broker_url) as client:
        ledger = client.ledger
        reasons = {record.failure.reason for record in ledger.dead_letters.dead() if record.failure}
        assert reasons == {
            *("retries_exhausted", "advisory_refused", "conflict", "corrupt_artifact", "invalid_payload")
        }
        told["job records"] = "".join(record.model_dump_json() for record in ledger.jobs())
        told["raw letters"] = "".join(
            letter.model_dump_json() for letter in ledger.dead_letters.raw_letters()
        )
        told["stream of events"] = str(ledger._client.xrange("rmos:events"))
    with observed.http() as http:
        for path in ("status", "dead-letters", "jobs/" + observed.jobs[-1]):
            told[path] = http.get(f"{RUNS}/{path}").text
        for path in ("/healthz", "/readyz", "/openapi.json", "/metrics"):
            told[path] = http.get(path).text
    for path in ("/api/tasks", "/tasks", f"/task/{observed.jobs[-1]}", "/workers", "/broker", "/api/workers"):
        told[f"Flower: {path}"] = observed.flower(path)
    told["webhooks"] = "".join(call.body.decode() for call in observed.receiver.calls)
    told["spans"] = b"".join(observed.collector.bodies).decode("latin-1")
    told["processes"] = _command_lines(observed.process.pid)
    return told | {f"log: {name}": text or "none" for name, text in observed.logs().items()}


def _command_lines(session: int) -> str:
    lines = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(session) in (directory / "stat").read_text().rpartition(")")[2].split()[1:4]:
                lines.append((directory / "cmdline").read_text().replace("\0", " "))
    return "\n".join(lines)


def test_a_collector_that_is_gone_holds_nothing_up_and_is_told_once(
    observed: Observed, request_of: Callable[..., dict[str, Any]], eventually: Callable[..., None]
) -> None:
    def told(key: str) -> int:
        log = (observed.home.logs_dir / "gateway.log").read_text()
        return [json.loads(line)["event"] for line in log.splitlines()].count(key)

    observed.collector.stop()
    with observed.http() as http:
        accepted = http.post(f"{RUNS}?explain=summary", json=request_of())
        assert _ended(observed, explain_job_id(accepted.json()["job_id"])) is JobState.DONE
        eventually(lambda: told("traces.not_exported"))
        observed.collector.start()
        while not told("traces.exported"):
            assert http.get(f"{RUNS}/status").json()["invariant"] is True
            time.sleep(0.05)
    assert told("traces.not_exported") == 1
