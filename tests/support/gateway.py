"""The gateway as a real process, and callers of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from rmos_runs.gateway.keys import Role, add_key
from rmos_runs.local.ports import lasting_port
from support import spawn

RUNS = "/api/rmos/runs"


class GatewayProcess:
    """``python -m rmos_runs.gateway`` on a free port."""

    def __init__(self, directory: Path, settings: dict[str, object]) -> None:
        self.log = directory / "gateway.log"
        self.port = lasting_port()
        self._settings = settings | {"gateway_port": self.port}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def threads(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Threads:")))

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = spawn.Popen(
                [sys.executable, "-m", "rmos_runs.gateway"],
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("RMOS_")},
                    **{f"RMOS_{name.upper()}": str(value) for name, value in self._settings.items()},
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz", trust_env=False).is_success:
                    return
            time.sleep(0.05)
        self.end()
        pytest.fail(f"the gateway did not start: {self.log.read_text()}")

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, **{"timeout": 30} | options)

    def events(self, key: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == key]

    def kill(self) -> None:
        """End it as the kernel's out-of-memory killer would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def end(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(how)
        try:
            return self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None


def keys_in(file: Path, roles: Iterable[str] = tuple(Role), *, together: bool = False) -> dict[str, str]:
    """Make a key for each role, named after it, or one for all together; return the keys."""
    if together:
        return {"all": add_key(file, "all", [*map(Role, roles)], now=datetime.now(UTC))}
    return {role: add_key(file, role, [Role(role)], now=datetime.now(UTC)) for role in roles}
