"""Growth: more worker processes, more producers, a longer backlog."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import redis

from lib.contender import bulk, single
from lib.drain import drain
from lib.group import Group, environment_of, program
from lib.ratio import figure
from lib.result import Curve, Section, Table
from lib.scene import Scene, requests_of, scene, until
from lib.size import Size
from rmos_runs import RunsClient

#: Clients to a process; a process each would measure how many processes the machine can hold.
_PER_PROCESS = 10
_START_SECONDS = 0.6
_SAMPLE = 600
_WARM = 100
#: Of the backlog, at most, that is worked off to see how fast that goes.
_PART = 0.8
_PAUSE_SECONDS = 0.05
#: What must be left of the machine's memory.
_SPARE_BYTES = 2 << 30


def section(scratch: Path, size: Size) -> Section:
    """Grow one thing at a time."""
    tables, curves, remarks = [], [], []
    if size.processes:
        table, curve = _processes(scratch, size)
        tables.append(table)
        curves.append(curve)
    if size.producers:
        table, curve = _producers(scratch, size)
        tables.append(table)
        curves.append(curve)
    if size.backlog:
        table, curve, remark = _backlog(scratch, size)
        tables.append(table)
        curves.append(curve)
        remarks.append(remark)
    return Section((), tables, curves, remarks)


def _processes(scratch: Path, size: Size) -> tuple[Table, Curve]:
    rates: dict[str, dict[int, list[float]]] = {"single": {}, "bulk": {}}
    for _ in range(size.drains):
        for processes in size.processes:
            for way, contender, jobs in (
                ("single", single(processes), size.single_jobs),
                ("bulk", bulk(processes), size.bulk_jobs),
            ):
                rate = drain(contender, scratch, jobs=jobs, seconds=size.drain_seconds).rate
                rates[way].setdefault(processes, []).append(rate)
    middle = {way: {n: statistics.median(of) for n, of in by.items()} for way, by in rates.items()}
    table = Table(
        "Worker processes",
        ("processes", "single, runs/s", "bulk, runs/s"),
        [[str(n), figure(middle["single"][n]), figure(middle["bulk"][n])] for n in size.processes],
    )
    lines = {way: list(by.items()) for way, by in middle.items()}
    curve = Curve("processes", "Worker processes", "processes", "runs/s", lines, log_y=True)
    return table, curve


def _producers(scratch: Path, size: Size) -> tuple[Table, Curve]:
    found = {clients: _crowd(scratch, clients, size.producer_seconds) for clients in size.producers}
    cores = os.cpu_count()
    table = Table(
        f"Producers, each with connections of its own, {_PER_PROCESS} to a process at most, on {cores} cores",
        ("producers", "accepted single jobs/s", "milliseconds a call, p50", "p99"),
        [
            [str(clients), figure(rate), figure(middle), figure(late)]
            for clients, (rate, middle, late) in found.items()
        ],
    )
    points = [(clients, rate) for clients, (rate, _, _) in found.items()]
    curve = Curve("producers", "Producers", "producers", "jobs/s", {"accepted, single": points}, log_x=True)
    return table, curve


def _crowd(scratch: Path, clients: int, seconds: float) -> tuple[float, float, float]:
    """Return jobs accepted a second, and the milliseconds a call takes: median and p99."""
    processes = -(-clients // _PER_PROCESS)
    start = time.monotonic() + 2 + _START_SECONDS * processes
    command = program("crowd", clients // processes, start, seconds)
    with scene(scratch) as place:
        members = [
            subprocess.Popen(command, env=environment_of(place.environment), stdout=subprocess.PIPE)
            for _ in range(processes)
        ]
        try:
            answers = [
                json.loads(member.communicate(timeout=120 + processes + seconds)[0]) for member in members
            ]
        finally:
            for member in members:
                member.kill()
    times = sorted(taken for answer in answers for taken in answer)
    return len(times) / seconds, 1000 * statistics.median(times), 1000 * times[int(0.99 * len(times))]


def _backlog(scratch: Path, size: Size) -> tuple[Table, Curve, str]:
    """Let jobs pile up, and see at each length what accepting and answering one more costs."""
    lines: list[list[str]] = []
    accepting: list[tuple[float, float]] = []
    answering: list[tuple[float, float]] = []
    payload = statistics.mean(len(json.dumps(request)) for request in requests_of(_SAMPLE))
    remark = f"A request of this backlog has {figure(payload)} bytes on average."
    with (
        scene(scratch) as place,
        redis.Redis.from_url(place.url) as server,
        RunsClient.connect(broker_url=place.url) as client,
    ):
        pending = done = 0
        per_job = 0.0
        for length in size.backlog:
            if per_job * (length - pending) + _SPARE_BYTES > _free_bytes():
                remark += f" A backlog of {length:,} was left out: the machine has not the memory for it."
                break
            used, new = _used(server), length - pending
            accepted = _stream(client, new)
            per_job = (_used(server) - used) / new
            pending = length
            rate, stored = _answer(place, done, pending, size.drain_seconds)
            pending -= stored - done
            done = stored
            accepting.append((length, accepted))
            answering.append((length, rate))
            lines.append([f"{length:,}", figure(per_job), figure(accepted), figure(rate)])
    table = Table(
        "Backlog of streamed jobs",
        (
            "pending jobs",
            "server memory, bytes a job",
            "accepted meanwhile, jobs/s",
            "worked off then, runs/s",
        ),
        lines,
    )
    curve = Curve(
        "backlog",
        "A growing backlog",
        "pending jobs",
        "jobs/s",
        {"accepted": accepting, "worked off": answering},
        log_x=True,
    )
    return table, curve, remark


def _stream(client: RunsClient, jobs: int) -> float:
    sample = requests_of(_SAMPLE)
    began = time.perf_counter()
    for _ in client.create_runs(sample[index % _SAMPLE] for index in range(jobs)):
        pass
    return jobs / (time.perf_counter() - began)


def _answer(place: Scene, before: int, pending: int, seconds: float) -> tuple[float, int]:
    """Let workers take some of the backlog; return runs a second, and how many are stored by then."""
    with Group(bulk().worker, place.environment, place.log("worker")):
        until(lambda: place.stored() >= before + _WARM, "the first runs", seconds=300)
        first, began = place.stored(), time.perf_counter()
        while True:
            time.sleep(_PAUSE_SECONDS)
            last, ended = place.stored(), time.perf_counter()
            if last >= before + pending * _PART or ended - began >= seconds:
                break
    return (last - first) / (ended - began), place.stored()


def _used(server: redis.Redis) -> int:
    return int(server.info("memory")["used_memory"])


def _free_bytes() -> int:
    text = Path("/proc/meminfo").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable"))
