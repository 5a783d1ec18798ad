"""What jobs that have not ended published: neither called late too soon, nor held back for their sake."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.client import RunsClient
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.errors import AttachmentPending, StoreUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Claim, Finish, Lease
from rmos_shared.runs.attachment_key import ATTACHMENTS, attachment_key
from rmos_shared.runs.attachments import Attachments
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import Come, SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import CREATE, SUGGEST
from rmos_worker.handlers.create import CreateHandler
from support.handlers import create_handler

PLAN = b'{"plan":1}'
GCODE = "G1 X1\n" * 40_000
#: More than what nobody told of is left alone for.
THREE_MINUTES = timedelta(minutes=3)


@pytest.fixture
def store(runs_dir: Path, ledger: JobLedger) -> LocalStore:
    """Return a store whose log has begun, so that nothing of it is adopted any more."""
    store = LocalStore(runs_dir)
    ledger.unsealed.state(begin=True)
    reconcile(ledger, store)
    return store


@pytest.fixture
def handler(ledger: JobLedger, store: LocalStore) -> CreateHandler:
    return create_handler(store, wait_seconds=900, tell=ledger.unsealed.tell)


def reconcile(ledger: JobLedger, store: LocalStore) -> Come:
    parts = SealParts.of(AuditSettings.load(), store, ledger)
    return SealingRun(ledger, parts, lock_seconds=5).run(lambda _: True)


def sealed(store: LocalStore) -> dict[str, str | None]:
    """Return how each record came into the log; fails where one has two entries."""
    entries = map(parse_entry, AuditLog(store, origin_of(store.identity().store_id)).entries())
    records = [(entry.key, entry.found) for entry in entries if isinstance(entry, RecordEntry)]
    assert len(dict(records)) == len(records)
    return dict(records)


def age(root: Path, by: timedelta) -> None:
    """Make all published files older."""
    for path in root.glob("[2_]*/**/*.*"):
        if path.is_file() and "_log" not in path.parts:
            at = path.stat().st_mtime - by.total_seconds()
            os.utime(path, (at, at))


def claimed(ledger: JobLedger, job_id: str, token: str) -> tuple[Claim, Lease]:
    lease = Lease("w", token)
    (claim,) = ledger.work.claim([job_id], lease, lease_seconds=60).claimed
    return claim, lease


def put_off(ledger: JobLedger, job_id: str, lease: Lease) -> None:
    failure = Failure(reason="store_unavailable", error_type="x", message="x")
    ledger.work.reschedule(job_id, lease, delay_seconds=0, spends_retry=False, failure=failure, held=False)


def finish(ledger: JobLedger, handler: CreateHandler, job_id: str) -> None:
    claim, lease = claimed(ledger, job_id, "last")
    (end,) = handler.handle([claim])
    assert isinstance(end, Finish), end
    ledger.work.finish([end], lease, ttl_seconds=60)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Have every larger write fail, as on a full disk; Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_job_that_waits_for_an_attachment_has_published_nothing(  # noqa: PLR0917 - fixtures
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    handler: CreateHandler,
    runs_dir: Path,
    sample_requests: list[dict[str, Any]],
) -> None:
    outputs = {"gcode_text": GCODE, "opplan_path": attachment_key(PLAN, ".json")}
    request = {**sample_requests[0], "run_id": new_uuid7(), "outputs": outputs}
    request.pop("hashes", None)
    job_id = runs_client.create_run(request).job_id
    claim, lease = claimed(ledger, job_id, "first")
    (end,) = handler.handle([claim])
    assert isinstance(end, AttachmentPending)
    put_off(ledger, job_id, lease)
    age(runs_dir, THREE_MINUTES)
    assert reconcile(ledger, store).late == 0
    assert list(store.list(ATTACHMENTS)) == []
    plan = Attachments(store).publish(PLAN, ".json")
    ledger.unsealed.add([plan])
    finish(ledger, handler, job_id)
    age(runs_dir, THREE_MINUTES)
    assert reconcile(ledger, store).late == 0
    attached = dict.fromkeys([plan.key, attachment_key(GCODE.encode(), ".nc")])
    assert {key: how for key, how in sealed(store).items() if key.startswith(ATTACHMENTS)} == attached


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_attachment_whose_run_finds_no_room_is_told_of_at_once(  # noqa: PLR0917 - fixtures
    jobs: int,
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    handler: CreateHandler,
    runs_dir: Path,
    sample_requests: list[dict[str, Any]],
) -> None:
    """Its job is put off for as long as the disk is full, which may be days."""
    requests = [
        {
            **sample_requests[0],
            "run_id": new_uuid7(),
            "outputs": {"gcode_text": f"{GCODE}{number}"},
            "meta": {"note": "x" * 400_000},
        }
        for number in range(jobs)
    ]
    for request in requests:
        request.pop("hashes", None)
    job_ids = [runs_client.create_run(request).job_id for request in requests]
    first = [claimed(ledger, job_id, job_id) for job_id in job_ids]
    with files_of_at_most(300_000):
        ends = handler.handle([claim for claim, _ in first])
    assert all(isinstance(end, StoreUnavailable) for end in ends), ends
    for claim, lease in first:
        put_off(ledger, claim.job_id, lease)
    attached = list(store.list(ATTACHMENTS))
    assert len(attached) == jobs
    age(runs_dir, THREE_MINUTES)
    come = reconcile(ledger, store)
    assert (come.late, sealed(store)) == (0, dict.fromkeys(attached))
    for job_id in job_ids:
        finish(ledger, handler, job_id)
    age(runs_dir, THREE_MINUTES)
    assert reconcile(ledger, store).late == 0
    assert len(sealed(store)) == 2 * jobs, "each has one entry, though its job told of it once more"


Accept = Callable[[str, str], None]


@pytest.fixture
def accept(ledger: JobLedger) -> Accept:
    def accept(task: str, run_id: str) -> None:
        job = Job(job_id=new_uuid7(), task=task, run_id=run_id, request_id=None, payload="{}")
        ledger.accept([job])

    return accept


def put(store: LocalStore, root: Path, key: str, at: datetime) -> str:
    store.create(key, key.encode())
    os.utime(root / key, (at.timestamp(), at.timestamp()))
    return key


@pytest.mark.parametrize("task", [CREATE.name, SUGGEST.name])
def test_what_lay_there_before_a_job_was_accepted_is_not_of_that_job(
    task: str, ledger: JobLedger, store: LocalStore, runs_dir: Path, accept: Accept
) -> None:
    """A job that is paused, or waits for the advisory store, would keep it out of the log for weeks."""
    old = datetime.now(UTC) - timedelta(days=3)
    day, run_id = old.date().isoformat(), new_uuid7(old)
    keys = [
        put(store, runs_dir, key, old)
        for key in (f"{day}/{run_id}.json", f"_reviews/{day}/{run_id}/{new_uuid7(old)}.json")
    ]
    accept(task, run_id)
    come = reconcile(ledger, store)
    assert come.late == 2
    assert sealed(store) == dict.fromkeys(keys, "late")


def test_what_a_job_may_have_published_is_left_to_it(
    ledger: JobLedger, store: LocalStore, runs_dir: Path, accept: Accept
) -> None:
    now = datetime.now(UTC)
    mine, older = new_uuid7(now - timedelta(hours=1)), new_uuid7(now - timedelta(hours=1))
    for run_id in (mine, older):
        accept(SUGGEST.name, run_id)
    # By the file server's clock, which may be some minutes behind the ledger's.
    put(store, runs_dir, f"{now.date().isoformat()}/{mine}_advisory_{'a' * 32}.json", now - THREE_MINUTES)
    key = put(
        store,
        runs_dir,
        f"{now.date().isoformat()}/{older}_advisory_{'a' * 32}.json",
        now - timedelta(minutes=6),
    )
    assert reconcile(ledger, store).late == 1
    assert sealed(store) == {key: "late"}
