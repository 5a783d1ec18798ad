"""The gateway's limits on real sockets: slow, greedy, many and patient clients."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from support.gateway import RUNS, GatewayProcess
from support.records import make_run
from support.runs import Runs

StartGateway = Callable[..., GatewayProcess]
QUICK = {"header_timeout_seconds": 0.5, "body_timeout_seconds": 0.5, "write_timeout_seconds": 0.5}


def connected(gateway: GatewayProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=20)


def rest_of(connection: socket.socket) -> bytes:
    """Return all that still comes; the other side must end the connection."""
    got = b""
    try:
        while data := connection.recv(65_536):
            got += data
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_ends_the_connection(start_gateway: StartGateway, said: bytes) -> None:
    gateway = start_gateway(**QUICK)
    with connected(gateway) as connection:
        connection.sendall(said)
        assert rest_of(connection) == b""


def test_a_head_that_drips_ends_the_connection_also_after_a_good_request(start_gateway: StartGateway) -> None:
    gateway = start_gateway(**QUICK)
    with connected(gateway) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connection.recv(65_536)
        connection.settimeout(0.05)
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe|closed"):  # noqa: PT012 - the loop is the dripping
            while time.monotonic() < begun + 20:
                connection.sendall(b"G" if time.monotonic() < begun + 0.01 else b"X-A: 1\r\n")
                try:
                    if connection.recv(1) == b"":
                        raise ConnectionResetError("closed")
                except TimeoutError:
                    pass
        assert time.monotonic() - begun < 5


def test_a_body_that_stops_or_drips_is_refused(start_gateway: StartGateway, ledger: JobLedger) -> None:
    gateway = start_gateway(**QUICK, slowest_body_bytes=1_000_000)
    head = f"POST {RUNS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n".encode()
    with connected(gateway) as connection:
        connection.sendall(head + b'{"mode":')
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_TOO_SLOW" in answer
    with connected(gateway) as connection:
        connection.sendall(head)
        connection.settimeout(0.05)
        begun, got = time.monotonic(), b""
        while not got and time.monotonic() < begun + 20:
            connection.sendall(b" ")
            try:
                got = connection.recv(65_536)
            except TimeoutError:
                continue
        assert got.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun < 5
    assert ledger.stats().accepted == 0


def test_a_reader_that_does_not_read_is_dropped(
    start_gateway: StartGateway, run_log: Runs, eventually: Callable[..., None]
) -> None:
    gateway = start_gateway(**QUICK)
    run = make_run(meta={"padding": "x" * 8_000_000})
    run_log.writer.put_run(run)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(f"GET {RUNS}/{run.run_id}/download HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        eventually(lambda: not _established(gateway.port, connection.getsockname()[1]), 20)
        assert len(rest_of(connection)) < 8_000_000
    with gateway.client() as http:
        assert http.get("/healthz").status_code == 200


def _established(port: int, peer: int) -> bool:
    """Say whether the server's side of a connection is there."""
    wanted = (f"0100007F:{port:04X}", f"0100007F:{peer:04X}", "01")
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(tuple(line.split()[1:4]) == wanted for line in lines)


def test_a_body_that_is_too_large_is_refused_whatever_it_announces(
    start_gateway: StartGateway, ledger: JobLedger
) -> None:
    gateway = start_gateway(max_body_bytes=2_000)
    body = json.dumps({"mode": "x", "meta": {"a": "x" * 3_000}}).encode()
    with gateway.client() as http:
        announced = http.post(RUNS, content=body)
        chunked = http.post(RUNS, content=iter([body[:100], body[100:]]))
        for answer in (announced, chunked):
            assert (answer.status_code, answer.json()["error"]) == (413, "BODY_TOO_LARGE")
        assert http.post(RUNS, json={"mode": "x"}).status_code == 202
    assert ledger.stats().accepted == 1


def test_bodies_together_are_bounded(start_gateway: StartGateway) -> None:
    gateway = start_gateway(max_bodies_bytes=1_048_576, max_body_bytes=4_000_000)
    with gateway.client() as http:
        answer = http.post(RUNS, content=b'"' + b"x" * 2_000_000 + b'"')
        assert (answer.status_code, answer.json()["error"]) == (503, "GATEWAY_BUSY")
        # What was held is given back.
        for _ in range(3):
            assert http.post(RUNS, content=b'"' + b"x" * 900_000 + b'"').status_code == 400


def test_a_key_that_asks_too_often_is_told_when_to_come_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway(rate_requests=0.1, burst_requests=5)
    with gateway.client() as http:
        answers = [http.get(f"{RUNS}/nowhere") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [404] * 5 + [429] * 3
        assert answers[-1].json()["error"] == "RATE_EXCEEDED"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 10
        assert http.get("/healthz").status_code == 200


def test_more_requests_at_once_than_may_be_are_told_to_come_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway(concurrent_requests=10)

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as http:
            calls = (http.post(RUNS, json={"mode": "x"}, headers={"Prefer": "wait=2"}) for _ in range(30))
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    statuses = asyncio.run(crowd())
    assert statuses.count(202) == 10
    assert statuses.count(503) == 20


def test_a_store_that_hangs_holds_its_threads_and_nothing_else(
    start_gateway: StartGateway, runs_dir: Path
) -> None:
    import os  # noqa: PLC0415 - for one pipe

    gateway = start_gateway(store_timeout_seconds=0.5, store_threads=2)
    day = runs_dir / "2026-08-01"
    day.mkdir()
    run_id = make_run().run_id
    os.mkfifo(day / f"{run_id}.json")
    with gateway.client() as http:
        begun = time.monotonic()
        for _ in range(4):
            assert http.get(f"{RUNS}/{run_id}").status_code in {500, 503}
        assert time.monotonic() - begun < 10
        assert http.get("/healthz").status_code == 200
        assert http.post(RUNS, json={"mode": "x"}).status_code == 202


def test_a_thousand_waiters_cost_no_threads_and_few_connections(
    start_gateway: StartGateway,
    start_worker: Callable[..., Any],
    redis_client: redis.Redis,
    ledger: JobLedger,
    eventually: Callable[..., None],
) -> None:
    gateway = start_gateway(
        store_threads=4,
        rate_requests=100_000.0,
        burst_requests=100_000,
        max_wait_seconds=100,
        store_timeout_seconds=60,
        broker_timeout_seconds=30,
        header_timeout_seconds=60,
    )
    with gateway.client() as http:
        http.post(RUNS, json={"mode": "x"})
    waiters = 1_000
    with ExitStack() as opened:
        connections = [opened.enter_context(connected(gateway)) for _ in range(waiters)]
        for connection in connections:
            connection.sendall(
                f"POST {RUNS} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=100\r\nConnection: close\r\n"
                'Content-Length: 12\r\n\r\n{"mode":"x"}'.encode()
            )
        eventually(lambda: ledger.stats().accepted == waiters + 1, 90, told=ledger.stats)
        assert gateway.threads <= 1 + 4, "the loop, and the store's threads"
        assert _connections_of(redis_client, gateway) <= 24
        start_worker()
        answers: Counter[bytes] = Counter()
        for connection in connections:
            connection.settimeout(90)
            answers[rest_of(connection).partition(b" ")[2][:3]] += 1
        assert answers == {b"201": waiters}
        assert gateway.threads <= 1 + 4


def _connections_of(client: redis.Redis, gateway: GatewayProcess) -> int:
    """Count the connections to the broker that the gateway's process holds."""
    port = int(client.connection_pool.connection_kwargs["port"])
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[2].endswith(f":{port:04X}") and words[3] == "01":
            inodes.add(f"socket:[{words[9]}]")
    found = 0
    for descriptor in Path(f"/proc/{gateway.pid}/fd").iterdir():
        try:
            found += str(descriptor.readlink()) in inodes
        except OSError:
            continue
    return found


def test_a_killed_gateway_loses_nothing_that_it_answered(
    start_gateway: StartGateway, ledger: JobLedger
) -> None:
    gateway = start_gateway()
    answered = []
    for number in range(20):
        body: Any = {"json": {"mode": "x"}, "headers": {"Idempotency-Key": f"k{number}"}}
        with gateway.client() as http:
            answered.append(http.post(RUNS, **body).json())
            if number % 5 == 4:
                gateway.kill()
                gateway.start()
        with gateway.client() as http:
            assert http.post(RUNS, **body).json()["run_id"] == answered[-1]["run_id"]
    assert ledger.stats().accepted == 20
    assert {job.run_id for job in ledger.jobs()} == {one["run_id"] for one in answered}
    assert new_uuid7() not in {one["run_id"] for one in answered}
