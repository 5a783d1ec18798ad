"""Worker memory after many jobs, against after the first thousand."""

from __future__ import annotations

import time
from pathlib import Path

from lib.contender import PROCESSES, celery
from lib.group import Group
from lib.ratio import Mark
from lib.result import Curve, Section
from lib.scene import requests_of, scene, until
from lib.size import Size
from rmos_runs import RunsClient

_FIRST = 1_000
_STEPS = 5
_MEBIBYTE = 1 << 20
_WAIT_SECONDS = 900.0
#: For what is freed with a delay.
_SETTLE_SECONDS = 1.0


def section(scratch: Path, size: Size) -> Section:
    """Give one worker single and streamed jobs, and weigh all its processes as they pass."""
    total = _FIRST + size.memory_single + size.memory_bulk
    points: list[tuple[float, float]] = []
    with scene(scratch) as place, RunsClient.connect(broker_url=place.url) as client:
        worker = celery("rmos_worker.celery_app.main", "runs.create,runs.batch")
        with Group(worker, place.environment, place.log("worker")) as group:
            accepted = 0

            def work(single: int, bulk: int) -> None:
                nonlocal accepted
                for request in requests_of(single):
                    client.create_run(request)
                for _ in client.create_runs(requests_of(bulk)):
                    pass
                accepted += single + bulk
                until(lambda: place.stored() >= accepted, "all runs", seconds=_WAIT_SECONDS)
                time.sleep(_SETTLE_SECONDS)
                points.append((accepted, group.memory_bytes() / _MEBIBYTE))

            work(_FIRST // 2, _FIRST // 2)
            for _ in range(_STEPS):
                work(size.memory_single // _STEPS, size.memory_bulk // _STEPS)
    mark = Mark(
        "memory", f"worker memory after {total:,} jobs", f"after {_FIRST:,}", 1.05, "MiB", at_most=True
    )
    curve = Curve("memory", "Memory of a worker", "jobs done", "MiB", {"all its processes": points})
    remark = (
        f"{_FIRST // 2 + size.memory_single:,} of the jobs are single and the others streamed, so "
        f"that both ways are walked. Weighed is the proportional set size of the main process and its "
        f"{PROCESSES} children. "
        "One worker is watched for one long run, so this row has no spread."
    )
    return Section([mark.row([points[-1][1]], [points[0][1]])], curves=[curve], remarks=[remark])
