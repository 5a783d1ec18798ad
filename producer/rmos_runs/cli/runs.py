"""``rmos runs``: the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    DayOption,
    HomeOption,
    JsonOption,
    LimitOption,
    out,
    print_json,
    print_rows,
    runs_of,
    utc_day,
)
from rmos_runs.cli.table import Row
from rmos_runs.cli.verdict import verdict_lines
from rmos_runs.cli.verify import verify
from rmos_shared.errors import RunNotFound
from rmos_shared.runs import layout as keys
from rmos_shared.runs.reader import RunEntry, RunReader

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_runs(
    *,
    date_from: DayOption = None,
    date_to: DayOption = None,
    after: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on after this run: its id, or its path as listed.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List runs, newest first. Corrupt files are listed too, and make the exit code 7."""
    damage = Damage()
    with runs_of(home) as runs:
        entries = runs.list_runs(utc_day(date_from), utc_day(date_to), after=_key(runs, after))
        print_rows(
            _rows(entries, damage),
            as_json=as_json,
            title="runs",
            limit=limit,
            more=lambda last: f"--after {last['path']}, or raise --limit",
        )
    damage.exit()


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show a run as readers see it: its own verdict first, then who approved which explanation of it."""
    with runs_of(home) as runs:
        run = runs.read(run_id)
    # The same fields in JSON as in the store; what was decided on the run itself stands first.
    fields = run.dump()
    first = ("schema_version", "run_id", "status", "decision")
    fields = {name: fields[name] for name in first} | fields
    if as_json:
        print_json(fields)
        return
    for line in verdict_lines(run):
        out.print(line, markup=False)
    out.print_json(data=fields, ensure_ascii=False)


app.command()(verify)


def _key(runs: RunReader, after: str | None) -> str | None:
    if after is None or keys.partition_day(keys.partition_of(after)) is not None:
        return after
    key = runs.artifact_key(after)
    if key is None:
        raise RunNotFound(after)
    return key


def _rows(entries: Iterable[RunEntry], damage: Damage) -> Iterator[Row]:
    for entry in entries:
        if entry.error is not None:
            damage.tell(entry.error)
        yield _row(entry)


def _row(entry: RunEntry) -> Row:
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
