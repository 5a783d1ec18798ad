"""The client on a real server: what a receipt means, and what is left when something breaks."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis

from rmos_runs import AsyncRunsClient, Receipt, RunsClient
from rmos_shared.errors import (
    BrokerUnavailable,
    InvalidRequest,
    JobNotFound,
    RmosError,
    SettingsInvalid,
    WaitTimeout,
)
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import DeadReason, Failure, Job, JobState
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.runs.model import RunRequest
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.tasks.payloads import CreateRun, SuggestAndAttach
from rmos_shared.tasks.table import ATTACH, CREATE, CREATE_MANY, QUEUES, SUGGEST
from support.embedded_server import EmbeddedServer

SECRET = "hunter2"
REQUEST: dict[str, Any] = {
    "mode": "router",
    "tool_id": "router:endmill_0p8mm",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN"},
    "decision": {"risk_level": "GREEN"},
}
ENDED = Failure(reason=DeadReason.CONFLICT.value, error_type="ArtifactConflict", message="taken")
Connect = Callable[..., RunsClient]


class Proxy:
    """Passes bytes between clients and the server, and loses the answers it is told to lose."""

    def __init__(self, url: str) -> None:
        self._server = ("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        #: How many answers to an acceptance are still to be lost.
        self.losing = 0
        #: What each connection carried, by its number.
        self.carried: list[bytearray] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._listen)

    def close(self) -> None:
        # Each thread closes what it reads from; a socket closed under its select would be an error.
        while self._threads:
            for opened in [self._listening, *self._open]:
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
            self._threads.pop().join(timeout=15)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def connections_that_carried(self, word: bytes) -> list[int]:
        return [number for number, data in enumerate(self.carried) if word in data]

    def _listen(self) -> None:
        with self._listening, suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    raise
                self._open += [client, server]
                self.carried.append(bytearray())
                self._start(self._pass, client, server, self.carried[-1])

    def _pass(self, client: socket.socket, server: socket.socket, carried: bytearray) -> None:
        accepting = False
        with client, server, suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 20)
                    if not data:
                        return
                    if source is client:
                        carried += data
                        accepting = b"\r\naccept\r\n" in data
                        server.sendall(data)
                    elif accepting and self.losing and not data.startswith(b"-"):
                        self.losing -= 1  # the server has done it, and nobody will hear
                        return
                    else:
                        client.sendall(data)


@pytest.fixture
def connect(broker_url: str) -> Iterator[Connect]:
    """Connect clients; keywords are settings, such as ``accept_batch_jobs=10``."""
    clients: list[RunsClient] = []

    def make(**settings: Any) -> RunsClient:
        clients.append(RunsClient.connect(ProducerSettings.load(**{"broker_url": broker_url, **settings})))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def proxy(broker_url: str, ledger: JobLedger) -> Iterator[Proxy]:
    ledger.stats()  # the server knows the script from here on, so that one call is one round trip
    passing = Proxy(broker_url)
    yield passing
    passing.close()


def notifications(ledger: JobLedger, queue: str) -> list[dict[str, Any]]:
    """Take all notifications of a queue, oldest first; return them with their bodies decoded."""
    messages = []
    while taken := ledger.queues.take(queue):
        message = json.loads(taken.notification or b"")
        message["body"] = json.loads(message["body"])
        messages.append(message)
    return messages


def ids_in(ledger: JobLedger, queue: str) -> list[list[str]]:
    return [message["body"][0][0] for message in notifications(ledger, queue)]


def end(ledger: JobLedger, job_id: str, *, dead: bool = False, following: tuple[Any, ...] = ()) -> None:
    lease = Lease("test", job_id)
    assert ledger.work.claim([job_id], lease, lease_seconds=60).claimed
    if dead:
        assert ledger.work.bury(job_id, lease, failure=ENDED) == "dead"
    else:
        finish = Finish(job_id, {"outcome": "created"}, following)
        assert ledger.work.finish([finish], lease, ttl_seconds=60) == {job_id: "done"}


def elapsed(call: Callable[[], object], raises: type[RmosError]) -> float:
    started = time.monotonic()
    with pytest.raises(raises):
        call()
    return time.monotonic() - started


# -- one run --------------------------------------------------------------------------------------


def test_a_receipt_means_that_the_job_is_in_the_ledger(runs_client: RunsClient, ledger: JobLedger) -> None:
    receipt = runs_client.create_run({**REQUEST, "request_id": "req-1"})
    record = ledger.get(receipt.job_id)
    assert (record.task, record.queue, record.state) == (CREATE.name, CREATE.queue, JobState.ACCEPTED)
    assert (record.run_id, record.request_id) == (receipt.run_id, "req-1")
    stored = CreateRun.read(json.loads(ledger.dead_letters.payload(receipt.job_id) or b""))
    assert stored.run.run_id == receipt.run_id
    assert stored.run.feasibility == REQUEST["feasibility"]
    assert stored.explain is None
    assert ids_in(ledger, CREATE.queue) == [[receipt.job_id]]
    assert runs_client.job(receipt.job_id) == record
    assert receipt.missing == ()


@pytest.mark.parametrize("make", [dict, MappingProxyType, RunRequest.read], ids=["dict", "mapping", "model"])
def test_a_request_may_be_a_mapping_or_the_model(runs_client: RunsClient, make: Callable[[Any], Any]) -> None:
    run_id = new_uuid7()
    assert runs_client.create_run(make({**REQUEST, "run_id": run_id})).run_id == run_id


def test_an_incomplete_request_is_accepted_and_says_what_it_lacks(
    runs_client: RunsClient, ledger: JobLedger
) -> None:
    receipt = runs_client.create_run({"mode": "saw"})
    assert receipt.missing == ("tool_id", "status", "feasibility", "decision.risk_level")
    assert ledger.stats().accepted == 1


@pytest.mark.parametrize(
    "request_",
    [
        {**REQUEST, "mode": ""},
        {**REQUEST, "surprise": SECRET},
        {**REQUEST, "meta": {"a": float("nan")}},
        {"meta": {"a": SECRET}},
        None,
        [("mode", SECRET)],
    ],
    ids=["blank", "unknown", "nan", "unidentified", "none", "pairs"],
)
def test_a_wrong_request_leaves_nothing_behind(
    runs_client: RunsClient, ledger: JobLedger, redis_client: redis.Redis, request_: Any
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        runs_client.create_run(request_)
    assert SECRET not in str(caught.value)
    assert ledger.stats().accepted == 0
    assert redis_client.keys() == []


def test_a_payload_may_be_exactly_as_large_as_the_limit(connect: Connect, ledger: JobLedger) -> None:
    request = {**REQUEST, "run_id": new_uuid7()}
    run = RunRequest.read({**request, "meta": {"pad": ""}})
    size = len(CreateRun.read({"run": run, "explain": None}).to_json())

    def padded(total: int) -> dict[str, Any]:
        # Letters of two bytes and one of one.
        room = total - size
        return {**request, "meta": {"pad": "é" * (room // 2) + "e" * (room % 2)}}

    client = connect(max_payload_bytes=2_001)
    client.create_run(padded(2_001))
    with pytest.raises(InvalidRequest, match="is 2002 bytes; RMOS_MAX_PAYLOAD_BYTES allows 2001"):
        client.create_run(padded(2_002))
    with pytest.raises(InvalidRequest, match="invalid request 1: request: is 2002 bytes"):
        list(client.create_runs([REQUEST, padded(2_002)]))
    assert ledger.stats().accepted == 1


def test_messages_hold_ids_and_nothing_of_the_payload(runs_client: RunsClient, ledger: JobLedger) -> None:
    secret = {
        **REQUEST,
        "mode": SECRET,
        "tool_id": SECRET,
        "request_id": "req-1",
        "meta": {SECRET: SECRET},
        "outputs": {"gcode_text": SECRET},
    }
    receipt = runs_client.create_run(secret, explain=True)
    list(runs_client.create_runs([secret] * 3))
    runs_client.suggest_and_attach(receipt.run_id, request_id="req-1")
    runs_client.attach_advisory(receipt.run_id, SECRET, request_id="req-1")
    seen = 0
    for queue in QUEUES:
        for message in notifications(ledger, queue):
            seen += 1
            told = json.dumps(message)
            assert SECRET not in told
            # What operators look for in Flower (U7).
            assert "request req-1" in message["headers"]["argsrepr"]
            (job_ids,), keywords, _ = message["body"]
            assert keywords == {}
            assert all(runs_client.job(job_id) for job_id in job_ids)
    assert seen == 4


def test_a_notification_that_is_lost_costs_no_job(runs_client: RunsClient, ledger: JobLedger) -> None:
    receipt = runs_client.create_run(REQUEST)
    assert ledger.queues.take(CREATE.queue)
    assert ledger.get(receipt.job_id).state is JobState.ACCEPTED
    time.sleep(0.01)
    assert ledger.queues.reconcile(batch=10, grace_seconds=0, max_crashes=3).ready == 1
    assert ledger.stats().invariant


# -- following jobs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("explain", "detail"), [(False, None), (True, "summary"), ("summary", "summary"), ("full", "full")]
)
def test_the_explanation_job_is_known_from_the_start(
    runs_client: RunsClient, ledger: JobLedger, explain: Any, detail: str | None
) -> None:
    for receipt in (
        runs_client.create_run(REQUEST, explain=explain),
        *runs_client.create_runs([REQUEST], explain=explain),
    ):
        assert receipt.explain_job_id == (None if detail is None else f"{receipt.job_id}.explain")
        assert json.loads(ledger.dead_letters.payload(receipt.job_id) or b"")["explain"] == detail
    assert ledger.stats().accepted == 2


def test_an_unknown_detail_is_refused(runs_client: RunsClient, ledger: JobLedger) -> None:
    explain: Any = "loudly"
    with pytest.raises(InvalidRequest, match="explain"):
        runs_client.create_run(REQUEST, explain=explain)
    with pytest.raises(InvalidRequest, match="detail"):
        runs_client.suggest_and_attach(new_uuid7(), detail=explain)
    assert ledger.stats().accepted == 0


def test_jobs_for_existing_runs(runs_client: RunsClient, ledger: JobLedger) -> None:
    run_id = new_uuid7()
    suggest = runs_client.suggest_and_attach(run_id, detail="full", request_id="req-1")
    attach = runs_client.attach_advisory("run_abc123def456", "adv-1", kind="note")
    assert json.loads(ledger.dead_letters.payload(suggest.job_id) or b"") == {
        "run_id": run_id,
        "request_id": "req-1",
        "detail": "full",
    }
    assert json.loads(ledger.dead_letters.payload(attach.job_id) or b"") == {
        "run_id": "run_abc123def456",
        "advisory_id": "adv-1",
        "kind": "note",
        "request_id": None,
    }
    assert [ledger.get(receipt.job_id).task for receipt in (suggest, attach)] == [SUGGEST.name, ATTACH.name]
    assert ids_in(ledger, SUGGEST.queue) == [[suggest.job_id], [attach.job_id]]


@pytest.mark.parametrize(
    "bad", ["../etc/passwd", "a/b", "a\\b", "a\0", "%2e%2e", "", "a_advisory_b", "a\ud800"]
)
def test_no_id_that_could_leave_the_store_is_enqueued(
    runs_client: RunsClient, ledger: JobLedger, bad: str
) -> None:
    for call in (
        lambda: runs_client.suggest_and_attach(bad),
        lambda: runs_client.attach_advisory(bad, "adv-1"),
        lambda: runs_client.attach_advisory("run-1", bad),
        lambda: runs_client.create_run({**REQUEST, "run_id": bad}),
    ):
        with pytest.raises(InvalidRequest, match="_id"):
            call()  # type: ignore[no-untyped-call]
    assert ledger.stats().accepted == 0


# -- many runs ------------------------------------------------------------------------------------


def counted(drawn: list[int], total: int, bad: int | None = None) -> Iterator[dict[str, Any]]:
    for index in range(total):
        drawn.append(index)
        yield {**REQUEST, "mode": "" if index == bad else f"mode-{index}"}


def test_a_stream_is_read_one_batch_ahead_of_what_is_accepted(connect: Connect, ledger: JobLedger) -> None:
    drawn: list[int] = []
    receipts = connect(accept_batch_jobs=10).create_runs(counted(drawn, 10**9))
    assert (len(drawn), ledger.stats().accepted) == (0, 0)
    kept = [next(receipts)]
    assert (len(drawn), ledger.stats().accepted) == (20, 10)
    kept += [next(receipts) for _ in range(9)]
    assert (len(drawn), ledger.stats().accepted) == (20, 10)
    kept.append(next(receipts))
    assert (len(drawn), ledger.stats().accepted) == (30, 20)
    # In order, each a job of its own; only the notification is shared.
    modes = [
        json.loads(ledger.dead_letters.payload(receipt.job_id) or b"")["run"]["mode"] for receipt in kept
    ]
    assert modes == [f"mode-{index}" for index in range(11)]
    (shared,) = ids_in(ledger, CREATE_MANY.queue)
    assert len(shared) == 20
    assert shared[:10] == [receipt.job_id for receipt in kept[:10]]


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 250])
def test_every_run_of_a_stream_has_its_receipt(connect: Connect, ledger: JobLedger, total: int) -> None:
    receipts = list(connect(accept_batch_jobs=10).create_runs(counted([], total), explain=True))
    assert (
        len({receipt.job_id for receipt in receipts})
        == len({receipt.run_id for receipt in receipts})
        == total
    )
    assert all(receipt.explain_job_id for receipt in receipts)
    stats = ledger.stats()
    assert (stats.accepted, stats.ready) == (total, total)


@pytest.mark.parametrize(("bad", "accepted"), [(0, 0), (9, 0), (10, 10), (25, 20)])
def test_a_wrong_request_in_a_stream_is_named_and_its_batch_is_not_enqueued(
    connect: Connect, ledger: JobLedger, bad: int, accepted: int
) -> None:
    told: list[Receipt] = []

    def consume() -> None:
        for receipt in connect(accept_batch_jobs=10).create_runs(counted([], 40, bad)):
            told.append(receipt)  # noqa: PERF402 - what a caller has in hand when it breaks

    with pytest.raises(InvalidRequest, match=rf"^invalid request {bad}: mode: must not be blank$"):
        consume()
    assert len(told) == accepted
    assert all(ledger.get(receipt.job_id) for receipt in told)
    assert ledger.stats().accepted == accepted
    assert sum(map(len, ids_in(ledger, CREATE_MANY.queue))) == accepted


def test_a_source_that_fails_passes_its_error_on(connect: Connect, ledger: JobLedger) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from counted([], 15)
        raise OSError(SECRET)

    receipts: list[Receipt] = []

    def consume() -> None:
        for receipt in connect(accept_batch_jobs=10).create_runs(source()):
            receipts.append(receipt)  # noqa: PERF402 - as above

    with pytest.raises(OSError, match=SECRET):
        consume()
    assert len(receipts) == ledger.stats().accepted == 10


# -- waiting --------------------------------------------------------------------------------------


def test_waiting_ends_with_the_job(runs_client: RunsClient, ledger: JobLedger) -> None:
    receipt = runs_client.create_run(REQUEST)
    later = threading.Timer(0.3, end, (ledger, receipt.job_id))
    later.start()
    record = runs_client.wait(receipt.job_id, 30)
    later.join()
    assert record.state is JobState.DONE
    assert record.result == {"outcome": "created"}


@pytest.mark.parametrize("timeout", [0.3, 0.0, -1.0])
def test_waiting_has_a_limit_and_the_job_goes_on(
    runs_client: RunsClient, ledger: JobLedger, timeout: float
) -> None:
    receipt = runs_client.create_run(REQUEST)
    assert (
        max(timeout, 0)
        <= elapsed(lambda: runs_client.wait(receipt.job_id, timeout), WaitTimeout)
        < timeout + 2
    )
    assert ledger.get(receipt.job_id).state is JobState.ACCEPTED
    end(ledger, receipt.job_id)
    assert runs_client.wait(receipt.job_id, timeout).state is JobState.DONE


@pytest.mark.parametrize("state", ["dead", "discarded"])
def test_waiting_for_an_explanation_ends_when_its_run_will_not_come(
    runs_client: RunsClient, ledger: JobLedger, state: str
) -> None:
    receipt = runs_client.create_run(REQUEST, explain=True)
    assert receipt.explain_job_id is not None
    assert elapsed(lambda: runs_client.wait(receipt.explain_job_id or "", 0.05), WaitTimeout) < 2
    end(ledger, receipt.job_id, dead=True)
    if state == "discarded":
        ledger.dead_letters.discard(receipt.job_id, by="operator", why="test")
    record = runs_client.wait(receipt.explain_job_id, 30)
    assert (record.job_id, record.state.value) == (receipt.job_id, state)
    assert record.failure == ENDED


def test_waiting_for_an_explanation_goes_on_from_the_run_to_its_follower(
    runs_client: RunsClient, ledger: JobLedger
) -> None:
    receipt = runs_client.create_run(REQUEST, explain=True)
    assert receipt.explain_job_id is not None
    payload = SuggestAndAttach(run_id=receipt.run_id).to_bytes().decode()
    follower = Job(
        job_id=receipt.explain_job_id,
        task=SUGGEST.name,
        run_id=receipt.run_id,
        request_id=None,
        payload=payload,
    )
    end(ledger, receipt.job_id, following=(follower,))
    assert elapsed(lambda: runs_client.wait(receipt.explain_job_id or "", 0.05), WaitTimeout) < 2
    end(ledger, receipt.explain_job_id)
    assert runs_client.wait(receipt.explain_job_id, 30).job_id == receipt.explain_job_id


def test_an_explanation_nobody_asked_for_is_not_waited_for(
    runs_client: RunsClient, ledger: JobLedger
) -> None:
    receipt = runs_client.create_run(REQUEST)
    end(ledger, receipt.job_id)
    with pytest.raises(JobNotFound, match=r"\.explain"):
        runs_client.wait(f"{receipt.job_id}.explain", 30)


@pytest.mark.parametrize(
    "job_id", ["nope", "", "..", "nope.explain", "a\nb", "0198629cbc007abc8def0123456789ab"]
)
def test_an_unknown_job_is_told_at_once(runs_client: RunsClient, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        runs_client.job(job_id)
    assert elapsed(lambda: runs_client.wait(job_id, 30), JobNotFound) < 5


# -- a broker in trouble --------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def every_call(client: RunsClient) -> list[Callable[[], object]]:
    return [
        lambda: client.create_run(REQUEST),
        lambda: list(client.create_runs([REQUEST])),
        lambda: client.suggest_and_attach(new_uuid7()),
        lambda: client.attach_advisory(new_uuid7(), "adv-1"),
        lambda: client.job(new_uuid7()),
        lambda: client.wait(new_uuid7(), 60),
    ]


def test_a_broker_that_is_down_is_told_within_the_time_out(connect: Connect) -> None:
    client = connect(broker_url=f"redis://:{SECRET}@127.0.0.1:{closed_port()}/0", broker_timeout_seconds=1)
    for call in every_call(client):
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            call()
        assert time.monotonic() - started < 1.5
        assert SECRET not in str(caught.value)


@pytest.fixture
def mute_url() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def test_a_broker_that_never_answers_is_told_at_last(connect: Connect, mute_url: str) -> None:
    client = connect(broker_url=mute_url, broker_timeout_seconds=0.2)
    for call in every_call(client):
        assert elapsed(call, BrokerUnavailable) < 3


def test_a_broker_that_never_answers_is_told_within_the_time_out(connect: Connect, mute_url: str) -> None:
    client = connect(broker_url=mute_url, broker_timeout_seconds=2)
    assert elapsed(lambda: client.create_run(REQUEST), BrokerUnavailable) < 3


def test_an_acceptance_whose_answer_is_lost_is_made_once(
    connect: Connect, proxy: Proxy, ledger: JobLedger
) -> None:
    proxy.losing = 1
    receipt = connect(broker_url=proxy.url).create_run(REQUEST)
    assert proxy.losing == 0
    assert ledger.stats().accepted == 1
    assert ledger.get(receipt.job_id).state is JobState.ACCEPTED


def test_an_acceptance_whose_answers_are_all_lost_is_made_once_and_told_as_unsure(
    connect: Connect, proxy: Proxy, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    proxy.losing = 1_000
    run_id = new_uuid7()
    with pytest.raises(BrokerUnavailable, match="repeat the call with the same ids: that is safe"):
        connect(broker_url=proxy.url).create_run({**REQUEST, "run_id": run_id})
    assert proxy.losing <= 998  # it was tried again, and the repeat was known as one
    stats = ledger.stats()
    assert (stats.accepted, stats.ready) == (1, 1)
    (record,) = ledger.jobs()
    assert record.run_id == run_id
    # It is in line once, from the very step that accepted it.
    assert redis_client.llen(CREATE.queue) == 1


def test_of_a_batch_whose_answer_is_lost_all_or_nothing_is_accepted(
    connect: Connect, proxy: Proxy, ledger: JobLedger
) -> None:
    proxy.losing = 1
    receipts = list(connect(broker_url=proxy.url, accept_batch_jobs=25).create_runs(counted([], 100)))
    assert len(receipts) == ledger.stats().accepted == 100


def test_a_client_outlives_a_restart_of_the_broker(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, RunsClient.connect(broker_url=server.url) as client:
        first = client.create_run(REQUEST)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            client.create_run(REQUEST)
        server.start()
        second = client.create_run(REQUEST)
        assert client.ledger.stats().accepted == 2
        assert {client.job(receipt.job_id).state for receipt in (first, second)} == {JobState.ACCEPTED}


@pytest.mark.parametrize("url", ["", "nonsense", "http://h/0", "redis://h:port/0"])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_BROKER_URL"):
        RunsClient.connect(broker_url=url)


# -- the append-only file -------------------------------------------------------------------------


def test_without_being_asked_the_client_does_not_wait_for_the_file(connect: Connect, proxy: Proxy) -> None:
    connect(broker_url=proxy.url).create_run(REQUEST)
    assert proxy.connections_that_carried(b"WAITAOF") == []


def test_with_everysec_a_caller_may_wait_for_the_append_only_file(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, config={"appendfsync": "everysec"}) as server:
        passing = Proxy(server.url)
        settings = ProducerSettings.load(broker_url=passing.url, accept_waits_for_aof=True)
        with RunsClient.connect(settings) as client:
            receipts = [client.create_run(REQUEST), *client.create_runs([REQUEST] * 3)]
            assert len({client.job(receipt.job_id).job_id for receipt in receipts}) == 4
            # The wait is on the connection that wrote, for a server waits for what that one wrote.
            wrote = passing.connections_that_carried(b"\r\naccept\r\n")
            assert passing.connections_that_carried(b"WAITAOF") == wrote
            for number in wrote:
                carried = bytes(passing.carried[number])
                assert carried.count(b"WAITAOF") == 2
                assert carried.index(b"\r\naccept\r\n") < carried.index(b"WAITAOF")
        passing.close()


def test_the_wait_is_on_the_connection_that_wrote_whatever_other_threads_do(
    proxy: Proxy, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(broker_url=proxy.url, accept_waits_for_aof=True)
    accept, pool = client.ledger.accept, client.ledger._client.connection_pool
    taken = []

    def and_another_thread_takes_the_connection(jobs: Any, **options: Any) -> Any:
        outcomes = accept(jobs, **options)
        taken.append(pool.get_connection())
        return outcomes

    monkeypatch.setattr(client.ledger, "accept", and_another_thread_takes_the_connection)
    client.create_run(REQUEST)
    for connection in taken:
        pool.release(connection)
    wrote = proxy.connections_that_carried(b"\r\naccept\r\n")
    assert proxy.connections_that_carried(b"WAITAOF") == wrote


def test_without_an_append_only_file_waiting_for_it_fails_clearly(tmp_path: Path) -> None:
    with (
        EmbeddedServer(tmp_path, config={"appendonly": "no"}) as server,
        RunsClient.connect(ProducerSettings.load(broker_url=server.url, accept_waits_for_aof=True)) as client,
    ):
        with pytest.raises(BrokerUnavailable, match="keeps no append-only file; turn it on"):
            client.create_run(REQUEST)
        # It is accepted all the same, and will be done: the caller was told that it is unsure.
        stats = client.ledger.stats()
        assert (stats.accepted, stats.pending) == (1, 1)


# -- asyncio --------------------------------------------------------------------------------------


ConnectAsync = Callable[..., AsyncRunsClient]


@pytest.fixture
def connect_async(broker_url: str) -> ConnectAsync:
    """Connect clients, each to be closed in its loop; keywords are settings."""
    return lambda **settings: AsyncRunsClient.connect(
        ProducerSettings.load(**{"broker_url": broker_url, **settings})
    )


async def longest_stall(work: Any) -> float:
    """Do the work, and return the longest time for which the event loop did nothing else."""
    worst, last, done = 0.0, time.monotonic(), False

    async def tick() -> None:
        nonlocal worst, last
        while not done:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            worst, last = max(worst, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    worst = 0.0
    try:
        await work
    finally:
        done = True
        await ticking
    return worst


async def collected(receipts: AsyncIterator[Receipt], into: list[Receipt]) -> None:
    async for receipt in receipts:
        into.append(receipt)  # noqa: PERF401 - what a caller has in hand when it breaks


async def drawn_slowly(requests: Iterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for request in requests:
        await asyncio.sleep(0)
        yield request


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
def test_streams_of_both_kinds_are_accepted_batch_by_batch(
    connect_async: ConnectAsync, ledger: JobLedger, *, plain: bool
) -> None:
    async def run() -> None:
        drawn: list[int] = []
        requests = counted(drawn, 35)
        source = requests if plain else drawn_slowly(requests)
        async with connect_async(accept_batch_jobs=10) as client:
            receipts: list[Receipt] = []
            async for receipt in client.create_runs(source, explain=True):
                receipts.append(receipt)
                # Never more than one batch ahead of what is accepted.
                assert len(drawn) <= ledger.stats().accepted
        assert len({receipt.job_id for receipt in receipts}) == ledger.stats().accepted == 35
        assert [r.explain_job_id for r in receipts] == [f"{r.job_id}.explain" for r in receipts]

    asyncio.run(run())


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
def test_an_error_in_a_stream_takes_no_receipt_with_it(
    connect_async: ConnectAsync, ledger: JobLedger, *, plain: bool
) -> None:
    async def run() -> list[Receipt]:
        requests = counted([], 40, 25)
        source = requests if plain else drawn_slowly(requests)
        receipts: list[Receipt] = []
        async with connect_async(accept_batch_jobs=10) as client:
            with pytest.raises(InvalidRequest, match=r"^invalid request 25: mode"):
                await collected(client.create_runs(source), receipts)
        return receipts

    receipts = asyncio.run(run())
    assert len(receipts) == ledger.stats().accepted == 20
    assert all(ledger.get(receipt.job_id) for receipt in receipts)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
def test_no_stream_blocks_the_event_loop(
    connect_async: ConnectAsync, redis_client: redis.Redis, *, plain: bool
) -> None:
    def slow_source() -> Iterator[dict[str, Any]]:
        for request in counted([], 3):
            if plain:
                time.sleep(0.5)
            yield request

    async def run() -> tuple[float, int]:
        receipts: list[Receipt] = []
        source = slow_source() if plain else drawn_slowly(slow_source())
        async with connect_async(accept_batch_jobs=2) as client:
            await client.create_run(REQUEST)
            # A broker that answers nobody for a while.
            redis_client.execute_command("CLIENT", "PAUSE", 500, "ALL")  # type: ignore[no-untyped-call]
            stall = await longest_stall(collected(client.create_runs(source), receipts))
        return stall, len(receipts)

    stall, accepted = asyncio.run(run())
    assert accepted == 3
    assert stall < 0.4


def test_every_call_of_the_async_client(connect_async: ConnectAsync, ledger: JobLedger) -> None:
    async def run() -> None:
        async with connect_async() as client:
            created = await client.create_run(REQUEST, explain="full")
            assert created.explain_job_id == f"{created.job_id}.explain"
            suggested = await client.suggest_and_attach(created.run_id, detail="full", request_id="r")
            attached = await client.attach_advisory(created.run_id, "adv-1", kind="note", request_id="r")
            for receipt, task in ((created, CREATE), (suggested, SUGGEST), (attached, ATTACH)):
                assert (await client.job(receipt.job_id)).task == task.name
            with pytest.raises(WaitTimeout):
                await client.wait(created.job_id, 0.05)
            end(ledger, created.job_id)
            assert (await client.wait(created.job_id, 30)).state is JobState.DONE
            with pytest.raises(InvalidRequest):
                await client.create_run({"mode": ""})
            with pytest.raises(JobNotFound):
                await client.job("nope")

    asyncio.run(run())


def test_waiting_does_not_block_the_event_loop(connect_async: ConnectAsync) -> None:
    async def run() -> float:
        async with connect_async() as client:
            receipt = await client.create_run(REQUEST)

            async def wait() -> None:
                with pytest.raises(WaitTimeout):
                    await client.wait(receipt.job_id, 1.0)

            return await longest_stall(wait())

    assert asyncio.run(run()) < 0.4


def test_a_broker_that_is_down_is_told_to_asyncio_too() -> None:
    async def run() -> None:
        async with AsyncRunsClient.connect(broker_url=f"redis://127.0.0.1:{closed_port()}/0") as client:
            with pytest.raises(BrokerUnavailable):
                await client.create_run(REQUEST)

    asyncio.run(run())


def every_async_call(client: AsyncRunsClient) -> list[Callable[[], Awaitable[object]]]:
    async def stream() -> None:
        await collected(client.create_runs([REQUEST]), [])

    return [
        lambda: client.create_run(REQUEST),
        stream,
        lambda: client.suggest_and_attach(new_uuid7()),
        lambda: client.attach_advisory(new_uuid7(), "adv-1"),
        lambda: client.job(new_uuid7()),
        lambda: client.wait(new_uuid7(), 60),
    ]


def test_a_broker_that_never_answers_is_told_to_asyncio_in_time(
    connect_async: ConnectAsync, mute_url: str
) -> None:
    async def run() -> None:
        # More calls at once than there are connections: those that wait for one have the same time.
        async with connect_async(broker_url=mute_url, broker_timeout_seconds=1) as client:
            started = time.monotonic()
            calls = [call() for _ in range(10) for call in every_async_call(client)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in ended} == {BrokerUnavailable}
            assert time.monotonic() - started < 2.5

    asyncio.run(run())


def test_asyncio_tries_a_cut_connection_again_and_accepts_once(
    connect_async: ConnectAsync, proxy: Proxy, ledger: JobLedger
) -> None:
    proxy.losing = 1

    async def run() -> Receipt:
        async with connect_async(broker_url=proxy.url) as client:
            return await client.create_run(REQUEST)

    receipt = asyncio.run(run())
    assert proxy.losing == 0
    assert ledger.stats().accepted == 1
    assert ledger.get(receipt.job_id).state is JobState.ACCEPTED


def test_asyncio_may_wait_for_the_append_only_file_too(tmp_path: Path) -> None:
    async def run(url: str) -> Receipt:
        settings = ProducerSettings.load(broker_url=url, accept_waits_for_aof=True)
        async with AsyncRunsClient.connect(settings) as client:
            return await client.create_run(REQUEST)

    with EmbeddedServer(tmp_path / "kept", config={"appendfsync": "everysec"}) as server:
        passing = Proxy(server.url)
        assert asyncio.run(run(passing.url)).job_id
        wrote = passing.connections_that_carried(b"\r\naccept\r\n")
        assert passing.connections_that_carried(b"WAITAOF") == wrote != []
        passing.close()
    with (
        EmbeddedServer(tmp_path / "forgetful", config={"appendonly": "no"}) as server,
        pytest.raises(BrokerUnavailable, match="keeps no append-only file; turn it on"),
    ):
        asyncio.run(run(server.url))


def looks(client: redis.Redis) -> int:
    """Return how often the server was asked for a job's record since its figures were reset."""
    return int(client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"])


def test_a_thousand_tasks_that_wait_hold_no_thread_and_keep_nobody_waiting(
    connect_async: ConnectAsync, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    async def run() -> None:
        async with connect_async(broker_timeout_seconds=30) as client:
            receipts = [receipt async for receipt in client.create_runs([REQUEST] * 1_000)]
            threads = threading.active_count()
            waiting = [asyncio.create_task(client.wait(receipt, 120)) for receipt in receipts]
            while looks(redis_client) < 1_000:  # noqa: ASYNC110 - until each has looked once
                await asyncio.sleep(0.01)
            assert threading.active_count() == threads
            # Few connections serve them all, and this test's own clients.
            assert redis_client.info("clients")["connected_clients"] < 40
            other = await client.create_run(REQUEST)
            assert (await client.job(other.job_id)).state is JobState.ACCEPTED
            # Nobody had to end for that.
            assert not any(task.done() for task in waiting)
            for receipt in receipts:
                await asyncio.to_thread(end, ledger, receipt.job_id)
            ended = await asyncio.gather(*waiting)
        assert {record.state for record in ended} == {JobState.DONE}
        assert [record.job_id for record in ended] == [receipt.job_id for receipt in receipts]

    redis_client.config_resetstat()
    asyncio.run(run())


@pytest.mark.parametrize("explain", [False, True])
def test_a_receipt_can_be_waited_for_by_itself(
    runs_client: RunsClient, ledger: JobLedger, *, explain: bool
) -> None:
    receipt = runs_client.create_run(REQUEST, explain=explain)
    assert receipt.last_job_id == (receipt.explain_job_id if explain else receipt.job_id)
    assert elapsed(lambda: runs_client.wait(receipt, 0.05), WaitTimeout) < 2
    end(ledger, receipt.job_id, dead=True)
    assert runs_client.wait(receipt, 30).state is JobState.DEAD
