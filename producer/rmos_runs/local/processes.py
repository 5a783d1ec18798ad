"""The processes of the pipeline on one machine: what they are, and all of them on one home."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from rmos_runs.local.home import Addresses, Home
from rmos_runs.local.liveness import Probes
from rmos_runs.local.ownership import Ownership
from rmos_runs.local.ports import is_free, lasting_port
from rmos_runs.local.supervisor import Ended, Supervisor
from rmos_shared.errors import TryLater

#: The name of the embedded server among the processes.
SERVER = "valkey"
_READY_SECONDS = 30.0
_PORT_SECONDS = 20.0
_POLL_SECONDS = 0.05

_CELERY = ("-m", "celery", "-A", "rmos_worker.celery_app.main")
_WORKER = (*_CELERY, "worker", "-l", "INFO")
#: Workers have nothing to tell each other: what they share is in the ledger.
_ALONE = ("--without-gossip", "--without-mingle")
#: The Procfile in Python; a test holds the two together. Each runs under this interpreter.
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "advisory-store": ("-m", "rmos_advisory_store"),
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
    # By itself, so that receivers of webhooks which are down or slow hold up no advisory.
    "worker-notify": (*_WORKER, "-n", "notify@%h", "-P", "threads", "-c", "8", "-Q", "runs.notify", *_ALONE),
    # By itself too, so that it can give way: its threads have the processor when nobody else wants it.
    "worker-reexplain": (
        *_WORKER,
        "-n",
        "reexplain@%h",
        "-P",
        "threads",
        "-c",
        "2",
        "-Q",
        "runs.reexplain",
        *_ALONE,
    ),
    # By itself, so that it alone needs the key that signs the audit log.
    "worker-audit": (*_WORKER, "-n", "audit@%h", "-P", "threads", "-c", "2", "-Q", "runs.audit", *_ALONE),
    "beat": (*_CELERY, "beat", "-l", "INFO"),
    "indexer": ("-m", "rmos_shared.index"),
    "flower": ("-m", "rmos_worker.flower"),
    "gateway": ("-m", "rmos_runs.gateway"),
}
#: How the names of workers begin: each gets a port to be watched by.
_WORKERS = "worker-"
#: The one process that seals the audit log, and the variables that tell of its key: the fewer processes have
#: them, the fewer can be made to tell it.
SEALER = "worker-audit"
_AUDIT_KEY = ("RMOS_AUDIT_KEY", "RMOS_AUDIT_KEY_FILE")
#: What the main job needs; beat and Flower only watch and plan.
MAIN_JOB = ("advisory-store", "worker-create", "worker-advise", SEALER)


class ProcessFailed(TryLater):
    """A process of the pipeline does not come up or does not stay up."""

    code = "PROCESS_FAILED"


class Pipeline:
    """The embedded server and the processes of the main job on one home; a context manager.

    ``RMOS_BROKER_URL`` or ``RMOS_ADVISORY_URL`` in the environment outrank the embedded parts, which then are
    not started.
    """

    def __init__(
        self,
        home: Home,
        *,
        names: tuple[str, ...] = MAIN_JOB,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Prepare to start ``names`` of ``PROCESSES``; ``before`` is called first, once the home is ours."""
        self._home = home
        self._names = names
        self._before = before
        self._ownership = Ownership(home)
        self._addresses: Addresses | None = None
        self._probes = Probes({})
        self.supervisor = Supervisor(home.logs_dir)

    def start(self) -> Addresses:
        """Start everything, wait until it answers, and announce it in the home.

        Raises:
            HomeTaken: another pipeline runs on this home; nothing was touched.
            StoreUnavailable: the home's store is away.
            TryLater: something did not come up; the text names its log.
        """
        self._ownership.take()
        store = self._home.open_store()
        if self._before is not None:
            self._before()
        broker_url = os.environ.get("RMOS_BROKER_URL") or self._start_server()
        advisory_url = os.environ.get("RMOS_ADVISORY_URL")
        names = [name for name in self._names if not (advisory_url and name == "advisory-store")]
        index_url = self._home.index_settings().index_url
        if index_url is None or find_spec("sqlalchemy") is None:
            # Lists are answered by the store then.
            names = [name for name in names if name != "indexer"]
        # Without a store of ours nobody answers there; the workers need an address all the same.
        advisory_port = (
            self._port("advisory-store")
            if "advisory-store" in names
            else self._home.port("advisory-store", lasting_port)
        )
        flower_port = self._port("flower") if "flower" in names else 0
        gateway_port = self._port("gateway") if "gateway" in names else 0
        worker_ports = {name: self._port(name) for name in names if name.startswith(_WORKERS)}
        addresses = Addresses(
            pid=os.getpid(),
            broker_url=broker_url,
            advisory_url=advisory_url or f"http://127.0.0.1:{advisory_port}",
            # A token of our making is for our own store only; a foreign one gets what the environment says.
            advisory_token=os.environ.get("RMOS_ADVISORY_TOKEN")
            or (None if advisory_url else self._home.secret("advisory-store")),
            flower_url=f"http://127.0.0.1:{flower_port}" if flower_port else None,
            gateway_url=f"http://127.0.0.1:{gateway_port}" if gateway_port else None,
            flower_auth=os.environ.get("FLOWER_BASIC_AUTH") or f"rmos:{self._home.secret('flower')}",
            worker_urls={name: f"http://127.0.0.1:{port}" for name, port in worker_ports.items()},
        )
        environment = {
            "RMOS_BROKER_URL": addresses.broker_url,
            "RMOS_RUNS_DIR": str(self._home.store_settings().runs_dir),
            "RMOS_STORE_ID": store.store_id,
            "RMOS_ADVISORY_URL": addresses.advisory_url,
            "RMOS_ADVISORY_DIR": str(self._home.advisory_dir),
            "RMOS_ADVISORY_PORT": str(advisory_port),
            "RMOS_GATEWAY_HOST": "127.0.0.1",
            "RMOS_GATEWAY_PORT": str(gateway_port),
            "RMOS_API_KEYS_FILE": os.environ.get("RMOS_API_KEYS_FILE") or str(self._home.make_keys_file()),
            "FLOWER_ADDRESS": "127.0.0.1",
            "FLOWER_PORT": str(flower_port),
            "FLOWER_BASIC_AUTH": addresses.flower_auth or "",
        }
        if index_url is not None:
            environment["RMOS_INDEX_URL"] = index_url.get_secret_value()
        if addresses.advisory_token is not None:
            environment["RMOS_ADVISORY_TOKEN"] = addresses.advisory_token
        for name in names:
            own = self._told_alone(name, worker_ports)
            self._start(name, (sys.executable, *PROCESSES[name]), environment | own)
        gateway = {"gateway": addresses.gateway_url} if addresses.gateway_url else {}
        self._probes = Probes({**addresses.worker_urls, **gateway})
        if "advisory-store" in names:
            self._wait_for("advisory-store", lambda: _serves(f"{addresses.advisory_url}/health"))
        if flower_port:
            self._wait_for("flower", lambda: _serves(f"{addresses.flower_url}/healthcheck"))
        if gateway_port:
            self._wait_for("gateway", lambda: _serves(f"{addresses.gateway_url}/healthz"))
        self._announce(addresses)
        return addresses

    def watch(self) -> list[Ended]:
        """Start again what has ended or does no work, tell what it was, and announce what is held back."""
        if (stalled := self._probes.next(self.supervisor.pids())) is not None:
            name, state = stalled
            self.supervisor.kill(name, f"its state was {state}")
        ended = self.supervisor.watch()
        held_back = tuple(self.supervisor.held_back())
        if self._addresses is not None and self._addresses.held_back != held_back:
            self._announce(replace(self._addresses, held_back=held_back))
        return ended

    def stop(self) -> None:
        """Stop everything; the state stays."""
        self.supervisor.stop()
        if self._addresses is not None:
            self._home.withdraw()
        self._ownership.release()

    def __enter__(self) -> Self:
        """Return the pipeline; ``start`` it inside."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _told_alone(self, name: str, worker_ports: Mapping[str, int]) -> dict[str, str]:
        """Return the variables that are this process's own."""
        own = {}
        if name in worker_ports:
            own = {"RMOS_WORKER_HTTP_HOST": "127.0.0.1", "RMOS_WORKER_HTTP_PORT": str(worker_ports[name])}
        if name == SEALER and (key_file := self._home.audit_settings().audit_key_file) is not None:
            own["RMOS_AUDIT_KEY_FILE"] = str(key_file)
        return own

    def _start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        inherited: tuple[int, ...] = (),
    ) -> None:
        withheld = () if name == SEALER else _AUDIT_KEY
        self.supervisor.start(name, command, environment, withheld=withheld, inherited=inherited)

    def _start_server(self) -> str:
        # The wheel with the server comes with an extra, and is not needed beside a server elsewhere.
        from rmos_runs.local.embedded import answers, server_command, server_url  # noqa: PLC0415

        port, password = self._port(SERVER), self._home.secret(SERVER)
        url = server_url(port, password)
        command = server_command(self._home.server_dir, port, password=password)
        # It holds the lock too: no other may open its files while it lives, whatever becomes of us.
        self._start(SERVER, command, {}, inherited=(self._ownership.descriptor,))
        self._wait_for(SERVER, lambda: answers(url, self.supervisor.pids().get(SERVER)))
        return url

    def _port(self, name: str) -> int:
        """Return the port that this home has for ``name``, which must be free by now.

        Raises:
            ProcessFailed: another program has it. No other is taken: whoever enqueues here knows this one.
        """
        port = self._home.port(name, lasting_port)
        deadline = time.monotonic() + _PORT_SECONDS
        while not is_free(port):  # what an owner that was killed left behind is still ending
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"port {port} of 127.0.0.1, which {name} has on {self._home.root}, is taken by another "
                    f"program; stop that one, or give {name} another port in {self._home.root / 'home.json'}"
                )
            time.sleep(_POLL_SECONDS)
        return port

    def _announce(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._home.announce(addresses)

    def _wait_for(self, name: str, answered: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not answered():
            self.supervisor.watch()
            if time.monotonic() > deadline:
                log = self.supervisor.log(name)
                raise ProcessFailed(f"{name} did not answer within {_READY_SECONDS:g} s; see {log}")
            time.sleep(_POLL_SECONDS)


def _serves(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):  # noqa: S310 - our own process on loopback
            return True
    except (URLError, OSError):
        return False
