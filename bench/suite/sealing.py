"""What the audit log costs those who create runs: with all of it, and with jobs that tell it nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib.contender import Contender, bulk, celery, single
from lib.drain import Reading, drain
from lib.ratio import Mark
from lib.result import Section
from lib.size import Size

# With its log, which tells when it is ready.
_SEALER = (*celery("rmos_worker.celery_app.main", "runs.audit", pool="threads", processes=2), "-l", "INFO")
_UNLOGGED = "lib.unlogged"
_WHAT = "the same, telling no audit log"


def section(scratch: Path, size: Size) -> Section:
    """Drain with the sealer at work beside, and without any audit log, in turn."""
    rows = []
    for ours, jobs, key in (
        (single(), size.single_jobs, "single"),
        (bulk(), size.bulk_jobs, "bulk"),
    ):
        without = _unlogged(ours)
        sealed = replace(ours, beside=_SEALER)
        readings: dict[str, list[Reading]] = {"sealed": [], "without": []}
        for _ in range(size.drains):
            for name, contender in (("sealed", sealed), ("without", without)):
                readings[name].append(drain(contender, scratch, jobs=jobs, seconds=size.drain_seconds))
        what = f"create-run, {key} jobs, with the sealer beside"
        rows += [
            Mark(f"sealing-{key}", what, _WHAT, 0.95, "runs/s").row(
                [reading.rate for reading in readings["sealed"]],
                [reading.rate for reading in readings["without"]],
            ),
            Mark(f"sealing-{key}-cpu", f"CPU, {what}", _WHAT, 1.5, "s", at_most=True, aim=1.05).row(
                [reading.cpu_with_server for reading in readings["sealed"]],
                [reading.cpu_with_server for reading in readings["without"]],
            ),
        ]
    return Section(rows, [])


def _unlogged(contender: Contender) -> Contender:
    command = tuple(_UNLOGGED if word == "rmos_worker.celery_app.main" else word for word in contender.worker)
    return replace(contender, worker=command)
