"""The daily time stamp, from a seal to the token in the store, by a real worker and a real authority."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.client import RunsClient
from rmos_shared.auditlog.layout import TIMESTAMPS, checkpoint_key, timestamp_key
from rmos_shared.auditlog.note import Note
from rmos_shared.auditlog.timestamp import certificates, proven_token, stamp_query
from rmos_shared.ids import timestamp_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import TIMESTAMP
from rmos_worker.timestamps.schedule import timestamp_job
from support.command import piped
from support.http_server import Call, HttpServer, answer, breaks_off
from support.tsa import Authority
from support.worker import StartWorker

Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture
def seal_soon(
    start_worker: StartWorker, runs_client: RunsClient, sample_requests: list[Any]
) -> Callable[..., Any]:
    """Start a worker that asks for time stamps, and give it something to seal."""

    def begin(**settings: object) -> Any:
        worker = start_worker("threads", 4, audit_seal_seconds=0.5, **settings)
        runs_client.create_run({**sample_requests[0], "request_id": "req-1"})
        return worker

    return begin


def stamps(ledger: JobLedger) -> list[Any]:
    return [record for record in ledger.jobs() if record.task == TIMESTAMP.name]


def replies(authority: Authority) -> Callable[[Call], None]:
    return lambda call: answer(200, authority.reply(call.body))(call)


def test_the_newest_checkpoint_is_stamped_once_a_day(
    *,
    authority: Authority,
    seal_soon: Callable[..., Any],
    ledger: JobLedger,
    runs_dir: Path,
    eventually: Eventually,
) -> None:
    with HttpServer(replies(authority)) as server:
        seal_soon(tsa_url=server.url, tsa_cert_file=authority.ca)
        eventually(lambda: [one.state for one in stamps(ledger)] == [JobState.DONE])
        (record,) = stamps(ledger)
        assert record.job_id == timestamp_job_id(datetime.now(UTC).date())
        assert record.result
        assert record.result["outcome"] == "created"
        store = LocalStore(runs_dir)
        (key,) = store.list(TIMESTAMPS)
        assert key == timestamp_key(record.result["size"])
        text = Note.parse(store.get(checkpoint_key(record.result["size"])) or b"").text.encode()
        roots = certificates(authority.ca.read_bytes(), name="ca")
        assert abs(datetime.now(UTC) - proven_token(store.get(key) or b"", text, roots)).total_seconds() < 120
        # Who accepts the day's job once more accepts nothing, and its authority was asked once.
        ledger.accept([timestamp_job(datetime.now(UTC).date())])
        assert len(stamps(ledger)) == 1
        assert len(server.calls) == 1


def test_an_authority_that_is_down_is_asked_again_until_it_answers(
    *,
    authority: Authority,
    seal_soon: Callable[..., Any],
    ledger: JobLedger,
    runs_dir: Path,
    eventually: Eventually,
) -> None:
    acts = (answer(503), breaks_off(), answer(200, b"<html>no token</html>"), replies(authority))
    with HttpServer(*acts) as server:
        seal_soon(tsa_url=server.url, retry_base_seconds=0.05, retry_cap_seconds=0.2)
        eventually(lambda: [one.state for one in stamps(ledger)] == [JobState.DONE])
    assert len(server.calls) == 4
    (record,) = stamps(ledger)
    assert record.retry_count == 3
    assert len(list(LocalStore(runs_dir).list(TIMESTAMPS))) == 1


def test_a_refusal_or_a_foreign_token_is_a_dead_letter_that_can_be_replayed(
    *,
    authority: Authority,
    seal_soon: Callable[..., Any],
    ledger: JobLedger,
    runs_dir: Path,
    eventually: Eventually,
    broker_url: str,
    tmp_path: Path,
) -> None:
    foreign = authority.reply(stamp_query(b"another text\n").der)
    with HttpServer(answer(200, foreign), replies(authority)) as server:
        seal_soon(tsa_url=server.url)
        eventually(lambda: [one.state for one in stamps(ledger)] == [JobState.DEAD])
        (record,) = stamps(ledger)
        assert (record.failure.reason, record.failure.error_type) == ("timestamp_refused", "TimestampRefused")
        assert list(LocalStore(runs_dir).list(TIMESTAMPS)) == []
        done = piped(
            *("dlq", "replay", record.job_id, "--why", "the proxy is gone"),
            home=tmp_path,
            RMOS_BROKER_URL=broker_url,
            RMOS_RUNS_DIR=str(runs_dir),
        )
        assert done.returncode == 0, done.stderr
        eventually(lambda: [one.state for one in stamps(ledger)] == [JobState.DONE])
    assert len(list(LocalStore(runs_dir).list(TIMESTAMPS))) == 1


def test_without_an_address_nobody_is_asked(
    *, seal_soon: Callable[..., Any], ledger: JobLedger, runs_dir: Path, eventually: Eventually
) -> None:
    seal_soon()
    eventually(lambda: ledger.unsealed.state().checkpoint is not None)
    ledger.accept([timestamp_job(datetime.now(UTC).date())])
    eventually(lambda: [one.state for one in stamps(ledger)] == [JobState.DONE])
    assert stamps(ledger)[0].result["outcome"] == "no RMOS_TSA_URL"
    assert list(LocalStore(runs_dir).list(TIMESTAMPS)) == []
