"""How a command acts on jobs: it shows how many are meant, has that confirmed, and tells how far it got."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rmos_runs.cli.context import err, print_json, print_rows
from rmos_runs.cli.exit_codes import STOPPED
from rmos_runs.cli.table import Row
from rmos_runs.operations.acts import ActReport, Plan, carry_out
from rmos_runs.operations.identity import current_identity
from rmos_runs.operations.job_filter import run_ids_in
from rmos_shared.errors import NumberDiffers, RmosError
from rmos_shared.jobs.acts import ActKind, ActOutcome
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.steering import SPOKEN

AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="What you call yourself; kept beside the system account."),
]
WhyOption = Annotated[str, typer.Option(metavar="TEXT", help="The reason, kept with the jobs and the act.")]
NeededWhyOption = Annotated[
    str, typer.Option("--why", metavar="TEXT", help="The reason, kept with the jobs and the act; required.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show how many are meant, and some of them; do nothing.")
]
NumberOption = Annotated[
    int | None,
    typer.Option("--yes-number", min=0, metavar="N", help="Do not ask: act if exactly N are meant."),
]
RateOption = Annotated[
    float | None,
    typer.Option("--rate", min=0.01, metavar="N", help="At most N a second, so that nothing is flooded."),
]
AllOption = Annotated[bool, typer.Option("--all", help="All that the other options choose.")]
RunFileOption = Annotated[
    typer.FileText | None,
    typer.Option(
        "--run-id-file",
        metavar="FILE",
        encoding="utf-8",
        errors="replace",  # what is no text is no run id
        help="Only of the runs that this file names, one a line.",
    ),
]
TaskOption = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only jobs of this task.")]
QueueOption = Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Only jobs of this queue.")]
#: Rows of a sample, and refusals that are printed.
_SAMPLE = 10
_RecordT = TypeVar("_RecordT")


@dataclass(frozen=True, slots=True)
class Meant:
    """The jobs that a command is about."""

    ids: list[str]
    #: How they were chosen, for the record of the act.
    about: Mapping[str, Any]
    #: The first of them.
    sample: list[Row]
    #: Whether they were named one by one, so that their number needs no confirmation.
    named: bool


def named(ids: Iterable[str]) -> Meant:
    """Return jobs that were named one by one."""
    every = list(dict.fromkeys(ids))
    return Meant(every, {"ids": every[:_SAMPLE], "more": max(len(every) - _SAMPLE, 0)}, [], named=True)


def gathered(
    records: Iterable[_RecordT],
    about: Mapping[str, Any],
    *,
    id_of: Callable[[_RecordT], str],
    row: Callable[[_RecordT], Row],
) -> Meant:
    """Return jobs that a filter chose; their ids alone are held in memory."""
    source = iter(records)
    first = list(islice(source, _SAMPLE))
    ids = list(dict.fromkeys([*map(id_of, first), *map(id_of, source)]))
    return Meant(ids, about, list(map(row, first)), named=False)


def runs_named_in(file: Iterable[str] | None) -> frozenset[str] | None:
    """Return the run ids in a file of them."""
    return None if file is None else run_ids_in(file)


def perform(
    ledger: JobLedger,
    kind: ActKind,
    meant: Meant,
    *,
    what: str,
    dry_run: bool,
    number: int | None,
    alias: str | None,
    why: str,
    as_json: bool,
    rate: float | None = None,
) -> None:
    """Do it, once its number is confirmed, and tell what it came to; ``what`` names the jobs in the plural.

    Raises:
        NumberDiffers: another number is meant than was confirmed; nothing was changed.
        BadParameter: nobody can be asked, and no number was given.
        Exit: it was stopped (130), or a job that was named is refused (its error's code).
    """
    if dry_run:
        _tell_dry(kind, meant, as_json=as_json)
        return
    by = str(current_identity(alias))
    if number is not None or not meant.named:
        confirm(len(meant.ids), number, what=what, spoken=SPOKEN[kind])
    if not meant.ids:
        _tell(kind, None, meant, as_json=as_json)
        return
    plan = Plan(kind, meant.ids, meant.about, by, why)
    begun: list[str] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        bar = progress.add_task(SPOKEN[kind], total=len(meant.ids))
        try:
            report = carry_out(
                ledger,
                plan,
                rate=rate,
                on_begin=begun.append,
                on_progress=lambda looked_at: progress.update(bar, completed=looked_at),
            )
        except RmosError:
            for act_id in begun:
                err.print(
                    f"act {act_id} met an error: rmos acts show says how far it got, "
                    "and the same command does the rest",
                    markup=False,
                )
            raise
    _tell(kind, report, meant, as_json=as_json)
    if report.outcome is ActOutcome.STOPPED:
        raise typer.Exit(STOPPED)
    for error in report.refused.values() if meant.named else ():
        raise typer.Exit(error.exit_code)


def confirm(found: int, number: int | None, *, what: str, spoken: str) -> None:
    """Have it confirmed that so many are meant: by ``number``, or at the prompt.

    ``what`` names them in the plural, ``spoken`` what is done to them. Where none is, nobody is asked.

    Raises:
        NumberDiffers: another number is meant; nothing was changed.
        BadParameter: nobody can be asked, and no number was given.
    """
    if number is None:
        if not found:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise typer.BadParameter(
                f"{found} {what} are meant; look at them with --dry-run, then say --yes-number {found}"
            )
        number = typer.prompt(
            f"{found} {what} will be {spoken}. Type their number to go on", type=int, err=True
        )
    if number != found:
        raise NumberDiffers(f"{found} {what} are meant, not {number}; nothing was changed")


def _tell_dry(kind: ActKind, meant: Meant, *, as_json: bool) -> None:
    if as_json:
        print_json(_answer(kind, meant, None, dry_run=True))
        return
    err.print(f"would be {SPOKEN[kind]}: {len(meant.ids)}")
    if meant.sample:
        print_rows(meant.sample, as_json=False, title=f"the first {len(meant.sample)}")


def _tell(kind: ActKind, report: ActReport | None, meant: Meant, *, as_json: bool) -> None:
    refused = {} if report is None else report.refused
    for error in islice(refused.values(), _SAMPLE):
        err.print(f"error {error.code}: {error}", markup=False, style="red")
    if len(refused) > _SAMPLE:
        err.print(f"and {len(refused) - _SAMPLE} more refused", style="red")
    if as_json:
        print_json(_answer(kind, meant, report, dry_run=False))
        return
    if report is None:
        err.print(f"{SPOKEN[kind]}: 0")
        return
    far = "" if report.done == len(meant.ids) else f" of {len(meant.ids)}"
    err.print(f"{SPOKEN[kind]}: {report.done}{far} (act {report.act_id})", markup=False)
    if report.outcome is ActOutcome.STOPPED:
        err.print("stopped; the same command does the rest")


def _answer(kind: ActKind, meant: Meant, report: ActReport | None, *, dry_run: bool) -> dict[str, Any]:
    refused = {} if report is None else report.refused
    return {
        "act_id": None if report is None else report.act_id,
        "kind": kind.value,
        "found": len(meant.ids),
        "count": len(meant.ids) if dry_run else 0 if report is None else report.done,
        "refused": {one: str(error) for one, error in refused.items()},
        "outcome": None if report is None else report.outcome.value,
        "sample": meant.sample,
        "dry_run": dry_run,
    }
