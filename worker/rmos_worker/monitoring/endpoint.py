"""The HTTP endpoint of a worker: ``/livez`` and ``/metrics``, served by a thread of its main process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, socket
from socketserver import TCPServer
from typing import Any

from rmos_shared.errors import SettingsInvalid

#: Longest wait for the head of a request, and for its answer to be read.
_TIMEOUT_SECONDS = 5.0
#: Callers at one time; more are turned away.
_MOST_CALLERS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def of_json(cls, fields: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
        """Return an answer in JSON."""
        return cls(json.dumps(fields).encode() + b"\n", status=status)


#: By path, what answers it, given the header Accept.
Routes = dict[str, Callable[[str], Answer]]


class Endpoint:
    """Listens from its making on, answers from ``start`` on, and ends with the process.

    It goes on to answer while the worker stops, or whoever watches would take a slow end for a failure.
    """

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        """Take the port.

        Raises:
            SettingsInvalid: another program has it; that one would be asked, and this one ended for it.
        """
        try:
            self._server = _Server((host, port), _handler(routes))
        except (OSError, OverflowError) as error:
            raise SettingsInvalid(
                f"RMOS_WORKER_HTTP_PORT: port {port} of {host} cannot be had ({type(error).__name__}); each "
                "worker of a machine needs one of its own"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._callers = threading.BoundedSemaphore(_MOST_CALLERS)
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The library's own asks for the name of this machine, which may take as long as a name service does.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._callers.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._callers.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Say nothing: a caller that went away is no news, and what fails here shows in its probe."""


def _handler(routes: Routes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS
        server_version = "rmos"
        sys_version = ""

        def do_GET(self) -> None:
            route = routes.get(self.path.partition("?")[0])
            if route is None:
                answer = Answer.of_json({"error": "NOT_FOUND", "paths": [*routes]}, HTTPStatus.NOT_FOUND)
            else:
                try:
                    answer = route(self.headers.get("Accept", ""))
                except Exception as error:  # noqa: BLE001 - a caller that gets no answer learns nothing
                    failure = {"error": "INTERNAL_ERROR", "message": type(error).__name__}
                    answer = Answer.of_json(failure, HTTPStatus.INTERNAL_SERVER_ERROR)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            """Log nothing: a probe each few seconds would drown what counts."""

    return Handler
