"""Live jobs go first: when a batch's job waits for them, and when it does not."""

from __future__ import annotations

import pytest

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Finish, JobWork, Lease
from rmos_shared.tasks.payloads import ReexplainRun, SuggestAndAttach
from rmos_shared.tasks.table import DELIVER, REEXPLAIN, SUGGEST, TaskSpec
from rmos_worker.handlers.precedence import MOST_SECONDS, Precedence

LEASE = Lease("worker", "token")


def accept(ledger: JobLedger, task: TaskSpec = SUGGEST) -> str:
    run_id = new_uuid7()
    payload = (
        ReexplainRun(batch_id=run_id, run_id=run_id, detail="summary")
        if task is REEXPLAIN
        else SuggestAndAttach(run_id=run_id, request_id=None, detail="summary")
    )
    job = Job(job_id=new_uuid7(), task=task.name, run_id=run_id, request_id=None, payload=payload.to_json())
    ledger.accept([job])
    return job.job_id


def test_only_a_live_job_that_a_worker_is_at_goes_first(ledger: JobLedger) -> None:
    assert not ledger.work.live_under_way()
    job_id = accept(ledger)
    assert not ledger.work.live_under_way()  # in line: nobody may ever come for it

    ledger.queues.take(SUGGEST.queue)
    assert ledger.work.live_under_way()  # on its way to a worker

    ledger.work.claim([job_id], LEASE, lease_seconds=30)
    assert ledger.work.live_under_way()

    ledger.work.finish([Finish(job_id, {})], LEASE, ttl_seconds=60)
    assert not ledger.work.live_under_way()


def test_a_job_that_was_put_off_or_is_dead_holds_no_batch_up(ledger: JobLedger) -> None:
    failure = Failure(reason="conflict", error_type="X", message="no")
    put_off, dead = accept(ledger), accept(ledger)
    while ledger.queues.take(SUGGEST.queue):
        pass
    ledger.work.claim([put_off], LEASE, lease_seconds=30)
    ledger.work.claim([dead], LEASE, lease_seconds=30)

    ledger.work.reschedule(put_off, LEASE, delay_seconds=60, spends_retry=True, failure=failure)
    ledger.work.bury(dead, LEASE, failure=failure)

    assert not ledger.work.live_under_way()


@pytest.mark.parametrize("task", [REEXPLAIN, DELIVER])
def test_batches_and_webhooks_are_no_live_jobs(ledger: JobLedger, task: TaskSpec) -> None:
    job_id = accept(ledger, task)
    ledger.queues.take(task.queue)
    assert not ledger.work.live_under_way()
    ledger.work.claim([job_id], LEASE, lease_seconds=30)
    assert not ledger.work.live_under_way()


def test_keys_of_a_wrong_type_hold_no_batch_up(ledger: JobLedger) -> None:
    client = ledger.queues._script.client
    prefix = ledger.queues._script.prefix
    for name in ("taken", "workers"):
        client.set(f"{prefix}{name}", "nonsense")
    assert not ledger.work.live_under_way()


class Time:
    """A clock that moves only while somebody sleeps, and what is done at a moment of it."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now


def test_a_batch_waits_for_a_live_job_but_not_for_ever(ledger: JobLedger) -> None:
    time = Time()
    precedence = Precedence(ledger.work, sleep=time.sleep, clock=time.clock)
    precedence.wait()
    assert time.now == 0.0

    job_id = accept(ledger)
    ledger.queues.take(SUGGEST.queue)
    ledger.work.claim([job_id], LEASE, lease_seconds=30)
    precedence.wait()
    assert MOST_SECONDS <= time.now < MOST_SECONDS + 0.05

    def finish_at_a_tenth(seconds: float) -> None:
        time.now += seconds
        if time.now >= 0.1:
            ledger.work.finish([Finish(job_id, {})], LEASE, ttl_seconds=60)

    time.now = 0.0
    Precedence(ledger.work, sleep=finish_at_a_tenth, clock=time.clock).wait()
    assert 0.1 <= time.now < MOST_SECONDS


def test_a_broker_that_is_away_holds_no_job_up() -> None:
    class Away(JobWork):
        def __init__(self) -> None:
            pass

        def live_under_way(self) -> bool:
            raise BrokerUnavailable("away")

    time = Time()
    Precedence(Away(), sleep=time.sleep, clock=time.clock).wait()
    assert time.now == 0.0
