"""The advisory store fails, over real sockets: what the client makes of it, and what becomes of the jobs."""

from __future__ import annotations

import re
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from rmos_runs.client import RunsClient
from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import AdvisoryMisconfigured, AdvisoryRefused, AdvisoryUnavailable, RmosError
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import ExplanationStatus
from rmos_worker.advisories.client import MAX_ANSWER_BYTES, AdvisoryClient
from rmos_worker.engine.retry import Bury, RetryLimits, Wait, decide
from support.breakers import NoBreaker
from support.http_server import Act, HttpServer, answer, breaks_off, drips, floods, hangs, stores
from support.proxy import Proxy, proxied
from support.runs import Runs
from support.worker import Worker

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HEAD = b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n"
LIMITS = RetryLimits(max_tries=8, base_seconds=2, cap_seconds=900, total_seconds=3_600)
#: One HTTP call, and one call of the client with its quick retries.
TIMEOUT_SECONDS, TOTAL_SECONDS = 0.5, 2.0
MB = 1_048_576
Eventually = Callable[..., None]


def asset() -> AdvisoryAsset:
    data = {"summary": "why"}
    return AdvisoryAsset(
        asset_id="a1",
        asset_type="analysis",
        created_at_utc=NOW,
        source="ai_analysis",
        provider="rmos",
        model="feasibility_explainer",
        prompt="why?",
        content_hash=canonical_sha256(data),
        suggestion_data=data,
        confidence=1,
        request_id="req-1",
    )


@pytest.fixture
def connect() -> Iterator[Callable[..., AdvisoryClient]]:
    with ExitStack() as opened:

        def make(url: str, *, tries: int = 2, **changes: float) -> AdvisoryClient:
            limits: dict[str, Any] = {
                "timeout_seconds": TIMEOUT_SECONDS,
                "total_seconds": TOTAL_SECONDS,
                **changes,
            }
            return opened.enter_context(
                closing(AdvisoryClient(url, tries=tries, breaker=NoBreaker(), **limits))
            )

        yield make


Connect = Callable[..., AdvisoryClient]

# -- what the client makes of it ------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What a store does to each call, and what must come of it."""

    act: Act
    raises: type[RmosError]
    says: str
    #: HTTP calls made; the client is allowed two.
    calls: int = 2
    retry_after_seconds: float | None = None


def in_a_minute() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)


def on_a_date(call: Any) -> None:
    answer(503, Retry_After=in_a_minute())(call)


ELSEWHERE = {"Location": "http://127.0.0.1:1/elsewhere"}
FAULTS = {
    # What may pass: the job waits, and pays with a try.
    "reset_before_the_answer": Fault(breaks_off(), AdvisoryUnavailable, "got no answer"),
    "reset_in_the_head": Fault(breaks_off(HEAD[:20]), AdvisoryUnavailable, "got no answer"),
    "reset_before_the_body": Fault(breaks_off(HEAD), AdvisoryUnavailable, "got no answer"),
    "reset_in_the_body": Fault(breaks_off(HEAD + b'{"ass'), AdvisoryUnavailable, "got no answer"),
    "hang_before_the_answer": Fault(hangs(), AdvisoryUnavailable, "got no answer"),
    "hang_in_the_body": Fault(hangs(HEAD + b'{"ass'), AdvisoryUnavailable, "no answer|in time"),
    "drip_in_the_head": Fault(
        drips(b"HTTP/1.1 201 Created\r\nX: ", b"x", each_seconds=0.2), AdvisoryUnavailable, "got no answer"
    ),
    "drip_in_the_body": Fault(
        drips(HEAD, b" ", each_seconds=0.2), AdvisoryUnavailable, "got no answer|did not end in time"
    ),
    "500": Fault(answer(500), AdvisoryUnavailable, "status 500", calls=1),
    "502": Fault(answer(502), AdvisoryUnavailable, "status 502"),
    "503": Fault(answer(503), AdvisoryUnavailable, "status 503"),
    "504": Fault(answer(504), AdvisoryUnavailable, "status 504"),
    "503_retry_after_a_date": Fault(
        on_a_date, AdvisoryUnavailable, "status 503", calls=1, retry_after_seconds=60
    ),
    "429": Fault(answer(429), AdvisoryUnavailable, "status 429"),
    "429_retry_after_seconds": Fault(
        answer(429, Retry_After="60"), AdvisoryUnavailable, "status 429", calls=1, retry_after_seconds=60
    ),
    "not_json": Fault(answer(201, b"<html>welcome</html>"), AdvisoryUnavailable, "is not JSON", calls=1),
    "not_http": Fault(
        drips(b"220 smtp ready\r\n", b"", each_seconds=9), AdvisoryUnavailable, "got no answer"
    ),
    "another_asset": Fault(answer(201, b'{"asset_id":"b"}'), AdvisoryUnavailable, "does not name", calls=1),
    "too_large": Fault(floods(100 * MB), AdvisoryUnavailable, "larger than", calls=1),
    # What an operator has to repair: it costs the job nothing.
    "401": Fault(answer(401), AdvisoryMisconfigured, "RMOS_ADVISORY_TOKEN", calls=1),
    "404": Fault(answer(404), AdvisoryMisconfigured, "RMOS_ADVISORY_URL", calls=1),
    "redirect": Fault(
        answer(307, b"", **ELSEWHERE), AdvisoryMisconfigured, "redirects are not followed", calls=1
    ),
    # What cannot pass: the job is dead at once, and says why.
    "400": Fault(answer(400), AdvisoryRefused, "found the request invalid", calls=1),
    "409_other_content": Fault(answer(409), AdvisoryRefused, "conflict", calls=1),
    "413": Fault(answer(413), AdvisoryRefused, "larger than it takes", calls=1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_on_the_wire_ends_in_time_and_in_the_right_error(name: str, connect: Connect) -> None:
    fault = FAULTS[name]
    with HttpServer(fault.act) as server:
        client = connect(server.url)
        began = time.monotonic()
        with pytest.raises(fault.raises, match=fault.says) as caught:
            client.save(asset())
        assert time.monotonic() - began < TOTAL_SECONDS + 1
    assert type(caught.value) is fault.raises
    assert len(server.calls) == fault.calls
    assert all(re.match(rb"PUT /api/advisory/assets/a1 HTTP/1.1\r\n", call.head) for call in server.calls)

    end = decide(caught.value, retry_count=0, waiting_seconds=0, limits=LIMITS, jitter=lambda low, _: low)
    if fault.raises is AdvisoryRefused:
        assert isinstance(end, Bury)
        assert end.failure.reason == "advisory_refused"
        return
    assert isinstance(end, Wait)
    assert end.spends_retry is (fault.raises is AdvisoryUnavailable)
    if fault.retry_after_seconds is not None:
        # A date counts from the moment that it is read.
        assert fault.retry_after_seconds - 3 < end.delay_seconds <= fault.retry_after_seconds


def test_a_refused_connection_may_pass(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unheard:
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
    with pytest.raises(AdvisoryUnavailable, match="ConnectError"):
        connect(url).save(asset())


def test_a_store_that_is_well_again_at_the_second_try_costs_the_job_nothing(connect: Connect) -> None:
    for name in ("reset_before_the_answer", "reset_in_the_body", "hang_before_the_answer", "502", "429"):
        with HttpServer(FAULTS[name].act, stores) as server:
            assert connect(server.url, total_seconds=5).save(asset()) is SaveOutcome.CREATED, name


def test_the_same_content_under_the_id_is_a_success(connect: Connect) -> None:
    body = asset().to_bytes()
    with HttpServer(answer(200, body)) as server:
        assert connect(server.url).save(asset()) is SaveOutcome.ALREADY_SAME


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_without_end_is_read_to_the_limit_and_no_further(*, connect: Connect, announced: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    act = floods(100 * MB) if announced else drips(head, b" " * 65_536, each_seconds=0)
    with HttpServer(act) as server:
        client = connect(server.url, timeout_seconds=10, total_seconds=10)
        tracemalloc.start()
        try:
            with pytest.raises(AdvisoryUnavailable, match=f"larger than {MAX_ANSWER_BYTES} bytes"):
                client.fetch("a1")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 6 * MB
    # What the kernel holds for both sides besides is bounded too; the rest was never sent.
    assert sum(call.sent_bytes for call in server.calls) < 30 * MB


# -- what becomes of the jobs ---------------------------------------------------------------------


class Store(Protocol):
    """The advisory store fixture, as far as these tests use it."""

    url: str
    advisory_dir: Path

    def faults(self, **switches: float) -> None: ...


@dataclass(frozen=True)
class Ill:
    """A way for the store to be ill, and well again."""

    falls: Callable[[Store, Proxy], object]
    heals: Callable[[Store, Proxy], object]


def falls_dumb(_: Store, line: Proxy) -> None:
    """It does each save, and tells nobody."""
    line.cut_before_answer(1_000, only=b'"asset_id"')  # head and body are sent apart


ILLS = {
    "hangs": Ill(lambda _, line: line.pause(600), lambda _, line: line.heal()),
    "resets_after_the_save": Ill(falls_dumb, lambda _, line: line.heal()),
    "refuses_connections": Ill(lambda _, line: line.refuse(600), lambda _, line: line.heal()),
    "503": Ill(lambda store, _: store.faults(error_rate=1), lambda store, _: store.faults()),
    "429": Ill(
        lambda store, _: store.faults(rate_429=1, retry_after_seconds=1),
        lambda store, _: store.faults(),
    ),
}
RUNS = 8


@pytest.fixture
def store(advisory_store: Callable[..., Store]) -> Store:
    return advisory_store()


@pytest.fixture
def line(store: Store) -> Iterator[Proxy]:
    """What lies between the worker and the store."""
    with proxied(store.url) as proxy:
        yield proxy


def test_jobs_wait_for_a_store_that_is_ill_and_finish_when_it_is_well(
    *,
    start_worker: Callable[..., Worker],
    store: Store,
    line: Proxy,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker = start_worker(
        "threads",
        4,
        advisory_url=f"http://127.0.0.1:{line.port}",
        advisory_timeout_seconds=0.3,
        advisory_total_seconds=1,
        advisory_tries=2,
        max_tries=100,
    )
    run_ids: list[str] = []
    for name, ill in ILLS.items():
        before = files(store)
        ill.falls(store, line)
        requests = [{**request, "run_id": new_uuid7()} for request in sample_requests[:RUNS]]
        receipts = [runs_client.create_run(request, explain=True) for request in requests]
        run_ids += [receipt.run_id for receipt in receipts]
        explanations = [receipt.explain_job_id or "" for receipt in receipts]

        def all_put_off(jobs: list[str] = explanations) -> bool:
            found = [ledger.find(job_id) for job_id in jobs]
            return all(record is not None and record.failure is not None for record in found)

        eventually(all_put_off, told=lambda: worker.log.read_text()[-2_000:])
        assert {ledger.get(receipt.job_id).state for receipt in receipts} == {"done"}, name
        assert ledger.stats().done == 2 * len(run_ids) - RUNS, name
        assert {ledger.get(job).failure.error_type for job in explanations} <= {  # type: ignore[union-attr]
            "AdvisoryUnavailable",
            "BreakerOpen",
        }, name
        assert run_log.reader.read(requests[0]["run_id"]).explanation_status is ExplanationStatus.PENDING, (
            name
        )
        if name == "resets_after_the_save":
            assert line.swallowed > 0
            assert files(store) > before, "done, and nobody knows"

        ill.heals(store, line)
        eventually(lambda: ledger.stats().pending == 0, told=lambda: worker.log.read_text()[-2_000:])
        stats = ledger.stats()
        assert (stats.done, stats.dead, stats.invariant) == (2 * len(run_ids), 0, True), name
        assert files(store) == len(run_ids), name
        assert [len(run_log.reader.links(run_id)) for run_id in run_ids] == [1] * len(run_ids), name
        assert worker.alive, name


def files(store: Store) -> int:
    return sum(1 for _ in store.advisory_dir.rglob("*/*.json"))


@pytest.mark.parametrize("status", [400, 409, 413])
def test_a_store_that_refuses_for_good_leaves_the_run_and_a_dead_letter_that_says_why(
    *,
    status: int,
    start_worker: Callable[..., Worker],
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    sample_requests: list[dict[str, Any]],
) -> None:
    with HttpServer(answer(status, b'{"error":"NO","message":"said-by-the-store"}')) as server:
        start_worker("threads", advisory_url=server.url, max_tries=100)
        receipt = runs_client.create_run(sample_requests[0], explain=True)
        record = runs_client.wait(receipt.explain_job_id or "", 20)
    assert (record.state, record.crash_count) == ("dead", 1)
    assert record.failure is not None
    assert (record.failure.reason, record.failure.error_type) == ("advisory_refused", "AdvisoryRefused")
    assert f"status {status}" in record.failure.message
    assert "said-by-the-store" not in record.model_dump_json()
    assert len(server.calls) == 1, "what cannot succeed is not tried again"
    run = run_log.reader.read(receipt.run_id)
    assert run.explanation_status is ExplanationStatus.ERROR
    assert "advisory_refused" in (run.explanation_summary or "")
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.dead, stats.invariant) == (2, 1, 1, True)
