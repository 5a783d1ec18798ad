"""Real workers publish, and real workers seal it: every stored file is in the audit log, exactly once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest
import redis

from rmos_runs.auditor import verifier
from rmos_runs.client import RunsClient
from rmos_runs.operations.sealing_status import sealing_status
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.keys import generate
from rmos_shared.auditlog.layout import is_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import verified
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.jobs.work import Lease
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import AUDIT_QUEUE, CREATE, CREATE_MANY, SEAL
from support.audit_log import assert_sound
from support.handlers import create_handler
from support.worker import StartWorker, Worker

Eventually = Callable[..., None]
#: Soon enough for a test to see it.
SOON: dict[str, object] = {"audit_seal_seconds": 0.3}


class Advisories(Protocol):
    """The advisory store fixture, as far as these tests use it."""

    url: str


@pytest.fixture
def store(runs_dir: Path) -> LocalStore:
    return LocalStore(runs_dir)


def log_of(store: LocalStore) -> AuditLog:
    return AuditLog(store, origin_of(store.identity().store_id))


def records(store: LocalStore) -> list[RecordEntry]:
    entries = map(parse_entry, log_of(store).entries())
    return [entry for entry in entries if isinstance(entry, RecordEntry)]


def sealed(store: LocalStore) -> Counter[str]:
    return Counter(entry.key for entry in records(store))


def published(store: LocalStore) -> Counter[str]:
    return Counter(key for key in store.list("") if is_entry(key))


def all_is_sealed(store: LocalStore, ledger: JobLedger) -> Callable[[], bool]:
    def holds() -> bool:
        state = ledger.unsealed.state()
        return state.unsealed == 0 and ledger.stats().pending == 0 and sealed(store) == published(store)

    return holds


def difference(store: LocalStore, ledger: JobLedger) -> Callable[[], object]:
    return lambda: (
        published(store) - sealed(store),
        sealed(store) - published(store),
        ledger.unsealed.state(),
        ledger.stats(),
        [(record.task, record.state, record.failure) for record in ledger.jobs() if record.task == SEAL.name],
    )


def verify(runs_dir: Path, *options: str) -> dict[str, Any]:
    """Return what the verifier says, which shares no line with what seals."""
    command = [sys.executable, verifier.__file__, "verify", str(runs_dir), "--live", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in {0, 7}, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def fresh(requests: list[dict[str, Any]], amount: int) -> list[dict[str, Any]]:
    return [{**request, "run_id": new_uuid7()} for request in requests[:amount]]


def test_what_is_published_is_sealed_and_signed(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    advisory_store: Callable[..., Advisories],
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    sample_requests: list[dict[str, Any]],
    tmp_path: Path,
    runs_dir: Path,
    eventually: Eventually,
) -> None:
    signer = generate(tmp_path / "key.pem", origin_of(store.identity().store_id))
    url = advisory_store({}).url
    start_worker(concurrency=4, advisory_url=url, audit_key_file=tmp_path / "key.pem", **SOON)
    requests = fresh(sample_requests, 12)
    big = {**requests[0], "run_id": new_uuid7()}
    big["outputs"] = {**(big.get("outputs") or {}), "gcode_text": "G1 X1\n" * 40_000}
    for request in (*requests, big):
        runs_client.create_run(request, explain=True)
    for request in requests:
        # Asked twice is one run, one link, and one entry of each.
        runs_client.create_run(request, explain=True)
    eventually(all_is_sealed(store, ledger), 60, told=difference(store, ledger))
    kinds = Counter(key.partition("/")[0] for key in sealed(store))
    assert kinds["_attachments"] == 1
    assert kinds["_acts"] == 2, "the worker's start is on record"
    assert "late" not in {entry.found for entry in records(store)}
    log = log_of(store)
    assert_sound(log)
    newest = log.newest_size()
    verified(log.note(newest)[1], [signer.verifier])
    state = ledger.unsealed.state()
    assert (state.size, state.signed_by, state.late) == (newest, signer.verifier.key_id.hex(), 0)
    assert state.checkpoint == log.note(newest)[1].to_bytes().decode()
    assert verify(runs_dir, "--key", signer.verifier.vkey)["findings"] == []


def enqueue(
    client: RunsClient, requests: list[dict[str, Any]], amount: int, *, explain: bool = False
) -> None:
    batch = fresh(requests, amount)
    for request in batch[: amount // 2]:
        client.create_run(request, explain=explain)
    list(client.create_runs(batch[amount // 2 :], explain=explain))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2])
def test_whoever_is_killed_nothing_is_left_out_or_sealed_twice(  # noqa: PLR0917 - fixtures
    seed: int,
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    runs_dir: Path,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    """Workers that create and one that seals, killed at random while runs come in."""
    random = Random(seed)  # noqa: S311 - to kill by, not to keep secrets
    creating = (CREATE.queue, CREATE_MANY.queue)
    kinds = [("prefork", creating), ("threads", creating), ("threads", (AUDIT_QUEUE,))]

    def start(which: int) -> Worker:
        pool, queues = kinds[which]
        return start_worker(pool, queues=queues, wait=False, **SOON, audit_reconcile_seconds=1)

    workers = [start(which) for which in range(3)]
    for _ in range(10):
        enough = ledger.stats().done + random.randrange(2, 40)
        enqueue(runs_client, sample_requests, 40)
        eventually(lambda enough=enough: ledger.stats().done >= enough)
        # From now on whoever looks calls late what lies there untold.
        aged(runs_dir, 200)
        which = random.randrange(3)
        workers[which].kill()
        workers[which] = start(which)
    eventually(all_is_sealed(store, ledger), 120, told=difference(store, ledger))
    assert sum(sealed(store).values()) == len(sealed(store)) > 400
    assert "late" not in {entry.found for entry in records(store)}
    assert_sound(log_of(store))
    assert verify(runs_dir)["findings"] == []
    assert ledger.stats().dead == 0


@pytest.mark.timeout(120)
def test_a_sealer_that_stands_still_loses_nothing_and_catches_up(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    creator = start_worker(queues=(CREATE.queue, CREATE_MANY.queue), **SOON)
    sealer = start_worker(queues=(AUDIT_QUEUE,), **SOON)
    enqueue(runs_client, sample_requests, 10)
    eventually(all_is_sealed(store, ledger), told=difference(store, ledger))
    os.kill(sealer.pid, signal.SIGSTOP)
    size = ledger.unsealed.state().size
    for _ in range(5):
        enqueue(runs_client, sample_requests, 60)
    eventually(lambda: len(published(store)) >= 310)
    eventually(lambda: ledger.unsealed.state().unsealed >= 300)
    state = ledger.unsealed.state()
    assert state.size == size
    assert state.oldest_at is not None
    waits = sealing_status(ledger).oldest_unsealed_seconds
    eventually(lambda: (sealing_status(ledger).oldest_unsealed_seconds or 0) > (waits or 0))
    # It rises until somebody seals: the alert's threshold is the metric's.
    status = sealing_status(ledger).model_copy(update={"oldest_unsealed_seconds": 301.0})
    assert status.has_stopped
    os.kill(sealer.pid, signal.SIGCONT)
    eventually(all_is_sealed(store, ledger), 60, told=difference(store, ledger))
    assert "late" not in {entry.found for entry in records(store)}
    assert creator.alive
    assert_sound(log_of(store))


def aged(root: Path, seconds: float) -> None:
    """Make all published files look as old as that: what nobody told of is late only then."""
    for path in root.glob("[2_]*/**/*.json"):
        if "_log" not in path.parts:
            with suppress(FileNotFoundError):
                at = path.stat().st_mtime - seconds
                os.utime(path, (at, at))


@pytest.mark.timeout(120)
def test_what_a_lost_ledger_told_of_is_found_and_sealed_as_late(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    runs_dir: Path,
    redis_client: redis.Redis,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker = start_worker(**SOON)
    for _ in range(2):
        # The second seal takes nothing that was there before the log, so from then on there is lateness.
        enqueue(runs_client, sample_requests, 10)
        eventually(all_is_sealed(store, ledger), told=difference(store, ledger))
    before = sealed(store)
    worker.stop()
    creator = start_worker(queues=(CREATE.queue, CREATE_MANY.queue), audit_seal_seconds=60)
    enqueue(runs_client, sample_requests, 10)
    eventually(lambda: ledger.stats().pending == 0)
    creator.stop()
    lost = published(store) - before
    aged(runs_dir, 200)
    redis_client.flushall()
    start_worker(**SOON, audit_reconcile_seconds=1)
    eventually(all_is_sealed(store, ledger), 60, told=difference(store, ledger))
    found = {entry.key: entry.found for entry in records(store)}
    assert {key for key, how in found.items() if how == "late"} == set(lost)
    assert max(sealed(store).values()) == 1
    assert ledger.unsealed.state().late == len(lost)
    assert_sound(log_of(store))


@pytest.mark.timeout(120)
def test_a_file_of_a_job_that_is_not_finished_is_not_called_late(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    ledger: JobLedger,
    runs_client: RunsClient,
    store: LocalStore,
    runs_dir: Path,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    """Its worker was killed before it told: the next one tells, and until then nobody calls it late."""
    (request,) = fresh(sample_requests, 1)
    first = start_worker(**SOON, audit_reconcile_seconds=1)
    receipt = runs_client.create_run(request)
    eventually(lambda: runs_client.ledger.get(receipt.job_id).state is JobState.DONE)
    eventually(all_is_sealed(store, ledger), told=difference(store, ledger))
    first.stop()
    (other,) = fresh(sample_requests, 1)
    receipt = runs_client.create_run(other)
    claims = ledger.work.claim([receipt.job_id], Lease("gone", "1"), lease_seconds=600)
    create_handler(store).handle(claims.claimed)
    aged(runs_dir, 200)
    start_worker(queues=(AUDIT_QUEUE,), **SOON, audit_reconcile_seconds=1)
    rounds = ledger.unsealed.state().reconciled_at
    eventually(lambda: ledger.unsealed.state().reconciled_at != rounds)
    assert set(published(store) - sealed(store)) >= {receipt_key(store, receipt.run_id)}
    start_worker(queues=(CREATE.queue,))
    ledger.work.retire("gone", max_crashes=5)
    eventually(all_is_sealed(store, ledger), 60, told=difference(store, ledger))
    assert "late" not in {entry.found for entry in records(store)}


def receipt_key(store: LocalStore, run_id: str) -> str:
    return next(key for key in store.list("") if key.endswith(f"/{run_id}.json"))


@pytest.mark.timeout(120)
def test_a_quiet_log_is_sealed_as_promised_and_shows_no_gap(
    start_worker: StartWorker,
    ledger: JobLedger,
    store: LocalStore,
    runs_dir: Path,
    eventually: Eventually,
) -> None:
    """Nothing is published but the worker's start; without a heartbeat nobody could tell a cut end."""
    start_worker(queues=(AUDIT_QUEUE,), **SOON, audit_heartbeat_seconds=1)
    eventually(lambda: ledger.unsealed.state().seals >= 4)
    log = log_of(store)
    sizes = list(log.sizes())
    assert len(sizes) >= 4
    seals = [log.seal(size) for size in sizes]
    for before, after in itertools.pairwise(seals):
        assert (after.at - before.seal.next).total_seconds() < 5
    assert verify(runs_dir)["findings"] == []
