"""``rmos jobs``: the ledger."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rmos_runs.cli.acting import (
    AllOption,
    AsOption,
    DryRunOption,
    Meant,
    NeededWhyOption,
    NumberOption,
    QueueOption,
    RateOption,
    RunFileOption,
    TaskOption,
    WhyOption,
    gathered,
    named,
    perform,
    runs_named_in,
)
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
from rmos_runs.cli.pauses import tell_pauses
from rmos_runs.cli.table import Row
from rmos_runs.operations.identity import current_identity
from rmos_runs.operations.job_filter import JobFilter, chosen_jobs
from rmos_runs.operations.on_record import Doing, on_record
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobRecord, JobState

app = typer.Typer(no_args_is_help=True)
#: Exit code of ``wait`` for a job that ended dead or discarded.
ENDED_DEAD = 9
#: Ids that the record of a repair names.
_NAMED = 10

IdsArgument = Annotated[list[str] | None, typer.Argument(help="Jobs; leave out to choose by the options.")]
StateOption = Annotated[JobState | None, typer.Option(help="Only jobs in this state.")]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="REASON", help="Only jobs whose last failure is of it.")
]
AgeOption = Annotated[
    float | None,
    typer.Option("--older-than", min=0, help="Only jobs accepted at least this many hours ago."),
]


@app.command("list")
def list_jobs(
    *,
    state: StateOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    older_than: AgeOption = None,
    run_id_file: RunFileOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List jobs, newest first; done ones stay for a week. What is paused is said below.

    --json: a list of job_id, state, task, run_id, retry_count, crash_count.
    """
    states = () if state is None else (state,)
    choice = JobFilter(states, task, queue, reason, older_than, runs_named_in(run_id_file))
    with ledger_of(home) as ledger:
        print_rows(
            map(_row, chosen_jobs(ledger, choice)),
            as_json=as_json,
            title="jobs",
            limit=limit,
            more=lambda _: "raise --limit, or choose by --state, --task or --queue",
        )
        tell_pauses(ledger)


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
        if record.state.pending:
            tell_pauses(ledger, record)


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
    job_ids: Annotated[list[str] | None, typer.Argument(help="Jobs that rmos doctor named.")] = None,
    *,
    feed: Annotated[bool, typer.Option("--feed", help="Repair the feed of the audit log too.")] = False,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Put jobs back where their state says; unfinished ones run again. Harmless for jobs that are well.

    With --feed what another program damaged of the audit log's feed and of its record is taken away, and ids
    that tell no time are replaced; what is lost so is found in the store, and sealed as late. Recorded as an
    act.
    """
    if not job_ids and not feed:
        raise typer.BadParameter("name the jobs that rmos doctor named, or say --feed")
    ids = job_ids or []
    about = {"ids": ids[:_NAMED], "more": max(len(ids) - _NAMED, 0), "feed": feed}
    rows: list[Row] = []
    with ledger_of(home) as ledger:
        if feed:
            # First, for while the feed is damaged no act can be recorded.
            rows += [{"job_id": key, "state": "taken away"} for key in ledger.unsealed.repair()]
        doing = Doing(ActKind.REPAIR, str(current_identity(alias)), about, why, len(ids) + feed)
        with on_record(ledger, doing) as progress:
            for job_id in ids:
                rows.append({"job_id": job_id, "state": ledger.consistency.repair(job_id)})
            progress.done = sum(row["state"] != "ok" for row in rows)
    print_rows(rows, as_json=as_json, title="repaired")


@app.command()
def cancel(
    ids: IdsArgument = None,
    *,
    why: NeededWhyOption,
    state: Annotated[
        JobState | None, typer.Option(help="Only accepted or only waiting jobs; both if left out.")
    ] = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    older_than: AgeOption = None,
    run_id_file: RunFileOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    yes_number: NumberOption = None,
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Cancel jobs that nobody has begun. They become discarded, with who did it and why in their history.

    A running job is refused, not killed. Webhooks hear of it as job.discarded; the explanation of its run may
    be asked for again. Jobs that options choose are cancelled once their number is confirmed.

    --json: as of rmos dlq replay.
    """
    states: tuple[JobState, ...] = (JobState.ACCEPTED, JobState.WAITING)
    if state is not None:
        if state not in states:
            raise typer.BadParameter("only accepted and waiting jobs can be cancelled", param_hint="--state")
        states = (state,)
    choice = JobFilter(states, task, queue, reason, older_than, runs_named_in(run_id_file))
    with ledger_of(home) as ledger:
        meant = _meant(ledger, ids, choice, every=every or state is not None)
        perform(
            ledger,
            ActKind.CANCEL,
            meant,
            what="jobs",
            dry_run=dry_run,
            number=yes_number,
            alias=alias,
            why=why,
            as_json=as_json,
        )


@app.command("run-now")
def run_now(
    ids: IdsArgument = None,
    *,
    task: TaskOption = None,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    older_than: AgeOption = None,
    run_id_file: RunFileOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    yes_number: NumberOption = None,
    rate: RateOption = None,
    alias: AsOption = None,
    why: WhyOption = "",
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make waiting jobs due now; they are in line within a second.

    The advisory store stays protected: while its breaker is open, a job that needs it is put off again, and
    that spends no try. Jobs that options choose are made due once their number is confirmed.

    --json: as of rmos dlq replay.
    """
    choice = JobFilter((JobState.WAITING,), task, queue, reason, older_than, runs_named_in(run_id_file))
    with ledger_of(home) as ledger:
        perform(
            ledger,
            ActKind.RUN_NOW,
            _meant(ledger, ids, choice, every=every),
            what="jobs",
            dry_run=dry_run,
            number=yes_number,
            alias=alias,
            why=why,
            as_json=as_json,
            rate=rate,
        )


def _meant(ledger: JobLedger, ids: list[str] | None, choice: JobFilter, *, every: bool) -> Meant:
    chooses = choice != JobFilter(choice.states)
    if ids:
        if every or chooses:
            raise typer.BadParameter("name jobs, or choose them by options; not both")
        return named(ids)
    if not chooses and not every:
        raise typer.BadParameter(
            "name jobs, or choose them by --task, --queue, --reason, --older-than, --run-id-file or --all"
        )
    return gathered(chosen_jobs(ledger, choice), choice.about(), id_of=lambda job: job.job_id, row=_row)


def _row(record: JobRecord) -> dict[str, Any]:
    return {
        "job_id": record.job_id,
        "state": record.state.value,
        "task": record.task,
        "run_id": record.run_id,
        "retry_count": record.retry_count,
        "crash_count": record.crash_count,
    }
