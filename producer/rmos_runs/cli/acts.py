"""``rmos acts``: what was done beside the normal way of jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    LimitOption,
    ledger_of,
    print_object,
    print_rows,
)
from rmos_shared.jobs.acts import Act
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_acts(
    *, limit: LimitOption = 100, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME
) -> None:
    """List what was done beside the normal way of jobs, newest first. Nothing is ever removed.

    That is: what operators did to jobs, pauses and batches, repairs, migrations, exports, bulk verdicts, new
    keys, starts of processes, and requests to change a run, which are refused.

    An act without an outcome is under way, or was killed: done says how far it got.

    --json: a list of act_id, kind, done, found, outcome, begun_at_utc, by, why.
    """
    with ledger_of(home) as ledger:
        print_rows(map(_row, ledger.acts.newest_first()), as_json=as_json, title="acts", limit=limit)


@app.command()
def show(
    act_id: Annotated[str, typer.Argument(help="The act.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show an act: who, when, why, from where, and what it was about.

    How many were meant, done and refused is shown too.

    --json: all its fields.
    """
    with ledger_of(home) as ledger:
        print_object(ledger.acts.get(act_id).dump(), as_json=as_json)


def _row(act: Act) -> dict[str, Any]:
    return {
        "act_id": act.act_id,
        "kind": act.kind,
        "done": act.done,
        "found": act.found,
        "outcome": act.outcome,
        "begun_at_utc": format_utc(act.begun_at_utc),
        "by": act.by,
        "why": act.why,
    }
