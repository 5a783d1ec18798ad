"""Where the pipeline is to be reached: what ``rmos up`` announced last in its home."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Addresses:
    """Reads ``up.json`` anew each time, and remembers it for as long as there is none."""

    def __init__(self, home: Path) -> None:
        self._file = home / "up.json"
        self._last: dict[str, Any] = {}

    @property
    def known(self) -> bool:
        return bool(self._read())

    @property
    def supervisor(self) -> int:
        """The process id of the ``rmos up`` that announced itself last."""
        return int(self._read()["pid"])

    @property
    def broker_url(self) -> str:
        return str(self._read()["broker_url"])

    def broker_url_of(self, database: int) -> str:
        return urlsplit(self.broker_url)._replace(path=f"/{database}").geturl()

    @property
    def store_url(self) -> str:
        return str(self._read()["advisory_url"])

    @property
    def flower_url(self) -> str | None:
        return self._read().get("flower_url")

    def broker(self) -> tuple[str, int]:
        """Return host and port, for the proxy."""
        return _place(self._read().get("broker_url"))

    def store(self) -> tuple[str, int]:
        return _place(self._read().get("advisory_url"))

    def gateway(self) -> tuple[str, int]:
        return _place(self._read().get("gateway_url"))

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):  # withdrawn, or being written
            self._last = json.loads(self._file.read_text())
        return self._last


def _place(url: str | None) -> tuple[str, int]:
    if url is None:
        raise ConnectionRefusedError("nothing was announced yet")
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    socket.inet_aton(parts.hostname)  # loopback by number: no name is ever looked up
    return parts.hostname, parts.port
