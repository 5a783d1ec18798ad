"""A hand-made HTTP server on loopback: it answers byte for byte as told, or breaks off, or never answers."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536
_NAP_SECONDS = 0.05
_LONGEST_SECONDS = 15


class Call:
    """One request, and the connection that it came by."""

    def __init__(self, connection: socket.socket, head: bytes, body: bytes, stop: threading.Event) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        #: Set when the server is to end; an act that lasts must end then.
        self.stop = stop
        self.sent_bytes = 0

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.sent_bytes += len(data)

    def reset(self) -> None:
        """End the connection as a crash or a firewall does, with what is under way on it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Act = Callable[[Call], None]


class HttpServer:
    """Does the acts in turn, one to each connection, and the last one for ever; keeps what it was asked."""

    def __init__(self, *acts: Act) -> None:
        self._acts = acts
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._accepted: list[socket.socket] = []
        self._lock = threading.Lock()
        self.calls: list[Call] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=_LONGEST_SECONDS)
        for connection in self._accepted:  # also one whose thread never began, or hangs
            connection.close()
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._accepted.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_NAP_SECONDS)
        with connection, suppress(OSError):
            asked = b""
            while not self._stop.is_set() and not _whole(asked):
                with suppress(TimeoutError):
                    data = connection.recv(_CHUNK_BYTES)
                    if not data:
                        return
                    asked += data
            connection.settimeout(_LONGEST_SECONDS)
            head, _, body = asked.partition(b"\r\n\r\n")
            call = Call(connection, head, body, self._stop)
            with self._lock:
                act = self._acts[min(len(self.calls), len(self._acts) - 1)]
                self.calls.append(call)
            act(call)


def _whole(asked: bytes) -> bool:
    head, end, body = asked.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= (int(lengths[0].split(b":")[1]) if lengths else 0)


def answer(status: int, body: bytes = b"{}", **headers: str) -> Act:
    """Answer at once; an underscore in a header's name stands for a hyphen."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda call: call.send("\r\n".join([*lines, "", ""]).encode() + body)


def stores(call: Call) -> None:
    """Say that the asset is stored, as a store does that has it for the first time."""
    asset = json.loads(call.body)
    receipt = {"asset_id": asset["asset_id"], "content_hash": asset["content_hash"]}
    answer(201, json.dumps(receipt).encode())(call)


def breaks_off(said: bytes = b"") -> Act:
    """Say so much, then reset the connection."""

    def act(call: Call) -> None:
        if said:
            call.send(said)
            call.stop.wait(_NAP_SECONDS)  # so that what was said arrives ahead of the reset
        call.reset()

    return act


def hangs(said: bytes = b"") -> Act:
    """Say so much, and nothing more, for ever."""

    def act(call: Call) -> None:
        call.send(said)
        call.stop.wait()

    return act


def drips(said: bytes, drop: bytes, *, each_seconds: float) -> Act:
    """Say so much, then ``drop`` now and then, for ever."""

    def act(call: Call) -> None:
        call.send(said)
        while not call.stop.wait(each_seconds):
            call.send(drop)

    return act


def floods(size: int) -> Act:
    """Send a body of ``size`` bytes, as fast as it is read."""

    def act(call: Call) -> None:
        call.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        while call.sent_bytes < size and not call.stop.is_set():
            call.send(b" " * _CHUNK_BYTES)

    return act
