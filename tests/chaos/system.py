"""The pipeline under test: ``rmos up`` on a home, with a failing network between its processes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.addresses import Addresses
from chaos.census import MARK, SERVER, WORKERS, Census, alive, kill
from chaos.mount import Mount, MountRefused
from chaos.options import Options
from chaos.process import Process
from rmos_shared.auditlog import keys
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import LedgerStats
from support.proxy import Proxy

#: Quick enough that a run sees every net below a job at work; lenient towards jobs that only had bad luck.
SETTINGS = {
    "broker_timeout_seconds": 2.0,
    "heartbeat_seconds": 0.5,
    "lease_seconds": 4.0,
    "reconcile_seconds": 0.3,
    "notification_grace_seconds": 2.0,
    "retry_base_seconds": 0.2,
    "retry_cap_seconds": 2.0,
    "max_tries": 100,
    "retry_total_seconds": 7200.0,
    "breaker_open_seconds": 0.5,
    "advisory_timeout_seconds": 2.0,
    "advisory_total_seconds": 6.0,
    "max_crashes": 20,
    # Many seals, and many looks for what nobody told of.
    "audit_seal_seconds": 2.0,
    "audit_reconcile_seconds": 15.0,
}
_READY_SECONDS = 90.0
#: A worker that is asked to stop and has not by then is stuck: its tasks take milliseconds.
_STOP_SECONDS = 45.0
#: After this without a broker that answers on the home, nobody is going to bring it back.
_AWAY_SECONDS = 40.0
_WATCH_SECONDS = 0.25
_COMMAND_SECONDS = 60.0
#: Garbage on a channel ends who hears it at once, if it does.
_GARBAGE_SECONDS = 3.0
_TESTS = Path(__file__).parents[1]


class SystemFailed(Exception):
    """The pipeline could not be brought up, so nothing can be said about it."""


class System:
    """All processes; a context manager that leaves none behind."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory = directory.resolve()
        self.home = self.directory / "home"
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.advisory_dir = self.home / "advisories"
        self.audit_key = self.directory / "audit.pem"
        keys.generate(self.audit_key, "chaos")
        self.journal = directory / "journal.ndjson"
        self.post_journal = directory / "posts.ndjson"
        self.command = Path(sys.executable).with_name("rmos")
        self.mount = Mount(self.directory / "disk", self.home / "runs", self.directory / "other-disk")
        self.addresses = Addresses(self.home)
        mark = secrets.token_hex(8)
        self.census = Census(self.home, mark)
        #: What went wrong without costing a job, in words.
        self.findings: list[str] = []
        #: Promises that were broken, in words, each once; and how often.
        self.breaches: Counter[str] = Counter()
        #: Processes that ended without our doing, by name.
        self.ended_by_themselves: Counter[str] = Counter()
        self._options = options
        self._mark = mark
        self.broker = Proxy(self.addresses.broker)
        self.store = Proxy(self.addresses.store)
        self.gateway = Proxy(self.addresses.gateway)
        self.up: Process
        self.load: Process
        self.posts: Process
        self._mains: dict[int, str] = {}
        self._doomed: set[int] = set()
        #: Processes asked to stop, and when.
        self._asked: dict[int, float] = {}
        self._recent: deque[tuple[float, str]] = deque(maxlen=20)
        self._watched_at = 0.0
        self._answered_at = 0.0
        self._start_up_at: float | None = None
        self._without_mount = False

    # -- start and end ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything but the load, and wait until it answers; before any thread is started.

        Raises:
            SystemFailed: it does not.
        """
        try:
            self.mount.enter()
        except MountRefused as error:
            self.findings.append(f"no mount of its own for the runs directory ({error}): no fault of mounts")
        self.broker.start()
        self.store.start()
        self.gateway.start()
        self.up = Process(
            "rmos-up",
            [str(self.command), "up", "--home", str(self.home)],
            self.environment,
            self.directory / "rmos-up.log",
        )
        self.up.start()
        deadline = time.monotonic() + _READY_SECONDS
        while not (self.addresses.known and self._workers_are_ready() and self.store_faults()):
            if time.monotonic() > deadline or not self.up.alive:
                raise SystemFailed(self.up.told())
            time.sleep(0.1)
        self._answered_at = time.monotonic()

    @property
    def runs_dir(self) -> Path:
        """Where the runs lie, whatever is mounted."""
        return self.mount.disk if self.mount.refused in {"", "over"} else self.mount.point

    @property
    def environment(self) -> dict[str, str]:
        """What ``rmos up`` and the commands are told."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("RMOS_", "REMAP_", "FLOWER_"))}
        return {
            **inherited,
            **{f"RMOS_{setting.upper()}": str(value) for setting, value in SETTINGS.items()},
            "RMOS_AUDIT_KEY_FILE": str(self.audit_key),
            "PYTHONPATH": f"{_TESTS / 'chaos/site'}:{_TESTS}",
            "CHAOS_BROKER_PORT": str(self.broker.port),
            "CHAOS_STORE_PORT": str(self.store.port),
            MARK: self._mark,
        }

    def start_load(self) -> None:
        """Start the two that put runs in: by the Python client, and over HTTP."""
        times = [str(time.time()), str(self._options.seconds)]
        self.load = Process(
            "load",
            ["-m", "chaos.load", str(self.journal), str(self._options.runs), *times],
            {**self.environment, "RMOS_BROKER_URL": self.addresses.broker_url},
            self.directory / "load.log",
        )
        self.posts = Process(
            "posts",
            ["-m", "chaos.posts", str(self.post_journal), str(self._options.posts), *times],
            {**self.environment, "CHAOS_GATEWAY_URL": f"http://127.0.0.1:{self.gateway.port}"},
            self.directory / "posts.log",
        )
        for producer in self.producers:
            producer.start()

    @property
    def producers(self) -> tuple[Process, ...]:
        return self.load, self.posts

    def stop(self) -> None:
        """Ask ``rmos up`` to stop, as at the end of a day. Whoever is left then is a breach."""
        for producer in self.producers:
            producer.kill()
        self.doom_all()
        self.up.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self.up.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.up.alive:
            self.breach(f"rmos up had not stopped {_STOP_SECONDS:g} s after it was asked to")
            self.up.kill()
        for left in self.census.await_end(15):
            self.breach(f"left running after the end: {left.role or left.command}")
        self.census.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (getattr(self, name, None) for name in ("up", "load", "posts")):
            if process is not None:
                process.end()
        self.census.end()
        for proxy in (self.broker, self.store, self.gateway):
            with suppress(RuntimeError, TimeoutError):
                proxy.stop()

    # -- who is there -----------------------------------------------------------------------------

    def pids(self, *roles: str, unasked: bool = False) -> list[int]:
        """Return the main processes of these names; with ``unasked`` those that nobody asked to stop."""
        mains = self.census.mains()
        found = [pid for role in roles for pid in mains.get(role, ())]
        return [pid for pid in found if not (unasked and pid in self._asked)]

    def doom(self, pid: int) -> None:
        """Remember that the end of this process is our doing."""
        self._doomed.add(pid)

    def doom_all(self, *, but: int = 0) -> None:
        self._doomed |= {seen.pid for seen in self.census.everybody()} - {but}

    def ask_to_stop(self, pid: int, how: signal.Signals) -> None:
        self.doom(pid)
        self._asked[pid] = time.monotonic()
        kill(pid, how)

    def kill_supervisor(self, *, away: float, without_mount: bool = False) -> None:
        """Kill ``rmos up`` itself, and start it anew after a while, as the system's init would.

        That waits for the mount, unless ``without_mount``.
        """
        self.doom_all()
        self.up.kill()
        self._start_up_at = time.monotonic() + away
        self._without_mount = without_mount

    # -- while it runs ----------------------------------------------------------------------------

    @contextmanager
    def direct(self) -> Iterator[redis.Redis]:
        """Yield a fresh connection past the proxy, which sends nothing twice."""
        with connected(self.addresses.broker_url) as client:
            yield client

    @contextmanager
    def scratch(self) -> Iterator[redis.Redis]:
        """Yield a connection to a database that the pipeline does not use."""
        with connected(self.addresses.broker_url_of(9)) as client:
            yield client

    def stats(self) -> LedgerStats:
        with self.direct() as client:
            return JobLedger(client).stats()

    @property
    def load_is_done(self) -> bool:
        return all(producer.exit_code == 0 for producer in self.producers)

    def note(self, kind: str) -> None:
        """Remember what was done just now, to say so of whoever ends soon after."""
        self._recent.append((time.monotonic(), kind))

    def breach(self, promise: str) -> None:
        self.breaches[promise] += 1

    def tend(self) -> None:
        """Start ``rmos up`` and the load again, as an init would, and note what ended by itself."""
        for producer in self.producers:
            if not producer.alive and producer.exit_code != 0:
                if not producer.doomed:
                    self.breach(f"{producer.name} ended by itself: {producer.last_words()}")
                    time.sleep(0.5)
                producer.start()
        self._tend_up()
        self.watch()

    def watch(self) -> None:
        """Look at every process, and whether the broker answers."""
        now = time.monotonic()
        if now - self._watched_at < _WATCH_SECONDS:
            return
        self._watched_at = now
        mains = self.census.mains()
        if len(servers := mains.get(SERVER, [])) > 1 and not all(pid in self._mains for pid in servers):
            self.breach("two servers work on the files of one home")
        current = {pid: role for role, pids in mains.items() for pid in pids}
        for pid, role in self._mains.items():
            if pid not in current and not alive(pid):
                self._gone(pid, role)
        self._mains = current
        for pid, since in list(self._asked.items()):
            if not alive(pid):
                del self._asked[pid]
            elif now - since > _STOP_SECONDS:
                self.findings.append(f"pid {pid} had not stopped {_STOP_SECONDS:g} s after it was asked to")
                kill(pid)
        self._watch_broker(now)

    def _gone(self, pid: int, role: str) -> None:
        if pid in self._doomed:
            self._doomed.discard(pid)
            return
        if self.mount.away and role in WORKERS:
            return  # it refuses to start without its store, as it should
        self.ended_by_themselves[role] += 1
        now = time.monotonic()
        recent = [kind for at, kind in self._recent if now - at < _GARBAGE_SECONDS]
        if recent and all(kind.endswith("_garbage") for kind in recent):
            self.breach(f"{role} ended by itself after {recent[-1]}")
        else:
            after = ", ".join(recent) or "nothing of ours"
            self.findings.append(f"{role} ended by itself, after {after}; its log: {self._last_words(role)}")

    def _last_words(self, role: str) -> str:
        """Return what a process wrote last, for what ended by itself says best why."""
        log = self.home / "logs" / f"{role}.log"
        lines = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
        # The supervisor knows the exit code.
        lines += [line for line in self.up.told().splitlines() if role in line][-1:]
        return " / ".join(line[:300] for line in lines)

    def broker_answers(self) -> bool:
        try:
            with connected(self.addresses.broker_url, seconds=1.0) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def _watch_broker(self, now: float) -> None:
        if not self.broker_answers():
            if now - self._answered_at > _AWAY_SECONDS and self._start_up_at is None:
                self.breach(f"the broker was away for {_AWAY_SECONDS:g} s, and nobody started it again")
                self._start_anew()
        else:
            self._answered_at = now

    def _start_anew(self) -> None:
        """Do what an operator would in the end: end everything, and start ``rmos up`` again."""
        self.doom_all()
        self.up.kill()
        self.census.end(but={producer.pid for producer in self.producers})
        self._start_up_at = self._answered_at = time.monotonic()

    def _tend_up(self) -> None:
        if self.up.alive:
            return
        if self._start_up_at is None:
            # It may refuse to start without its store, and for no other reason.
            if not self._without_mount:
                self.breach(f"rmos up ended by itself with {self.up.exit_code}: {self.up.last_words()}")
            self.doom_all()
            self._start_up_at = time.monotonic() + 1.0
            self._without_mount = False
        elif time.monotonic() > self._start_up_at and (self._without_mount or not self.mount.away):
            self._start_up_at = None
            self.up.start()

    @property
    def is_up(self) -> bool:
        """Whether the ``rmos up`` of ours has announced itself."""
        return self.up.alive and self.addresses.supervisor == self.up.pid

    def rmos(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the home, as an operator would; a traceback is a breach."""
        try:
            ended = subprocess.run(
                [str(self.command), *words, "--home", str(self.home)],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_COMMAND_SECONDS,
            )
        except subprocess.TimeoutExpired:
            self.breach(f"rmos {words[0]} did not end within {_COMMAND_SECONDS:g} s")
            return subprocess.CompletedProcess(words, -1, "", "")
        if "Traceback" in ended.stderr:
            self.breach(f"rmos {' '.join(words[:2])}: traceback: {ended.stderr.splitlines()[-1][:150]}")
        return ended

    def later(self, *words: str) -> str | None:
        """Have a later version do something; None if it could not."""
        environment = {**self.environment, "RMOS_BROKER_URL": self.addresses.broker_url}
        del environment["CHAOS_BROKER_PORT"]
        ended = subprocess.run(
            [sys.executable, "-m", "chaos.later", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        if ended.returncode:
            self.findings.append(f"the later version could not {words[0]}: …{ended.stderr[-300:]}")
            return None
        return ended.stdout

    def store_faults(self, **switches: float) -> bool:
        """Replace the store's own faults. Returns whether it heard."""
        try:
            url = f"{self.addresses.store_url}/_faults"
            return httpx.put(url, json=switches, trust_env=False, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def flower_is_well(self) -> bool:
        url = self.addresses.flower_url
        try:
            return url is None or httpx.get(f"{url}/healthcheck", trust_env=False, timeout=10).is_success
        except httpx.HTTPError:
            return False

    def gateway_is_well(self) -> bool:
        """Say whether it answers, asked past the proxy."""
        host, port = self.addresses.gateway()
        try:
            return httpx.get(f"http://{host}:{port}/healthz", trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _workers_are_ready(self) -> bool:
        logs = [self.home / "logs" / f"{name}.log" for name in WORKERS]
        return all(log.exists() and "ready." in log.read_text(errors="replace") for log in logs)


@contextmanager
def connected(url: str, *, seconds: float = 10.0) -> Iterator[redis.Redis]:
    """Yield a connection that tries nothing twice."""
    client = redis.Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=seconds, socket_connect_timeout=seconds
    )
    with client:
        yield client
