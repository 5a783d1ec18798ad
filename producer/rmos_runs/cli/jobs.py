"""``rmos jobs``: the ledger."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    LimitOption,
    client_of,
    ledger_of,
    print_object,
    print_rows,
)
from rmos_shared.jobs.model import JobRecord, JobState

app = typer.Typer(no_args_is_help=True)
#: Exit code of ``wait`` for a job that ended dead or discarded.
ENDED_DEAD = 9


@app.command("list")
def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List jobs; done ones stay for a week."""
    with ledger_of(home) as ledger:
        print_rows(
            map(_row, ledger.jobs(state)),
            as_json=as_json,
            title="jobs",
            limit=limit,
            more=lambda _: "raise --limit, or choose by --state",
        )


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show all that the ledger knows of a job, without its payload."""
    with ledger_of(home) as ledger:
        record = ledger.get(job_id)
    print_object(record.dump(), as_json=as_json)


@app.command()
def wait(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    *,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at the most.")] = 60.0,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Wait until a job has ended; exit 9 when it ended dead."""
    with client_of(home) as client:
        record = client.wait(job_id, timeout)
    print_object(record.dump(), as_json=as_json)
    if record.state is not JobState.DONE:
        raise typer.Exit(ENDED_DEAD)


@app.command()
def repair(
    job_ids: Annotated[list[str], typer.Argument(help="Jobs that rmos doctor named.")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Put jobs back where their state says; unfinished ones run again. Harmless for jobs that are well."""
    with ledger_of(home) as ledger:
        consistency = ledger.consistency
        rows = [{"job_id": job_id, "state": consistency.repair(job_id)} for job_id in job_ids]
    print_rows(rows, as_json=as_json, title="repaired")


def _row(record: JobRecord) -> dict[str, Any]:
    return {
        "job_id": record.job_id,
        "state": record.state.value,
        "task": record.task,
        "run_id": record.run_id,
        "retry_count": record.retry_count,
        "crash_count": record.crash_count,
    }
