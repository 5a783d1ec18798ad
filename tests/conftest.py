"""What all tests share: a real server, advisory stores, and the fixtures of ``support/fixtures.py``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from hypothesis import settings
from kombu import pools

from support import spawn
from support.embedded_server import EmbeddedServer
from support.postgres import PostgresServer

pytest_plugins = ("support.fixtures",)
# What an example takes says more of the machine's other work than of ours.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process begin with its share of the long tests, those that ask for more time than the others.

    Or one of them, begun last, would keep everybody waiting.
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares: list[list[pytest.Item]] = [[] for _ in range(count)]
    others = []
    modules: dict[Path, int] = {}
    for item in items:
        if item.get_closest_marker("timeout"):
            # Those of a module share what they start.
            shares[modules.setdefault(item.path, len(modules)) % count].append(item)
        else:
            others.append(item)
    rest = iter(others)
    for share in shares:
        share.extend(islice(rest, max(0, len(items) // count - len(share))))
    items[:] = [*chain(*shares), *rest]


SAMPLES = Path(__file__).parents[1] / "producer/rmos_runs/samples/create_runs.ndjson"


@pytest.fixture(scope="session", autouse=True)
def _coverage_of_processes() -> None:
    spawn.measure_warm_processes_only()


@pytest.fixture(scope="session")
def sample_requests() -> list[dict[str, Any]]:
    """The 600 requests that a real feasibility engine judged."""
    return [json.loads(line) for line in SAMPLES.read_text().splitlines()]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real valkey-server on a free port, one per test process."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def broker_url(server: EmbeddedServer) -> str:
    """The address of an empty database on the real server."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    # kombu keeps connections for a whole process, and a test before may have had the server close them.
    pools.reset()
    return server.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL, one per test process."""
    with PostgresServer() as running:
        yield running


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The address of an empty database on it."""
    return postgres.new_database()


class AdvisoryProcess:
    """The reference advisory store as a real process; its assets and its address outlive a restart."""

    def __init__(self, directory: Path, faults: Mapping[str, float], settings: Mapping[str, object]) -> None:
        self.log = directory / "uvicorn.log"
        self.advisory_dir = directory / "advisories"
        environment = {"advisory_dir": self.advisory_dir, **settings}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RMOS_")},
            **{f"RMOS_{name.upper()}": str(value) for name, value in environment.items()},
            "PYTHONPATH": str(Path(__file__).parent),
            "FAULTS": json.dumps(faults),
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                # First start, or another process held the port for a moment: found free is not held.
                self._spawn()
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).is_success:
                    return
            time.sleep(0.05)
        self.kill()
        pytest.fail(f"the advisory store did not start: {self.log.read_text()}")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def faults(self, **switches: float) -> None:
        """Replace the faults in force; those not named are off."""
        httpx.put(f"{self.url}/_faults", json=switches, trust_env=False).raise_for_status()

    def _spawn(self) -> None:
        program = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--port", str(self._port)]
        with self.log.open("ab") as log:
            self._process = spawn.Popen(
                [*program, "--factory", "support.faulty_store:create_app"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(timeout=15)
            finally:
                self._process.kill()
                self._process.wait()
                self._process = None


@pytest.fixture
def advisory_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., AdvisoryProcess]]:
    """Start advisory stores with these faults; keywords are settings, such as ``advisory_token="t"``."""
    with ExitStack() as running:

        def start(faults: Mapping[str, float] | None = None, **settings: object) -> AdvisoryProcess:
            store = AdvisoryProcess(tmp_path_factory.mktemp("advisory"), faults or {}, settings)
            running.callback(store.kill)
            store.start()
            return store

        yield start
