"""Suggest-and-attach while the advisory store takes its time: waiting must overlap."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from lib.contender import celery
from lib.group import Group, program
from lib.ratio import Mark, figure
from lib.result import Curve, Section, Table
from lib.scene import Scene, requests_of, scene, until
from lib.size import Size
from rmos_runs import RunsClient
from rmos_shared.runs.model import RunRequest
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.local import LocalStore
from rmos_worker.handlers.artifact import artifact_of

#: Below the point where two cores are full; the picture shows where that is.
CONCURRENCY = 4
_LATENCY_SECONDS = 0.05
#: `worker/rmos_worker/handlers/suggest.py` saves the explanation by one PUT, and asks for nothing.
_CALLS = 1
_WARM_SHARE = 0.1


def section(scratch: Path, size: Size) -> Section:
    """Compare with concurrency divided by the time that the calls of a job take at least."""
    rates: dict[int, list[float]] = {threads: [] for threads in size.advise_concurrency}
    shares: dict[int, list[float]] = {threads: [] for threads in size.advise_concurrency}
    for _ in range(size.drains):
        for threads in size.advise_concurrency:
            rate, share = _drain(scratch, threads, size.advise_seconds)
            rates[threads].append(rate)
            shares[threads].append(share)
    mark = Mark(
        "advise",
        f"suggest-and-attach, advisory store with {1000 * _LATENCY_SECONDS:.0f} ms, {CONCURRENCY} threads",
        f"concurrency ÷ ({_CALLS} call · latency)",
        0.75,
        "jobs/s",
        aim=0.85,
    )
    row = mark.row(rates[CONCURRENCY], [_ideal(CONCURRENCY)] * size.drains)
    table = Table(
        "By concurrency; the share of one core is the worker's alone",
        ("threads", "jobs/s", "concurrency ÷ latency", "ratio", "share of one core"),
        [
            [
                str(threads),
                figure(_middle(of)),
                figure(_ideal(threads)),
                f"{_middle(of) / _ideal(threads):.2f}",
                f"{_middle(shares[threads]):.2f}",
            ]
            for threads, of in rates.items()
        ],
    )
    curve = Curve(
        "advise",
        "Suggest-and-attach against a store that takes 50 ms",
        "threads",
        "jobs/s",
        {
            "suggest-and-attach": [(threads, _middle(of)) for threads, of in rates.items()],
            "concurrency ÷ latency": [(threads, _ideal(threads)) for threads in rates],
        },
        log_x=True,
        log_y=True,
    )
    return Section([row], [table], [curve] if len(rates) > 1 else [])


def _ideal(threads: int) -> float:
    return threads / (_CALLS * _LATENCY_SECONDS)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _drain(scratch: Path, threads: int, seconds: float) -> tuple[float, float]:
    """Return the jobs a second, and the worker's processor time as a share of one core."""
    jobs = round(_ideal(threads) * seconds)
    warm = max(1, round(jobs * _WARM_SHARE))
    port = _free_port()
    with scene(scratch) as place:
        environment = {
            **place.environment,
            "RMOS_ADVISORY_URL": f"http://127.0.0.1:{port}",
            "RMOS_ADVISORY_PORT": str(port),
            "RMOS_ADVISORY_DIR": str(place.directory / "advisories"),
            "SLOW_STORE_SECONDS": str(_LATENCY_SECONDS),
        }
        _prepare(place, jobs)
        worker = celery("rmos_worker.celery_app.main", "runs.advise", pool="threads", processes=threads)
        with Group(program("slow_store"), environment, place.log("advisory-store")):
            until(lambda: _answers(port), "the advisory store")
            with Group(worker, environment, place.log("worker")) as group:
                until(lambda: _linked(place) >= warm, "the first links")
                first, began, cpu = _linked(place), time.perf_counter(), group.cpu_seconds()
                last, ended = first, began
                while last < jobs - threads and ended - began < seconds:
                    time.sleep(_LATENCY_SECONDS)
                    last, ended = _linked(place), time.perf_counter()
                taken = ended - began
                return (last - first) / taken, (group.cpu_seconds() - cpu) / taken


def _prepare(place: Scene, jobs: int) -> None:
    """Store runs, and have each of them explained."""
    runs = [artifact_of(RunRequest.read(request))[0] for request in requests_of(jobs)]
    RunWriter(LocalStore(place.runs_dir)).put_runs(runs)
    with RunsClient.connect(broker_url=place.url) as client:
        for run in runs:
            client.suggest_and_attach(run.run_id)


def _linked(place: Scene) -> int:
    return sum(1 for name in place.names() if "_advisory_" in name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except (URLError, OSError):
        return False
