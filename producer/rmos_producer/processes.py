"""The processes of the pipeline on one machine: what they are, and a supervisor that keeps them running."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from rmos_producer.embedded import EmbeddedServer
from rmos_producer.home import Addresses, Home
from rmos_shared.errors import TryLater

_STOP_SECONDS = 20.0
_READY_SECONDS = 30.0
#: A process that ends more often than this within a minute is broken, not unlucky.
_RESTARTS_PER_MINUTE = 10
_PR_SET_PDEATHSIG = 1

_CELERY = ("-m", "celery", "-A", "rmos_worker.main")
_WORKER = (*_CELERY, "worker", "-l", "INFO")
#: Workers have nothing to tell each other: what they share is in the ledger.
_ALONE = ("--without-gossip", "--without-mingle")
#: The Procfile in Python; a test holds the two together. Each runs under this interpreter.
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "advisory-store": ("-m", "rmos_worker.advisory_store"),
    "worker-create": (
        *_WORKER,
        "-n",
        "create@%h",
        "-P",
        "prefork",
        "-c",
        "2",
        "-Q",
        "runs.create,runs.batch",
        *_ALONE,
    ),
    "worker-advise": (*_WORKER, "-n", "advise@%h", "-P", "threads", "-c", "8", "-Q", "runs.advise", *_ALONE),
    "beat": (*_CELERY, "beat", "-l", "INFO"),
    "flower": ("-m", "celery", "-A", "rmos_worker.watch", "flower"),
}
#: What the main job needs; beat and Flower only watch and plan.
MAIN_JOB = ("advisory-store", "worker-create", "worker-advise")


class ProcessFailed(TryLater):
    """A process of the pipeline does not come up or does not stay up."""

    code = "PROCESS_FAILED"


@dataclass(slots=True)
class _Child:
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)


class Supervisor:
    """Starts processes, restarts those that end, and stops them all; a context manager.

    Should this process itself be killed, the kernel sends its children SIGTERM.
    """

    def __init__(self, logs_dir: Path) -> None:
        """Write each process's output to ``logs_dir``."""
        self._logs_dir = logs_dir
        self._children: dict[str, _Child] = {}

    def start(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Start a process under this interpreter."""
        self._logs_dir.mkdir(parents=True, exist_ok=True)
        child = _Child(arguments, {**os.environ, **environment}, self._logs_dir / f"{name}.log")
        self._children[name] = child
        self._spawn(child)

    def watch(self) -> list[str]:
        """Start what has ended again. Returns the names of what had.

        Raises:
            ProcessFailed: one ends again and again.
        """
        ended = [name for name, child in self._children.items() if _poll(child) is not None]
        for name in ended:
            child = self._children[name]
            minute_ago = time.monotonic() - 60
            child.started = [moment for moment in child.started if moment > minute_ago]
            if len(child.started) >= _RESTARTS_PER_MINUTE:
                raise ProcessFailed(f"{name} ends again and again; see {child.log}")
            self._spawn(child)
        return ended

    def pids(self) -> dict[str, int]:
        """Return the process id of each process."""
        return {name: child.process.pid for name, child in self._children.items() if child.process}

    def stop(self) -> None:
        """Ask every process to end, and end those that do not."""
        for child in self._children.values():
            if _poll(child) is None and child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self._children.values():
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # The whole group: a worker's children must not outlive it.
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait(5)
        self._children.clear()

    def __enter__(self) -> Self:
        """Return the supervisor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _spawn(self, child: _Child) -> None:
        child.started.append(time.monotonic())
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own modules
                [sys.executable, *child.arguments],
                env=child.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - we start no threads before this
            )


def _poll(child: _Child) -> int | None:
    return None if child.process is None else child.process.poll()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Pipeline:
    """The embedded server and the processes of the main job on one home; a context manager.

    ``RMOS_BROKER_URL`` or ``RMOS_ADVISORY_URL`` in the environment outrank the embedded parts, which then are
    not started.
    """

    def __init__(self, home: Home, *, names: tuple[str, ...] = MAIN_JOB) -> None:
        """Prepare to start ``names`` of ``PROCESSES``."""
        self._home = home
        self._names = names
        self._server: EmbeddedServer | None = None
        self.supervisor = Supervisor(home.logs_dir)

    def start(self) -> Addresses:
        """Start everything, wait until it answers, and announce it in the home.

        Raises:
            TryLater: something did not come up; the text names its log.
        """
        broker_url = os.environ.get("RMOS_BROKER_URL")
        if broker_url is None:
            self._server = EmbeddedServer(self._home.server_dir)
            self._server.start()
            broker_url = self._server.url
        advisory_url = os.environ.get("RMOS_ADVISORY_URL")
        names = [name for name in self._names if not (advisory_url and name == "advisory-store")]
        advisory_port, flower_port = free_port(), free_port()
        with_flower = "flower" in names
        addresses = Addresses(
            pid=os.getpid(),
            broker_url=broker_url,
            advisory_url=advisory_url or f"http://127.0.0.1:{advisory_port}",
            # A token of our making is for our own store only; a foreign one gets what the environment says.
            advisory_token=os.environ.get("RMOS_ADVISORY_TOKEN")
            or (None if advisory_url else secrets.token_urlsafe(24)),
            flower_url=f"http://127.0.0.1:{flower_port}" if with_flower else None,
            flower_auth=os.environ.get("FLOWER_BASIC_AUTH") or f"rmos:{secrets.token_urlsafe(12)}",
        )
        environment = {
            "RMOS_BROKER_URL": addresses.broker_url,
            "RMOS_RUNS_DIR": str(self._home.store_settings().runs_dir),
            "RMOS_ADVISORY_URL": addresses.advisory_url,
            "RMOS_ADVISORY_DIR": str(self._home.advisory_dir),
            "RMOS_ADVISORY_PORT": str(advisory_port),
            "FLOWER_ADDRESS": "127.0.0.1",
            "FLOWER_PORT": str(flower_port),
            "FLOWER_BASIC_AUTH": addresses.flower_auth or "",
        }
        if addresses.advisory_token is not None:
            environment["RMOS_ADVISORY_TOKEN"] = addresses.advisory_token
        for name in names:
            arguments = PROCESSES[name]
            if name == "beat":
                arguments = (*arguments, "-s", str(self._home.root / "beat-schedule"))
            self.supervisor.start(name, arguments, environment)
        if "advisory-store" in names:
            self._wait_for(f"{addresses.advisory_url}/health", "advisory-store")
        if addresses.flower_url:
            self._wait_for(f"{addresses.flower_url}/healthcheck", "flower")
        self._home.announce(addresses)
        return addresses

    def stop(self) -> None:
        """Stop everything; the state stays."""
        self.supervisor.stop()
        if self._server is not None:
            self._server.stop()
        self._home.withdraw()

    def __enter__(self) -> Self:
        """Return the pipeline; ``start`` it inside."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _wait_for(self, url: str, name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            self.supervisor.watch()
            try:
                with urlopen(url, timeout=2):  # noqa: S310 - our own process on loopback
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        raise ProcessFailed(f"{name} did not answer within {_READY_SECONDS:g} s; see {self._home.logs_dir}")


def free_port() -> int:
    """Return a TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
