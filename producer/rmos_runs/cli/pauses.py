"""``rmos pause | resume | pauses``: hold back a queue, a task, or the schedule."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from rmos_runs.cli.acting import AsOption, NeededWhyOption, WhyOption
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    err,
    ledger_of,
    print_json,
    print_rows,
)
from rmos_runs.operations.acts import ActReport, Plan, carry_out
from rmos_runs.operations.identity import current_identity
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobRecord
from rmos_shared.jobs.pauses import SCHEDULE, Pause, queue_subject, task_subject
from rmos_shared.models.base import format_utc


class Subject(StrEnum):
    """What can be paused."""

    QUEUE = "queue"
    TASK = "task"
    SCHEDULE = "schedule"


SubjectArgument = Annotated[Subject, typer.Argument(help="What kind of thing.")]
NameArgument = Annotated[str | None, typer.Argument(help="The queue or the task; the schedule has no name.")]


def pause(
    subject: SubjectArgument,
    name: NameArgument = None,
    *,
    why: NeededWhyOption,
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Hold back a queue, a task or the schedule until resumed. A pause outlasts restarts of everything.

    Workers take no more of its jobs. Those that they have taken already finish, and accepting goes on: jobs
    stay in line. While the schedule is paused, what falls due on it is not accepted.

    --json: act_id, subject, by, why, at_utc of the pause that stands.
    """
    about = _subject(subject, name)
    with ledger_of(home) as ledger:
        report = _carry_out(ledger, ActKind.PAUSE, about, alias, why)
        standing = next((one for one in ledger.pauses.all() if one.subject == about), None)
    if as_json:
        print_json({"act_id": report.act_id, **_row(standing or _unknown(about))})
    elif report.done or standing is None:
        err.print(f"paused: {_words(about)} (act {report.act_id})", markup=False)
    else:
        err.print(f"paused already: {standing.sentence}", markup=False)


def resume(
    subject: SubjectArgument,
    name: NameArgument = None,
    *,
    why: WhyOption = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Let a queue, a task or the schedule go on. Workers take its jobs at once, in the order of their line.

    --json: act_id, subject, resumed (false: it was not paused).
    """
    about = _subject(subject, name)
    with ledger_of(home) as ledger:
        report = _carry_out(ledger, ActKind.RESUME, about, alias, why)
    if as_json:
        print_json({"act_id": report.act_id, "subject": about, "resumed": report.done > 0})
    elif report.done:
        err.print(f"resumed: {_words(about)} (act {report.act_id})", markup=False)
    else:
        err.print(f"was not paused: {_words(about)}", markup=False)


def pauses(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """List what is paused, by whom and why.

    --json: a list of subject, by, why, at_utc.
    """
    with ledger_of(home) as ledger:
        print_rows(map(_row, ledger.pauses.all()), as_json=as_json, title="paused")


def tell_pauses(ledger: JobLedger, job: JobRecord | None = None) -> None:
    """Say on standard error what is paused; of one job, only what holds it back."""
    for one in ledger.pauses.all():
        if job is None or one.subject in {f"queue:{job.queue}", f"task:{job.task}"}:
            sys.stdout.flush()
            err.print(f"paused: {one.sentence}", markup=False, style="yellow")


def _subject(subject: Subject, name: str | None) -> str:
    if subject is Subject.SCHEDULE:
        if name is not None:
            raise typer.BadParameter("the schedule has no name", param_hint="NAME")
        return SCHEDULE
    if name is None:
        raise typer.BadParameter(f"which {subject.value}?", param_hint="NAME")
    return queue_subject(name) if subject is Subject.QUEUE else task_subject(name)


def _carry_out(ledger: JobLedger, kind: ActKind, subject: str, alias: str | None, why: str) -> ActReport:
    plan = Plan(kind, [subject], {"subject": subject}, str(current_identity(alias)), why)
    return carry_out(ledger, plan)


def _words(subject: str) -> str:
    return subject.replace(":", " ", 1)


def _row(one: Pause) -> dict[str, Any]:
    return {
        "subject": one.subject,
        "by": one.by,
        "why": one.why,
        "at_utc": None if one.at_utc is None else format_utc(one.at_utc),
    }


def _unknown(subject: str) -> Pause:
    # Resumed by another hand in this very moment.
    return Pause(subject=subject, by="", why="", at_utc=None)
