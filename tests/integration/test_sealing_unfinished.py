"""What jobs that have not ended published: neither called late too soon, nor held back for their sake."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import Come, SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import CREATE, SUGGEST

#: More than what nobody told of is left alone for.
THREE_MINUTES = timedelta(minutes=3)


@pytest.fixture
def store(runs_dir: Path, ledger: JobLedger) -> LocalStore:
    """Return a store whose log has begun, so that nothing of it is adopted any more."""
    store = LocalStore(runs_dir)
    ledger.unsealed.state(begin=True)
    reconcile(ledger, store)
    return store


def reconcile(ledger: JobLedger, store: LocalStore) -> Come:
    parts = SealParts.of(AuditSettings.load(), store, ledger)
    return SealingRun(ledger, parts, lock_seconds=5).run(lambda _: True)


def sealed(store: LocalStore) -> dict[str, str | None]:
    """Return how each record came into the log; fails where one has two entries."""
    entries = map(parse_entry, AuditLog(store, origin_of(store.identity().store_id)).entries())
    records = [(entry.key, entry.found) for entry in entries if isinstance(entry, RecordEntry)]
    assert len(dict(records)) == len(records)
    return dict(records)


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
