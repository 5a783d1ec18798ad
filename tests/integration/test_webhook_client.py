"""One delivery against a receiver that answers as it likes: bounded, checked, and never led astray."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from rmos_shared.errors import RmosError, WebhookForbidden, WebhookRefused, WebhookUnavailable
from rmos_worker.webhooks.addresses import CheckedAddresses
from rmos_worker.webhooks.client import EndpointGone, WebhookClient
from rmos_worker.webhooks.endpoints import Endpoint
from support.http_server import Act, Call, HttpServer, answer, breaks_off, drips, floods, hangs

SECRET, OTHER = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))
LOOPBACK = CheckedAddresses([ip_network("127.0.0.0/8")])
BODY = json.dumps({"type": "run.created", "data": {"über": 1}}, ensure_ascii=False).encode()
TIMEOUT_SECONDS = 0.5


def deliver(
    server: HttpServer,
    *,
    secrets: tuple[str, ...] = (SECRET,),
    resolve: Callable[..., Any] = LOOPBACK,
    url: str = "",
) -> int:
    client = WebhookClient(timeout_seconds=TIMEOUT_SECONDS, answer_bytes=1_024, resolve=resolve)
    try:
        return client.deliver(
            Endpoint("erp", url or f"{server.url}/hook?x=1", secrets, ("run.created",)), "id_1", BODY
        )
    finally:
        client.close()


def headers(call: Call) -> dict[str, str]:
    lines = call.head.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def test_what_is_sent_is_verified_by_the_library() -> None:
    with HttpServer(answer(204, b"")) as server:
        assert deliver(server, secrets=(OTHER, SECRET)) == 204
    (call,) = server.calls
    assert call.head.startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
    assert call.body == BODY
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(call.body, headers(call)) == json.loads(BODY)
    told = {name.lower(): value for name, value in headers(call).items()}
    assert told["webhook-id"] == "id_1"
    assert abs(int(told["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert told["content-type"] == "application/json"
    stranger = "whsec_" + base64.b64encode(b"c" * 32).decode()
    with pytest.raises(WebhookVerificationError):
        Webhook(stranger).verify(call.body, headers(call))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(call.body + b" ", headers(call))


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (answer(200), None),
        (answer(299), None),
        (answer(200, b"x" * 500_000), None),
        (floods(50_000_000), None),
        (hangs(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), None),
        (breaks_off(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"), None),
        (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x", each_seconds=0.05), None),
        (answer(410), EndpointGone),
        (answer(301, Location="http://127.0.0.1:1/"), WebhookRefused),
        (answer(302, Location="http://169.254.169.254/"), WebhookRefused),
        (answer(307, Location="/other"), WebhookRefused),
        (answer(304), WebhookRefused),
        (answer(400), WebhookRefused),
        (answer(401), WebhookRefused),
        (answer(404), WebhookRefused),
        (answer(422), WebhookRefused),
        (answer(408), WebhookUnavailable),
        (answer(425), WebhookUnavailable),
        (answer(429), WebhookUnavailable),
        (answer(500), WebhookUnavailable),
        (answer(503), WebhookUnavailable),
        (answer(599), WebhookUnavailable),
        (hangs(), WebhookUnavailable),
        (hangs(b"HTTP/1.1 2"), WebhookUnavailable),
        (drips(b"HTTP/1.1 200 OK\r\n", b"X-Header: x\r\n", each_seconds=0.05), WebhookUnavailable),
        (breaks_off(), WebhookUnavailable),
        (breaks_off(b"HTTP/1.1 200"), WebhookUnavailable),
        (lambda call: call.send(b"garbage\r\n\r\n"), WebhookUnavailable),
        (lambda call: call.send(b"HTTP/1.1 99999 \xff\r\n\r\n"), WebhookUnavailable),
    ],
)
def test_what_each_answer_means_and_that_it_takes_no_longer_than_allowed(
    act: Act, expected: type[RmosError] | None
) -> None:
    with HttpServer(act) as server:
        begun = time.monotonic()
        if expected is None:
            assert 200 <= deliver(server) < 300
        else:
            with pytest.raises(expected, match="erp") as raised:
                deliver(server)
            assert type(raised.value) is expected
            assert SECRET not in str(raised.value)
        assert time.monotonic() - begun < TIMEOUT_SECONDS + 1
        assert len(server.calls) == 1, "no redirect was followed, nothing was sent twice"


def test_retry_after_is_heard() -> None:
    with HttpServer(answer(429, Retry_After="7")) as server, pytest.raises(WebhookUnavailable) as raised:
        deliver(server)
    assert raised.value.retry_after_seconds == 7


def test_nobody_listening_is_no_answer() -> None:
    with HttpServer(answer(200)) as server:
        url = server.url
    with pytest.raises(WebhookUnavailable):
        deliver(server, url=url)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"]
)
def test_this_machine_is_never_connected_to(host: str) -> None:
    with HttpServer(answer(200)) as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises((WebhookForbidden, WebhookUnavailable)):
            deliver(server, resolve=CheckedAddresses(), url=f"http://{host}:{port}/")
        assert server.calls == []


def test_a_name_that_changes_after_the_check_leads_nowhere() -> None:
    """DNS rebinding: the first look gives a public address, any later one this machine."""
    looks: list[str] = []

    def rebinding(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        looks.append(host)
        address = "192.88.99.1" if len(looks) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]

    connected: list[Any] = []
    with HttpServer(answer(200)) as server, pytest.MonkeyPatch.context() as patch:

        def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
            connected.append(address[0])
            raise ConnectionRefusedError

        patch.setattr(socket, "create_connection", connect)
        with pytest.raises(WebhookUnavailable):
            deliver(
                server,
                resolve=CheckedAddresses([ip_network("192.88.99.0/24")], getaddrinfo=rebinding),
                url=f"http://hooks.example.com:{server.url.rpartition(':')[2]}/",
            )
        assert server.calls == []
    assert connected == ["192.88.99.1"], "what was checked is what is connected to"
    assert looks == ["hooks.example.com"]


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    def resolve(host: str, port: int) -> list[str]:  # noqa: ARG001
        return ["127.0.0.2", "127.0.0.1"]

    with HttpServer(answer(200)) as server:
        assert (
            deliver(server, resolve=resolve, url=f"http://hooks.example.com:{server.url.rpartition(':')[2]}/")
            == 200
        )
    assert b"hooks.example.com" in server.calls[0].head


def test_a_name_is_looked_up_anew_for_each_connection() -> None:
    allowed = [True, False]

    def resolve(host: str, port: int) -> list[str]:  # noqa: ARG001
        if not allowed.pop(0):
            raise WebhookForbidden("erp")
        return ["127.0.0.1"]

    with HttpServer(answer(200)) as server:
        client = WebhookClient(timeout_seconds=5, answer_bytes=1_024, resolve=resolve)
        endpoint = Endpoint("erp", f"{server.url}/", (SECRET,), ())
        assert client.deliver(endpoint, "a", b"{}") == 200
        with pytest.raises(WebhookForbidden):
            client.deliver(endpoint, "b", b"{}")
        client.close()
