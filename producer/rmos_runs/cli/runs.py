"""``rmos runs``: the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    HomeOption,
    JsonOption,
    LimitOption,
    catalog_of,
    out,
    print_json,
    print_rows,
    runs_of,
    store_of,
)
from rmos_runs.cli.filters import with_filters
from rmos_runs.cli.lag import tell_what_may_lack
from rmos_runs.cli.packs import export, pack
from rmos_runs.cli.records import compare, diff, history
from rmos_runs.cli.table import Row
from rmos_runs.cli.tree import tree
from rmos_runs.cli.verdict import verdict_lines
from rmos_runs.cli.verify import verify
from rmos_shared.errors import CorruptArtifact, RunNotFound
from rmos_shared.index.cursor import cursor_at
from rmos_shared.index.row import place_of
from rmos_shared.runs import layout as keys
from rmos_shared.runs.files import RunFiles
from rmos_shared.runs.query import MAX_LIMIT, RunCatalog, RunFilter, RunItem
from rmos_shared.runs.reader import RunReader

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@with_filters
def list_runs(
    *,
    choice: RunFilter,
    after: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on after this run: its id, or its path as listed.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option(help="Go on where a list of the gateway stopped; the filters are the same.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List runs, newest first. Corrupt files are listed too, and make the exit code 7.

    The index answers if there is one; what it may lack is told. Without one every run is read.
    """
    if after is not None and cursor is not None:
        raise typer.BadParameter("give --after or --cursor, not both")
    damage = Damage()
    with catalog_of(home) as (catalog, runs):
        if after is not None:
            cursor = cursor_at(place_of(_key(runs, after)), choice)
        walk = Walk(catalog, choice, cursor, page=min(limit + 1, MAX_LIMIT))
        print_rows(
            _rows(walk, RunFiles(store_of(home)), damage),
            as_json=as_json,
            title="runs",
            limit=limit,
            more=lambda last: f"--after {last['path']}, or raise --limit",
        )
        walk.tell_what_may_lack()
    damage.exit()


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show a run as readers see it. Its own verdict is first, then who approved which explanation of it."""
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
app.command("history")(history)
app.command("compare")(compare)
app.command("diff")(diff)
app.command("tree")(tree)
app.command("pack")(pack)
app.command("export")(export)


class Walk:
    """The list of a filter, page by page; each is asked for when the one before is through."""

    def __init__(self, catalog: RunCatalog, choice: RunFilter, cursor: str | None, *, page: int) -> None:
        """Walk from ``cursor`` on, ``page`` runs at a time."""
        self._catalog = catalog
        self._choice = choice
        self._cursor = cursor
        self._page = page
        self._began = datetime.now(UTC)
        self._complete_until: datetime | None = None

    def __iter__(self) -> Iterator[tuple[str, RunItem | None]]:
        """Yield each run with the file it lies in, and files that cannot be read by themselves."""
        while True:
            page = self._catalog.page(self._choice, limit=self._page, cursor=self._cursor)
            self._complete_until = page.complete_until_utc
            found: list[tuple[str, RunItem | None]] = [(item.artifact_path, item) for item in page.items]
            found += [(file, None) for file in page.corrupt]
            yield from sorted(found, key=lambda entry: place_of(entry[0]), reverse=True)
            self._cursor = page.next_cursor
            if self._cursor is None:
                return

    def tell_what_may_lack(self) -> None:
        """Say up to when the list is complete, if that is not now."""
        tell_what_may_lack("runs", self._complete_until, began=self._began)


def _key(runs: RunReader, after: str) -> str:
    if keys.partition_day(keys.partition_of(after)) is not None:
        return after
    key = runs.artifact_key(after)
    if key is None:
        raise RunNotFound(after)
    return key


def _rows(found: Iterable[tuple[str, RunItem | None]], files: RunFiles, damage: Damage) -> Iterator[Row]:
    for file, item in found:
        if item is None:
            damage.tell(_damage_of(files, file))
        yield _row(file, item)


def _damage_of(files: RunFiles, file: str) -> CorruptArtifact:
    """Return what is wrong with a file that is named as corrupt."""
    try:
        if "/" in file:
            files.run(file)
        else:
            files.json_keys(f"{file}/")
    except CorruptArtifact as error:
        return error
    return CorruptArtifact(file, "it could not be read when it was indexed, and can be now")


def _row(file: str, item: RunItem | None) -> Row:
    if item is None:
        return {"run_id": None, "status": "CORRUPT", "risk": None, "tool": None, "path": file}
    return {
        "run_id": item.run_id,
        "status": item.status.value,
        "risk": item.risk_level.value,
        "tool": item.tool_id,
        "path": file,
    }
