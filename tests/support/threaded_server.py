"""The library's HTTP server on loopback, which leaves no connection behind."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_GRACE_SECONDS = 2.0
#: Longest wait for a peer that neither sends nor reads.
_TIMEOUT_SECONDS = 10.0


class ThreadedServer(ThreadingHTTPServer):
    """Serves between ``start`` and ``stop``; once ``stop`` returns, every connection is closed."""

    daemon_threads = False  # else the library waits for none of them

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> None:
        self._open: set[Any] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let what is under way come to its end, for a while, and cut the rest."""
        self.shutdown()
        self._thread.join(timeout=10)
        with self._changed:
            self._changed.wait_for(lambda: not self._open, _GRACE_SECONDS)
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def get_request(self) -> Any:
        connection, address = super().get_request()
        connection.settimeout(_TIMEOUT_SECONDS)
        with self._changed:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a peer that went away, or was cut
            super().handle_error(request, client_address)
