"""Deliveries are accepted in the step that ends a job: none is lost, none doubled, none without need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis

from rmos_runs.operations import checks
from rmos_runs.operations.checks import Finding
from rmos_shared.errors import BrokerDamaged, EndpointDisabled, EndpointNotFound
from rmos_shared.ids import JOB_ID, create_job_id, explain_job_id, new_uuid7, webhook_message_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobRecord, JobState
from rmos_shared.jobs.webhooks import WEBHOOK_EVENTS, Subscription
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.tasks.payloads import DeliverWebhook
from rmos_shared.tasks.table import ATTACH, CREATE, CREATE_MANY, DELIVER, REEXPLAIN, REPORT, SUGGEST, TaskSpec

LEASE = Lease("w", "1")
FAILURE = Failure(reason="conflict", error_type="ArtifactConflict", message="message", traceback="trace")
RESULT = {"run_id": "r", "outcome": "created", "missing": [], "status": "OK"}


@pytest.fixture(params=["real", "fake"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "real":
        opened = redis.Redis.from_url(request.getfixturevalue("broker_url"))
    else:
        opened = fakeredis.FakeRedis(server_type="valkey")
    with opened:
        yield opened


@pytest.fixture
def ledger(client: redis.Redis) -> JobLedger:
    fake = isinstance(client, fakeredis.FakeRedis)
    return JobLedger(client, script_header="") if fake else JobLedger(client)


def configure(ledger: JobLedger, **endpoints: tuple[str, ...]) -> None:
    ledger.webhooks.configure(Subscription(name, events) for name, events in endpoints.items())


def accept(ledger: JobLedger, spec: TaskSpec = CREATE, job_id: str | None = None) -> Job:
    job = Job(job_id or new_uuid7(), spec.name, f"run-{new_uuid7()}", "request", '{"secret":"payload"}')
    ledger.accept([job])
    return job


def claim(ledger: JobLedger, job: Job, lease: Lease = LEASE) -> None:
    assert ledger.work.claim([job.job_id], lease, lease_seconds=60).claimed


def deliveries(ledger: JobLedger) -> list[JobRecord]:
    return [record for record in ledger.jobs() if record.task == DELIVER.name]


def message(ledger: JobLedger, record: JobRecord) -> DeliverWebhook:
    payload = ledger.dead_letters.payload(record.job_id)
    assert payload is not None
    return DeliverWebhook.read_json(payload)


def messages(ledger: JobLedger) -> list[DeliverWebhook]:
    return [message(ledger, record) for record in deliveries(ledger)]


def end(ledger: JobLedger, job: Job, how: str, lease: Lease = LEASE) -> None:
    claim(ledger, job, lease)
    if how == "done":
        ledger.work.finish([Finish(job.job_id, RESULT)], lease, ttl_seconds=60)
    else:
        ledger.work.bury(job.job_id, lease, failure=FAILURE)


@pytest.mark.parametrize(
    ("spec", "event"),
    [
        (CREATE, "run.created"),
        (CREATE_MANY, "run.created"),
        (SUGGEST, "run.explained"),
        (ATTACH, "advisory.attached"),
        (REEXPLAIN, "run.explained"),
        (REPORT, "batch.done"),
    ],
)
def test_a_job_that_is_done_is_told_to_each_endpoint_that_wants_it(
    ledger: JobLedger, spec: TaskSpec, event: str
) -> None:
    configure(ledger, a=(event,), b=WEBHOOK_EVENTS, c=("job.dead",), d=("run",))
    job = accept(ledger, spec)
    end(ledger, job, "done")
    records = deliveries(ledger)
    assert {message(ledger, record).endpoint for record in records} == {"a", "b"}
    for record in records:
        told = message(ledger, record)
        assert record.state is JobState.ACCEPTED
        assert (record.run_id, record.request_id) == (job.run_id, "request")
        assert record.job_id.startswith(f"{job.job_id}.hook-{told.endpoint}.")
        assert JOB_ID.fullmatch(record.job_id)
        assert create_job_id(record.job_id) == job.job_id
        assert told == DeliverWebhook(
            endpoint=told.endpoint,
            event=event,  # type: ignore[arg-type]
            at_ms=told.at_ms,
            job_id=job.job_id,
            task=spec.name,
            state="done",
            run_id=job.run_id,
            request_id="request",
            result=RESULT,
        )
    assert ledger.stats().invariant
    assert ledger.consistency.inconsistencies() == {}


def test_a_repeat_of_the_step_tells_nothing_new(ledger: JobLedger) -> None:
    configure(ledger, a=WEBHOOK_EVENTS)
    done, dead = accept(ledger), accept(ledger)
    for job in (done, dead):
        claim(ledger, job)
    for _ in range(3):
        ledger.work.finish([Finish(done.job_id, {})], LEASE, ttl_seconds=60)
        ledger.work.bury(dead.job_id, LEASE, failure=FAILURE)
    assert len(deliveries(ledger)) == 2


def test_each_end_of_a_job_is_a_message_of_its_own(ledger: JobLedger) -> None:
    configure(ledger, a=WEBHOOK_EVENTS)
    job = accept(ledger, job_id=explain_job_id(new_uuid7()), spec=SUGGEST)
    for turn in range(3):
        end(ledger, job, "dead", Lease("w", str(turn)))
        ledger.dead_letters.replay(job.job_id, by="op", why="x")
    end(ledger, job, "dead", Lease("w", "last"))
    ledger.dead_letters.discard(job.job_id, by="op", why="secret why")
    records = deliveries(ledger)
    told = [message(ledger, record) for record in records]
    assert sorted(one.event for one in told) == ["job.dead"] * 4 + ["job.discarded"]
    assert {(one.reason, one.error_type) for one in told if one.event == "job.dead"} == {
        ("conflict", "ArtifactConflict")
    }
    assert len({webhook_message_id(record.job_id) for record in records}) == 5
    assert not any("." in webhook_message_id(record.job_id) for record in records)
    assert ledger.stats().invariant


def test_a_crash_loop_is_told_too(ledger: JobLedger, client: redis.Redis) -> None:
    configure(ledger, a=("job.dead",))
    for way in ("retire", "give_back", "reconcile", "beat"):
        job = accept(ledger)
        claim(ledger, job)
        if way == "retire":
            ledger.work.retire("w", max_crashes=1)
        elif way == "give_back":
            ledger.work.give_back(job.job_id, LEASE, max_crashes=1)
        elif way == "reconcile":
            client.zadd("rmos:workers", {"w": 1})
            ledger.queues.reconcile(batch=10, grace_seconds=100, max_crashes=1)
        else:
            client.hset(f"rmos:job:{job.job_id}", "claim_count", 1_000)
            ledger.work.beat("w", [], lease_seconds=60, stale_seconds=-1)
        assert ledger.get(job.job_id).state is JobState.DEAD, way
        told = next(one for one in messages(ledger) if one.job_id == job.job_id)
        assert (told.reason, told.error_type) == ("crash_loop", "WorkerLost")
    assert ledger.stats().invariant


def test_no_payload_and_no_text_of_a_person_leaves_the_ledger(ledger: JobLedger) -> None:
    configure(ledger, a=WEBHOOK_EVENTS)
    job = accept(ledger)
    end(ledger, job, "dead")
    ledger.dead_letters.discard(job.job_id, by="op", why="secret why")
    texts = [ledger.dead_letters.payload(record.job_id) or b"" for record in deliveries(ledger)]
    assert len(texts) == 2
    for text in texts:
        assert b"secret" not in text
        assert b"trace" not in text
        assert b"op" not in json.dumps([json.loads(text)[name] for name in ("result", "reason")]).encode()


def test_deliveries_cause_no_deliveries(ledger: JobLedger) -> None:
    configure(ledger, a=WEBHOOK_EVENTS)
    end(ledger, accept(ledger), "done")
    (record,) = deliveries(ledger)
    delivery = Job(record.job_id, record.task, record.run_id, None, "")
    end(ledger, delivery, "dead", Lease("w", "2"))
    ledger.dead_letters.replay(record.job_id, by="op", why="x")
    end(ledger, delivery, "done", Lease("w", "3"))
    assert [one.job_id for one in deliveries(ledger)] == [record.job_id]
    assert ledger.stats().invariant


def test_a_group_and_its_followers_are_told_in_one_step(ledger: JobLedger) -> None:
    configure(ledger, a=("run.created",), b=("run.created", "job.dead"))
    jobs = [accept(ledger) for _ in range(30)]
    ledger.work.claim([job.job_id for job in jobs], LEASE, lease_seconds=60)
    finishes = [
        Finish(job.job_id, RESULT, (Job(explain_job_id(job.job_id), SUGGEST.name, job.run_id, None, "{}"),))
        for job in jobs
    ]
    ledger.work.finish(finishes, LEASE, ttl_seconds=60)
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.ready) == (120, 30, 90)
    assert stats.queues[DELIVER.queue] == 60
    taken = ledger.queues.take(DELIVER.queue)
    assert taken is not None
    assert ".hook-" in str(taken.notification)


def test_without_endpoints_nothing_is_written(ledger: JobLedger, client: redis.Redis) -> None:
    for turn in range(2):
        if turn:
            configure(ledger, a=WEBHOOK_EVENTS)
            configure(ledger)  # the last one is gone
        for how in ("done", "dead"):
            end(ledger, accept(ledger), how)
        assert deliveries(ledger) == []
        assert not client.exists("rmos:webhooks", "rmos:webhooks_off")


def test_an_endpoint_is_disabled_and_enabled(ledger: JobLedger) -> None:
    configure(ledger, a=("run.created",), b=("job.dead",))
    assert ledger.webhooks.disable("a", reason="gone")
    assert not ledger.webhooks.disable("a", reason="gone"), "once"
    end(ledger, accept(ledger), "done")
    assert deliveries(ledger) == []
    state, other = ledger.webhooks.endpoints()
    assert (state.endpoint, state.enabled, state.reason, state.events) == (
        "a",
        False,
        "gone",
        ["run.created"],
    )
    assert state.disabled_at_utc is not None
    assert other.enabled
    # A worker that starts says what its settings say, and changes nothing about that.
    configure(ledger, a=("run.created", "job.dead"))
    assert [(one.endpoint, one.enabled, one.events) for one in ledger.webhooks.endpoints()] == [
        ("a", False, ["run.created", "job.dead"])
    ]
    with pytest.raises(EndpointDisabled, match="gone"):
        ledger.webhooks.test_job("a")
    ledger.webhooks.enable("a")
    ledger.webhooks.enable("a")
    assert ledger.webhooks.is_enabled("a")
    end(ledger, accept(ledger), "done")
    assert len(deliveries(ledger)) == 1


def test_doctor_names_endpoints_that_are_disabled(ledger: JobLedger) -> None:
    assert "webhooks" not in {finding.check for finding in checks._ledger(ledger)}
    configure(ledger, a=("run.created",), b=("job.dead",))
    assert list(checks._webhooks(ledger)) == [Finding("webhooks", "ok", "2 endpoints")]
    ledger.webhooks.disable("a", reason="gone")
    (finding,) = checks._webhooks(ledger)
    assert (finding.state, finding.detail) == ("warning", "disabled: a (gone)")


def test_what_the_settings_disable_only_they_enable(ledger: JobLedger) -> None:
    ledger.webhooks.configure([Subscription("a", ("run.created",), enabled=False)])
    with pytest.raises(EndpointDisabled, match="RMOS_WEBHOOKS_FILE"):
        ledger.webhooks.enable("a")
    configure(ledger, a=("run.created",))
    assert ledger.webhooks.is_enabled("a")
    for call in (ledger.webhooks.enable, ledger.webhooks.test_job):
        with pytest.raises(EndpointNotFound, match="nope"):
            call("nope")


def test_a_test_message_is_a_job_as_all_are(ledger: JobLedger) -> None:
    configure(ledger, a=("run.created",))
    job = ledger.webhooks.test_job("a")
    ledger.accept([job])
    (record,) = deliveries(ledger)
    assert message(ledger, record).event == "webhook.test"


@pytest.mark.parametrize("way", ["done", "dead", "discard", "retire"])
@pytest.mark.parametrize(
    "key", ["rmos:webhooks", f"rmos:ready:{DELIVER.queue}", "rmos:counts", "rmos:subjects"]
)
def test_a_step_that_cannot_tell_is_not_made(
    ledger: JobLedger, client: redis.Redis, key: str, way: str
) -> None:
    configure(ledger, a=WEBHOOK_EVENTS)
    job = accept(ledger)
    claim(ledger, job)
    if way == "discard":
        ledger.work.bury(job.job_id, LEASE, failure=FAILURE)
        for record in deliveries(ledger):
            assert record.state is JobState.ACCEPTED
    before = ledger.get(job.job_id).state
    if client.exists(key):
        client.rename(key, "aside")
    client.set(key, "garbage")
    steps: dict[str, Any] = {
        "done": lambda: ledger.work.finish([Finish(job.job_id, {})], LEASE, ttl_seconds=60),
        "dead": lambda: ledger.work.bury(job.job_id, LEASE, failure=FAILURE),
        "discard": lambda: ledger.dead_letters.discard(job.job_id, by="op", why="x"),
        "retire": lambda: ledger.work.retire("w", max_crashes=1),
    }
    with pytest.raises(BrokerDamaged, match=key):
        steps[way]()
    assert ledger.get(job.job_id).state is before
    client.delete(key)
    if client.exists("aside"):
        client.rename("aside", key)
    steps[way]()
    assert ledger.get(job.job_id).state is not before
    assert ledger.stats().invariant
    assert len(deliveries(ledger)) == (2 if way == "discard" else 1)


def test_unreadable_records_of_endpoints_stop_nobody(ledger: JobLedger, client: redis.Redis) -> None:
    client.hset("rmos:webhooks_off", b"\xff", b"\xff")
    client.hset("rmos:webhooks_off", "b", "[]")
    assert [state.reason for state in ledger.webhooks.endpoints()] == ["unreadable"] * 2
    with pytest.raises(EndpointNotFound):
        ledger.webhooks.enable("b")
    configure(ledger, b=("job.dead",))
    assert [state.endpoint for state in ledger.webhooks.endpoints()] == ["b"]
