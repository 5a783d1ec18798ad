"""``rmos batches``: how far batches of re-explanations are, and steering them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rmos_runs.cli.acting import AsOption
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    LimitOption,
    err,
    ledger_of,
    out,
    print_json,
    print_object,
    print_rows,
    store_of,
)
from rmos_runs.cli.table import Row
from rmos_runs.operations.batches import dead_job_of, find_batch
from rmos_runs.operations.identity import current_identity
from rmos_runs.operations.on_record import Doing, on_record
from rmos_shared.batches.record import BatchRecord, BatchState
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.batches import Step
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)

BatchArgument = Annotated[str, typer.Argument(help="The batch, as `rmos batches list` shows it.")]
WhyOption = Annotated[str, typer.Option(help="The reason, kept in the batch's history.")]


@app.command("list")
def list_batches(
    *,
    state: Annotated[BatchState | None, typer.Option(help="Only batches in this state.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List batches, the one opened last first.

    With --json a list of batch_id, state, jobs, pending, linked, dead, opened_at_utc, by and why.
    """
    with ledger_of(home) as ledger:
        print_rows(
            (_row(batch) for batch in ledger.batches.newest_first() if state in {None, batch.state}),
            as_json=as_json,
            title="batches",
            limit=limit,
            more=lambda _: "raise --limit, or choose by --state",
        )


@app.command()
def show(batch_id: BatchArgument, *, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Show what a batch is to do and what it has come to. Once it has ended, its report is shown too.

    With --json an object: batch, what the ledger has of it, with its counts and those still pending; report,
    the file that was written at its end; and dead_job, a dead letter for which the batch stands still until
    it is replayed. Each may be null.
    """
    with ledger_of(home) as ledger:
        record, report = find_batch(ledger, lambda: store_of(home), batch_id)
        dead_job = None if record is None else dead_job_of(ledger, record)
    if dead_job is not None:
        err.print(
            f"it stands still for a dead letter; see rmos dlq show {dead_job}", markup=False, style="red"
        )
    print_object(
        {
            "batch": None if record is None else {**record.dump(), "pending": record.counts.pending},
            "dead_job": dead_job,
            "report": None if report is None else report.dump(),
        },
        as_json=as_json,
    )


@app.command()
def pause(
    batch_id: BatchArgument,
    *,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Put no further runs of a batch in line. What is in line comes to its end.

    With --json an object of batch_id and state.
    """
    _steer(home, batch_id, Step.PAUSE, why=why, alias=alias, as_json=as_json)


@app.command()
def resume(
    batch_id: BatchArgument,
    *,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Go on with a batch that is paused, from where it was.

    With --json an object of batch_id and state.
    """
    _steer(home, batch_id, Step.RESUME, why=why, alias=alias, as_json=as_json)


@app.command()
def cancel(
    batch_id: BatchArgument,
    *,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """End a batch early. What is in line comes to its end, then the batch's report is written.

    With --json an object of batch_id and state.
    """
    _steer(home, batch_id, Step.CANCEL, why=why, alias=alias, as_json=as_json)


def _steer(home: Path, batch_id: str, step: Step, *, why: str, alias: str | None, as_json: bool) -> None:
    by = str(current_identity(alias))
    with ledger_of(home) as ledger:
        doing = Doing(ActKind.BATCH, by, {"batch_id": batch_id, "step": step.value}, why)
        with on_record(ledger, doing) as progress:
            progress.refused = 1
            state = ledger.batches.steer(batch_id, step, by=by, why=why)
            progress.done, progress.refused = 1, 0
    if as_json:
        print_json({"batch_id": batch_id, "state": state.value})
    else:
        out.print(f"{state.value}: batch {batch_id}", markup=False)


def _row(batch: BatchRecord) -> Row:
    counts = batch.counts
    row: dict[str, Any] = {
        "batch_id": batch.batch_id,
        "state": batch.state.value,
        "jobs": counts.jobs,
        "pending": counts.pending,
        "linked": counts.linked,
        "dead": counts.dead,
        "opened_at_utc": format_utc(batch.created_at_utc),
        "by": batch.spec.by,
        "why": batch.spec.why,
    }
    return row
