"""Cancelling, running now and pausing: on the ledger, and under a real worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_runs.operations import acts as acts_module
from rmos_runs.operations.acts import Plan, carry_out
from rmos_shared.errors import BrokerUnavailable, JobNotFound, TransitionRefused
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import ActKind, ActOutcome
from rmos_shared.jobs.events import EventState
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobState
from rmos_shared.jobs.pauses import queue_subject
from rmos_shared.jobs.webhooks import WEBHOOK_EVENTS, Subscription
from rmos_shared.jobs.work import Lease
from rmos_shared.runs.model import ExplanationStatus
from rmos_shared.tasks.payloads import DeliverWebhook
from rmos_shared.tasks.table import CREATE, DELIVER
from support.http_server import HttpServer, answer
from support.runs import Runs
from support.worker import StartWorker

LEASE = Lease("w", "1")
FAILURE = Failure(reason="store_unavailable", error_type="X", message="x")
Eventually = Callable[..., None]


def accept(ledger: JobLedger, amount: int = 1, task: str = CREATE.name) -> list[str]:
    ids = [new_uuid7() for _ in range(amount)]
    ledger.accept([Job(job_id, task, f"run-{job_id}", "request", "{}") for job_id in ids])
    return ids


def put_off(ledger: JobLedger, job_id: str, seconds: float = 500) -> None:
    ledger.work.claim([job_id], LEASE, lease_seconds=60)
    ledger.work.reschedule(
        job_id, LEASE, delay_seconds=seconds, spends_retry=True, failure=FAILURE, held=True
    )


def apply(ledger: JobLedger, kind: ActKind, *ids: str) -> dict[str, Any]:
    return ledger.steering.apply(kind, ids, by="person:ana@here", why="sent twice")


def test_cancelling_is_told_to_everyone_who_would_hear_of_an_end(ledger: JobLedger) -> None:
    ledger.webhooks.configure([Subscription("erp", WEBHOOK_EVENTS)])
    in_line, taken, waiting = accept(ledger, 3)
    put_off(ledger, waiting)
    assert ledger.queues.take(CREATE.queue)  # both that are in line
    ledger.queues.put_back([in_line])

    assert apply(ledger, ActKind.CANCEL, in_line, taken, waiting) == {}

    for job_id in (in_line, taken, waiting):
        record = ledger.get(job_id)
        assert record.state is JobState.DISCARDED
        last = record.history[-1]
        assert (last["what"], last["by"], last["why"]) == ("cancelled", "person:ana@here", "sent twice")
        # A worker that had the notification already is told so.
        assert ledger.work.claim([job_id], LEASE, lease_seconds=60).refused == {job_id: "discarded"}
        assert ledger.job_about("create", record.run_id) is None
        assert job_id in {one.job_id for one in ledger.jobs_of_run(record.run_id)}
    stats = ledger.stats()
    assert (stats.discarded, stats.waiting, stats.queues[CREATE.queue], stats.invariant) == (3, 0, 0, True)
    assert ledger.consistency.inconsistencies() == {}
    last_events = ledger._client.execute_command("XREVRANGE", "rmos:events", "+", "-", "COUNT", 4)  # type: ignore[no-untyped-call]
    told = [fields for _, fields in last_events if fields[b"state"] == EventState.DISCARDED.value.encode()]
    assert sum(fields[b"jobs"].count(CREATE.name.encode()) for fields in told) == 3
    events = [
        DeliverWebhook.read_json(ledger.dead_letters.payload(record.job_id) or b"").event
        for record in ledger.jobs()
        if record.task == DELIVER.name
    ]
    assert events == ["job.discarded"] * 3


def test_what_runs_or_has_ended_is_refused_with_words(ledger: JobLedger) -> None:
    running, dead = accept(ledger, 2)
    ledger.work.claim([running], LEASE, lease_seconds=60)
    ledger.work.claim([dead], LEASE, lease_seconds=60)
    ledger.work.bury(dead, LEASE, failure=FAILURE)
    refused = apply(ledger, ActKind.CANCEL, running, dead, "nothing")
    assert {one: type(error) for one, error in refused.items()} == {
        running: TransitionRefused,
        dead: TransitionRefused,
        "nothing": JobNotFound,
    }
    assert "is running, and is not killed" in str(refused[running])
    assert "rmos dlq discard" in str(refused[dead])
    assert ledger.get(running).state is JobState.RUNNING
    words = {one: str(error) for one, error in apply(ledger, ActKind.RUN_NOW, running, dead).items()}
    assert "is running already" in words[running]
    assert "rmos dlq replay" in words[dead]


def test_a_job_that_is_run_now_keeps_its_counts_and_is_in_line_in_the_next_round(ledger: JobLedger) -> None:
    (job_id,) = accept(ledger)
    put_off(ledger, job_id)
    assert apply(ledger, ActKind.RUN_NOW, job_id) == {}
    assert ledger.queues.reconcile(batch=10, grace_seconds=60, max_crashes=3).ready == 1
    record = ledger.get(job_id)
    assert (record.state, record.retry_count, record.history[-1]["what"]) == ("accepted", 1, "run_now")
    # Nobody brings it forward once more for the outage that put it off.
    assert ledger._client.zcard("rmos:held") == 0


# Acts


def test_an_act_counts_what_it_changed_whatever_is_repeated(ledger: JobLedger) -> None:
    ids = accept(ledger, 3)
    ledger.work.claim([ids[2]], LEASE, lease_seconds=60)
    plan = Plan(ActKind.CANCEL, ids, {"task": CREATE.name}, by="person:ana@here", why="sent twice")
    report = carry_out(ledger, plan)
    assert (report.done, set(report.refused), report.outcome) == (2, {ids[2]}, ActOutcome.COMPLETE)
    ledger.steering.apply(plan.kind, ids, by=plan.by, why=plan.why, act_id=report.act_id)
    act = ledger.acts.get(report.act_id)
    assert (act.kind, act.by, act.why, act.about) == ("cancel", plan.by, plan.why, {"task": CREATE.name})
    assert (act.found, act.done, act.refused, act.outcome) == (3, 2, 1, "complete")
    assert act.ended_at_utc
    assert ledger.get(ids[0]).history[-1]["act"] == report.act_id


def test_acts_are_listed_newest_first_over_pages(ledger: JobLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmos_shared.jobs.acts._PAGE", 2)
    # Acts begun within one millisecond are listed by their ids, so these rise.
    for act_id in (begun := sorted(new_uuid7() for _ in range(5))):
        ledger.acts.begin(ActKind.REPLAY, by="b", why="", about={}, found=0, act_id=act_id)
    assert [act.act_id for act in ledger.acts.newest_first()] == begun[::-1]


@pytest.mark.parametrize(
    ("error", "outcome"), [(KeyboardInterrupt, "stopped"), (BrokerUnavailable, "failed")]
)
def test_an_act_that_is_cut_short_says_how_far_it_got_and_its_rest_can_be_done(
    ledger: JobLedger,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    outcome: str,
) -> None:
    monkeypatch.setattr(acts_module, "_STEP", 2)
    ids, begun = accept(ledger, 5), [""]

    def interrupt(looked_at: int) -> None:
        if looked_at == 4:
            raise error("cut")

    plan = Plan(ActKind.CANCEL, ids, {}, by="b", why="w")
    try:
        report = carry_out(
            ledger, plan, on_begin=lambda act: begun.__setitem__(0, act), on_progress=interrupt
        )
    except BrokerUnavailable:
        assert error is BrokerUnavailable
    else:
        assert (report.done, report.outcome) == (4, "stopped")
    act = ledger.acts.get(begun[0])
    assert (act.found, act.done, act.outcome) == (5, 4, outcome)
    assert ledger.stats().discarded == 4
    again = carry_out(ledger, plan)
    assert (again.done, len(again.refused), ledger.stats().discarded) == (1, 4, 5)


# Under a real worker


@pytest.fixture
def refusing_store() -> Iterator[HttpServer]:
    with HttpServer(answer(503)) as store:
        yield store


def test_a_worker_honours_pauses_and_run_now_does_not_get_past_the_breaker(
    *,
    start_worker: StartWorker,
    refusing_store: HttpServer,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    redis_client: redis.Redis,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    ledger.steering.apply(ActKind.PAUSE, [queue_subject(CREATE.queue)], by="op", why="test")
    start_worker("threads", 2, advisory_url=refusing_store.url, breaker_open_seconds=120, breaker_failures=1)
    held = runs_client.create_run(sample_requests[0], explain=True)
    # Of another queue, and done: the worker lives and has looked.
    (other,) = runs_client.create_runs([sample_requests[1]])
    assert runs_client.wait(other.job_id, 30).state is JobState.DONE
    assert ledger.get(held.job_id).state is JobState.ACCEPTED
    assert run_log.reader.artifact_key(held.run_id) is None

    began = time.monotonic()
    ledger.steering.apply(ActKind.RESUME, [queue_subject(CREATE.queue)], by="op", why="test")
    assert runs_client.wait(held.job_id, 30).state is JobState.DONE
    assert time.monotonic() - began < 5, "a second or two, and a machine may be busy"

    # The breaker is open for two minutes. Running the job now does not call the store, and spends nothing.
    job_id = ledger.job_about("explain", held.run_id).job_id  # type: ignore[union-attr]
    eventually(lambda: ledger.get(job_id).state is JobState.WAITING)
    eventually(lambda: redis_client.exists("rmos:breaker:advisory:hold"))
    calls, before = len(refusing_store.calls), ledger.get(job_id)
    assert apply(ledger, ActKind.RUN_NOW, job_id) == {}

    def put_off_again() -> bool:
        record = ledger.get(job_id)
        last = record.history[-1]
        return record.state is JobState.WAITING and last.get("reason") == "breaker_open"

    eventually(put_off_again, told=lambda: ledger.get(job_id))
    assert len(refusing_store.calls) == calls
    assert ledger.get(job_id).retry_count == before.retry_count

    # Cancelled, its run reads as one that nobody asked to explain; and it may be asked for again.
    assert run_log.reader.read(held.run_id).explanation_status is ExplanationStatus.PENDING
    assert apply(ledger, ActKind.CANCEL, job_id) == {}
    assert run_log.reader.read(held.run_id).explanation_status is ExplanationStatus.NONE
    again = runs_client.suggest_and_attach(held.run_id)
    assert ledger.job_about("explain", held.run_id).job_id == again.job_id  # type: ignore[union-attr]
    assert run_log.reader.read(held.run_id).explanation_status is ExplanationStatus.PENDING
    assert ledger.stats().invariant
