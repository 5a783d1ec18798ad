"""Real workers publish, and real workers seal it: every stored file is in the audit log, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from rmos_runs.client import RunsClient
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.keys import generate
from rmos_shared.auditlog.layout import is_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import verified
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import SEAL
from support.audit_log import assert_sound
from support.worker import StartWorker

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


def fresh(requests: list[dict[str, Any]], amount: int) -> list[dict[str, Any]]:
    return [{**request, "run_id": new_uuid7()} for request in requests[:amount]]


def test_what_is_published_is_sealed_and_signed(
    start_worker: StartWorker,
    advisory_store: Callable[..., Advisories],
    runs_client: RunsClient,
    ledger: JobLedger,
    store: LocalStore,
    sample_requests: list[dict[str, Any]],
    tmp_path: Path,
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
    assert {entry.found for entry in records(store)} == {None}
    log = log_of(store)
    assert_sound(log)
    newest = log.newest_size()
    verified(log.note(newest)[1], [signer.verifier])
    state = ledger.unsealed.state()
    assert (state.size, state.signed_by, state.late) == (newest, signer.verifier.key_id.hex(), 0)
    assert state.checkpoint == log.note(newest)[1].to_bytes().decode()
