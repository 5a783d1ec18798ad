"""``rmos reexplain``: have many runs explained again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from rmos_runs.cli.acting import AsOption
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    err,
    ledger_of,
    out,
    print_json,
    store_of,
)
from rmos_runs.operations.batches import Preview, open_batch, preview
from rmos_runs.operations.identity import current_identity
from rmos_shared.batches.candidates import Fate
from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import LEAST_RATE, MOST_RATE, BatchSpec
from rmos_shared.runs.model import RiskLevel, Status

_Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="UTC date, inclusive.")]
#: What becomes of the runs that are not explained, in the words of a preview.
_LEFT_OUT = {
    Fate.EXPLAINED: "explained by the engine in use already",
    Fate.UNDER_WAY: "about to be explained by another job",
    Fate.NOT_MEANT: "left out by the options",
    Fate.CORRUPT: "corrupt; rmos runs verify names the files",
}


def reexplain(
    *,
    date_from: _Day,
    date_to: _Day,
    status: Annotated[Status | None, typer.Option(case_sensitive=False)] = None,
    risk: Annotated[RiskLevel | None, typer.Option(case_sensitive=False)] = None,
    tool_prefix: Annotated[str | None, typer.Option(help="What the tool begins with.")] = None,
    missing_only: Annotated[
        bool, typer.Option("--missing-only", help="Only runs that nobody has explained or failed to.")
    ] = False,
    failed_only: Annotated[
        bool, typer.Option("--failed-only", help="Only runs whose explanation failed for good.")
    ] = False,
    engine_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Only runs that an older version of the engine has explained last."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most runs to explain.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=LEAST_RATE, max=MOST_RATE, help="The most runs a second that get in line."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the runs and name some; write nothing.")
    ] = False,
    why: Annotated[str, typer.Option(help="The reason, kept with the batch.")] = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Explain again the runs of some days, in a batch. It takes what the engine in use has not explained.

    A batch gives way to all other work, makes no second link for a run and a version of the engine, and goes
    on after any crash. --json prints batch_id and state; with --dry-run the counts meant, explained,
    under_way, not_meant and corrupt, then limited, and a sample of run ids.
    """
    choice = RunChoice.read(
        {
            "date_from": date_from.date().isoformat(),
            "date_to": date_to.date().isoformat(),
            "status": status,
            "risk_level": risk,
            "tool_id_prefix": tool_prefix,
            "missing_only": missing_only,
            "failed_only": failed_only,
            "engine_older_than": engine_older_than,
        },
        what="choice of runs",
    )
    with ledger_of(home) as ledger:
        if dry_run:
            _tell(preview(store_of(home), ledger, choice, limit), as_json=as_json)
            return
        spec = BatchSpec(
            choice=choice, limit=limit, rate_per_second=rate, by=str(current_identity(alias)), why=why
        )
        batch_id = open_batch(ledger, spec)
    if as_json:
        print_json({"batch_id": batch_id, "state": "running"})
    else:
        out.print(f"opened: batch {batch_id}; rmos batches show tells how far it is", markup=False)


def _tell(found: Preview, *, as_json: bool) -> None:
    if as_json:
        print_json(found.dump())
        return
    runs = found.counts[Fate.MEANT.value]
    out.print(f"would be explained: {runs}{', which is the limit' if found.limited else ''}", markup=False)
    for run_id in found.sample:
        out.print(f"  {run_id}", markup=False)
    if runs > len(found.sample):
        out.print(f"  and {runs - len(found.sample)} more", markup=False)
    for fate, words in _LEFT_OUT.items():
        if found.counts[fate.value]:
            err.print(f"{found.counts[fate.value]} {words}", markup=False)
