"""The embedded server by itself: started, stopped and killed as a test likes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rmos_runs.local.embedded import answers, server_command, server_url
from rmos_runs.local.ports import lasting_port

_START_TRIES = 5
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class EmbeddedServer:
    """The server of ``rmos up`` without a supervisor; its data stays in ``data_dir`` between starts."""

    def __init__(
        self, data_dir: Path, *, port: int | None = None, config: Mapping[str, str] | None = None
    ) -> None:
        self._data_dir = data_dir
        self._port = port
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        if self._process is None or self._port is None:
            raise RuntimeError("the server is not running; start it first")
        return server_url(self._port, None)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running; start it first")
        return self._process.pid

    def start(self) -> None:
        for _ in range(1 if self._port is not None else _START_TRIES):
            port = self._port or lasting_port()
            # A free port found is not a port held: another process may have taken it meanwhile.
            if self._come_up(port):
                self._port = port  # a restart keeps the address that others know
                return
        raise RuntimeError(f"the server did not start; see {self._data_dir / 'valkey.log'}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _come_up(self, port: int) -> bool:
        command = server_command(self._data_dir, port, config=self._config)
        with (self._data_dir / "valkey.log").open("ab") as log:
            process = subprocess.Popen(
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
