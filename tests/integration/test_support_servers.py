"""The servers that tests put up leave no connection unclosed, in whatever moment they end."""

from __future__ import annotations

import gc
import http.client
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from support.http_server import Call, HttpServer, hangs
from support.proxy import Proxy
from support.threaded_server import ThreadedServer

CLIENTS = 20


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail where a socket was left to the garbage collector."""
    gc.collect()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


def address_of(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


def ended(client: socket.socket) -> bool:
    client.settimeout(5)
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture
def mute() -> Iterator[tuple[str, int]]:
    """The address of a server that takes connections, and says nothing."""
    with HttpServer(hangs()) as server:
        yield address_of(server.url)


@pytest.mark.parametrize(
    "prepare", [lambda _: None, lambda proxy: proxy.refuse(600)], ids=["open", "refusing"]
)
def test_a_proxy_closes_what_it_accepts_as_it_ends(
    mute: tuple[str, int], prepare: Callable[[Proxy], None]
) -> None:
    with nothing_left():
        proxy = Proxy(lambda: mute)
        proxy.start()
        prepare(proxy)
        # While its loop sleeps the kernel takes the clients in, so that it finds them together with its end.
        proxy._loop.call_soon_threadsafe(time.sleep, 0.3)
        clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(CLIENTS)]
        proxy.stop()
        assert all(ended(client) for client in clients)
        for client in clients:
            client.close()
        del proxy


@pytest.mark.parametrize("nap", [0.0, 0.001, 0.01, 0.05])
def test_a_proxy_closes_what_it_is_serving_as_it_ends(mute: tuple[str, int], nap: float) -> None:
    with nothing_left():
        proxy = Proxy(lambda: mute)
        proxy.start()
        clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(CLIENTS)]
        time.sleep(nap)
        proxy.stop()
        assert all(ended(client) for client in clients)
        for client in clients:
            client.close()
        del proxy


def test_a_proxy_ends_with_a_client_that_does_not_read() -> None:
    def speaks(call: Call) -> None:
        call.send(b"x" * 20_000_000)

    with HttpServer(speaks) as server, nothing_left():
        proxy = Proxy(lambda: address_of(server.url))
        proxy.start()
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.recv(1)
            time.sleep(0.1)
            began = time.monotonic()
            proxy.stop()
            assert time.monotonic() - began < 5
        del proxy


def test_a_hand_made_server_closes_what_it_accepted() -> None:
    with nothing_left():
        with HttpServer(hangs()) as server:
            clients = [socket.create_connection(address_of(server.url)) for _ in range(CLIENTS)]
        assert all(ended(client) for client in clients)
        for client in clients:
            client.close()
        del server


def test_a_threaded_server_closes_what_stays_open() -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with nothing_left():
        server = ThreadedServer(Handler)
        server.start()
        silent = socket.create_connection(("127.0.0.1", server.server_port))
        kept = http.client.HTTPConnection("127.0.0.1", server.server_port)
        kept.request("GET", "/")
        assert kept.getresponse().status == 204
        server.stop()
        assert ended(silent)
        assert ended(kept.sock)
        silent.close()
        kept.close()
        del server
