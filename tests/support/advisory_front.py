"""What stands before a real advisory store: it hands calls on, or answers them as told."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

import httpx

from support.threaded_server import ThreadedServer


class AdvisoryFront:
    """Answers the next calls with ``statuses``, in turn, and this body; hands on all later ones."""

    def __init__(self, store_url: str, body: bytes) -> None:
        self._store_url = store_url
        self.statuses: list[int] = []
        self.headers: list[dict[str, str]] = []
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                front.headers.append({name.lower(): value for name, value in self.headers.items()})
                if front.statuses:
                    status, answer = front.statuses.pop(0), body
                else:
                    status, answer = front.hand_on(self.command, self.path, sent, dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT  # noqa: N815 - as http.server looks for it

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadedServer(Handler)

    def hand_on(self, verb: str, path: str, sent: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Return the store's status and body; 502 without an answer."""
        try:
            done = httpx.request(verb, self._store_url + path, content=sent, headers=headers, trust_env=False)
        except httpx.HTTPError:
            return HTTPStatus.BAD_GATEWAY, b"{}"
        return done.status_code, done.content

    @property
    def url(self) -> str:
        return self._server.url

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
