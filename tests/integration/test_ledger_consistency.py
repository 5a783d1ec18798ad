"""The audit names each job whose record and index disagree, and repairing makes the figures add up again."""

from __future__ import annotations

import threading

import pytest
import redis

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.tasks.table import CREATE

LEASE = Lease("w", "1")
FAILURE = Failure(reason="conflict", error_type="X", message="x")


@pytest.fixture
def ledger(broker_url: str) -> JobLedger:
    return JobLedger(redis.Redis.from_url(broker_url))


def one_of_each(ledger: JobLedger) -> dict[str, str]:
    """Accept six jobs and bring each into another state."""
    states = ("accepted", "running", "waiting", "done", "dead", "discarded")
    ids = {state: new_uuid7() for state in states}
    ledger.accept(
        [
            Job(job_id=job_id, task=CREATE.name, run_id=new_uuid7(), request_id=None, payload="{}")
            for job_id in ids.values()
        ]
    )
    for state, job_id in ids.items():
        if state == "accepted":
            continue
        ledger.work.claim([job_id], LEASE, lease_seconds=60)
        if state == "waiting":
            ledger.work.reschedule(job_id, LEASE, delay_seconds=60, spends_retry=True, failure=FAILURE)
        elif state == "done":
            ledger.work.finish([Finish(job_id, {})], LEASE, ttl_seconds=60)
        elif state in {"dead", "discarded"}:
            ledger.work.bury(job_id, LEASE, failure=FAILURE)
        if state == "discarded":
            ledger.dead_letters.discard(job_id, by="op", why="x")
    return ids


HOMES = {
    "accepted": "ready:runs.create",
    "running": "leases:w",
    "waiting": "waiting",
    "dead": "dead",
    "discarded": "discarded",
}


def test_a_healthy_ledger_has_no_faults(ledger: JobLedger) -> None:
    one_of_each(ledger)

    assert ledger.consistency.inconsistencies() == {}


@pytest.mark.parametrize("state", HOMES)
def test_a_job_that_fell_out_of_its_index_is_named_and_repaired(ledger: JobLedger, state: str) -> None:
    ids = one_of_each(ledger)
    ledger._client.zrem(f"rmos:{HOMES[state]}", ids[state])
    audit = ledger.consistency
    assert not ledger.stats().invariant
    assert audit.inconsistencies() == {ids[state]: f"is {state} and not in rmos:{HOMES[state]}"}

    repaired = audit.repair(ids[state])

    assert repaired == (state if state in {"dead", "discarded"} else "accepted")
    assert audit.inconsistencies() == {}
    assert ledger.stats().invariant


@pytest.mark.parametrize("state", [*HOMES, "done"])
def test_a_job_in_two_places_is_named_and_repaired(ledger: JobLedger, state: str) -> None:
    ids = one_of_each(ledger)
    other = "waiting" if state != "waiting" else "dead"
    ledger._client.zadd(f"rmos:{other}", {ids[state]: 1})
    audit = ledger.consistency
    assert audit.inconsistencies() == {ids[state]: f"is {state} and also in rmos:{other}"}

    audit.repair(ids[state])

    assert audit.inconsistencies() == {}
    assert ledger.stats().invariant


def test_a_job_whose_record_is_gone_stays_counted_and_visible(ledger: JobLedger) -> None:
    ids = one_of_each(ledger)
    ledger._client.delete(f"rmos:job:{ids['waiting']}")
    audit = ledger.consistency
    assert audit.inconsistencies() == {ids["waiting"]: "has no record"}

    assert audit.repair(ids["waiting"]) == "discarded"

    assert ledger.get(ids["waiting"]).history[0]["what"] == "repaired"
    assert audit.inconsistencies() == {}
    assert ledger.stats().invariant


def test_repairing_what_is_well_changes_nothing(ledger: JobLedger) -> None:
    ids = one_of_each(ledger)
    before = ledger._client.hgetall(f"rmos:job:{ids['waiting']}")

    assert ledger.consistency.repair(ids["waiting"]) == "ok"

    assert ledger._client.hgetall(f"rmos:job:{ids['waiting']}") == before


def test_jobs_that_move_meanwhile_are_not_taken_for_faulty(ledger: JobLedger, broker_url: str) -> None:
    stop = threading.Event()

    def flow() -> None:
        mover = JobLedger(redis.Redis.from_url(broker_url))
        while not stop.is_set():
            one_of_each(mover)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        audit = ledger.consistency
        for _ in range(30):
            assert audit.inconsistencies() == {}
            assert ledger.stats().invariant
    finally:
        stop.set()
        thread.join()
