"""Control messages and events that cannot be read, published at real workers, beat and Flower."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis
from celery import Celery

from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_runs.local.processes import PROCESSES, Pipeline
from rmos_shared.jobs.model import JobState
from support.worker import StartWorker

POOLS = ["prefork", "threads"]
CONTROL = "/0.celery.pidbox"
EVENTS, HEARTBEATS = "/0.celeryev/task.received", "/0.celeryev/worker.heartbeat"
SECRET = "spruce-top-of-a-customer"
REQUEST: dict[str, Any] = {
    "mode": "saw",
    "tool_id": "saw:test",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN"},
    "decision": {"risk_level": "GREEN"},
}
Eventually = Callable[..., None]


def envelope(told: object, **changes: Any) -> dict[str, Any]:
    return {
        "body": base64.b64encode(json.dumps(told).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1},
        "properties": {"delivery_tag": "t", "delivery_info": {}, "body_encoding": "base64"},
        **changes,
    }


def control(method: object = "ping", arguments: object = None, **more: object) -> dict[str, Any]:
    told = {"method": method, "arguments": arguments, "destination": None, "pattern": None, "matcher": None}
    return envelope({**told, **more})


def event(**changes: object) -> dict[str, Any]:
    told = {
        "type": "task-received",
        "uuid": "u",
        "hostname": "h@h",
        "timestamp": time.time(),
        "utcoffset": 0,
        "pid": 1,
        "clock": 1,
        "name": "runs.create",
    }
    return envelope([{**told, **changes}])


def without(name: str) -> dict[str, Any]:
    told = copy.copy(control())
    del told[name]
    return told


#: What cannot be read on any channel.
ENVELOPES: dict[str, object] = {
    "list": [],
    "number": 5,
    "null": None,
    "text": SECRET,
    "empty_object": {},
    "no_properties": without("properties"),
    "no_body": without("body"),
    "no_content_type": without("content-type"),
    "properties_list": envelope({}, properties=[]),
    "delivery_tag_missing": envelope({}, properties={}),
    "headers_list": envelope({}, headers=[1]),
    "headers_text": envelope({}, headers=SECRET),
    "clock_text": envelope({"method": "ping"}, headers={"clock": SECRET}),
    "clock_list": envelope({"method": "ping"}, headers={"clock": []}),
    "clock_giant": envelope({"method": "ping"}, headers={"clock": 10**400}),
    "compression_unknown": envelope({}, headers={"compression": "x"}),
    "body_list": envelope([[]]),
    "body_number": envelope(5),
    "body_null": envelope(None),
    "body_text": envelope(SECRET),
    "body_no_base64": envelope({}, body="\u00e9\u00e9\u00e9"),
    "body_number_raw": envelope({}, body=5),
    "body_no_json": envelope({}, body=base64.b64encode(SECRET.encode()).decode()),
    "body_of_a_type": envelope({"__type__": "datetime", "__value__": 5}),
    "envelope_of_a_type": {"__type__": ["x"], "__value__": 5},
    "body_encoding_unknown": envelope({}, properties={"delivery_tag": "t", "body_encoding": "rot13"}),
    "content_type_yaml": envelope({}, **{"content-type": "application/x-yaml"}),
    "content_type_data": envelope({}, **{"content-type": "application/data"}),
    "content_type_list": envelope({}, **{"content-type": []}),
    "pickle": envelope(
        {},
        body=base64.b64encode(pickle.dumps({"method": "ping"})).decode(),
        **{"content-type": "application/x-python-serialize"},
    ),
}
BYTES: dict[str, bytes] = {
    "garbage": b"garbage",
    "not_utf8": b"\xff\xfe\x00",
    "cut_off": json.dumps(control()).encode()[:-5],
    "nested": b"[" * 100_000 + b"]" * 100_000,
}
CONTROLS: dict[str, object] = {
    "method_missing": envelope({"arguments": {}}),
    "method_number": control(5),
    "method_list": control([]),
    "method_unknown": control("no_such_command", {"x": SECRET}),
    "arguments_text": control(arguments=SECRET),
    "arguments_list": control(arguments=[1]),
    "argument_unknown": control(arguments={"self": SECRET}),
    "more_than_a_message": control(self=SECRET),
    "destination_number": control(destination=5),
    "destination_text": control(destination=SECRET),
    "matcher_unknown": control(pattern="*", matcher=SECRET),
    "pattern_broken": control(pattern="(", matcher="pcre"),
    "reply_to_text": control(reply_to=SECRET, ticket="t"),
    "reply_to_empty": control(reply_to={"x": 1}, ticket="t"),
    "reply_to_a_stranger": control(reply_to={"exchange": "celeryev", "routing_key": "x"}, ticket="t"),
    "reply_to_numbers": control(reply_to={"exchange": 1, "routing_key": 2}, ticket=3),
    # What these break is broken later, where nothing catches it.
    "add_consumer": control("add_consumer", {"queue": [SECRET]}),
    "add_consumer_of_nothing": control(
        "add_consumer", {"queue": "runs.create", "exchange": {"a": 1}, "exchange_type": 5}
    ),
    "cancel_consumer": control("cancel_consumer", {"queue": {}}),
    "time_limit": control("time_limit", {"task_name": "runs.create", "hard": SECRET, "soft": []}),
    "rate_limit": control("rate_limit", {"task_name": "runs.create", "rate_limit": SECRET}),
    "revoke": control("revoke", {"task_id": [{}, None]}),
    "pool_grow": control("pool_grow", {"n": SECRET}),
    "pool_grow_much": control("pool_grow", {"n": 10**9}),
    "autoscale": control("autoscale", {"max": "x"}),
    "election": control("election", {"id": 1, "topic": [], "action": SECRET}),
}
EVENT_KINDS: dict[str, object] = {
    "no_type": envelope([{"hostname": "h"}]),
    "of_a_number": envelope([5]),
    "type_number": event(type=5),
    "type_unknown": event(type=SECRET),
    "uuid_list": event(uuid=[]),
    "uuid_missing": event(uuid=None),
    "hostname_missing": event(hostname=None),
    "hostname_object": event(hostname={}),
    "timestamp_text": event(timestamp=SECRET),
    "timestamp_nan": event(timestamp=float("nan")),
    "clock_text": event(clock=SECRET),
    "clock_object": event(clock={}),
    "utcoffset_text": event(utcoffset="x"),
    "runtime_text": event(type="task-succeeded", runtime=SECRET),
    "name_list": event(name=[1]),
    "a_method": event(as_dict=5),
    "heartbeat_of_nobody": event(type="worker-heartbeat", freq="x", hostname=None),
    "heartbeat_odd": event(type="worker-heartbeat", freq=SECRET, active=[], loadavg=5),
}


def publish(client: redis.Redis) -> int:
    """Publish everything, each twice, so that a reader of several at a time meets some together."""
    shared = [json.dumps(item).encode() for item in ENVELOPES.values()] + list(BYTES.values())
    controls = shared + [json.dumps(item).encode() for item in CONTROLS.values()]
    events = shared + [json.dumps(item).encode() for item in EVENT_KINDS.values()]
    with client.pipeline(transaction=False) as pipe:
        for item in controls:
            for _ in range(2):
                pipe.publish(CONTROL, item)
        for item in events:
            for channel in (EVENTS, HEARTBEATS):
                pipe.publish(channel, item)
        pipe.execute()
    return 2 * len(controls)


@contextmanager
def operator_of(broker_url: str) -> Iterator[Celery]:
    with Celery("operator", broker=broker_url, set_as_current=False) as app:
        yield app


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_lives_through_every_control_message(
    *,
    pool: str,
    start_worker: StartWorker,
    broker_url: str,
    redis_client: redis.Redis,
    runs_client: RunsClient,
    eventually: Eventually,
) -> None:
    worker = start_worker(pool)
    processes = {worker.pid, *worker.children()}
    lines = len(worker.log.read_text().splitlines())
    sent = publish(redis_client)
    with operator_of(broker_url) as operator:
        eventually(lambda: operator.control.ping(timeout=1), 20, told=lambda: worker.log.read_text()[-3_000:])
        assert runs_client.wait(runs_client.create_run(REQUEST).job_id, 15).state is JobState.DONE
        assert operator.control.inspect(timeout=2).active_queues()
    assert {worker.pid, *worker.children()} == processes
    assert worker.alive
    told = worker.log.read_text().splitlines()[lines:]
    assert not [line for line in told if SECRET in line or "Traceback" in line]
    # One line for each; the orders that Celery can read and cannot follow have their own.
    dropped = [json.loads(line) for line in told if "broadcast.dropped" in line or "control.failed" in line]
    assert len(dropped) >= sent - 2 * len({"argument_unknown"})
    assert all(line["level"] == "warning" for line in dropped)


def test_beat_answers_after_every_control_message(
    broker_url: str, redis_client: redis.Redis, tmp_path: Path, eventually: Eventually
) -> None:
    log = (tmp_path / "log").open("wb")
    beat = subprocess.Popen(
        [sys.executable, *PROCESSES["beat"], "--enable-remote-control", "-s", str(tmp_path / "schedule")],
        env={"RMOS_BROKER_URL": broker_url, "PATH": ""},
        stderr=log,
    )
    log.close()
    try:
        with operator_of(broker_url) as operator:
            eventually(lambda: operator.control.ping(timeout=0.5), 30)
            publish(redis_client)
            eventually(lambda: operator.control.ping(timeout=0.5), 10)
        told = (tmp_path / "log").read_text()
        assert SECRET not in told
        assert "connection error" not in told
        assert beat.poll() is None
    finally:
        beat.terminate()
        beat.wait(20)


def test_flower_shows_what_comes_after_events_that_cannot_be_read(
    tmp_path: Path, eventually: Eventually
) -> None:
    names = ("worker-create", "flower")
    with Pipeline(Home(tmp_path), names=names) as pipeline:
        addresses = pipeline.start()
        pids = pipeline.supervisor.pids()
        token = base64.b64encode((addresses.flower_auth or "").encode()).decode()

        def page(path: str) -> str:
            request = Request(f"{addresses.flower_url}{path}", headers={"Authorization": f"Basic {token}"})
            with urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())

        def shown(job_id: str) -> bool:
            return bool(json.loads(page("/api/tasks")).get(job_id, {}).get("state") == "SUCCESS")

        with RunsClient.connect(broker_url=addresses.broker_url) as client:
            before = client.create_run(REQUEST)
            assert client.wait(before.job_id, 30).state is JobState.DONE
            eventually(lambda: shown(before.job_id), 20)
            publish(client.ledger._client)
            for _ in range(3):
                after = client.create_run(REQUEST)
                assert client.wait(after.job_id, 30).state is JobState.DONE
                # At once: Flower must not have lost its connection over it, and events with that.
                eventually(lambda job_id=after.job_id: shown(job_id), 10)
        assert all(page(path) for path in ("/tasks", "/workers", "/broker", f"/task/{after.job_id}"))
        assert pipeline.supervisor.pids() == pids
        log = (Home(tmp_path).logs_dir / "flower.log").read_text()
        assert SECRET not in log
        assert "Failed to capture" not in log
        assert "Traceback" not in log
