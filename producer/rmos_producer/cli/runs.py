"""``rmos runs``: the store."""

from __future__ import annotations

from datetime import date, datetime
from itertools import islice
from typing import Annotated, Any

import typer

from rmos_producer.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    LimitOption,
    err,
    print_json,
    print_rows,
    runs_of,
)
from rmos_shared.errors import CorruptArtifact
from rmos_shared.run_log import RunEntry

app = typer.Typer(help="The stored runs.", no_args_is_help=True)
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="UTC date, inclusive.")]


@app.command("list")
def list_runs(
    *,
    date_from: Day = None,
    date_to: Day = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List runs, newest first. Corrupt files are listed too, and make the exit code 7."""
    with runs_of(home) as runs:
        entries = list(islice(runs.list_runs(_day(date_from), _day(date_to)), limit))
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
    if as_json:
        print_json(told)
        return
    advisories = told.pop("advisory_inputs")
    print_rows(
        [{"field": name, "value": value} for name, value in told.items()],
        as_json=False,
        title=f"run {run_id}",
    )
    print_rows(
        [
            {
                "advisory_id": item["link"]["advisory_id"],
                "kind": item["link"]["kind"],
                "approved": item["link"]["approved"]
                if item["review"] is None
                else item["review"]["approved"],
                "reviewed_by": (item["review"] or item["link"])["reviewed_by"],
                "reason": item["link"]["reason"],
                "summary": item["link"]["summary"],
            }
            for item in advisories
        ],
        as_json=False,
        title="advisories",
    )


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _row(entry: RunEntry) -> dict[str, Any]:
    run = entry.artifact
    if run is None:
        blank = dict.fromkeys(("created_at_utc", "status", "risk_level", "mode", "tool_id", "request_id"))
        return {"run_id": None, **blank, "path": entry.key, "corrupt": True}
    told = run.dump()
    return {
        "run_id": run.run_id,
        "created_at_utc": told["created_at_utc"],
        "status": told["status"],
        "risk_level": told["decision"]["risk_level"],
        "mode": run.mode,
        "tool_id": run.tool_id,
        "request_id": run.request_id,
        "path": entry.key,
        "corrupt": False,
    }
