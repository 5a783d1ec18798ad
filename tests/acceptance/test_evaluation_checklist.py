"""The evaluation of the failed draft, item by item: each is met by a test here, or named where it is told.

Its section 8 (the checklist), 3.2 (edge cases) and 6.1 (failure modes), in its words. The tests are short and
use the public interface; the suites beside this file go deeper.
"""

from __future__ import annotations

import ast
import errno
import importlib
import json
import logging
import os
import pkgutil
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

import rmos_shared.models
from rmos_runs import RunsClient
from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset, AdvisoryLink
from rmos_shared.canonical import canonical_sha256, sha256_hex
from rmos_shared.clock import SystemClock
from rmos_shared.errors import (
    AdvisoryUnavailable,
    CorruptArtifact,
    InvalidRequest,
    RunNotFound,
    StoreUnavailable,
)
from rmos_shared.ids import is_safe_id, new_uuid7
from rmos_shared.jobs.ledger import Acceptance, JobLedger
from rmos_shared.jobs.model import DeadReason, Job
from rmos_shared.jobs.work import Claim, Finish, Lease
from rmos_shared.models.base import Frozen, UtcTime
from rmos_shared.runs.model import Decision, ExplanationStatus, Hashes, RunArtifact, RunRequest
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.store.base import ArtifactStore, KeyInvalid, Outcome
from rmos_shared.store.identity import IDENTITY_FILE
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.payloads import AttachAdvisory, CreateRun, SuggestAndAttach
from rmos_shared.tasks.table import CREATE, CREATE_MANY, SUGGEST
from rmos_shared.telemetry.events import FileCorrupt
from rmos_worker.advisories.client import AdvisoryClient
from rmos_worker.engine.retry import Bury, RetryLimits, Wait, decide, describe
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules
from rmos_worker.handlers.artifact import artifact_of
from rmos_worker.handlers.existing_run import ExistingRuns
from rmos_worker.handlers.suggest import SuggestHandler
from rmos_worker.policies.choice import policy_named
from support.breakers import NoBreaker
from support.events import events_in
from support.handlers import create_handler
from support.runs import Runs
from support.stores import local_store

ROOT = Path(__file__).parents[2]
GUARANTEES = ROOT / "docs/guarantees.md"

#: Items about the HTTP gateway, with the test of its own that shows them.
ELSEWHERE = {
    "POST /runs creates immutable artifact": ("test_gateway", "test_a_run_is_accepted_stored_and_read"),
    "No PATCH endpoint for core data": (
        "test_gateway",
        "test_nothing_changes_or_deletes_a_run_and_who_tries_is_on_record",
    ),
    "All endpoints return proper error codes": (
        "test_gateway_openapi",
        "test_every_check_of_schemathesis_passes",
    ),
    "All endpoints log start/end with timing": (
        "test_gateway",
        "test_each_request_is_one_event_without_anything_secret",
    ),
    "Validation errors return 400, not 500": (
        "test_gateway",
        "test_every_wrong_field_is_named_and_nothing_is_accepted",
    ),
    "API tests for router": (
        "test_gateway_access",
        "test_every_endpoint_refuses_no_key_a_wrong_key_and_a_wrong_role",
    ),
}

#: All items, in the evaluation's order.
ITEMS = (
    # 8, schema compliance
    "`Hashes.feasibility_sha256` is REQUIRED (not Optional)",
    "`RunDecision.risk_level` is REQUIRED (not Optional)",
    "All datetime fields use UTC",
    "Pydantic validation runs on creation",
    # 8, storage compliance
    "Date-partitioned structure: `{YYYY-MM-DD}/{run_id}.json`",
    "No modification after creation (no patch_meta)",
    "Atomic writes via .tmp + os.replace()",
    "Path traversal protection on all inputs",
    # 8, API compliance
    "POST /runs creates immutable artifact",
    "No PATCH endpoint for core data",
    "Advisory attachment is append-only",
    "All endpoints return proper error codes",
    # 8, thread safety
    "Concurrent writes to different runs work",
    "Concurrent reads during write are safe",
    "No race conditions in read-modify-write patterns",
    # 8, observability
    "All endpoints log start/end with timing",
    "Error conditions include context",
    "request_id propagated through stack",
    "Corrupt files logged with path",
    # 8, error handling
    "Disk full handled gracefully",
    "External service failures don't crash",
    "Validation errors return 400, not 500",
    "Partial operations are rolled back",
    # 8, testing
    "Unit tests for schemas",
    "Unit tests for hashing",
    "Integration tests for store",
    "API tests for router",
    "Load tests for concurrency",
    # 3.2, unhandled edge cases
    "Concurrent writes to same run",
    "Disk full during write",
    "Very large feasibility payload",
    "Unicode in run_id",
    "Timezone-naive datetime",
    "Advisory store unavailable",
    # 6.1, failure modes
    "Store directory missing",
    "Run not found",
    "Invalid run_id",
    "Advisory store import fails",
    "Explanation generation fails",
    "Disk write fails",
    "Corrupt file read",
)

MET: dict[str, Callable[..., None]] = {}
Test = Callable[..., None]

HOSTILE = (
    "../x",
    "..",
    "a/../../x",
    "/etc/passwd",
    "a\\..\\x",
    "a\0",
    "%2e%2e%2fx",
    "a_advisory_b",
    "é",
    "a\ud800",
)
AT = datetime(2026, 8, 1, 6, tzinfo=UTC)
LIMITS = RetryLimits(max_tries=8, base_seconds=2.0, cap_seconds=900.0, total_seconds=21_600.0)
WHOLE: dict[str, Any] = {
    "request_id": "req-1",
    "mode": "router",
    "tool_id": "router:endmill_0p8mm",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN", "blocking": False, "rules_triggered": []},
    "decision": {"risk_level": "GREEN", "score": 97.5},
}


def meets(*items: str) -> Callable[[Test], Test]:
    def note(test: Test) -> Test:
        for item in items:
            assert item in ITEMS, item
            assert item not in MET, item
            MET[item] = test
        return test

    return note


def make_run(**changes: Any) -> RunArtifact:
    return artifact_of(RunRequest.read({"run_id": new_uuid7(AT), **WHOLE, **changes}))[0]


def make_link(run: RunArtifact, **changes: Any) -> AdvisoryLink:
    fields = {
        "run_id": run.run_id,
        "advisory_id": "adv-1",
        "kind": "explanation",
        "created_at_utc": AT,
        "request_id": "req-1",
        "engine_id": "e",
        "engine_version": "1",
        "summary": "fine",
        "inputs_sha256": "a" * 64,
        "advisory_sha256": "b" * 64,
        "policy_id": "p",
        "policy_version": "1",
        "approved": True,
        "reviewed_by": "system:x",
        "reason": "green",
    }
    return AdvisoryLink.read(fields | changes)


def claim_of(payload: Frozen, run_id: str, task: str = CREATE.name) -> Claim:
    return Claim(
        new_uuid7(),
        task,
        payload.to_bytes(),
        run_id,
        "req-1",
        retry_count=0,
        crash_count=1,
        waiting_seconds=0,
    )


def refuse(code: int) -> Callable[..., NoReturn]:
    def refusing(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return refusing


def files(root: Path) -> set[str]:
    """Return the files below ``root``, without the identity that every store has."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != IDENTITY_FILE)
    return {path.relative_to(root).as_posix() for path in found}


def all_at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    barrier = threading.Barrier(len(calls))

    def start(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(start, calls))


class Assets:
    """An advisory store in memory."""

    def __init__(self) -> None:
        self.saved: list[AdvisoryAsset] = []
        self.error: Exception | None = None

    def save(self, asset: AdvisoryAsset) -> SaveOutcome:
        if self.error is not None:
            raise self.error
        self.saved.append(asset)
        return SaveOutcome.CREATED

    def fetch(self, asset_id: str) -> AdvisoryAsset:
        return next(asset for asset in self.saved if asset.asset_id == asset_id)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def runs(root: Path) -> Runs:
    return Runs(local_store(root))


@pytest.fixture
def ledger(broker_url: str) -> Iterator[JobLedger]:
    connected = JobLedger.connect(BrokerSettings.load(broker_url=broker_url))
    yield connected
    connected.close()


@pytest.fixture
def suggest(runs: Runs, ledger: JobLedger) -> Callable[..., SuggestHandler]:
    def make(advisories: Any, explainer: Any = None) -> SuggestHandler:
        return SuggestHandler(
            writer=runs.writer,
            existing=ExistingRuns(runs.reader, ledger),
            explainer=explainer or FeasibilityExplainer(load_rules()),
            advisories=advisories,
            policy=policy_named("green_auto"),
            clock=SystemClock(),
        )

    return make


# -- the list itself ------------------------------------------------------------------------------


def test_every_item_is_met_here_or_named_elsewhere() -> None:
    assert len(set(ITEMS)) == len(ITEMS) == 28 + 6 + 7
    assert set(MET) | set(ELSEWHERE) == set(ITEMS)
    assert not set(MET) & set(ELSEWHERE)


def test_the_guarantees_have_a_row_for_every_item() -> None:
    section = GUARANTEES.read_text().partition("\n## The evaluation's checklist\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE))
    assert list(rows) == ["item", *ITEMS]
    for item, (file, test) in ELSEWHERE.items():
        assert f"`tests/integration/{file}.py`" in rows[item], item
        assert f"\ndef {test}(" in (ROOT / f"tests/integration/{file}.py").read_text(), item


# -- schema compliance ----------------------------------------------------------------------------


@meets("`Hashes.feasibility_sha256` is REQUIRED (not Optional)")
def test_hashes_feasibility_sha256_is_required() -> None:
    for bad in ({}, {"feasibility_sha256": None}, {"feasibility_sha256": ""}):
        with pytest.raises(InvalidRequest, match="feasibility_sha256"):
            Hashes.read(bad)
    told = make_run().dump()
    del told["hashes"]["feasibility_sha256"]
    with pytest.raises(InvalidRequest, match=r"hashes\.feasibility_sha256"):
        RunArtifact.read(told)


@meets("`RunDecision.risk_level` is REQUIRED (not Optional)")
def test_decision_risk_level_is_required() -> None:
    for bad in ({}, {"risk_level": None}, {"risk_level": ""}):
        with pytest.raises(InvalidRequest, match="risk_level"):
            Decision.read(bad)
    told = make_run().dump()
    del told["decision"]["risk_level"]
    with pytest.raises(InvalidRequest, match=r"decision\.risk_level"):
        RunArtifact.read(told)


@meets("All datetime fields use UTC")
def test_all_datetime_fields_use_utc() -> None:
    for module in pkgutil.walk_packages(rmos_shared.models.__path__, "rmos_shared.models."):
        importlib.import_module(module.name)
    models: set[type[Frozen]] = {Frozen}
    while more := {child for model in models for child in model.__subclasses__()} - models:
        models |= more
    seen = 0
    # The audit log has names and a form of its own (docs/reference/audit-log.md): milliseconds, always.
    ours = [m for m in models if m.__module__.startswith("rmos_") and not is_of_audit_log(m.__module__)]
    for model in ours:
        plain, rich = get_type_hints(model), get_type_hints(model, include_extras=True)
        for name, kind in plain.items():
            if kind is datetime or datetime in get_args(kind):
                seen += 1
                assert name.endswith("_utc"), name
                adapter: TypeAdapter[Any] = TypeAdapter(rich[name])
                with pytest.raises(ValidationError, match="no zone"):
                    adapter.validate_python("2026-08-01T06:00:00")
                assert (
                    adapter.dump_json(adapter.validate_python("2026-08-01T08:00:00+02:00"))
                    == b'"2026-08-01T06:00:00Z"'
                )
    assert seen >= 10


def is_of_audit_log(module: str) -> bool:
    return module.startswith(("rmos_shared.auditlog", "rmos_runs.operations.audit_status"))


@meets("Pydantic validation runs on creation")
def test_pydantic_validation_runs_on_creation() -> None:
    good = make_run()
    with pytest.raises(ValidationError):
        RunArtifact(**{**good.model_dump(), "mode": ""})
    with pytest.raises(ValidationError, match="frozen"):
        good.mode = "saw"  # type: ignore[misc]
    unvalidated = [path for path in ROOT.glob("*/rmos_*/**/*.py") if "model_construct" in path.read_text()]
    assert unvalidated == []


# -- storage compliance ---------------------------------------------------------------------------


@meets("Date-partitioned structure: `{YYYY-MM-DD}/{run_id}.json`")
def test_date_partitioned_structure(runs: Runs, root: Path) -> None:
    run = make_run(
        created_at_utc="2026-08-01T23:30:00-00:00", run_id=new_uuid7(datetime(2026, 8, 1, 23, tzinfo=UTC))
    )
    runs.writer.put_run(run)
    assert files(root) == {f"2026-08-01/{run.run_id}.json"}


@meets("No modification after creation (no patch_meta)")
def test_no_modification_after_creation(runs: Runs, root: Path) -> None:
    run = make_run()
    runs.writer.put_run(run)
    path = root / f"2026-08-01/{run.run_id}.json"
    before = path.read_bytes()
    assert runs.writer.put_run(make_run(run_id=run.run_id, meta={"patched": True})) is Outcome.CONFLICT
    assert path.read_bytes() == before == run.to_bytes()
    assert path.stat().st_mode & 0o222 == 0
    verbs = {name for name in vars(ArtifactStore) if not name.startswith("_")}
    assert verbs == {"create", "create_many", "draft", "get", "pieces", "head", "list"}
    changing = re.compile("patch|update|delete|remove|replace|overwrite|edit|set_")
    assert not [name for kind in (Runs, LocalStore) for name in dir(kind) if changing.search(name)]


@meets("Atomic writes via .tmp + os.replace()")
def test_atomic_writes(runs: Runs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    with monkeypatch.context() as broken:
        broken.setattr("os.link", refuse(errno.EIO))
        with pytest.raises(StoreUnavailable):
            runs.writer.put_run(run)
    assert files(root) == set()
    assert runs.writer.put_run(run) is Outcome.CREATED
    assert files(root) == {f"2026-08-01/{run.run_id}.json"}


@meets("Path traversal protection on all inputs")
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_path_traversal_protection_on_all_inputs(runs: Runs, root: Path, hostile: str) -> None:
    store = local_store(root)
    before = files(root.parent)
    for read in (
        runs.reader.read,
        runs.reader.get_artifact,
        runs.reader.get_bytes,
        runs.reader.links,
        runs.reader.reviews,
        runs.reader.attempts,
    ):
        with pytest.raises(RunNotFound):
            read(hostile)
    assert runs.reader.artifact_key(hostile) is None
    for model, data in (
        (RunRequest, {**WHOLE, "run_id": hostile}),
        (SuggestAndAttach, {"run_id": hostile}),
        (AttachAdvisory, {"run_id": hostile, "advisory_id": "a"}),
        (AttachAdvisory, {"run_id": "a", "advisory_id": hostile}),
        (RunRequest, {**WHOLE, "outputs": {"gcode_path": f"../{hostile}"}}),
    ):
        with pytest.raises(InvalidRequest):
            model.read(data)
    with pytest.raises(KeyInvalid):
        store.create(f"../{hostile}.json", b"x")
    assert files(root.parent) == before


# -- API compliance -------------------------------------------------------------------------------


@meets("Advisory attachment is append-only")
def test_advisory_attachment_is_append_only(runs: Runs, root: Path) -> None:
    run = make_run()
    runs.writer.put_run(run)
    assert runs.writer.attach(make_link(run)) is Outcome.CREATED
    held = {name: (root / name).read_bytes() for name in files(root)}
    assert set(held) == {f"2026-08-01/{run.run_id}.json", f"2026-08-01/{run.run_id}_advisory_adv-1.json"}
    assert runs.writer.attach(make_link(run, request_id="req-2")) is Outcome.ALREADY_SAME
    assert runs.writer.attach(make_link(run, summary="other words")) is Outcome.CONFLICT
    assert {name: (root / name).read_bytes() for name in files(root)} == held


# -- thread safety --------------------------------------------------------------------------------


@meets("Concurrent writes to different runs work")
def test_concurrent_writes_to_different_runs_work(runs: Runs) -> None:
    made = [[make_run() for _ in range(10)] for _ in range(8)]

    def put(group: list[RunArtifact]) -> list[Outcome]:
        return [runs.writer.put_run(run) for run in group]

    outcomes = all_at_once([partial(put, group) for group in made])
    assert {outcome for group in outcomes for outcome in group} == {Outcome.CREATED}
    for group in made:
        for run in group:
            assert runs.reader.get_bytes(run.run_id) == run.to_bytes()


@meets("Concurrent reads during write are safe")
def test_concurrent_reads_during_write_are_safe(runs: Runs) -> None:
    made = [make_run(outputs={"gcode_text": "G0 X1\n" * 30_000}) for _ in range(30)]
    done = threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set():
            for entry in runs.reader.list_runs():
                assert entry.error is None
                seen += 1
            for run in made[:3]:
                with suppress(RunNotFound):
                    assert runs.reader.get_artifact(run.run_id) == run
        return seen

    def write() -> int:
        try:
            return sum(runs.writer.put_run(run) is Outcome.CREATED for run in made)
        finally:
            done.set()

    assert all_at_once([write, read, read])[0] == 30
    assert sum(entry.artifact is not None for entry in runs.reader.list_runs()) == 30


@meets("No race conditions in read-modify-write patterns")
def test_no_race_conditions_in_read_modify_write_patterns(ledger: JobLedger) -> None:
    def job(mode: str) -> Job:
        return Job(
            job_id=job_id,
            task=CREATE_MANY.name,
            run_id=run_id,
            request_id=None,
            payload=f'{{"mode":"{mode}"}}',
        )

    job_id, run_id = new_uuid7(), new_uuid7()
    outcomes = all_at_once([lambda: ledger.accept([job("same")])[0]] * 8)
    assert sorted(outcomes) == [Acceptance.NEW] + [Acceptance.REPEAT] * 7
    assert ledger.accept([job("other")]) == [Acceptance.CONFLICT]
    tokens = iter([f"token-{number}" for number in range(8)])
    claims = all_at_once(
        [lambda: ledger.work.claim([job_id], Lease("worker", next(tokens)), lease_seconds=60)] * 8
    )
    assert sum(len(claim.claimed) for claim in claims) == 1
    assert (ledger.stats().accepted, ledger.stats().running) == (1, 1)


# -- observability --------------------------------------------------------------------------------


@meets("Error conditions include context")
def test_error_conditions_include_context(ledger: JobLedger) -> None:
    job = Job(job_id=new_uuid7(), task=CREATE.name, run_id=new_uuid7(), request_id="req-1", payload="{}")
    ledger.accept([job])
    lease = Lease("worker-1", "token")
    ledger.work.claim([job.job_id], lease, lease_seconds=60)
    with pytest.raises(StoreUnavailable) as raised:
        raise StoreUnavailable("cannot write a.json: No space left on device; free space on that disk")
    ledger.work.bury(job.job_id, lease, failure=describe(raised.value, DeadReason.RETRIES_EXHAUSTED))
    (letter,) = ledger.dead_letters.dead()
    assert (letter.job_id, letter.run_id, letter.request_id) == (job.job_id, job.run_id, "req-1")
    assert (letter.task, letter.queue, letter.worker) == (CREATE.name, CREATE.queue, "worker-1")
    assert letter.first_failed_at_utc == letter.last_failed_at_utc
    assert letter.first_failed_at_utc is not None
    assert letter.code_version
    assert letter.failure is not None
    assert (letter.failure.reason, letter.failure.error_type) == ("retries_exhausted", "StoreUnavailable")
    assert "No space left on device" in letter.failure.message
    assert "test_error_conditions_include_context" in letter.failure.traceback


@meets("request_id propagated through stack")
def test_request_id_propagated_through_stack(
    runs: Runs, ledger: JobLedger, broker_url: str, suggest: Callable[..., SuggestHandler]
) -> None:
    with RunsClient.connect(broker_url=broker_url) as client:
        receipt = client.create_run({**WHOLE, "request_id": "req-7"}, explain=True)
    lease = Lease("worker", "token")
    (claim,) = ledger.work.claim([receipt.job_id], lease, lease_seconds=60).claimed
    (finish,) = create_handler(runs.store).handle([claim])
    assert isinstance(finish, Finish)
    ledger.work.finish([finish], lease, ttl_seconds=60)
    assets = Assets()
    (follower,) = ledger.work.claim([receipt.explain_job_id or ""], lease, lease_seconds=60).claimed
    (explained,) = suggest(assets).handle([follower])
    assert isinstance(explained, Finish)
    (link,) = runs.reader.links(receipt.run_id)
    assert claim.request_id == follower.request_id == "req-7"
    assert ledger.get(receipt.job_id).request_id == ledger.get(follower.job_id).request_id == "req-7"
    assert (
        runs.reader.get_artifact(receipt.run_id).request_id
        == assets.saved[0].request_id
        == link.request_id
        == "req-7"
    )


@meets("Corrupt files logged with path")
def test_corrupt_files_logged_with_path(runs: Runs, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    (root / "2026-08-01").mkdir(parents=True)
    (root / f"2026-08-01/{run.run_id}.json").write_bytes(run.to_bytes()[:-9])
    with pytest.raises(CorruptArtifact):
        runs.reader.get_artifact(run.run_id)
    (corrupt,) = events_in(caplog)
    assert isinstance(corrupt, FileCorrupt)
    assert corrupt.file == f"2026-08-01/{run.run_id}.json"
    assert corrupt.file in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- error handling -------------------------------------------------------------------------------


@meets("Disk full handled gracefully")
def test_disk_full_handled_gracefully(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    claim = claim_of(CreateRun.read({"run": RunRequest.read({**WHOLE, "run_id": run.run_id})}), run.run_id)
    with monkeypatch.context() as full:
        full.setattr("os.write", refuse(errno.ENOSPC))
        (error,) = create_handler(runs.store).handle([claim])
    assert isinstance(error, StoreUnavailable)
    assert "No space left on device; free space on that disk" in str(error)
    # Not the job's fault: it waits, however often that happened before, and then it is done.
    end = decide(error, retry_count=1_000, waiting_seconds=60, limits=LIMITS, jitter=lambda low, _: low)
    assert isinstance(end, Wait)
    assert not end.spends_retry
    (finish,) = create_handler(runs.store).handle([claim])
    assert isinstance(finish, Finish)
    assert runs.reader.get_bytes(run.run_id) == run.to_bytes()


@meets("External service failures don't crash")
def test_external_service_failures_do_not_crash(runs: Runs, suggest: Callable[..., SuggestHandler]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    client = AdvisoryClient(nobody, timeout_seconds=1, total_seconds=1, tries=1, breaker=NoBreaker())
    made = [make_run(), make_run()]
    runs.writer.put_runs(made)
    claims = [claim_of(SuggestAndAttach(run_id=run.run_id), run.run_id, SUGGEST.name) for run in made]
    ends = suggest(client).handle(claims)
    client.close()
    assert [type(end) for end in ends] == [AdvisoryUnavailable] * 2
    assert [runs.reader.read(run.run_id).explanation_status for run in made] == [ExplanationStatus.NONE] * 2


@meets("Partial operations are rolled back")
def test_partial_operations_are_rolled_back(runs: Runs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = make_large()
    claims = [claim_of(CreateRun.read({"run": large}), large.run_id)]
    link = os.link
    tries: list[int] = []

    def only_the_first_succeeds(*args: Any, **kwargs: Any) -> None:
        tries.append(1)
        if len(tries) > 1:
            refuse(errno.EIO)()
        link(*args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr("os.link", only_the_first_succeeds)
        (error,) = create_handler(runs.store).handle(claims)
    assert isinstance(error, StoreUnavailable)
    # The attachment is there, by its hash, harming nobody; no artifact, and nothing half written.
    digest = sha256_hex((large.outputs.gcode_text or "").encode())
    assert files(root) == {f"_attachments/{digest[:2]}/{digest}.nc"}
    assert list(runs.reader.list_runs()) == []
    (finish,) = create_handler(runs.store).handle(claims)
    assert isinstance(finish, Finish)
    assert len(files(root)) == 2


# -- testing --------------------------------------------------------------------------------------


@meets(
    "Unit tests for schemas",
    "Unit tests for hashing",
    "Integration tests for store",
    "Load tests for concurrency",
)
@pytest.mark.parametrize(
    ("file", "at_least"),
    [
        ("unit/test_run_models.py", 30),
        ("unit/test_canonical.py", 10),
        ("unit/test_store.py", 10),
        ("integration/test_local_store.py", 20),
        ("integration/test_worker_kills.py", 2),
        ("acceptance/test_demo.py", 2),
    ],
)
def test_the_suites_are_there(file: str, at_least: int) -> None:
    body = ast.parse((ROOT / "tests" / file).read_text()).body
    assert (
        sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in body) >= at_least
    )


# -- edge cases that the draft left open ----------------------------------------------------------


@meets("Concurrent writes to same run")
def test_concurrent_writes_to_same_run(runs: Runs) -> None:
    run_id = new_uuid7(AT)
    rivals = [make_run(run_id=run_id, meta={"writer": number}) for number in range(8)]
    outcomes = all_at_once([lambda rival=rival: runs.writer.put_run(rival) for rival in rivals])  # type: ignore[misc]
    assert sorted(outcome.value for outcome in outcomes) == ["conflict"] * 7 + ["created"]
    winner = rivals[outcomes.index(Outcome.CREATED)]
    assert runs.reader.get_bytes(run_id) == winner.to_bytes()
    assert runs.writer.put_run(winner) is Outcome.ALREADY_SAME


@meets("Disk full during write")
@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_disk_full_during_write(runs: Runs, root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    run = make_run()
    with monkeypatch.context() as full:
        full.setattr(f"os.{call}", refuse(errno.ENOSPC))
        with pytest.raises(StoreUnavailable, match="No space left on device"):
            runs.writer.put_run(run)
    assert files(root) == set()
    assert runs.writer.put_run(run) is Outcome.CREATED


@meets("Very large feasibility payload")
def test_very_large_feasibility_payload() -> None:
    # Refused at the door, before anything is enqueued: nobody listens at this address.
    settings = ProducerSettings.load(broker_url="redis://127.0.0.1:1/0", max_payload_bytes=1_000_000)
    with RunsClient.connect(settings) as client:
        for feasibility, reason in (
            ({"notes": "x" * 1_000_000}, "RMOS_MAX_PAYLOAD_BYTES allows 1000000"),
            ({"deep": nested(100_000)}, "nested deeper than 100 levels"),
            ({"long": 10**5_000}, "integer of more than"),
        ):
            with pytest.raises(InvalidRequest, match=reason):
                client.create_run({**WHOLE, "feasibility": feasibility})
    large = {"points": [[index, index / 7] for index in range(100_000)]}
    assert make_run(feasibility=large).hashes.feasibility_sha256 == canonical_sha256(large)


@meets("Unicode in run_id")
@pytest.mark.parametrize(
    "run_id", ["é", "лютня", "a\u0301", "\uff41", "\u0661", "a\u200b", "a\ud800"], ids=ascii
)
def test_unicode_in_run_id(runs: Runs, run_id: str) -> None:
    assert not is_safe_id(run_id)
    with pytest.raises(InvalidRequest, match="run_id"):
        RunRequest.read({**WHOLE, "run_id": run_id})
    with pytest.raises(RunNotFound) as caught:
        runs.reader.read(run_id)
    str(caught.value).encode("ascii")


@meets("Timezone-naive datetime")
def test_timezone_naive_datetime() -> None:
    for naive in ("2026-08-01T06:00:00", datetime(2026, 8, 1, 6)):  # noqa: DTZ001 - the case itself
        with pytest.raises(InvalidRequest, match="created_at_utc: the time has no zone"):
            RunRequest.read({**WHOLE, "created_at_utc": naive})
    assert TypeAdapter(UtcTime).validate_python("2026-08-01T08:00:00+02:00").tzinfo is UTC


@meets("Advisory store unavailable")
def test_advisory_store_unavailable(runs: Runs, suggest: Callable[..., SuggestHandler]) -> None:
    run, assets = make_run(), Assets()
    runs.writer.put_run(run)
    claim = claim_of(SuggestAndAttach(run_id=run.run_id), run.run_id, SUGGEST.name)
    assets.error = AdvisoryUnavailable("503")
    (end,) = suggest(assets).handle([claim])
    assert isinstance(end, AdvisoryUnavailable)
    ends = [
        decide(end, retry_count=n, waiting_seconds=0, limits=LIMITS, jitter=lambda low, _: low)
        for n in range(8)
    ]
    assert [type(each) for each in ends] == [Wait] * 7 + [Bury]
    assets.error = None
    (finish,) = suggest(assets).handle([claim])
    assert isinstance(finish, Finish)
    assert runs.reader.read(run.run_id).explanation_status is ExplanationStatus.READY


# -- failure modes --------------------------------------------------------------------------------


@meets("Store directory missing")
def test_store_directory_missing(tmp_path: Path) -> None:
    run = make_run()
    assert Runs(local_store(tmp_path / "a/b/runs")).writer.put_run(run) is Outcome.CREATED
    assert files(tmp_path) == {f"a/b/runs/2026-08-01/{run.run_id}.json"}


@meets("Run not found")
def test_run_not_found(runs: Runs) -> None:
    run_id = new_uuid7(AT)
    with pytest.raises(RunNotFound, match=run_id) as caught:
        runs.reader.read(run_id)
    assert (caught.value.code, caught.value.http_status, caught.value.exit_code) == ("RUN_NOT_FOUND", 404, 4)
    assert caught.value.run_id == run_id


@meets("Invalid run_id")
def test_invalid_run_id(runs: Runs) -> None:
    with pytest.raises(RunNotFound) as missing:
        runs.reader.read("not an id")
    with pytest.raises(InvalidRequest, match="run_id") as invalid:
        SuggestAndAttach.read({"run_id": "not an id"})
    assert (missing.value.http_status, invalid.value.http_status) == (404, 400)


@meets("Advisory store import fails")
def test_advisory_store_import_fails() -> None:
    # Nothing that works on runs imports a store: it is reached over HTTP, behind a Protocol.
    for path in (ROOT / "worker/rmos_worker").rglob("*.py"):
        if "advisory_store" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    assert "advisory_store" not in ast.unparse(node), path.name
                    assert "_experimental" not in ast.unparse(node), path.name


@meets("Explanation generation fails")
def test_explanation_generation_fails(runs: Runs, suggest: Callable[..., SuggestHandler]) -> None:
    class Broken:
        def explain(self, *_: object) -> NoReturn:
            raise ZeroDivisionError("hunter2")

    run = make_run()
    runs.writer.put_run(run)
    handler = suggest(Assets(), Broken())
    claim = claim_of(SuggestAndAttach(run_id=run.run_id), run.run_id, SUGGEST.name)
    (error,) = handler.handle([claim])
    assert isinstance(error, ZeroDivisionError)
    end = decide(error, retry_count=0, waiting_seconds=0, limits=LIMITS, jitter=lambda low, _: low)
    assert isinstance(end, Bury)
    handler.on_dead(claim, end.failure)
    composed = runs.reader.read(run.run_id)
    assert composed.explanation_status is ExplanationStatus.ERROR
    assert (composed.explanation_summary or "").startswith("unexpected_error: ZeroDivisionError")
    assert "hunter2" not in composed.to_bytes().decode()
    assert runs.reader.get_bytes(run.run_id) == run.to_bytes()


@meets("Disk write fails")
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG])
def test_disk_write_fails(runs: Runs, root: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("os.write", refuse(code))
        with pytest.raises(StoreUnavailable, match=re.escape(os.strerror(code))) as caught:
            runs.writer.put_run(make_run())
    assert isinstance(caught.value.__cause__, OSError)
    assert files(root) == set()


@meets("Corrupt file read")
def test_corrupt_file_read(runs: Runs, root: Path) -> None:
    whole, damaged = make_run(), make_run()
    runs.writer.put_run(whole)
    (root / f"2026-08-01/{damaged.run_id}.json").write_bytes(json.dumps({"run_id": damaged.run_id}).encode())
    with pytest.raises(CorruptArtifact, match=damaged.run_id):
        runs.reader.read(damaged.run_id)
    entries = {entry.key: entry for entry in runs.reader.list_runs()}
    assert len(entries) == 2
    assert entries[f"2026-08-01/{whole.run_id}.json"].artifact == whole
    assert entries[f"2026-08-01/{damaged.run_id}.json"].error is not None


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def make_large() -> RunRequest:
    return RunRequest.read({**WHOLE, "run_id": new_uuid7(AT), "outputs": {"gcode_text": "G" * 204_801}})
