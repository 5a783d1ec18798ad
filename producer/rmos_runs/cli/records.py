"""``rmos runs history | compare | diff``: what happened to a run, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    err,
    ledger_if_up,
    out,
    print_json,
    print_rows,
    store_of,
)
from rmos_runs.cli.table import Row, shown
from rmos_runs.operations import compare as comparing
from rmos_runs.operations import diff as differing
from rmos_runs.operations import history as telling
from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.models.base import format_utc
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.vocabulary import meta_text

LeftArgument = Annotated[str, typer.Argument(metavar="RUN_ID", help="The run; with OTHER, the older side.")]
OtherArgument = Annotated[str | None, typer.Argument(metavar="OTHER", help="The newer side.")]
ParentOption = Annotated[
    bool, typer.Option("--parent", help="Against the run that it came from, which is the older side.")
]
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def history(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Tell what happened to a run, oldest first. That is its jobs, failures, replays, advisories and reviews.

    The ledger forgets a done job after a week; files are kept for ever.
    """
    reader = RunReader(store_of(home))
    with ledger_if_up(home, "what the ledger knows of jobs is missing") as ledger:
        entries = telling.history(run_id, reader, ledger)
    rows = (entry.dump() if as_json else _row(entry) for entry in entries)
    print_rows(rows, as_json=as_json, title="history")


def compare(
    run_id: LeftArgument,
    other: OtherArgument = None,
    *,
    parent: ParentOption = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Say what differs between two runs. It compares risk, blocking, rules, parameters, hashes, outputs."""
    comparison = comparing.compare(*_two(RunReader(store_of(home)), run_id, other, parent=parent))
    if as_json:
        print_json(comparison.dump())
        return
    print_rows(_differences(comparison), as_json=False, title="differences")
    if comparison.truncated:
        err.print(f"more than {comparing.MOST_CHANGES} values of a kind differ; the first are listed")


def diff(
    run_id: LeftArgument,
    other: OtherArgument = None,
    *,
    parent: ParentOption = False,
    lines: Annotated[int, typer.Option(min=1, max=100_000, help="Most lines to print.")] = 400,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show two artifacts line against line, as indented JSON. The text of a G-code program is never shown."""
    left, right = _two(RunReader(store_of(home)), run_id, other, parent=parent)
    difference = differing.unified_diff(left, right, most_lines=lines)
    if as_json:
        print_json(difference.dump())
        return
    for line in difference.preview.split("\n")[:-1]:
        out.print(Text(shown(line), style=_COLOURS.get(line[:1], "")))
    if not difference.preview:
        err.print("nothing differs")
    if difference.truncated:
        err.print("there is more; raise --lines, or see rmos runs compare")


def _two(
    reader: RunReader, run_id: str, other: str | None, *, parent: bool
) -> tuple[RunArtifact, RunArtifact]:
    """Return both sides, the older first."""
    if (other is None) is not parent:
        raise typer.BadParameter("name two runs, or one and --parent")
    run = reader.get_artifact(run_id)
    if other is not None:
        return run, reader.get_artifact(other)
    parent_id = meta_text(run.meta, "parent_run_id")
    if parent_id is None:
        raise InvalidRequest((FieldProblem("meta.parent_run_id", "the run names no parent"),), what="run")
    return reader.get_artifact(parent_id), run


def _row(entry: telling.HistoryEntry) -> Row:
    details = ", ".join(f"{name} {value}" for name, value in entry.details.items())
    return {"at_utc": format_utc(entry.at_utc), "what": entry.what, "details": details}


def _differences(comparison: comparing.Comparison) -> Iterator[Row]:
    for name in ("status", "risk", "score", "blocking"):
        pair = getattr(comparison, name)
        if not pair.same:
            yield _difference(name, pair.left, pair.right)
    for rule in comparison.rules.removed:
        yield _difference("rules", rule, None)
    for rule in comparison.rules.added:
        yield _difference("rules", None, rule)
    for kind in ("decision", "context", "parameters"):
        for change in getattr(comparison, kind):
            yield _difference(f"{kind}.{change.path}", change.left, change.right)
    yield from _proofs(comparison)


def _proofs(comparison: comparing.Comparison) -> Iterator[Row]:
    for name, hashes in comparison.hashes:
        if hashes.same is False:
            yield _difference(f"hashes.{name}", hashes.left, hashes.right)
    for name, outputs in comparison.outputs:
        if outputs.left != outputs.right or outputs.same is False:
            yield _difference(f"outputs.{name}", _side(outputs.left), _side(outputs.right))


def _difference(what: str, left: Any, right: Any) -> Row:
    return {"what": what, "left": left, "right": right}


def _side(side: comparing.OutputSide) -> str | None:
    if side.place == "inline":
        return f"{side.size_bytes} bytes"
    return side.path
