"""The command line's root: groups, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys

import typer

from rmos_producer.cli import demo, dlq, doctor, enqueue, jobs, reviews, runs, services
from rmos_producer.cli.context import err
from rmos_shared.errors import InvalidRequest, RmosError

app = typer.Typer(
    name="rmos",
    help="Record why every cut was allowed: put runs in, watch their jobs, read their artifacts.",
    epilog="Exit codes: 0 done, 1 unexpected error, 2 usage or settings, 3 invalid input, 4 not found, "
    "5 conflict or not allowed, 6 try again later, 7 damage found, 8 invariant broken, 9 job ended dead.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (demo, enqueue, services, doctor):
    module.register(app)
for name, module in {"jobs": jobs, "runs": runs, "dlq": dlq, "reviews": reviews}.items():
    app.add_typer(module.app, name=name)


def run() -> None:
    """Run the ``rmos`` command; an expected error is one line on standard error, never a traceback."""
    try:
        app()
    except RmosError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away; there is nobody left to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _complain(error: RmosError) -> None:
    err.print(f"error {error.code}: {error}", markup=False, style="red")
    if isinstance(error, InvalidRequest):
        for problem in error.problems:
            err.print(f"  {problem}", markup=False)
