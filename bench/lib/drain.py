"""A backlog worked off: how many runs a second, and what they cost in processor time.

The queue is filled first. Counting begins when ``_WARM`` runs are stored, so that the start of the workers
is outside, and ends before the last ones, so that no process stands idle.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from lib.contender import Contender
from lib.group import Group, cpu_seconds, environment_of, program
from lib.scene import Scene, scene, until

_WARM = 100
_TAIL = 0.95
_FILL_SECONDS = 600.0
#: Between two counts, and at most a twentieth of the time spent counting.
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Reading:
    """What one drain showed; processor seconds are per 1,000 runs."""

    rate: float
    producer_cpu: float
    worker_cpu: float
    server_cpu: float

    @property
    def cpu(self) -> float:
        """Producer and workers with their children."""
        return self.producer_cpu + self.worker_cpu

    @property
    def cpu_with_server(self) -> float:
        """All processes there are."""
        return self.cpu + self.server_cpu


@dataclass(frozen=True, slots=True)
class _Filled:
    jobs: int
    seconds: float
    cpu: float
    server_cpu: float


def drain(contender: Contender, scratch: Path, *, jobs: int, seconds: float, warm: int = _WARM) -> Reading:
    """Fill a queue with ``jobs`` and count for at most ``seconds`` while it is worked off.

    Raises:
        TimeoutError: the workers did not get through the first ``warm``.
        RuntimeError: the workers ended, or the queue could not be filled.
    """
    with scene(scratch) as place:
        filled = fill(contender, place, jobs)
        with redis.Redis.from_url(place.url) as client:
            done = _counter(contender, place, client, jobs)
            with Group(contender.worker, place.environment, place.log("worker")) as workers:
                return _count(
                    workers, place, done, filled, goal=round(jobs * _TAIL), warm=warm, seconds=seconds
                )


def fill(contender: Contender, place: Scene, jobs: int) -> _Filled:
    """Enqueue in a process of its own."""
    server = cpu_seconds(place.server.pid)
    producer = subprocess.run(
        program("fill", contender.module, jobs),
        env=environment_of(place.environment),
        capture_output=True,
        timeout=_FILL_SECONDS,
        check=False,
    )
    if producer.returncode:
        raise RuntimeError(f"{contender.name}: the queue was not filled: {producer.stderr.decode()[-500:]}")
    cost = json.loads(producer.stdout)
    return _Filled(cost["jobs"], cost["seconds"], cost["cpu"], cpu_seconds(place.server.pid) - server)


def _counter(contender: Contender, place: Scene, client: redis.Redis, jobs: int) -> Callable[[], int]:
    queue = contender.queue
    if queue is None:
        return place.stored
    return lambda: jobs - int(client.llen(queue))


def _count(
    workers: Group,
    place: Scene,
    done: Callable[[], int],
    filled: _Filled,
    *,
    goal: int,
    warm: int,
    seconds: float,
) -> Reading:
    def warmed() -> bool:
        if workers.ended:
            raise RuntimeError(f"the workers ended: {workers.log.read_text()[-500:]}")
        return done() >= warm

    until(warmed, "the first runs", seconds=60)
    cpu, server = workers.cpu_seconds(), cpu_seconds(place.server.pid)
    first, began = done(), time.perf_counter()
    now, ended = first, began
    while now < goal and ended - began < seconds:
        time.sleep(_PAUSE_SECONDS)
        now, ended = done(), time.perf_counter()
    runs = now - first
    if runs <= 0:
        raise RuntimeError("nothing was stored while we counted")
    return Reading(
        rate=runs / (ended - began),
        producer_cpu=1000 * filled.cpu / filled.jobs,
        worker_cpu=1000 * (workers.cpu_seconds() - cpu) / runs,
        server_cpu=1000
        * ((cpu_seconds(place.server.pid) - server) / runs + filled.server_cpu / (filled.jobs + 1)),
    )
