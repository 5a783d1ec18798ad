"""``rmos up``, ``rmos advisory-store`` and ``rmos serve``: the processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption
from rmos_runs.local.home import Home
from rmos_runs.local.supervisor import Ended

_WATCH_SECONDS = 0.5


def up(
    *,
    flower: Annotated[bool, typer.Option(help="Run Flower too.")] = True,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Run all processes of the Procfile until stopped.

    The state survives a stop, and so do ports and passwords.

    RMOS_BROKER_URL and RMOS_ADVISORY_URL outrank the embedded server and the reference advisory store.
    """
    from rmos_runs.local.processes import PROCESSES, Pipeline  # noqa: PLC0415 - no other command needs them

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    names = tuple(name for name in PROCESSES if flower or name != "flower")
    place = Home(home)
    with Pipeline(place, names=names) as pipeline:
        try:
            addresses = pipeline.start()
            _say(f"up on {place.root}; logs in {place.logs_dir}; stop with Ctrl-C")
            _say(f"for programs: . {place.root}/env  (sets RMOS_BROKER_URL, which holds the password)")
            if addresses.flower_url:
                _say(f"Flower: {addresses.flower_url}  (user, password: flower_auth in {place.root}/up.json)")
            if addresses.gateway_url:
                _say(f"HTTP: {addresses.gateway_url}  (what there is: {addresses.gateway_url}/docs)")
            while True:
                for ended in pipeline.watch():
                    _say(_sentence(ended, place.logs_dir))
                time.sleep(_WATCH_SECONDS)
        except KeyboardInterrupt:
            _say("stopping")


def _sentence(ended: Ended, logs_dir: Path) -> str:
    how = f"signal {-ended.code}" if ended.code < 0 else f"code {ended.code}"
    if ended.why:
        how = f"{ended.why}, so it was killed"
    then = (
        f"is held back for {ended.pause_seconds:g} s, for it ends again and again"
        if ended.pause_seconds
        else "was started again"
    )
    return f"{ended.name} ended ({how}) and {then}; see {logs_dir / ended.name}.log"


def _say(text: str) -> None:
    # A terminal that went away must not end the processes; rich ends the program then.
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        # Or Python would try to write the rest at exit, fail, and end with 120.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def advisory_store() -> None:
    """Run the reference advisory store alone. Its settings are RMOS_ADVISORY_*."""
    os.execv(sys.executable, [sys.executable, "-m", "rmos_advisory_store"])  # noqa: S606 - becomes it


def serve() -> None:
    """Run the HTTP gateway alone. Its settings are RMOS_GATEWAY_* and those of its limits.

    Without API keys it listens on this machine only; see rmos keys.
    """
    os.execv(sys.executable, [sys.executable, "-m", "rmos_runs.gateway"])  # noqa: S606 - becomes it


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
