"""``rmos runs``: the store."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from rmos_producer.cli.context import (
    DEFAULT_HOME,
    DayOption,
    HomeOption,
    JsonOption,
    LimitOption,
    err,
    print_object,
    print_rows,
    runs_of,
    utc_day,
)
from rmos_producer.cli.verify import verify
from rmos_shared.errors import CorruptArtifact
from rmos_shared.run_log import RunEntry

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_runs(
    *,
    date_from: DayOption = None,
    date_to: DayOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List runs, newest first. Corrupt files are listed too, and make the exit code 7."""
    with runs_of(home) as runs:
        entries = list(islice(runs.list_runs(utc_day(date_from), utc_day(date_to)), limit))
    print_rows([_row(entry) for entry in entries], as_json=as_json, title="runs")
    damaged = [entry for entry in entries if entry.error is not None]
    for entry in damaged:
        err.print(f"corrupt: {entry.error}", markup=False, style="red")
    if damaged:
        raise typer.Exit(CorruptArtifact.exit_code)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show a run as readers see it: the artifact, its advisories, reviews and explanation status."""
    with runs_of(home) as runs:
        told = runs.read(run_id).dump()
    print_object(told, as_json=as_json)


app.command()(verify)


def _row(entry: RunEntry) -> dict[str, Any]:
    run = entry.artifact
    if run is None:
        return {"run_id": None, "status": "CORRUPT", "risk": None, "tool": None, "path": entry.key}
    return {
        "run_id": run.run_id,
        "status": run.status.value,
        "risk": run.decision.risk_level.value,
        "tool": run.tool_id,
        "path": entry.key,
    }
