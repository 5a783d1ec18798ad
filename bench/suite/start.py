"""Coming up: the command line and the import of the client, against importing Celery."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lib.ratio import Mark, compare, figure
from lib.result import Section, Table
from lib.size import Size

_STARTS = 2


def section(scratch: Path, size: Size) -> Section:  # noqa: ARG001 - as every section
    """Start processes in turn."""
    rmos = str(Path(sys.executable).with_name("rmos"))
    celery = _starts(sys.executable, "-c", "import celery")
    rows = [
        compare(
            Mark(key, name, "`import celery`", reach, "ms", at_most=True, aim=aim),
            _starts(*command),
            celery,
            amount=_STARTS,
            rounds=size.rounds,
        )
        for key, name, reach, aim, command in (
            ("start-cli", "`rmos jobs show`, no broker", 22.0, 6.0, (rmos, "jobs", "show", "none")),
            ("start-client", "`import rmos_runs`", 1.3, None, (sys.executable, "-c", "import rmos_runs")),
        )
    ]
    whole = [
        ("`from celery import Celery`", "from celery import Celery"),
        ("`from rmos_runs import RunsClient`", "from rmos_runs import RunsClient"),
        ("`import redis`", "import redis"),
        ("`import pydantic, pydantic_settings`", "import pydantic, pydantic_settings"),
        ("`import typer, rich.console`", "import typer, rich.console"),
        ("nothing at all", "pass"),
    ]
    table = Table(
        "`import celery` loads next to nothing; what is used of it loads when first named",
        ("process", "ms"),
        [
            [name, figure(_milliseconds(_starts(sys.executable, "-c", code), size.rounds))]
            for name, code in whole
        ],
    )
    return Section(rows, [table])


def _milliseconds(start: Callable[[], None], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        start()
        times.append(1000 * (time.perf_counter() - began) / _STARTS)
    return statistics.median(times)


def _starts(*command: str) -> Callable[[], None]:
    def start() -> None:
        for _ in range(_STARTS):
            # A command that finds no broker says so and ends; what is measured is how long it takes to start.
            subprocess.run(
                command,
                check=False,
                env={**os.environ, "RMOS_BROKER_URL": "redis://127.0.0.1:1/0"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    return start
