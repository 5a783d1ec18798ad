"""The gateway's routes on a real server, with real workers: what the contract's section 6 promises."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_runs.operations.status import ReviewsStatus, SystemStatus
from rmos_shared.canonical import sha256_hex
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Lease
from rmos_shared.runs.model import RunArtifact
from support.gateway import RUNS, GatewayProcess
from support.records import make_link, make_run
from support.runs import Runs

StartGateway = Callable[..., GatewayProcess]
StartWorker = Callable[..., Any]
Eventually = Callable[..., None]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def gateway(start_gateway: StartGateway) -> GatewayProcess:
    return start_gateway()


@pytest.fixture
def http(gateway: GatewayProcess) -> Any:
    with gateway.client() as client:
        yield client


def error(answer: httpx.Response) -> dict[str, Any]:
    """Return an error's body, checked as every error's."""
    body: dict[str, Any] = answer.json()
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["detail"] == {key: value for key, value in body.items() if key != "detail"}
    return body


# Putting a run in


def test_a_run_is_accepted_stored_and_read(
    http: httpx.Client, start_worker: StartWorker, sample_requests: list[dict[str, Any]], runs_dir: Path
) -> None:
    answer = http.post(RUNS, json=sample_requests[0], headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["Location"] == told["status_url"] == f"{RUNS}/jobs/{told['job_id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["X-Request-ID"] == "r-1"
    assert http.get(told["status_url"]).json()["state"] == "accepted"
    start_worker()
    # The same request again is another attempt; with the id of the first it would be a repeat.
    waited = http.post(RUNS, json=sample_requests[1], headers={"Prefer": "wait=20"})
    assert waited.status_code == 201
    assert waited.headers["Preference-Applied"] == "wait=20"
    run = waited.json()
    assert waited.headers["Location"] == f"{RUNS}/{run['run_id']}"
    assert run["feasibility"] == sample_requests[1]["feasibility"]
    read = http.get(f"{RUNS}/{run['run_id']}")
    assert read.json() == run
    stored = next(runs_dir.glob(f"*/{run['run_id']}.json")).read_bytes()
    download = http.get(f"{RUNS}/{run['run_id']}/download")
    assert download.content == stored
    assert download.headers["ETag"] == f'"{sha256_hex(stored)}"'
    assert download.headers["Content-Disposition"] == f'attachment; filename="{run["run_id"]}.json"'
    for tag in (download.headers["ETag"], f'"x", W/{download.headers["ETag"]}', "*"):
        unchanged = http.get(f"{RUNS}/{run['run_id']}/download", headers={"If-None-Match": tag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["ETag"] == download.headers["ETag"]


def test_what_is_not_done_in_time_is_answered_as_accepted(
    http: httpx.Client, sample_requests: list[dict[str, Any]]
) -> None:
    answer = http.post(RUNS, json=sample_requests[0], headers={"Prefer": "respond-async, wait=1"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.headers["Location"] == answer.json()["status_url"]


def test_a_wait_is_cut_to_what_the_settings_allow(
    start_gateway: StartGateway, sample_requests: list[dict[str, Any]]
) -> None:
    with start_gateway(max_wait_seconds=0.5).client() as http:
        answer = http.post(RUNS, json=sample_requests[0], headers={"Prefer": "wait=9999"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0.5")


def test_a_job_that_dies_while_its_caller_waits_is_told_as_dead(
    http: httpx.Client, ledger: JobLedger, sample_requests: list[dict[str, Any]], eventually: Eventually
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(http.post, RUNS, json=sample_requests[0], headers={"Prefer": "wait=20"})
        eventually(lambda: ledger.stats().ready)
        (job,) = ledger.jobs()
        ledger.work.claim([job.job_id], Lease("w", "1"), lease_seconds=60)
        failure = Failure(reason="conflict", error_type="ArtifactConflict", message="other content")
        ledger.work.bury(job.job_id, Lease("w", "1"), failure=failure)
        answer = asking.result(timeout=30)
    assert answer.status_code == 409
    body = error(answer)
    assert {key: body[key] for key in ("error", "reason", "run_id", "job_id")} == {
        "error": "JOB_DEAD",
        "reason": "conflict",
        "run_id": job.run_id,
        "job_id": job.job_id,
    }
    assert "other content" in body["message"]


def test_every_wrong_field_is_named_and_nothing_is_accepted(http: httpx.Client, ledger: JobLedger) -> None:
    wrong = {"mode": "", "status": "FINE", "decision": {"score": 101}, "colour": "red"}
    answer = http.post(RUNS, json=wrong)
    assert answer.status_code == 400
    body = error(answer)
    assert body["error"] == "INVALID_REQUEST"
    assert {problem["field"] for problem in body["problems"]} == {
        *("mode", "status", "decision.score", "colour")
    }
    for sent in (b"", b"{", b"[1]", b'{"mode":"a","mode":"b"}', b'{"mode":NaN}', b"\xff", b"[" * 100_000):
        answer = http.post(RUNS, content=sent)
        assert answer.status_code == 400, sent[:20]
        assert error(answer)["problems"]
    deep = b'{"mode":"x","meta":{"a":' + b"[" * 200 + b"]" * 200 + b"}}"
    assert http.post(RUNS, content=deep).status_code == 400
    assert ledger.stats().accepted == 0


def test_a_request_that_lacks_a_required_field_is_recorded_as_blocked(
    http: httpx.Client, start_worker: StartWorker
) -> None:
    start_worker()
    answer = http.post(RUNS, json={"mode": "router"}, headers={"Prefer": "wait=20"})
    assert answer.status_code == 201
    run = answer.json()
    assert (run["status"], run["decision"]["risk_level"]) == ("BLOCKED", "ERROR")


def test_ids_and_trace_go_with_the_job(http: httpx.Client, ledger: JobLedger) -> None:
    sent = {"X-Request-ID": "shop-7", "traceparent": TRACE}
    answer = http.post(RUNS, json={"mode": "x"}, headers=sent)
    job = ledger.get(answer.json()["job_id"])
    assert (job.request_id, job.traceparent) == ("shop-7", TRACE)
    assert answer.headers["traceparent"] == TRACE
    line = http.post(f"{RUNS}/bulk", content=b'{"mode": "x", "tool_id": "y"}', headers=sent).json()
    assert ledger.get(line["job_id"]).traceparent == TRACE
    own = http.post(RUNS, json={"mode": "x", "request_id": "mine"}, headers=sent)
    assert ledger.get(own.json()["job_id"]).request_id == "mine"
    made = http.post(RUNS, json={"mode": "x"}, headers={"traceparent": "00-0-0-0"})
    assert ledger.get(made.json()["job_id"]).request_id == made.headers["X-Request-ID"]
    assert "traceparent" not in made.headers
    # An id that the caller chose identifies the attempt; one that was made does not.
    assert http.post(RUNS, json={}, headers={"X-Request-ID": "shop-8"}).status_code == 202
    assert http.post(RUNS, json={}).status_code == 400
    for wrong in ("a b", "ä", "x" * 129, "-a", "a\tb"):
        refused = http.get(RUNS + "/status", headers=[(b"X-Request-ID", wrong.encode("latin-1"))])
        assert refused.status_code == 400
        assert error(refused)["problems"][0]["field"] == "X-Request-ID"


# Idempotency


def test_one_key_and_body_are_one_run_however_often(
    http: httpx.Client, ledger: JobLedger, sample_requests: list[dict[str, Any]]
) -> None:
    key = {"Idempotency-Key": "order-1"}
    first = http.post(RUNS, json=sample_requests[0], headers=key)
    again = http.post(RUNS, json=sample_requests[0], headers=key)
    assert first.status_code == again.status_code == 202
    assert again.json() == first.json() | {"repeat": True}
    other = http.post(RUNS, json=sample_requests[1], headers=key)
    assert other.status_code == 422
    assert error(other)["error"] == "IDEMPOTENCY_MISMATCH"
    assert http.post(f"{RUNS}?explain=full", json=sample_requests[0], headers=key).status_code == 422
    assert ledger.stats().accepted == 1
    for wrong in ("", "a b", "x" * 256):
        assert http.post(RUNS, json={"mode": "x"}, headers={"Idempotency-Key": wrong}).status_code == 400


def test_fifty_at_once_with_one_key_are_one_run(
    gateway: GatewayProcess, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    def post(_: int) -> httpx.Response:
        with gateway.client() as http:
            return http.post(RUNS, json={"mode": "x"}, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(25) as pool:
        answers = [*pool.map(post, range(50))]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert sum(not answer.json()["repeat"] for answer in answers) == 1
    assert ledger.stats().accepted == 1
    (key,) = redis_client.scan_iter("rmos:once:*")
    week = 7 * 24 * 3600
    assert week - 60 < redis_client.ttl(key) <= week
    assert b"k" not in key.removeprefix(b"rmos:once:")


def test_a_repeat_after_the_jobs_record_has_expired_is_answered_with_the_run(
    http: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    start_worker()
    call: Any = {"headers": {"Idempotency-Key": "k", "Prefer": "wait=20"}, "json": {"mode": "x"}}
    first = http.post(RUNS, **call)
    assert first.status_code == 201
    for key in redis_client.scan_iter("rmos:job:*"):
        redis_client.delete(key)
    again = http.post(RUNS, **call)
    assert (again.status_code, again.json()) == (201, first.json())


def test_a_run_named_by_its_caller_is_accepted_once_without_any_key(
    http: httpx.Client, ledger: JobLedger
) -> None:
    body = {"mode": "x", "run_id": new_uuid7(), "request_id": "r"}
    first, again = (http.post(RUNS, json=body).json() for _ in range(2))
    assert again == first | {"repeat": True}
    assert ledger.stats().accepted == 1


# Reading


def test_a_run_that_is_nowhere_is_told_at_both_places(http: httpx.Client) -> None:
    run_id = new_uuid7()
    for path in ("", "/download", "/advisories"):
        answer = http.get(f"{RUNS}/{run_id}{path}")
        assert answer.status_code == 404
        body = error(answer)
        for place in (body, body["detail"]):
            assert (place["error"], place["run_id"]) == ("RUN_NOT_FOUND", run_id)


def test_errors_are_problems_for_who_asks_for_them(http: httpx.Client) -> None:
    accept = {"Accept": "application/problem+json"}
    plain = http.get(f"{RUNS}/nowhere")
    told = http.get(f"{RUNS}/nowhere", headers=accept)
    assert told.headers["Content-Type"] == "application/problem+json"
    assert told.status_code == plain.status_code == told.json()["status"] == 404
    assert told.json()["error"] == plain.json()["error"]
    assert told.json()["detail"] == plain.json()["message"]
    assert told.json()["title"] == "Not Found"
    assert http.post(RUNS, json=[], headers=accept).json()["problems"]
    assert http.get(f"{RUNS}/nowhere", headers={"Accept": "*/*"}).json()["detail"]["error"]


def test_a_corrupt_artifact_is_an_error_that_names_the_file(
    http: httpx.Client, run_log: Runs, runs_dir: Path
) -> None:
    run = make_run()
    run_log.writer.put_run(run)
    file = runs_dir / run.date / f"{run.run_id}.json"
    file.chmod(0o600)
    file.write_bytes(b"{")
    answer = http.get(f"{RUNS}/{run.run_id}")
    assert answer.status_code == 500
    assert error(answer)["error"] == "CORRUPT_ARTIFACT"
    assert f"{run.date}/{run.run_id}.json" in answer.json()["message"]


def test_a_store_that_is_away_is_no_missing_run(
    http: httpx.Client, runs_dir: Path, sample_requests: list[dict[str, Any]]
) -> None:
    runs_dir.rename(runs_dir.with_name("elsewhere"))
    answer = http.get(f"{RUNS}/{new_uuid7()}")
    assert (answer.status_code, error(answer)["error"]) == (503, "STORE_UNAVAILABLE")
    assert answer.headers["Retry-After"]
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        503,
        {"ready": False, "store": "STORE_UNAVAILABLE", "broker": "ok"},
    )
    assert http.get("/healthz").json() == {"status": "ok"}
    told = http.get(f"{RUNS}/status").json()
    assert (told["storage"], told["invariant"]) == (None, True)
    assert {one["part"]: one["code"] for one in told["unreachable"]} == {
        "storage": "STORE_UNAVAILABLE",
        "reviews": "STORE_UNAVAILABLE",
    }
    # Accepting needs the ledger alone.
    assert http.post(RUNS, json=sample_requests[0]).status_code == 202


def test_runs_are_listed_by_filters_and_pages(http: httpx.Client, run_log: Runs, runs_dir: Path) -> None:
    day = date(2026, 8, 1)
    runs = [
        make_run(
            make_run().created_at_utc + timedelta(days=number % 3, minutes=number),
            mode="router" if number % 2 else "saw",
            tool_id=f"tool-{number}",
            meta={"session_id": f"s{number % 2}"},
        )
        for number in range(9)
    ]
    run_log.writer.put_runs(runs)
    newest_first = sorted(runs, key=lambda run: run.run_id, reverse=True)
    everything = http.get(RUNS).json()
    assert [item["run_id"] for item in everything["items"]] == [run.run_id for run in newest_first]
    assert everything["next_cursor"] is None
    assert everything["runs_dir"] == str(runs_dir)
    assert everything["corrupt"] == []
    assert "complete_until_utc" in everything
    assert set(everything["items"][0]) == {
        *("run_id", "created_at_utc", "status", "mode", "tool_id", "event_type", "risk_level", "score"),
        *("feasibility_sha256", "toolpaths_sha256", "artifact_path"),
    }
    cursor, seen = None, []
    while True:
        query: dict[str, Any] = {"limit": 2, "mode": "router"} | ({"cursor": cursor} if cursor else {})
        page = http.get(RUNS, params=query).json()
        seen += [item["run_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [run.run_id for run in newest_first if run.mode == "router"]
    middle = (day + timedelta(days=1)).isoformat()
    chosen = http.get(RUNS, params={"date_from": middle, "date_to": middle, "session_id": "s0"}).json()
    assert {item["run_id"] for item in chosen["items"]} == {
        run.run_id for run in runs if run.date == middle and run.meta["session_id"] == "s0"
    }
    for limit, amount in ((0, 1), (-5, 1), (1_000, 9)):
        assert len(http.get(RUNS, params={"limit": limit}).json()["items"]) == amount
    queries: tuple[dict[str, Any], ...] = (
        *({"limit": "x"}, {"status": "FINE"}, {"date_from": "2026-02-30"}, {"needs_review": "perhaps"}),
        *({"cursor": "nonsense"}, {"colour": "red"}, {"parent_run_id": "../x"}, {"limit": "1.0"}),
    )
    for wrong in queries:
        answer = http.get(RUNS, params=wrong)
        assert answer.status_code == 400, wrong
        assert error(answer)["problems"][0]["field"] in wrong, wrong


# Advisories


def test_a_run_is_explained_and_the_explanation_read(
    http: httpx.Client,
    start_worker: StartWorker,
    advisory_store: Callable[..., Any],
    sample_requests: list[dict[str, Any]],
) -> None:
    start_worker(advisory_url=advisory_store().url)
    green = next(one for one in sample_requests if one["decision"]["risk_level"] == "GREEN")
    run = http.post(RUNS, json=green, headers={"Prefer": "wait=20"}).json()
    place = f"{RUNS}/{run['run_id']}"
    assert run["explanation_status"] == "NONE"
    unchanged = http.post(f"{place}/suggest-and-attach", json={"generate_explanation": False})
    assert (unchanged.status_code, unchanged.json()["explanation_status"]) == (200, "NONE")
    answer = http.post(
        f"{place}/suggest-and-attach",
        json={"explanation_detail": "full"},
        headers={"Prefer": "wait=20", "Idempotency-Key": "s"},
    )
    assert answer.status_code == 201
    explained = answer.json()
    assert explained["explanation_status"] == "READY"
    (advisory,) = explained["advisory_inputs"]
    assert (advisory["approved"], advisory["reviewed_by"]) == (True, "system:auto_explanation_green")
    listed = http.get(f"{place}/advisories").json()
    assert listed == {
        "run_id": run["run_id"],
        "advisory_inputs": [advisory],
        "count": 1,
        "explanation_status": "READY",
        "explanation_summary": explained["explanation_summary"],
    }
    again = http.post(
        f"{place}/attach-advisory",
        json={"advisory_id": advisory["advisory_id"], "kind": "explanation"},
        headers={"Prefer": "wait=20"},
    )
    assert again.status_code == 201
    assert again.json()["advisory_inputs"] == [advisory]


def test_an_advisory_for_a_run_that_nobody_brought_is_refused_at_once(
    http: httpx.Client, ledger: JobLedger, sample_requests: list[dict[str, Any]]
) -> None:
    for path, body in (("suggest-and-attach", {}), ("attach-advisory", {"advisory_id": "a"})):
        answer = http.post(f"{RUNS}/{new_uuid7()}/{path}", json=body)
        assert (answer.status_code, error(answer)["error"]) == (404, "RUN_NOT_FOUND")
    on_its_way = http.post(RUNS, json=sample_requests[0]).json()["run_id"]
    assert http.post(f"{RUNS}/{on_its_way}/suggest-and-attach").status_code == 202
    assert ledger.stats().accepted == 2


# Operators


def test_a_person_decides_what_waits(http: httpx.Client, run_log: Runs) -> None:
    run = make_run()
    run_log.writer.put_run(run)
    for number in range(3):
        run_log.writer.attach(make_link(run, f"adv{number}", approved=False, reviewed_by=None))
    listed = http.get(f"{RUNS}/reviews", params={"limit": 2}).json()
    assert (len(listed["items"]), listed["more"], listed["corrupt"]) == (2, True, [])
    assert (listed["items"][0]["risk_level"], listed["items"][0]["tool_id"]) == ("GREEN", run.tool_id)
    for query, number in (
        ({"risk_level": "RED"}, 0),
        ({"tool_id_prefix": "endmill"}, 3),
        ({"age_hours": 1}, 3),
    ):
        assert len(http.get(f"{RUNS}/reviews", params=query).json()["items"]) == number, query
    place = f"{RUNS}/reviews/{run.run_id}"
    approved = http.post(f"{place}/adv0/approve", json={"note": "fine"})
    assert approved.status_code == 201
    assert {key: approved.json()[key] for key in ("approved", "reviewed_by", "note")} == {
        "approved": True,
        "reviewed_by": "loopback",
        "note": "fine",
    }
    assert approved.json()["run_verdict"] == {"status": "OK", "risk_level": "GREEN", "block_reason": None}
    assert (approved.json()["judged"], approved.json()["others"]) == ("advisory", [])
    assert http.post(f"{place}/adv1/reject").json()["approved"] is False
    again = http.post(f"{place}/adv1/reject", json={"reason": "wrong", "reviewer": "Ana"}).json()
    assert (again["reviewed_by"], again["reason"], again["counts"]) == ("loopback (as Ana)", "wrong", True)
    assert [other["reviewed_by"] for other in again["others"]] == ["loopback"]
    assert http.post(f"{place}/adv1/approve", json={"reason": "wrong"}).status_code == 400
    verdicts = http.get(place).json()["items"]
    assert [(one["advisory_id"], one["approved"]) for one in verdicts] == [
        ("adv0", True),
        ("adv1", False),
        ("adv1", False),
    ]
    missing = http.post(f"{place}/adv9/approve")
    assert (missing.status_code, error(missing)["error"]) == (404, "ADVISORY_NOT_FOUND")
    assert [item["advisory_id"] for item in http.get(f"{RUNS}/reviews").json()["items"]] == ["adv2"]
    told = {one["advisory_id"]: one for one in http.get(f"{RUNS}/{run.run_id}").json()["advisory_inputs"]}
    assert (told["adv0"]["approved"], told["adv0"]["reviewed_by"]) == (True, "loopback")
    assert (told["adv1"]["approved"], told["adv1"]["needs_review"]) == (False, False)
    assert [one["reason"] for one in told["adv1"]["reviews"]] == [None, "wrong"]
    assert (told["adv2"]["review"], told["adv2"]["needs_review"]) == (None, True)


def test_dead_letters_are_shown_without_payload_replayed_and_discarded(
    http: httpx.Client, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    ids = [
        http.post(RUNS, json={"mode": "x", "meta": {"secret": "hunter2"}}).json()["job_id"] for _ in range(2)
    ]
    ledger.work.claim(ids, Lease("w", "1"), lease_seconds=60)
    failure = Failure(reason="conflict", error_type="X", message="other content")
    for job_id in ids:
        ledger.work.bury(job_id, Lease("w", "1"), failure=failure)
    redis_client.rpush("runs.create", b"hunter2")
    taken = ledger.queues.take("runs.create")
    assert taken is not None
    place = f"{RUNS}/dead-letters"
    listed = http.get(place).json()
    assert {item["id"] for item in listed["items"]} == {*ids, taken.raw_id}
    assert len(http.get(place, params={"reason": "conflict", "limit": 1}).json()["items"]) == 1
    shown = http.get(f"{place}/{ids[0]}")
    assert shown.json()["failure"]["message"] == "other content"
    raw = http.get(f"{place}/{taken.raw_id}")
    assert raw.json()["queue"] == "runs.create"
    assert "hunter2" not in json.dumps([listed, shown.json(), raw.json()])
    assert http.post(f"{place}/{ids[0]}/replay", json={"why": "disk is back"}).json()["state"] == "accepted"
    assert http.post(f"{place}/{ids[1]}/discard", json={"why": "double"}).json()["state"] == "discarded"
    assert ledger.get(ids[0]).history[-1]["by"] == "loopback"
    assert ledger.get(ids[0]).history[-1]["why"] == "disk is back"
    assert http.post(f"{place}/{ids[0]}/replay", json={"why": "again"}).status_code == 409
    assert http.post(f"{place}/{new_uuid7()}/discard", json={"why": "x"}).status_code == 404
    assert http.post(f"{place}/{ids[0]}/discard", json={}).status_code == 400
    status = http.get(f"{RUNS}/status").json()
    assert status["invariant"] is True
    assert status["ledger"]["discarded"] == 1
    # The same model as that of `rmos status`.
    found = SystemStatus.model_validate(status, strict=False)
    assert found.figures
    assert found.storage
    assert [(group.reason, group.letters) for group in found.figures.dead_letters] == [
        ("malformed_message", 1)
    ]
    assert (found.index, found.reviews, found.unreachable) == (None, ReviewsStatus(runs=0, more=False), [])
    assert "hunter2" not in json.dumps(status)


def test_nothing_changes_or_deletes_a_run_and_who_tries_is_on_record(
    gateway: GatewayProcess, http: httpx.Client, run_log: Runs, runs_dir: Path
) -> None:
    run: RunArtifact = make_run()
    run_log.writer.put_run(run)
    before = (runs_dir / run.date / f"{run.run_id}.json").read_bytes()
    for method in ("PATCH", "PUT", "DELETE"):
        answer = http.request(method, f"{RUNS}/{run.run_id}", headers={"X-Request-ID": f"try-{method}"})
        assert (answer.status_code, error(answer)["error"]) == (405, "METHOD_REFUSED")
        assert answer.headers["Allow"] == "GET"
    assert (runs_dir / run.date / f"{run.run_id}.json").read_bytes() == before
    refused = gateway.events("request.change_refused")
    assert [(event["method"], event["request_id"]) for event in refused] == [
        (method, f"try-{method}") for method in ("PATCH", "PUT", "DELETE")
    ]
    assert {event["run_id"] for event in refused} == {run.run_id}
    assert {event["route"] for event in refused} == {f"{RUNS}/{{run_id}}"}


def test_each_request_is_one_event_without_anything_secret(
    gateway: GatewayProcess, http: httpx.Client, eventually: Eventually
) -> None:
    def finished() -> list[dict[str, Any]]:
        return [one for one in gateway.events("request.finished") if one["request_id"] == "r-9"]

    http.get(f"{RUNS}/hunter2", headers={"Authorization": "Bearer hunter2", "X-Request-ID": "r-9"})
    # The line is written once the answer has left.
    eventually(finished)
    (event,) = finished()
    assert {key: event[key] for key in ("method", "route", "status", "caller")} == {
        "method": "GET",
        "route": f"{RUNS}/{{run_id}}",
        "status": 404,
        "caller": "loopback",
    }
    assert event["milliseconds"] > 0
    assert "hunter2" not in gateway.log.read_text()


# Many in one request


def test_lines_go_in_and_a_result_comes_for_each_in_order(
    http: httpx.Client, ledger: JobLedger, sample_requests: list[dict[str, Any]]
) -> None:
    lines = [json.dumps(one) for one in sample_requests[:250]]
    lines[7] = "{"
    lines[9] = json.dumps({"mode": "", "tool_id": "t"})
    lines[11] = ""
    body = "\n".join(lines).encode()
    answer = http.post(f"{RUNS}/bulk", content=body, headers={"Idempotency-Key": "b"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert [result["line"] for result in results] == [n for n in range(1, 251) if n != 12]
    told = {result["line"]: result for result in results}
    assert told[8]["status"] == told[10]["status"] == 400
    assert told[10]["problems"] == [{"field": "mode", "reason": "must not be blank"}]
    assert {result["status"] for result in results if result["line"] not in {8, 10}} == {202}
    assert ledger.stats().accepted == 247
    again = http.post(f"{RUNS}/bulk", content=body, headers={"Idempotency-Key": "b"})
    repeated = [json.loads(line) for line in again.text.splitlines()]
    assert [one.get("run_id") for one in repeated] == [one.get("run_id") for one in results]
    assert all(one["repeat"] for one in repeated if one["status"] == 202)
    assert ledger.stats().accepted == 247
    lines[0], lines[1] = lines[1], lines[0]
    changed = http.post(f"{RUNS}/bulk", content="\n".join(lines).encode(), headers={"Idempotency-Key": "b"})
    first = json.loads(changed.text.splitlines()[0])
    assert (first["status"], first["error"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert ledger.stats().accepted == 247


def test_results_come_while_lines_are_still_sent(
    gateway: GatewayProcess, sample_requests: list[dict[str, Any]]
) -> None:
    import socket  # noqa: PLC0415 - half of a request is no business of an HTTP client

    line = json.dumps(sample_requests[0]).encode() + b"\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        head = f"POST {RUNS}/bulk HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        got = b""
        for number in (1, 2, 3):
            connection.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            while f'"line": {number}'.encode() not in got:
                data = connection.recv(65_536)
                assert data
                got += data
        connection.sendall(b"0\r\n\r\n")
        while not got.endswith(b"0\r\n\r\n"):
            got += connection.recv(65_536)


def test_too_much_for_one_request_is_told_where_it_stops(
    start_gateway: StartGateway, ledger: JobLedger
) -> None:
    gateway = start_gateway(max_bulk_lines=5, max_body_bytes=1_024, max_bulk_bytes=20_000)
    line = json.dumps({"mode": "x"})
    with gateway.client() as http:
        answer = http.post(f"{RUNS}/bulk", content="\n".join([line] * 9).encode())
        results = [json.loads(one) for one in answer.text.splitlines()]
        assert [one["status"] for one in results] == [202] * 5 + [413]
        assert results[-1]["stopped"] is True
        long = json.dumps({"mode": "x", "meta": {"a": "x" * 2_000}})
        answer = http.post(f"{RUNS}/bulk", content=f"{line}\n{long}\n{line}".encode())
        assert [json.loads(one)["status"] for one in answer.text.splitlines()] == [202, 413, 202]
        assert http.post(f"{RUNS}/bulk", content=b"x" * 30_000).status_code == 413
    assert ledger.stats().accepted == 7


def test_a_broker_that_is_away_is_told_and_repeating_is_safe(
    start_gateway: StartGateway, runs_client: RunsClient, sample_requests: list[dict[str, Any]]
) -> None:
    gateway = start_gateway(broker_url="redis://127.0.0.1:1/0")
    with gateway.client() as http:
        answer = http.post(RUNS, json=sample_requests[0], headers={"Prefer": "wait=5"})
        assert (answer.status_code, error(answer)["error"]) == (503, "BROKER_UNAVAILABLE")
        assert answer.headers["Retry-After"]
        bulk = http.post(f"{RUNS}/bulk", content="\n".join(map(json.dumps, sample_requests[:3])).encode())
        results = [json.loads(one) for one in bulk.text.splitlines()]
        # The third line lacks its end, so it was not looked at when the second failed.
        assert [(one["line"], one["status"]) for one in results] == [(1, 503), (2, 503), (3, 503)]
        assert results[-1]["stopped"] is True
        assert http.get("/readyz").json() == {
            "ready": False,
            "store": "ok",
            "broker": "BROKER_UNAVAILABLE",
        }
        answer = http.get(f"{RUNS}/status")
        assert (answer.status_code, error(answer)["error"]) == (503, "BROKER_UNAVAILABLE")
    assert runs_client.ledger.stats().accepted == 0


# Attachments


def test_an_attachment_is_served_only_through_a_run_that_names_it(
    http: httpx.Client, start_worker: StartWorker
) -> None:
    start_worker()
    content = b"G21\n" * 100_000
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    put = http.post(
        f"{RUNS}/attachments",
        params={"suffix": ".nc"},
        content=content,
        headers={"Content-Digest": f"sha-256=:{digest}:"},
    )
    assert put.status_code == 201
    key = put.json()["key"]
    body = {"mode": "x", "outputs": {"gcode_path": key}}
    naming = http.post(RUNS, json=body, headers={"Prefer": "wait=20"})
    assert naming.status_code == 201
    other = http.post(RUNS, json={"mode": "x"}, headers={"Prefer": "wait=20"}).json()
    name = key.rpartition("/")[2]
    got = http.get(f"{RUNS}/{naming.json()['run_id']}/attachments/{name}")
    assert (got.status_code, got.content) == (200, content)
    refused = http.get(f"{RUNS}/{other['run_id']}/attachments/{name}")
    assert (refused.status_code, error(refused)["error"]) == (404, "ATTACHMENT_NOT_FOUND")
    lie = http.post(
        f"{RUNS}/attachments", content=b"other", headers={"Content-Digest": f"sha-256=:{digest}:"}
    )
    assert lie.status_code == 400
