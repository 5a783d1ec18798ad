"""``rmos runs tree``: what came from what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    HomeOption,
    JsonOption,
    LimitOption,
    catalog_of,
    err,
    out,
    print_json,
    tell_more,
)
from rmos_runs.cli.lag import tell_what_may_lack
from rmos_runs.cli.table import shown
from rmos_runs.operations import tree as growing
from rmos_runs.operations.family import Relatives
from rmos_runs.operations.tree import ParentPlace, RollUp, RunTree, TreeBatch, TreeRun
from rmos_shared.runs.model import RiskLevel
from rmos_shared.runs.query import RunFilter

_COLOURS = {RiskLevel.GREEN: "green", RiskLevel.YELLOW: "yellow"}
#: Runs below are drawn at this depth, which they name: a line has room for so many steps.
_DEEPEST = 12


def tree(
    run_id: Annotated[
        str | None, typer.Argument(help="A run: what it came from, and all that came from it.")
    ] = None,
    *,
    session: Annotated[str | None, typer.Option(help="All runs of this session.")] = None,
    batch: Annotated[str | None, typer.Option(help="All runs of this batch.")] = None,
    limit: LimitOption = 10_000,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show runs by session, batch and parent, with counts by risk. The worst risk comes first.

    RED is worst, then ERROR and UNKNOWN, of which nobody knows, then YELLOW. Without an
    index a RUN_ID costs a walk through the store for each run of the tree.
    """
    if (run_id is None) is (session is None and batch is None):
        raise typer.BadParameter("name a run, or give --session, --batch or both")
    damage, began = Damage(), datetime.now(UTC)
    with catalog_of(home) as (catalog, reader):
        relatives = Relatives(catalog, reader, damage.tell)
        if run_id is None:
            choice = RunFilter.read({"session_id": session, "batch_label": batch}, what="filter")
            items, more = relatives.chosen(choice, most_runs=limit)
        else:
            items, more = relatives.family(run_id, most_runs=limit)
    run_tree = growing.tree(items)
    if as_json:
        print_json(run_tree.dump())
    elif not items:
        err.print("runs: none")
    else:
        _print(run_tree)
    if more:
        tell_more(limit, "runs", "raise --limit")
    tell_what_may_lack("runs", relatives.complete_until_utc, began=began)
    damage.exit()


def _print(run_tree: RunTree) -> None:
    root = Tree(_total("runs", run_tree.total))
    for session in run_tree.sessions:
        branch = root.add(_total(_named("session", session.session_id), session.total))
        for batch in session.batches:
            _grow(branch.add(_total(_named("batch", batch.batch_label), batch.total)), batch)
    out.print(root)
    for cycle in run_tree.cycles:
        err.print(f"a circle of parents: {' <- '.join(cycle)}", markup=False)
    for parent in run_tree.absent_parents:
        err.print(f"a parent that is not in this tree: {shown(parent)}", markup=False)


def _grow(branch: Tree, batch: TreeBatch) -> None:
    # By depth, the branch that the next deeper run belongs on.
    branches = [branch]
    for run in batch.runs:
        depth = min(run.depth, _DEEPEST)
        del branches[depth + 1 :]
        branches.append(branches[depth].add(_line(run)))


def _line(run: TreeRun) -> Text:
    text = Text(run.run_id, no_wrap=True)
    text.append(f"  {run.status.value}")
    text.append(f"  {run.risk_level.value}", style=_COLOURS.get(run.risk_level, "red"))
    text.append(f"  {shown(run.event_type)}")
    if run.parent_place not in {ParentPlace.NONE, ParentPlace.ABOVE}:
        text.append(f"  from {shown(run.parent_run_id)} ({run.parent_place.value})", style="dim")
    if run.depth > _DEEPEST:
        text.append(f"  depth {run.depth}", style="dim")
    return text


def _total(name: str, total: RollUp) -> Text:
    counts = ", ".join(f"{risk} {count}" for risk, count in total.risks.items())
    return Text(f"{name}: {total.runs} ({counts})", no_wrap=True)


def _named(kind: str, name: str | None) -> str:
    return f"no {kind}" if name is None else f"{kind} {shown(name)}"
