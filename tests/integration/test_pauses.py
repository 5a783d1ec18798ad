"""Pauses: what is paused stays in its line, everything else flows in order, and resuming is felt at once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from rmos_shared.errors import BrokerDamaged, InvalidRequest
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.pauses import queue_subject, task_subject
from rmos_shared.jobs.queues import Taken
from rmos_shared.jobs.work import Lease
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import ATTACH, CREATE, DELIVER, QUEUES, SUGGEST, TaskSpec
from support.embedded_server import EmbeddedServer

ADVISE = SUGGEST.queue
assert ATTACH.queue == ADVISE, "these tests need two tasks of one queue"
LEASE = Lease("w", "1")


def pause(ledger: JobLedger, subject: str) -> None:
    assert ledger.steering.apply(ActKind.PAUSE, [subject], by="op", why="test") == {}


def resume(ledger: JobLedger, subject: str) -> None:
    assert ledger.steering.apply(ActKind.RESUME, [subject], by="op", why="test") == {}


def accept(ledger: JobLedger, spec: TaskSpec, amount: int = 1) -> list[str]:
    ids = [new_uuid7() for _ in range(amount)]
    ledger.accept([Job(job_id, spec.name, job_id, None, "{}") for job_id in ids])
    return ids


def take(ledger: JobLedger, *queues: str) -> list[str]:
    """Look once, for one notification."""
    taken = ledger.queues.take(*queues)
    return [] if taken is None else ids_of(taken)


def ids_of(taken: Taken) -> list[str]:
    (ids,), _, _ = json.loads(json.loads(taken.notification or b"")["body"])
    return [str(job_id) for job_id in ids]


def take_all(ledger: JobLedger, *queues: str) -> list[str]:
    found: list[str] = []
    while ids := take(ledger, *queues):
        found += ids
    return found


@pytest.mark.parametrize("spec", [CREATE, SUGGEST, DELIVER])
def test_nothing_is_taken_of_a_paused_queue_and_accepting_goes_on(ledger: JobLedger, spec: TaskSpec) -> None:
    before = accept(ledger, spec)
    pause(ledger, queue_subject(spec.queue))
    after = accept(ledger, spec, 2)
    assert take_all(ledger, *QUEUES) == []
    stats = ledger.stats()
    assert (stats.ready, stats.queues[spec.queue], stats.invariant) == (3, 3, True)
    assert ledger.consistency.inconsistencies() == {}
    # A worker that looks and waits is not sent round in circles by tokens that lead to nothing.
    assert ledger._client.llen(f"rmos:wake:{spec.queue}") == 0

    resume(ledger, queue_subject(spec.queue))
    assert take_all(ledger, *QUEUES) == [*before, *after]


def test_jobs_of_other_tasks_flow_past_a_paused_one_in_their_order(ledger: JobLedger) -> None:
    order = [(spec, accept(ledger, spec)[0]) for spec in (SUGGEST, ATTACH, SUGGEST, ATTACH, ATTACH)]
    pause(ledger, task_subject(SUGGEST.name))
    assert take_all(ledger, ADVISE) == [job_id for spec, job_id in order if spec is ATTACH]
    assert ledger.stats().ready == len(order), "some are in line, the others taken"

    late = accept(ledger, ATTACH)
    assert take_all(ledger, ADVISE) == late
    resume(ledger, task_subject(SUGGEST.name))
    assert take_all(ledger, ADVISE) == [job_id for spec, job_id in order if spec is SUGGEST]


def test_a_long_line_of_a_paused_task_is_passed_once_and_not_at_every_look(ledger: JobLedger) -> None:
    line = [job_id for _ in range(5) for job_id in accept(ledger, SUGGEST, 1_000)]
    (behind,) = accept(ledger, ATTACH)
    pause(ledger, task_subject(SUGGEST.name))
    looks = 0
    while not (found := take(ledger, ADVISE)):
        looks += 1
        # A look that gave up leaves a token, so that nobody waits for the next.
        assert ledger._client.llen(f"rmos:wake:{ADVISE}") >= 1
        assert looks < 5
    assert found == [behind]

    def records_read_by_a_look() -> int:
        ledger._client.config_resetstat()
        assert take(ledger, ADVISE) == []
        return int(ledger._client.info("commandstats")["cmdstat_hmget"]["calls"])

    assert records_read_by_a_look() < 10
    # The place is forgotten after a while: what got in line before it, by a clock set back, is found then.
    assert 0 < ledger._client.ttl(f"rmos:place:{ADVISE}") <= 60
    resume(ledger, task_subject(SUGGEST.name))
    assert take(ledger, ADVISE) == line[: SUGGEST.ids_per_notification]


def test_who_waits_is_woken_by_the_resuming(ledger: JobLedger) -> None:
    pause(ledger, queue_subject(CREATE.queue))
    accept(ledger, CREATE)
    assert take(ledger, CREATE.queue) == []
    woken: list[float] = []

    def wait() -> None:
        words = ledger.queues.wait_command(CREATE.queue, seconds=30)
        assert ledger._client.execute_command(*words)  # type: ignore[no-untyped-call]
        woken.append(time.monotonic())

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while not ledger._client.info("clients")["blocked_clients"]:
        time.sleep(0.005)
    resumed = time.monotonic()
    resume(ledger, queue_subject(CREATE.queue))
    waiting.join(timeout=10)
    assert woken
    assert woken[0] - resumed < 1


def test_a_pause_stands_with_who_did_it_first(ledger: JobLedger) -> None:
    subject = queue_subject(CREATE.queue)
    for by in ("ana", "ben"):
        assert ledger.steering.apply(ActKind.PAUSE, [subject], by=by, why=f"{by} says so") == {}
    (standing,) = ledger.pauses.all()
    assert (standing.subject, standing.by, standing.why) == (subject, "ana", "ana says so")
    assert standing.sentence.startswith("queue runs.create since 20")
    resume(ledger, subject)
    resume(ledger, subject)
    assert ledger.pauses.all() == []


@pytest.mark.parametrize("subject_of", [queue_subject, task_subject])
def test_only_what_there_is_can_be_paused(subject_of: object) -> None:
    with pytest.raises(InvalidRequest, match=r"must be one of runs\.create"):
        subject_of("runs.nope")  # type: ignore[operator]


def test_damaged_pauses_let_nothing_run_and_lose_nothing(ledger: JobLedger) -> None:
    (job_id,) = accept(ledger, CREATE)
    ledger._client.set("rmos:pauses", "garbage")
    with pytest.raises(BrokerDamaged, match="rmos:pauses"):
        ledger.queues.take(CREATE.queue)
    ledger._client.delete("rmos:pauses")
    assert take(ledger, CREATE.queue) == [job_id]


def test_what_is_paused_is_not_brought_forward_and_others_are(ledger: JobLedger) -> None:
    suggest, attach = accept(ledger, SUGGEST)[0], accept(ledger, ATTACH)[0]
    for job_id in (suggest, attach):
        ledger.work.claim([job_id], LEASE, lease_seconds=60)
        failure = Failure(reason="breaker_open", error_type="X", message="x")
        ledger.work.reschedule(
            job_id, LEASE, delay_seconds=500, spends_retry=False, failure=failure, held=True
        )
    pause(ledger, task_subject(SUGGEST.name))
    assert ledger.work.bring_forward(most=10) == 1
    assert ledger.queues.reconcile(batch=10, grace_seconds=60, max_crashes=3).ready == 1
    assert take(ledger, ADVISE) == [attach]
    resume(ledger, task_subject(SUGGEST.name))
    assert ledger.work.bring_forward(most=10) == 1
    assert ledger.stats().invariant


def test_pauses_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        ledger = JobLedger.connect(BrokerSettings.load(broker_url=server.url))
        (job_id,) = accept(ledger, CREATE)
        pause(ledger, queue_subject(CREATE.queue))
        server.kill()
        server.start()
        assert ledger.pauses.is_paused(queue_subject(CREATE.queue))
        assert take(ledger, CREATE.queue) == []
        resume(ledger, queue_subject(CREATE.queue))
        assert take(ledger, CREATE.queue) == [job_id]
        ledger.close()
