"""The command line's root: the commands by name, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from rmos_runs.cli.acts import app as acts
from rmos_runs.cli.attachments import app as attachments
from rmos_runs.cli.audit import app as audit
from rmos_runs.cli.batches import app as batches
from rmos_runs.cli.context import err
from rmos_runs.cli.demo import demo
from rmos_runs.cli.dlq import app as dlq
from rmos_runs.cli.doctor import doctor
from rmos_runs.cli.enqueue import attach, enqueue, suggest
from rmos_runs.cli.exit_codes import EXIT_CODES
from rmos_runs.cli.flower import flower
from rmos_runs.cli.health import health
from rmos_runs.cli.index import app as index
from rmos_runs.cli.jobs import app as jobs
from rmos_runs.cli.keys import app as keys
from rmos_runs.cli.migrate import app as migrate
from rmos_runs.cli.pauses import pause, pauses, resume
from rmos_runs.cli.reexplain import reexplain
from rmos_runs.cli.reviews import app as reviews
from rmos_runs.cli.runs import app as runs
from rmos_runs.cli.status import status
from rmos_runs.cli.store import app as store
from rmos_runs.cli.top import top
from rmos_runs.cli.up import advisory_store, serve, up
from rmos_runs.cli.webhooks import app as webhooks
from rmos_shared.errors import InvalidRequest, RmosError, SettingsInvalid

#: The first line keeps typer from joining the others.
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=_EPILOG,
)
app.command("demo")(demo)
app.command("enqueue")(enqueue)
app.command("suggest")(suggest)
app.command("attach")(attach)
app.command("reexplain")(reexplain)
app.command("up")(up)
app.command("advisory-store")(advisory_store)
app.command("serve")(serve)
app.command("flower")(flower)
app.command("doctor")(doctor)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("pauses")(pauses)
app.command("status")(status)
app.command("top")(top)
app.command("health")(health)
app.add_typer(jobs, name="jobs", help="The job ledger.")
app.add_typer(runs, name="runs", help="The stored runs.")
app.add_typer(attachments, name="attachments", help="Large outputs beside the runs, by their hash.")
app.add_typer(index, name="index", help="The index that answers lists of runs.")
app.add_typer(store, name="store", help="The directory that holds the artifacts.")
app.add_typer(migrate, name="migrate", help="The records of older systems.")
app.add_typer(dlq, name="dlq", help="The dead letters: what could not be done.")
app.add_typer(acts, name="acts", help="The acts on record: who, when, why, to how many.")
app.add_typer(
    audit,
    name="audit",
    help="The audit log: prove the record to a stranger. "
    "From keygen to prove for the shop, from verify to timestamps for an auditor, the last for a witness.",
)
app.add_typer(batches, name="batches", help="The batches of re-explanations.")
app.add_typer(keys, name="keys", help="The API keys of the HTTP gateway.")
app.add_typer(reviews, name="reviews", help="The review queue.")
app.add_typer(webhooks, name="webhooks", help="The endpoints that are told how jobs end.")


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's signature
    if asked:
        typer.echo(f"rmos-runs {version('rmos-runs')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Record why every cut was allowed: put runs in, watch their jobs, read their artifacts.

    Start with `rmos demo`, then `rmos up`.
    """


def run() -> None:
    """Run the command; an expected error is one line on standard error, never a traceback."""
    try:
        app(prog_name="rmos")
    except RmosError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except UnicodeEncodeError:
        if all(map(_is_text, sys.argv)):
            raise
        # No id, name or reason of ours is anything but text; file names are never encoded.
        err.print("error: an argument is not UTF-8 text", style="red")
        sys.exit(SettingsInvalid.exit_code)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _complain(error: RmosError) -> None:
    err.print(f"error {error.code}: {error}", markup=False, style="red")
    if isinstance(error, InvalidRequest):
        for problem in error.problems:
            err.print(f"  {problem}", markup=False)
