"""``rmos runs pack | export``: records to take away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from rmos_runs.cli.acting import AsOption, WhyOption
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    HomeOption,
    JsonOption,
    catalog_of,
    err,
    ledger_if_set,
    print_json,
    say_unrecorded,
    store_of,
)
from rmos_runs.cli.filters import with_filters
from rmos_runs.cli.lag import tell_what_may_lack
from rmos_runs.cli.sink import STANDARD_OUTPUT, Sink
from rmos_runs.operations.export import Export
from rmos_runs.operations.flat_log import LogForm, flat_log
from rmos_runs.operations.identity import current_identity
from rmos_runs.operations.on_record import Doing, on_record
from rmos_runs.operations.pack import stream_pack
from rmos_runs.operations.selection import Pages, told_of
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.acts import ActKind
from rmos_shared.models.base import format_utc
from rmos_shared.runs.query import RunFilter
from rmos_shared.runs.reader import RunReader

OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is standard output.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


class ExportForm(StrEnum):
    """What an export is."""

    ZIP = "zip"
    CSV = "csv"
    JSONL = "jsonl"


def pack(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    output: OutputOption = None,
    force: ForceOption = False,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write all records of a run as a ZIP, by default RUN_ID.zip. The same records are the same bytes.

    Unpacked, it is checked by: sha256sum -c MANIFEST.sha256. Recorded as an act; without the broker it is
    written all the same, on no record.
    """
    store = store_of(home)
    pieces = stream_pack(run_id, RunReader(store), store, None)
    sink = Sink(f"{run_id}.zip" if output is None else output, force=force, binary=True)
    with _on_record(home, {"run_id": run_id}, sink, why, alias):
        sink.take(pieces)
    _tell(sink, as_json=as_json, run_id=run_id)


@with_filters
def export(
    *,
    choice: RunFilter,
    form: Annotated[
        ExportForm, typer.Option("--format", help="All records as a ZIP, or one row a run.")
    ] = ExportForm.ZIP,
    output: OutputOption = None,
    force: ForceOption = False,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write the records of many runs as a ZIP or a flat log.

    The ZIP is runs.zip by default; the flat log is CSV or JSON lines. What is damaged is named in the file
    and makes the exit code 7; the rest is there all the same. Recorded as an act; without the broker it is
    written all the same, on no record.
    """
    archive = form is ExportForm.ZIP
    default = "runs.zip" if archive else STANDARD_OUTPUT
    sink = Sink(default if output is None else output, force=force, binary=archive)
    damage, store, began = Damage(), store_of(home), datetime.now(UTC)
    about = {"filter": told_of(choice), "format": form.value}
    with catalog_of(home) as (catalog, reader), _on_record(home, about, sink, why, alias):
        if form is ExportForm.ZIP:
            selected = Export(catalog, choice, reader, store)
            figures = _take(selected, sink, damage)
            complete = selected.selection.complete_until_utc
        else:
            pages = Pages(catalog, choice)
            kind: LogForm = "csv" if form is ExportForm.CSV else "jsonl"
            sink.take(flat_log(pages, store, kind, damage.tell))
            figures, complete = {}, pages.complete_until_utc
    tell_what_may_lack("runs", complete, began=began)
    until = None if complete is None else format_utc(complete)
    _tell(sink, as_json=as_json, **figures, complete_until_utc=until)
    damage.exit()


@contextmanager
def _on_record(
    home: Path, about: Mapping[str, Any], sink: Sink, why: str, alias: str | None
) -> Iterator[None]:
    doing = Doing(ActKind.EXPORT, str(current_identity(alias)), {**about, "file": sink.name}, why)
    with ledger_if_set(home) as ledger, on_record(ledger, doing, unrecorded=say_unrecorded) as progress:
        yield
        progress.done = 1


def _take(selected: Export, sink: Sink, damage: Damage) -> dict[str, Any]:
    total = len(selected.selection.run_ids)
    with Progress(
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, transient=True
    ) as progress:
        bar = progress.add_task("", total=total)

        def watched() -> Iterator[bytes]:
            for piece in selected:
                yield piece
                progress.update(bar, completed=selected.done)

        sink.take(watched())
    for key, reason in sorted(selected.damaged.items()):
        damage.tell(CorruptArtifact(key, reason))
    return {"runs": total, "damaged": len(selected.damaged)}


def _tell(sink: Sink, *, as_json: bool, **figures: Any) -> None:
    """Say what was written, unless that went to standard output itself."""
    fields = {"file": sink.name, "size_bytes": sink.size_bytes, "sha256": sink.sha256, **figures}
    if not sink.is_file:
        return
    if as_json:
        print_json(fields)
    else:
        err.print(", ".join(f"{name} {value}" for name, value in fields.items()), markup=False)
