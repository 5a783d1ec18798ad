"""Server-sent events over real uvicorn: every event once, a gap told, slow and many clients, a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.event_stream import JobEvents
from rmos_shared.jobs.events import EventState
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.tasks.table import CREATE, SUGGEST
from support import spawn

URL = "/api/rmos/runs/events"
Eventually = Callable[..., None]


class Server:
    """The app as a process."""

    def __init__(self, directory: Path, broker_url: str, limits: dict[str, float]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "uvicorn.log"
        program = [sys.executable, "-m", "uvicorn", "--port", str(port), "--factory"]
        with self.log.open("ab") as log:
            self.process = spawn.Popen[bytes](
                [*program, "support.event_app:create_app"],
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("RMOS_")},
                    "RMOS_BROKER_URL": broker_url,
                    "PYTHONPATH": str(Path(__file__).parents[1]),
                    "LIMITS": json.dumps(limits),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/openapi.json", trust_env=False)
                return
            time.sleep(0.05)
        pytest.fail(f"uvicorn did not start: {self.log.read_text()}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait(timeout=15)


@pytest.fixture
def serve(broker_url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    with ExitStack() as running:

        def start(**limits: float) -> Server:
            server = Server(tmp_path, broker_url, limits)
            running.callback(server.end)
            server.wait()
            return server

        yield start


class Told(NamedTuple):
    """One block of the stream."""

    type: str
    id: str
    data: Any
    comment: str


class Client:
    """What a browser's EventSource does, without its reconnecting."""

    def __init__(self, server: Server, after: str | None = None, **params: Any) -> None:
        headers = {} if after is None else {"Last-Event-ID": after}
        self._http = httpx.Client(trust_env=False, timeout=30)
        self.last_id = after
        request = self._http.build_request("GET", server.url + URL, headers=headers, params=params)
        self.response = self._http.send(request, stream=True)
        self._lines = self.response.iter_lines()

    def close(self) -> None:
        self.response.close()
        self._http.close()

    def blocks(self) -> Iterator[Told]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                fields[name or "comment"] = value
                continue
            if "id" in fields:
                self.last_id = fields["id"]
            data = json.loads(fields["data"]) if "data" in fields else None
            yield Told(fields.get("event", ""), fields.get("id", ""), data, fields.get("comment", ""))
            fields = {}

    def events(self, amount: int) -> list[Told]:
        found: list[Told] = []
        for told in self.blocks():
            if told.type:
                found.append(told)
            if len(found) == amount:
                break
        return found


def accept(ledger: JobLedger, amount: int = 1, task: str = CREATE.name) -> list[Job]:
    jobs = [Job(new_uuid7(), task, f"run{new_uuid7()}", "req", "{}") for _ in range(amount)]
    ledger.accept(jobs)
    return jobs


def test_a_client_hears_what_happens_from_when_it_came(
    serve: Callable[..., Server], ledger: JobLedger
) -> None:
    accept(ledger, 3)
    with closing(Client(serve())) as client:
        assert client.response.status_code == 200
        assert client.response.headers["content-type"].startswith("text/event-stream")
        assert client.response.headers["cache-control"] == "no-store"
        first = next(client.blocks())
        assert (first.comment, first.id) == ("connected", client.last_id)
        (job,) = accept(ledger)
        ledger.announce(EventState.REVIEWED, job.run_id)
        told, reviewed = client.events(2)
    assert told.type == "job"
    assert told.data.pop("at_utc").endswith("Z")
    assert told.data == {
        "job_id": job.job_id,
        "task": CREATE.name,
        "run_id": job.run_id,
        "request_id": "req",
        "state": "accepted",
    }
    assert reviewed.type == "run"
    assert (reviewed.data["run_id"], reviewed.data["state"]) == (job.run_id, "reviewed")


def test_a_client_that_comes_back_sees_every_event_once(
    serve: Callable[..., Server], ledger: JobLedger
) -> None:
    server = serve()
    with closing(Client(server)) as client:
        next(client.blocks())
        after = client.last_id
    jobs = []
    seen: list[Told] = []
    for size in (1, 30, 2, 60, 7):
        jobs += accept(ledger, size)
        with closing(Client(server, after)) as client:
            # Cut off in the middle of a group.
            seen += client.events(len(jobs) - len(seen) - size // 2)
            after = client.last_id
    with closing(Client(server, after)) as client:
        seen += client.events(len(jobs) - len(seen))
    assert [told.data["job_id"] for told in seen] == [job.job_id for job in jobs]


def test_a_gap_is_told_first(
    serve: Callable[..., Server], ledger: JobLedger, redis_client: redis.Redis
) -> None:
    accept(ledger)
    after = JobEvents(redis_client).position()
    kept = [accept(ledger)[0] for _ in range(3)][1:]
    redis_client.xtrim("rmos:events", maxlen=2, approximate=False)
    with closing(Client(serve(), after)) as client:
        assert next(client.blocks()).id == after
        gap, *rest = client.events(3)
    assert (gap.type, gap.id) == ("gap", "")
    assert [told.data["job_id"] for told in rest] == [job.job_id for job in kept]


def test_filters_pass_what_is_asked_for(serve: Callable[..., Server], ledger: JobLedger) -> None:
    server = serve(ping_seconds=0.2)
    after = "0-0"
    other, mine = accept(ledger, 2)
    lease = Lease("w", "1")
    ledger.work.claim([other.job_id, mine.job_id], lease, lease_seconds=60)
    follower = Job(f"{mine.job_id}.explain", SUGGEST.name, mine.run_id, None, "{}")
    ledger.work.finish(
        [Finish(mine.job_id, {}, (follower,)), Finish(other.job_id, {})], lease, ttl_seconds=60
    )
    for params, expected in (
        (
            {"run_id": mine.run_id},
            [(mine, "accepted"), (mine, "running"), (mine, "done"), (follower, "accepted")],
        ),
        ({"job_id": mine.job_id}, [(mine, "accepted"), (mine, "running"), (mine, "done")]),
        (
            {"state": ["done", "running"]},
            [(other, "running"), (mine, "running"), (mine, "done"), (other, "done")],
        ),
        ({"run_id": mine.run_id, "state": "accepted"}, [(mine, "accepted"), (follower, "accepted")]),
    ):
        with closing(Client(server, after, **params)) as client:
            told = client.events(len(expected))
            assert sorted((one.data["job_id"], one.data["state"]) for one in told) == sorted(
                (job.job_id, state) for job, state in expected
            )
            # Nothing else comes, and the place moves on with what was passed over.
            ping = next(client.blocks())
            assert ping.comment == "ping"
            assert ping.id == JobEvents(ledger._client).position()


@pytest.mark.parametrize(
    ("after", "params", "status"),
    [
        ("nope", {}, 400),
        (f"{2**65}-0", {}, 400),
        (None, {"run_id": "../x"}, 422),
        (None, {"job_id": "x"}, 422),
        (None, {"state": "lost"}, 422),
    ],
)
def test_what_is_wrong_is_refused(
    serve: Callable[..., Server], after: str | None, params: dict[str, str], status: int
) -> None:
    with closing(Client(serve(), after, **params)) as client:
        assert client.response.status_code == status


def test_a_hundred_clients_hear_all_and_one_more_is_refused(
    serve: Callable[..., Server], ledger: JobLedger
) -> None:
    server = serve(most_clients=100)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(server))) for _ in range(100)]
        for client in clients:
            next(client.blocks())
        with closing(Client(server)) as refused:
            assert refused.response.status_code == 503
            assert json.loads(refused.response.read())["error"] == "TOO_MANY_CLIENTS"
        with ThreadPoolExecutor(100) as pool:
            waiting = [pool.submit(client.events, 30) for client in clients]
            jobs = [accept(ledger)[0] for _ in range(30)]
            for told in waiting:
                assert [one.data["job_id"] for one in told.result(30)] == [job.job_id for job in jobs]


def test_places_are_given_back(serve: Callable[..., Server], eventually: Eventually) -> None:
    server = serve(most_clients=1, ping_seconds=0.1)
    for _ in range(3):

        def enters() -> bool:
            with closing(Client(server)) as client:
                return client.response.status_code == 200

        eventually(enters)
    with closing(Client(server, "nope")) as client:
        assert client.response.status_code in {400, 503}
    eventually(enters)


def test_a_client_that_takes_nothing_is_dropped(
    serve: Callable[..., Server], ledger: JobLedger, eventually: Eventually
) -> None:
    server = serve(most_clients=2, send_seconds=0.5, ping_seconds=0.1)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect((host, int(port)))
        slow.sendall(f"GET {URL} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 0-0\r\n\r\n".encode())
        with closing(Client(server)) as quick:
            next(quick.blocks())
            count = 0
            stop = threading.Event()

            def flood() -> None:
                while not stop.is_set():
                    accept(ledger, 500)

            with ThreadPoolExecutor(1) as pool:
                pool.submit(flood)
                try:
                    for told in quick.blocks():
                        count += told.type == "job"
                        if count > 20_000:
                            break
                finally:
                    stop.set()

        def has_room() -> bool:
            with ExitStack() as stack:
                both = [stack.enter_context(closing(Client(server))) for _ in range(2)]
                return all(client.response.status_code == 200 for client in both)

        eventually(has_room)


def test_a_connection_ends_after_its_time(serve: Callable[..., Server]) -> None:
    with closing(Client(serve(connection_seconds=0.5))) as client:
        begun = time.monotonic()
        assert [told.comment for told in client.blocks()] == ["connected"]
        assert time.monotonic() - begun < 10


def test_a_broker_that_is_away_for_a_while_ends_no_connection(
    serve: Callable[..., Server], ledger: JobLedger, redis_client: redis.Redis
) -> None:
    with closing(Client(serve())) as client:
        next(client.blocks())
        for _ in range(3):
            for connection in redis_client.client_list(_type="normal"):
                with suppress(redis.ResponseError):
                    redis_client.client_kill_filter(_id=connection["id"], skipme=True)
            accept(ledger)
        assert len(client.events(3)) == 3


def test_a_server_that_is_asked_to_stop_does_so_at_once(serve: Callable[..., Server]) -> None:
    server = serve()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(server))) for _ in range(20)]
        for client in clients:
            next(client.blocks())
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with suppress(httpx.TransportError):
            for client in clients:
                list(client.blocks())
        assert server.process.wait(timeout=15) in {0, -signal.SIGTERM}
        assert time.monotonic() - begun < 5
    assert "Traceback" not in server.log.read_text()
