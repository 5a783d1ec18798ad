"""Real worker processes, and what tests ask of the ledger and the store once they have worked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import QUEUES
from support import spawn
from support.gateway import GatewayProcess
from support.runs import Runs

#: Apps for workers that misbehave on purpose.
SUPPORT = Path(__file__).parent
#: Short enough that a test sees every net below a job work within seconds.
QUICK: dict[str, object] = {
    "heartbeat_seconds": 0.2,
    "lease_seconds": 1.0,
    "reconcile_seconds": 0.1,
    "notification_grace_seconds": 0.5,
    "retry_base_seconds": 0.1,
    "retry_cap_seconds": 0.5,
    "breaker_open_seconds": 0.2,
    "advisory_timeout_seconds": 5.0,
    "max_crashes": 20,
}


class WorkerProcess:
    """``celery worker`` as a process group of its own."""

    def __init__(
        self,
        directory: Path,
        *,
        app: str,
        pool: str,
        concurrency: int,
        settings: dict[str, object],
        queues: Sequence[str],
    ) -> None:
        self.log = directory / "worker.log"
        program = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO"]
        options = ["-P", pool, "-c", str(concurrency), "-Q", ",".join(queues), "-n", f"{directory.name}@test"]
        with self.log.open("ab") as log:
            self._process = spawn.Popen[bytes](
                [*program, *options, "--without-mingle", "--without-gossip"],
                env={
                    **{n: value for n, value in os.environ.items() if not n.startswith(("RMOS_", "REMAP_"))},
                    **{f"RMOS_{name.upper()}": str(value) for name, value in settings.items()},
                    "PYTHONPATH": str(SUPPORT),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Return the pool's processes; none for the threads pool."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in listed]

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.alive:
            if "ready." in self.log.read_text():
                return
            time.sleep(0.05)
        pytest.fail(f"the worker did not start: {self.log.read_text()[-4_000:]}")

    def kill(self) -> None:
        """End the main process as the kernel's out-of-memory killer would."""
        self._process.kill()
        self._process.wait(timeout=15)

    def stop(self, timeout: float = 60) -> int:
        """Ask it to stop, and return its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=timeout)

    def end(self) -> None:
        """Leave no process behind, whatever the test did."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(timeout=15)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                os.killpg(self.pid, 0)  # children whose parent was killed are init's to reap
            except ProcessLookupError:
                return
            time.sleep(0.02)


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """The directory of an empty artifact store."""
    init_store(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def start_worker(
    broker_url: str, runs_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartWorker]:
    """Start workers on this test's broker and store; keywords are settings, such as ``max_crashes=3``."""
    with ExitStack() as running:

        def start(
            pool: str = "threads",
            concurrency: int = 2,
            *,
            app: str = "rmos_worker.celery_app.main",
            wait: bool = True,
            queues: Sequence[str] = QUEUES,
            **settings: object,
        ) -> WorkerProcess:
            basics = {"broker_url": broker_url, "runs_dir": runs_dir}
            worker = WorkerProcess(
                tmp_path_factory.mktemp("worker"),
                app=app,
                pool=pool,
                concurrency=concurrency,
                settings=basics | QUICK | settings,
                queues=queues,
            )
            running.callback(worker.end)
            if wait:
                worker.wait_until_ready()
            return worker

        yield start


StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(
    broker_url: str, runs_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartGateway]:
    """Start gateways on this test's broker and store; keywords are settings, such as ``burst_requests=3``."""
    with ExitStack() as running:

        def start(**settings: object) -> GatewayProcess:
            basics = {"broker_url": broker_url, "runs_dir": runs_dir}
            gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), basics | settings)
            # By a signal that it obeys, so that what it has covered is written down.
            running.callback(gateway.stop)
            gateway.start()
            return gateway

        yield start


@pytest.fixture
def redis_client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def ledger(broker_url: str) -> Iterator[JobLedger]:
    connected = JobLedger.connect(BrokerSettings.load(broker_url=broker_url))
    yield connected
    connected.close()


@pytest.fixture
def runs_client(broker_url: str) -> Iterator[RunsClient]:
    with RunsClient.connect(ProducerSettings.load(broker_url=broker_url)) as client:
        yield client


@pytest.fixture
def run_log(runs_dir: Path, ledger: JobLedger) -> Runs:
    return Runs(LocalStore(runs_dir), ledger)


@pytest.fixture
def worker_settings(broker_url: str, runs_dir: Path) -> Callable[..., WorkerSettings]:
    """Make the settings of a worker on this test's broker and store."""

    def make(**changes: Any) -> WorkerSettings:
        basics: dict[str, Any] = {"broker_url": broker_url, "runs_dir": runs_dir}
        return WorkerSettings.load(**(basics | QUICK | changes))

    return make


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition holds, and fail when it does not in time."""

    def wait(holds: Callable[[], object], seconds: float = 30, *, told: Callable[[], object] = str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {told()}")
            time.sleep(0.02)

    return wait
