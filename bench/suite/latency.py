"""From enqueue to durable artifact at half load, against an empty Celery task at the same pace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lib.contender import EMPTY, PROCESSES, Contender, celery, single
from lib.drain import drain
from lib.group import Group, environment_of, program
from lib.ratio import Mark, figure
from lib.result import Curve, Section, Table
from lib.scene import scene, until
from lib.size import Size

_TIMED = celery("lib.timed", "runs.create")
_SHARES = (0.5, 0.9, 0.99)
#: The first jobs meet processes that have not yet imported all they need.
_WARM = 50
_PERCENT = 100


def section(scratch: Path, size: Size) -> Section:
    """Find what either can do, then keep half the pace of the slower one for both in turn."""
    full = min(
        drain(contender, scratch, jobs=size.single_jobs, seconds=size.drain_seconds).rate
        for contender in (single(), EMPTY)
    )
    ours = replace(single(), worker=_TIMED)
    taken: dict[str, list[list[float]]] = {"ours": [], "empty": []}
    for _ in range(size.drains):
        taken["ours"].append(_latencies("ours", ours, scratch, full / 2, size.latency_seconds))
        taken["empty"].append(_latencies("empty", EMPTY, scratch, full / 2, size.latency_seconds))
    rows = [
        Mark(
            f"latency-p{round(share * _PERCENT)}",
            f"enqueue to durable artifact at half load, p{round(share * _PERCENT)}",
            "an empty Celery task's",
            2,
            "ms",
            at_most=True,
        ).row(
            [percentile(times, share) for times in taken["ours"]],
            [percentile(times, share) for times in taken["empty"]],
        )
        for share in (0.5, 0.99)
    ]
    together = {name: [time for times in rounds for time in times] for name, rounds in taken.items()}
    table = Table(
        f"Milliseconds at {figure(full / 2)} jobs/s, {PROCESSES} processes, all rounds together",
        ("what", *(f"p{round(share * _PERCENT)}" for share in _SHARES), "jobs"),
        [
            [
                what,
                *(figure(percentile(together[name], share)) for share in _SHARES),
                str(len(together[name])),
            ]
            for name, what in (
                ("ours", "create-run, until durable"),
                ("empty", "empty Celery task, until run"),
            )
        ],
    )
    curve = Curve(
        "latency",
        "Enqueue to done at half load",
        "percentile",
        "milliseconds",
        {
            what: [(share, percentile(together[name], share / _PERCENT)) for share in range(1, _PERCENT)]
            for name, what in (("ours", "create-run, durable"), ("empty", "empty Celery task"))
        },
        log_y=True,
    )
    return Section(rows, [table], [curve])


def percentile(times: Sequence[float], share: float) -> float:
    """Return the time that ``share`` of them do not pass."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _latencies(mode: str, contender: Contender, scratch: Path, rate: float, seconds: float) -> list[float]:
    """Return milliseconds by job, in the order in which they were due."""
    with scene(scratch) as place:
        times = place.directory / "times"
        times.touch()
        environment = {**place.environment, "BENCH_TIMES": str(times)}
        with Group(contender.worker, environment, place.log("worker")):
            # Workers that are up and warm, as in service.
            _pace(mode, environment, rate=_WARM, seconds=2)
            until(lambda: len(_read(times)) > _WARM, "the first jobs")
            due = _pace(mode, environment, rate=rate, seconds=seconds)
            until(lambda: due.keys() <= _read(times).keys(), "the last jobs")
            done = _read(times)
    return [1000 * (done[job] - moment) for job, moment in due.items()][_WARM:]


def _pace(mode: str, environment: dict[str, str], *, rate: float, seconds: float) -> dict[str, float]:
    answer = subprocess.run(
        program("pace", mode, rate, seconds),
        env=environment_of(environment),
        check=True,
        stdout=subprocess.PIPE,
        timeout=60 + 4 * seconds,
    ).stdout
    return dict(json.loads(answer))


def _read(times: Path) -> dict[str, float]:
    # The last line may still be on its way.
    whole = times.read_text().rpartition("\n")[0]
    # A job may run twice; what counts is when it was first done.
    return {job: float(moment) for job, moment in reversed([line.split() for line in whole.splitlines()])}
