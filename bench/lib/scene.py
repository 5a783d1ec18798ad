"""Where one measurement takes place: a server of its own, an empty store, and settings for processes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from rmos_runs.local.embedded import answers, server_command, server_url
from rmos_runs.local.ports import lasting_port
from rmos_runs.local.supervisor import Supervisor
from rmos_shared.store.identity import init_store

_DEADLINE_SECONDS = 120.0
_POLL_SECONDS = 0.02
_SERIAL = count()


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A running server, durable in every write, and an empty run store."""

    directory: Path
    server: Server

    @property
    def url(self) -> str:
        """The broker's address."""
        return self.server.url

    @property
    def runs_dir(self) -> Path:
        """The root of the run store."""
        return self.directory / "runs"

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of every process of the measurement."""
        settings = {
            "RMOS_BROKER_URL": self.url,
            "RQ_REDIS_URL": self.url,
            "RMOS_RUNS_DIR": str(self.runs_dir),
        }
        return settings | ({"RMOS_AUDIT_KEY_FILE": str(self.audit_key)} if self.audit_key.exists() else {})

    @property
    def audit_key(self) -> Path:
        """Where the key of the audit log is, in a scene that has one."""
        return self.directory / "audit.pem"

    def log(self, name: str) -> Path:
        """Return where the process ``name`` writes what it has to say."""
        return self.directory / f"{name}.log"

    def stored(self) -> int:
        """Return how many runs lie in the store."""
        return sum(1 for name in self.names() if "_" not in name)

    def names(self) -> Iterator[str]:
        """Yield the name of each file beside a run, the runs' own included."""
        for day in self.runs_dir.iterdir():
            if day.name.startswith("2"):
                with os.scandir(day) as entries:
                    yield from (entry.name for entry in entries)


@contextmanager
def running_server(directory: Path) -> Iterator[Server]:
    """Run the embedded server as ``rmos up`` does, with its files in ``directory``."""
    port, supervisor = lasting_port(), Supervisor(directory)
    supervisor.start("valkey", server_command(directory, port), {})
    try:
        server = Server(server_url(port, None), supervisor.pids()["valkey"])
        until(lambda: answers(server.url, server.pid), "the server")
        yield server
    finally:
        supervisor.stop()


@contextmanager
def scene(scratch: Path) -> Iterator[Scene]:
    """Set one up below ``scratch`` and take it down again; the runs stay until ``scratch`` goes."""
    directory = scratch / f"scene{next(_SERIAL)}"
    init_store(directory / "runs")
    try:
        with running_server(directory / "server") as server:
            yield Scene(directory, server)
    finally:
        # The server's few large files only. For minutes ext4 without a journal gives the inode of no deleted
        # file out again, but passes over all of them at each new file: what is measured next would pay.
        shutil.rmtree(directory / "server", ignore_errors=True)


def requests_of(amount: int) -> list[dict[str, Any]]:
    """Return so many create-run requests: the shipped sample, over and over."""
    text = (resources.files("rmos_runs") / "samples/create_runs.ndjson").read_text()
    lines: Sequence[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    return list(islice(cycle(lines), amount))


def until(holds: Callable[[], bool], what: str, *, seconds: float = _DEADLINE_SECONDS) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it did not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(_POLL_SECONDS)
