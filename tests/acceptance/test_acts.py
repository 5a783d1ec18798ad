"""What is done beside the normal way of jobs is on record, by whom, why and from where."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from rmos_runs.operations.identity import current_identity
from rmos_shared.auditlog.entry import format_time
from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchSpec
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import Act
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import CREATE
from rmos_worker.engine.sealing import seal_job
from support.gateway import RUNS, GatewayProcess
from support.handlers import create_handler
from support.in_process import Rmos, in_process
from support.old_records import write_partitioned

LEASE = Lease("w", "1")
#: A port of this machine on which nobody listens.
AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
def rmos(
    broker_url: str,
    runs_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Rmos:
    """Run a command in this process, as its entry point does."""
    monkeypatch.setenv("RMOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RMOS_RUNS_DIR", str(runs_dir))
    monkeypatch.setenv("RMOS_BROKER_URL", broker_url)
    monkeypatch.chdir(tmp_path)

    return in_process(monkeypatch, capsys)


@pytest.fixture
def run_id(ledger: JobLedger, runs_dir: Path, sample_requests: list[dict[str, Any]]) -> str:
    """A run that is stored."""
    run_id = new_uuid7()
    request = {**sample_requests[0], "run_id": run_id, "created_at_utc": None}
    request = {name: value for name, value in request.items() if value is not None}
    job = Job(new_uuid7(), CREATE.name, run_id, None, json.dumps({"run": request}))
    ledger.accept([job])
    claims = ledger.work.claim([job.job_id], LEASE, lease_seconds=60)
    (end,) = create_handler(LocalStore(runs_dir)).handle(claims.claimed)
    assert not isinstance(end, Exception), end
    ledger.work.finish([end], LEASE, ttl_seconds=60)
    return run_id


def acts(ledger: JobLedger) -> list[Act]:
    return [act for act in ledger.acts.newest_first() if act.kind != "start"]


def only(ledger: JobLedger) -> Act:
    (act,) = acts(ledger)
    assert act.ended_at_utc is not None
    told = [(entry.act_id, entry.what) for entry in ledger.unsealed.read(most=100).entries if entry.act_id]
    assert told[-2:] == [(act.act_id, "begun"), (act.act_id, "ended")], "the audit log is told of both"
    return act


def test_a_pack_is_an_act_and_works_without_a_record_too(
    rmos: Rmos, ledger: JobLedger, run_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert rmos("runs", "pack", run_id, "-o", "a.zip", "--why", "auditor asked", "--as", "Ben").code == 0
    act = only(ledger)
    assert (act.kind, act.why, act.outcome, act.done) == ("export", "auditor asked", "complete", 1)
    assert act.by == str(current_identity("Ben"))
    assert act.origin == {"machine": socket.gethostname(), "caller": "cli"}
    assert act.about == {"run_id": run_id, "file": "a.zip"}
    monkeypatch.setenv("RMOS_BROKER_URL", AWAY)
    told = rmos("runs", "pack", run_id, "-o", "b.zip")
    assert told.code == 0, told.err
    assert "not on record" in told.err
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert [one.act_id for one in acts(ledger)] == [act.act_id]


def test_an_export_tells_what_was_chosen(rmos: Rmos, ledger: JobLedger, run_id: str) -> None:
    assert run_id
    assert rmos("runs", "export", "--status", "OK", "-o", "all.zip").code == 0
    act = only(ledger)
    assert act.about == {"filter": {"status": "OK"}, "format": "zip", "file": "all.zip"}


def test_an_attachment_is_told_of_and_a_broker_that_is_away_is_not_missed(
    rmos: Rmos, ledger: JobLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "part.nc").write_bytes(b"G1 X1")
    told = rmos("attachments", "put", "part.nc")
    assert told.code == 0, told.err
    (entry,) = ledger.unsealed.read(most=10).entries
    assert [item.key for item in entry.published] == [told.out.strip()]
    monkeypatch.setenv("RMOS_BROKER_URL", AWAY)
    (tmp_path / "part.nc").write_bytes(b"G1 X2")
    assert rmos("attachments", "put", "part.nc").code == 0
    assert len(ledger.unsealed.read(most=10).entries) == 1, "the log finds it in the store"


def test_a_migration_is_an_act_and_tells_what_it_stored(
    rmos: Rmos, ledger: JobLedger, tmp_path: Path, runs_dir: Path
) -> None:
    old = tmp_path / "old"
    write_partitioned(old, 12)
    told = rmos("migrate", "run", str(old), "--why", "the old system is switched off")
    assert told.code in {0, 7}, told.err
    act = only(ledger)
    assert (act.kind, act.about["source"], act.outcome) == ("migration", str(old), "complete")
    keys = {item.key for entry in ledger.unsealed.read(most=1_000).entries for item in entry.published}
    assert keys == {key for key in LocalStore(runs_dir).list("") if key != "_store.json"}
    assert act.done > 0


def test_a_repair_is_an_act(rmos: Rmos, ledger: JobLedger, redis_client: redis.Redis) -> None:
    job = Job(new_uuid7(), CREATE.name, "r", None, "{}")
    ledger.accept([job])
    redis_client.zrem("rmos:ready:runs.create", job.job_id)
    assert rmos("jobs", "repair", job.job_id, "--why", "doctor said so").code == 0
    act = only(ledger)
    assert (act.kind, act.done, act.about["ids"]) == ("repair", 1, [job.job_id])
    redis_client.set("rmos:unsealed", "garbage")
    assert rmos("jobs", "repair", "--feed").code == 0
    assert acts(ledger)[0].about["feed"] is True
    assert rmos("jobs", "repair").code == 2, "nothing is named"


def test_steering_a_batch_is_an_act_and_so_is_a_refusal(rmos: Rmos, ledger: JobLedger) -> None:
    batch_id = new_uuid7()
    spec = BatchSpec(choice=RunChoice(date_from="2026-08-01", date_to="2026-08-02"), by="op", why="test")
    ledger.batches.open(batch_id, spec)
    assert rmos("batches", "pause", batch_id, "--why", "busy").code == 0
    act = only(ledger)
    assert (act.kind, act.about, act.done) == ("batch", {"batch_id": batch_id, "step": "pause"}, 1)
    assert rmos("batches", "pause", new_uuid7()).code != 0
    refused = acts(ledger)[0]
    assert (refused.outcome, refused.refused) == ("failed", 1)


def test_acts_list_and_show_tell_of_them(rmos: Rmos, ledger: JobLedger, run_id: str) -> None:
    rmos("runs", "pack", run_id, "-o", "a.zip")
    listed = json.loads(rmos("acts", "list", "--json").out)
    assert [row["kind"] for row in listed] == ["export"]
    shown = json.loads(rmos("acts", "show", listed[0]["act_id"], "--json").out)
    assert shown["origin"]["caller"] == "cli"
    assert ledger.acts.get(listed[0]["act_id"]).kind == "export"


def test_over_http_acts_are_on_record_and_refused_changes_once_an_hour(
    start_gateway: Callable[..., GatewayProcess],
    ledger: JobLedger,
    run_id: str,
    eventually: Callable[..., None],
) -> None:
    gateway = start_gateway()
    eventually(lambda: [act.kind for act in ledger.acts.newest_first()] == ["start"])
    (start,) = ledger.acts.newest_first()
    assert start.origin["caller"] == "gateway"
    assert start.about["secrets"] == ["broker_url"]
    assert "redis://" not in json.dumps(start.about)
    with httpx.Client(base_url=f"{gateway.url}{RUNS}") as http:
        for method in ("DELETE", "DELETE", "PUT", "PATCH", "DELETE"):
            assert http.request(method, f"/{run_id}").status_code == 405
        found = [(act.kind, act.about["method"], act.refused) for act in acts(ledger)]
        assert sorted(found) == [("refused_change", name, 1) for name in ("DELETE", "PATCH", "PUT")]
        assert http.get(f"/{run_id}/pack.zip").status_code == 200
        eventually(lambda: acts(ledger)[0].outcome == "complete")
        assert (acts(ledger)[0].kind, acts(ledger)[0].origin["caller"]) == ("export", "gateway")
        job = Job(new_uuid7(), CREATE.name, "r", None, "{}")
        answer = http.post(f"/dead-letters/{job.job_id}/replay", json={"why": "again"})
        assert answer.status_code == 404
        act = acts(ledger)[0]
        assert (act.kind, act.why, act.refused, act.outcome) == ("replay", "again", 1, "failed")


def doctor(rmos: Rmos) -> dict[str, tuple[str, str]]:
    rows = json.loads(rmos("doctor", "--json").out)
    return {row["check"]: (row["state"], f"{row['detail']}; {row['repair']}") for row in rows}


def test_doctor_says_how_far_sealing_is_and_what_to_do_when_it_stopped(
    rmos: Rmos, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    state, detail = doctor(rmos)["audit log"]
    assert (state, "nothing is sealed yet; 0 not sealed" in detail) == ("ok", True)
    job = seal_job(ledger.unsealed.state(begin=True).number)
    ledger.accept([job])
    ledger.work.claim([job.job_id], LEASE, lease_seconds=60)
    now = format_time(datetime.now(UTC))
    sealed = {"size": 3, "at": now, "next": format_time(datetime.now(UTC) + timedelta(hours=1))}
    ledger.work.finish([Finish(job.job_id, sealed | {"late": 2})], LEASE, ttl_seconds=60)
    rows = doctor(rmos)
    assert rows["audit log"][0] == "ok"
    assert "3 entries" in rows["audit log"][1]
    assert rows["audit key"][0] == "warning"
    assert "unsigned" in rows["audit key"][1]
    assert (rows["late entries"][0], "2 files" in rows["late entries"][1]) == ("warning", True)
    job = seal_job(ledger.unsealed.state().number)
    ledger.accept([job])
    ledger.work.claim([job.job_id], LEASE, lease_seconds=60)
    ledger.work.bury(job.job_id, LEASE, failure=Failure(reason="misconfigured", error_type="X", message="x"))
    state, detail = doctor(rmos)["audit log"]
    assert (state, f"rmos dlq show {job.job_id}" in detail) == ("broken", True)
    redis_client.delete("rmos:unsealed")
    redis_client.set("rmos:unsealed", "garbage")
    state, detail = doctor(rmos)["audit log"]
    assert (state, "rmos jobs repair --feed" in detail) == ("broken", True)
