"""``rmos migrate``: the records of older systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from rmos_runs.cli.acting import AsOption, WhyOption
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    err,
    ledger_if_set,
    out,
    print_json,
    print_object,
    say_unrecorded,
    store_of,
    told,
)
from rmos_runs.local.home import Home
from rmos_runs.operations.identity import current_identity
from rmos_runs.operations.migration.report import Entry, Fate, Tally
from rmos_runs.operations.migration.run import Migration
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import Source, SourceKind, check_apart, source_of
from rmos_runs.operations.migration.status import status as status_of
from rmos_runs.operations.migration.survey import plan as plan_of
from rmos_runs.operations.migration.survey import verify as verify_of
from rmos_runs.operations.migration.target import Target
from rmos_runs.operations.on_record import Doing, on_record
from rmos_shared.errors import DamageFound, TryLater
from rmos_shared.jobs.acts import ActKind
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.base import ArtifactStore

app = typer.Typer(no_args_is_help=True)

SourceArgument = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="Directory or file of the old system; it is only read.")
]
FromOption = Annotated[
    SourceKind | None,
    typer.Option("--from", help="How the records lie; found out if left out.", show_default=False),
]
ShowOption = Annotated[
    int, typer.Option("--show", min=0, help="Most BLOCKED runs to name; --json names them all.")
]


@dataclass(frozen=True, slots=True)
class _Parts:
    source: Source
    store: ArtifactStore
    target: Target
    scratch: Scratch


@app.command()
def status(
    source: SourceArgument,
    *,
    kind: FromOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Count what the source and the store hold, by ids alone. This is quick, and no proof."""
    with _opened(source, kind, home) as parts:
        print_object(status_of(parts.source, parts.target, parts.scratch), as_json=as_json)


@app.command()
def plan(
    source: SourceArgument,
    *,
    kind: FromOption = None,
    show: ShowOption = 20,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Say what `rmos migrate run` would do, and write nothing.

    Each record that would be left out is named, and makes the exit code 7. With --json each record is a line,
    and the figures are the last one.
    """
    with _opened(source, kind, home) as parts:
        planned = plan_of(parts.source, parts.target, parts.scratch)
        _end(_tell(parts.source, planned, Tally(), show=show, as_json=as_json))


@app.command()
def run(
    source: SourceArgument,
    *,
    kind: FromOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Most runs to write; the same command goes on.")
    ] = None,
    show: ShowOption = 20,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Store every record of the source, with advisories and reviews. Repeating it changes nothing.

    An incomplete record becomes BLOCKED. A record that cannot be stored is named, and makes the exit code 7.
    Workers may be live on the store. Recorded as an act, unless the broker is away.
    """
    about = {"source": str(source.absolute()), "from": None if kind is None else kind.value, "limit": limit}
    doing = Doing(ActKind.MIGRATION, str(current_identity(alias)), about, why)
    with _opened(source, kind, home) as parts, ledger_if_set(home) as ledger:
        writer = RunWriter(told(parts.store, ledger))
        migration = Migration(parts.source, parts.target, writer, parts.scratch, limit=limit)
        tally = Tally()
        with on_record(ledger, doing, unrecorded=say_unrecorded) as progress:
            try:
                _tell(parts.source, migration.entries(), tally, show=show, as_json=as_json)
            finally:
                progress.done, progress.refused = tally.counts["run", Fate.CREATED], tally.faults
        _end(tally)


@app.command()
def verify(
    source: SourceArgument,
    *,
    kind: FromOption = None,
    show: ShowOption = 0,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Compare the source's records with the store's, byte for byte. All are compared, and nothing is written.

    A record that is missing, differs or cannot be read is named, and makes the exit code 7.
    """
    with _opened(source, kind, home) as parts:
        compared = verify_of(parts.source, parts.target, parts.scratch)
        _end(_tell(parts.source, compared, Tally(), show=show, as_json=as_json))


@contextmanager
def _opened(path: Path, kind: SourceKind | None, home: Path) -> Iterator[_Parts]:
    store = store_of(home)
    with Scratch() as scratch:
        source = source_of(path, kind, scratch)
        check_apart(path, Home(home).store_settings().runs_dir)
        yield _Parts(source, store, Target(store, scratch), scratch)


def _tell(source: Source, entries: Iterator[Entry], tally: Tally, *, show: int, as_json: bool) -> Tally:
    """Print what is to be said of each record as it comes, then the figures; return these."""
    lines = _Lines(show)
    say = (lambda entry: print_json(entry.dump())) if as_json else lines
    try:
        with _progress(source) as advance:
            for entry in entries:
                tally.add(entry)
                say(entry)
                advance(tally)
    except (TryLater, KeyboardInterrupt):
        err.print(f"stopped after {tally.runs} runs; the same command goes on from there")
        raise
    if as_json:
        print_json({"summary": tally.dump(source)})
    else:
        _print_figures(tally)
        if lines.hidden:
            err.print(f"{lines.hidden} BLOCKED runs are not named here; raise --show, or add --json")
    return tally


def _end(tally: Tally) -> None:
    """End the command with 7 on any fault."""
    if tally.faults:
        err.print(f"{tally.faults} records of the source are not in the store as they should be", style="red")
        raise typer.Exit(DamageFound.exit_code)


class _Lines:
    """Names every fault, and the first of the BLOCKED runs."""

    def __init__(self, show: int) -> None:
        self._left = show
        self.hidden = 0

    def __call__(self, entry: Entry) -> None:
        if entry.fault:
            out.print(f"{entry.place}: {entry.kind} {entry.fate}: {entry.reason}", markup=False, emoji=False)
        elif entry.violations and self._left:
            self._left -= 1
            out.print(f"{entry.place}: BLOCKED: {'; '.join(entry.violations)}", markup=False, emoji=False)
        elif entry.violations:
            self.hidden += 1


def _print_figures(tally: Tally) -> None:
    for kind in ("run", "link", "review"):
        counts = [f"{count} {fate}" for (of, fate), count in sorted(tally.counts.items()) if of == kind]
        if counts:
            out.print(f"{kind}s: {', '.join(counts)}", markup=False, emoji=False)
    if not tally.counts:
        out.print("nothing is in the source")
    if tally.blocked:
        out.print(
            f"BLOCKED, for they are incomplete or contradict themselves: {tally.blocked} runs", markup=False
        )


@contextmanager
def _progress(source: Source) -> Iterator[Callable[[Tally], None]]:
    with Progress(
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        bar = progress.add_task("", total=source.total)

        def advance(tally: Tally) -> None:
            progress.update(
                bar, completed=source.done, description=f"{tally.runs} runs, {tally.faults} left out"
            )

        yield advance
