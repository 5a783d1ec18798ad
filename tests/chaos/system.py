"""The pipeline under test: every process of it, with a failing network between broker, store and the rest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.options import Options
from chaos.process import Process
from rmos_producer.embedded import EmbeddedServer
from rmos_producer.ports import free_port
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.models.job import LedgerStats
from rmos_shared.tasks import QUEUES
from support.proxy import Proxy

#: Quick enough that a run sees every net below a job at work; lenient towards jobs that only had bad luck.
SETTINGS = {
    "broker_timeout_seconds": 2.0,
    "heartbeat_seconds": 0.5,
    "lease_seconds": 4.0,
    "reconcile_seconds": 0.3,
    "bell_grace_seconds": 2.0,
    "retry_base_seconds": 0.2,
    "retry_cap_seconds": 2.0,
    "retry_tries": 100,
    "retry_total_seconds": 7200.0,
    "breaker_open_seconds": 0.5,
    "advisory_timeout_seconds": 2.0,
    "advisory_total_seconds": 6.0,
    "max_starts": 20,
}
#: Two of different kinds, each able to do everything, so that work goes on while one of them is away.
POOLS = {"prefork": ("prefork", 2), "threads": ("threads", 4)}
_READY_SECONDS = 90.0
#: A worker that is asked to stop and has not by then is stuck: its tasks take milliseconds.
_STOP_SECONDS = 45.0
_TESTS = Path(__file__).parents[1]


class SystemFailed(Exception):
    """The pipeline could not be brought up, so nothing can be said about it."""


class System:
    """All processes; a context manager that leaves none behind."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory = directory
        self.runs_dir = directory / "runs"
        self.advisory_dir = directory / "advisories"
        self.journal = directory / "journal.ndjson"
        #: What went wrong without costing a job, in words.
        self.findings: list[str] = []
        self._options = options
        self._server = EmbeddedServer(directory / "valkey")
        self._advisory_port = free_port()
        self._broker_port = 0
        self.broker = Proxy(lambda: ("127.0.0.1", self._broker_port))
        self.store = Proxy(lambda: ("127.0.0.1", self._advisory_port))
        self.advisory: Process
        self.load: Process
        self.workers: list[Process] = []

    # -- start and end ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything but the load, and wait until it answers.

        Raises:
            SystemFailed: it does not.
        """
        self._server.start()
        self._broker_port = int(self._server.url.rpartition(":")[2].partition("/")[0])
        self.broker.start()
        self.store.start()
        program = ["-m", "uvicorn", "--log-level", "warning", "--port", str(self._advisory_port)]
        self.advisory = self._process(
            "advisory-store",
            [*program, "--factory", "rmos_worker.advisory_store.app:create_app"],
            advisory_dir=self.advisory_dir,
            inject_switchable=True,
        )
        self.advisory.start()
        for name, (pool, concurrency) in POOLS.items():
            celery = ["-m", "celery", "-A", "rmos_worker.main", "worker", "-l", "INFO"]
            options = ["-n", f"{name}@chaos", "-P", pool, "-c", str(concurrency), "-Q", ",".join(QUEUES)]
            worker = self._process(
                f"worker-{name}",
                [*celery, *options],
                broker_url=self.proxied_url,
                runs_dir=self.runs_dir,
                advisory_url=f"http://127.0.0.1:{self.store.port}",
                **SETTINGS,
            )
            worker.start()
            self.workers.append(worker)
        deadline = time.monotonic() + _READY_SECONDS
        while not (self._store_answers() and all("ready." in worker.told() for worker in self.workers)):
            if time.monotonic() > deadline:
                raise SystemFailed("\n".join(worker.told() for worker in (self.advisory, *self.workers)))
            time.sleep(0.1)

    def start_load(self) -> None:
        numbers = [str(self._options.runs), str(time.time()), str(self._options.seconds)]
        self.load = self._process("load", ["-m", "chaos.load", str(self.journal), self.proxied_url, *numbers])
        self.load.start()

    def stop_workers(self) -> None:
        """Ask the workers to stop, as at the end of a day; one that does not is a finding."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in self.workers:
            while worker.alive and time.monotonic() < deadline:
                time.sleep(0.05)
            if worker.alive:
                self._stuck(worker)

    def leftovers(self) -> list[int]:
        """Return the process groups that outlived their leader."""
        processes = [*self.workers, self.advisory, self.load]
        return [group for process in processes for group in process.leftovers(15)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self.workers, *(getattr(self, name, None) for name in ("advisory", "load"))]:
            if process is not None:
                process.end()
        with suppress(RuntimeError, TimeoutError):
            self.broker.stop()
        with suppress(RuntimeError, TimeoutError):
            self.store.stop()
        self._server.kill()

    # -- while it runs ----------------------------------------------------------------------------

    @property
    def proxied_url(self) -> str:
        return f"redis://127.0.0.1:{self.broker.port}/0"

    @property
    def direct_url(self) -> str:
        return f"redis://127.0.0.1:{self._broker_port}/0"

    @property
    def scratch_url(self) -> str:
        return f"redis://127.0.0.1:{self._broker_port}/9"

    @contextmanager
    def direct(self) -> Iterator[redis.Redis]:
        """Yield a fresh connection past the proxy, which sends nothing twice."""
        client = redis.Redis.from_url(
            self.direct_url, retry=Retry(NoBackoff(), 0), socket_timeout=10, socket_connect_timeout=10
        )
        with client:
            yield client

    def stats(self) -> LedgerStats:
        with self.direct() as client:
            return JobLedger(client).stats()

    @property
    def load_is_done(self) -> bool:
        return self.load.exit_code == 0

    def tend(self) -> None:
        """Start again what has ended, as a supervisor would, and note what ended by itself."""
        for process in (self.advisory, *self.workers, self.load):
            if process.alive:
                asked = process.signalled_at
                if asked is not None and time.monotonic() - asked > _STOP_SECONDS:
                    self._stuck(process)
                continue
            if process is self.load and self.load_is_done:
                continue
            if not process.doomed:
                self.findings.append(
                    f"{process.name} ended by itself with {process.exit_code}: …{process.told()[-1_500:]}"
                )
                time.sleep(0.5)
            process.start()

    def kill_server(self) -> None:
        """End the embedded server as a crash would."""
        self._server.kill()

    def restart_server(self) -> None:
        """Start it on the same port and data."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self._server.start()
            except (BrokerUnavailable, OSError):
                # The port may be held for a moment yet by what was connected to it.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def store_faults(self, **switches: float) -> bool:
        """Replace the store's own faults. Returns whether it heard."""
        url = f"http://127.0.0.1:{self._advisory_port}/_faults"
        try:
            return httpx.put(url, json=switches, trust_env=False, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def _store_answers(self) -> bool:
        return self.store_faults()

    def _stuck(self, process: Process) -> None:
        self.findings.append(
            f"{process.name} had not stopped {_STOP_SECONDS:g} s after it was asked to: "
            f"…{process.told()[-1_500:]}"
        )
        process.kill()

    def _process(self, name: str, arguments: list[str], **settings: object) -> Process:
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("RMOS_", "REMAP_"))}
        environment = {
            **inherited,
            "PYTHONPATH": str(_TESTS),
            **{f"RMOS_{setting.upper()}": str(value) for setting, value in settings.items()},
        }
        return Process(name, arguments, environment, self.directory / f"{name}.log")
