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
from chaos.faults import FAMILIES, FAMILY_OF
from chaos.options import EVERY_SECONDS, Options
from chaos.system import SystemFailed


class Stopped(Exception):
    """The time is up, or somebody asked to stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    told = _parser().parse_args(arguments)
    options = Options(
        seconds=told.seconds,
        seed=told.seed,
        jobs=told.jobs,
        drain_seconds=told.drain_seconds,
        counts={**_families(told), **dict(told.count)},
        only=tuple(told.only),
        without=tuple(told.without),
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
    if told.markdown:
        sys.stdout.write(report.as_markdown() + "\n")
        _say("\n".join(report.details()))
    else:
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
    for family, seconds in EVERY_SECONDS.items():
        kinds = "" if family == "malformed" else f": {', '.join(FAMILIES[family])}"
        parser.add_argument(
            f"--{family}", type=int, help=f"number; one in {seconds:g} seconds if left out{kinds}"
        )
    parser.add_argument("--drain-seconds", type=float, default=120.0, help="longest wait afterwards")
    parser.add_argument(
        "--count",
        nargs="+",
        default=(),
        type=_count,
        metavar="KIND=N",
        help="the number of one kind, apart from its family's",
    )
    parser.add_argument(
        "--only", nargs="+", default=(), choices=FAMILY_OF, metavar="KIND", help="these alone"
    )
    parser.add_argument(
        "--without", nargs="+", default=(), choices=FAMILY_OF, metavar="KIND", help="not these"
    )
    parser.add_argument("--directory", type=Path, help="work here and keep it, instead of in a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/guarantees.md")
    return parser


def _families(told: argparse.Namespace) -> dict[str, int]:
    counts = {family: getattr(told, family) for family in EVERY_SECONDS}
    return {family: count for family, count in counts.items() if count is not None}


def _count(word: str) -> tuple[str, int]:
    kind, _, number = word.partition("=")
    if kind not in FAMILY_OF or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{word!r} is not KIND=N with a kind that there is")
    return kind, int(number)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number).name)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _silent(_text: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
