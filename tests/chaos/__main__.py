"""``python -m chaos``: break a real pipeline for a while, then count. Exits with 1 if the count is wrong."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from chaos.campaign import run
from chaos.faults import CUTS, KILLS, TROUBLES
from chaos.options import Options, default_cuts, default_kills
from chaos.system import SystemFailed
from support.malformed import KINDS


class Stopped(Exception):
    """The time is up, or somebody asked to stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    told = _parser().parse_args(arguments)
    options = Options(
        seconds=told.seconds,
        seed=told.seed,
        jobs=told.jobs,
        kills=default_kills(told.seconds) if told.kills is None else told.kills,
        cuts=default_cuts(told.seconds) if told.cuts is None else told.cuts,
        malformed=max(len(KINDS), round(told.seconds / 3)) if told.malformed is None else told.malformed,
        drain_seconds=told.drain_seconds,
        only=tuple(told.only),
    )
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(how, _stop)
    signal.alarm(options.hard_cap_seconds)
    directory = told.directory or Path(tempfile.mkdtemp(prefix="rmos-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        report = run(options, directory, _silent if told.json else _say)
    except (Stopped, SystemFailed) as error:
        _say(f"{type(error).__name__}: {error}; its files are in {directory}")
        return 2
    sys.stdout.write((report.as_json() if told.json else report.as_text()) + "\n")
    if told.directory is None:
        if report.sound and not told.keep:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            _say(f"its files are in {directory}")
    return 0 if report.sound else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=1, help="fixes which faults come when")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs to have done, spread over the time")
    parser.add_argument("--kills", type=int, help="processes to kill or deploy; one in 8 seconds if left out")
    parser.add_argument("--cuts", type=int, help="faults of connections; one in 6 seconds if left out")
    parser.add_argument("--malformed", type=int, help="malformed messages to push; one in 3 seconds")
    parser.add_argument("--drain-seconds", type=float, default=120.0, help="longest wait afterwards")
    every = (*KILLS, *CUTS, *TROUBLES)
    parser.add_argument("--only", nargs="+", default=(), choices=every, metavar="KIND", help=", ".join(every))
    parser.add_argument("--directory", type=Path, help="work here and keep it, instead of in a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    return parser


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number).name)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _silent(_text: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
