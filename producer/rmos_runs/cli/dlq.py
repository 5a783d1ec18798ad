"""``rmos dlq``: the dead letters."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    ByOption,
    HomeOption,
    JsonOption,
    LimitOption,
    err,
    ledger_of,
    person,
    print_json,
    print_object,
    print_rows,
)
from rmos_runs.operations.dead_letters import LetterFilter, Letters, chosen, every_letter, id_of
from rmos_shared.errors import JobNotFound
from rmos_shared.jobs.model import DeadReason, JobRecord, RawLetter
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)

IdsArgument = Annotated[list[str] | None, typer.Argument(help="Letters; leave out to choose by the options.")]
ReasonOption = Annotated[DeadReason | None, typer.Option(help="Only letters of this reason.")]
TaskOption = Annotated[str | None, typer.Option(help="Only jobs of this task.")]
AgeOption = Annotated[
    float | None, typer.Option("--older-than", min=0, help="Only letters at least this many hours old.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every letter that the other options choose.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
WhyOption = Annotated[str, typer.Option(help="The reason, kept in the letter's history.")]


@app.command("list")
def list_letters(
    *,
    reason: ReasonOption = None,
    task: TaskOption = None,
    older_than: AgeOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the dead letters, oldest first, without their payloads."""
    with ledger_of(home) as ledger:
        print_rows(
            map(_row, chosen(every_letter(ledger.dead_letters), LetterFilter(reason, task, older_than))),
            as_json=as_json,
            title="dead letters",
            limit=limit,
            more=lambda _: "raise --limit, or choose by --reason, --task or --older-than",
        )


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(help="A job or raw letter.")],
    *,
    payload: Annotated[
        bool, typer.Option("--payload", help="Print the original bytes as well; they may be confidential.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show a dead letter: what went wrong, where, how often, and what was done about it."""
    with ledger_of(home) as ledger:
        letter = ledger.find(letter_id) or ledger.dead_letters.find_raw(letter_id)
        if letter is None:
            raise JobNotFound(letter_id)
        fields = letter.dump()
        if payload:
            data = ledger.dead_letters.payload(letter_id) or ledger.dead_letters.raw_item(letter_id) or b""
            fields["payload"] = data.decode("utf-8", "backslashreplace")
    print_object(fields, as_json=as_json)


@app.command()
def replay(
    ids: IdsArgument = None,
    *,
    reason: ReasonOption = None,
    task: TaskOption = None,
    older_than: AgeOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    by: ByOption = None,
    why: WhyOption = "",
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Give dead jobs a fresh start. The record stays until the job is done. Messages cannot be replayed."""
    with ledger_of(home) as ledger:
        letters = _meant(ledger.dead_letters.dead(), ids, LetterFilter(reason, task, older_than), every=every)
        for letter in () if dry_run else letters:
            ledger.dead_letters.replay(letter, by=person(by), why=why)
    _report("replayed", letters, dry_run=dry_run, as_json=as_json)


@app.command()
def discard(
    ids: IdsArgument = None,
    *,
    why: Annotated[str, typer.Option(help="The reason, kept in the letter's history; required.")],
    by: ByOption = None,
    reason: ReasonOption = None,
    task: TaskOption = None,
    older_than: AgeOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Give dead letters up for good. Their records stay, with who did it and why."""
    with ledger_of(home) as ledger:
        letters = _meant(
            every_letter(ledger.dead_letters), ids, LetterFilter(reason, task, older_than), every=every
        )
        for letter in () if dry_run else letters:
            ledger.dead_letters.discard(letter, by=person(by), why=why)
    _report("discarded", letters, dry_run=dry_run, as_json=as_json)


def _meant(letters: Letters, ids: list[str] | None, choice: LetterFilter, *, every: bool) -> list[str]:
    if ids:
        return ids
    if choice == LetterFilter() and not every:
        raise typer.BadParameter("name letters, or choose them by --reason, --task, --older-than or --all")
    return [id_of(letter) for letter in chosen(letters, choice)]


def _report(what: str, letters: list[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({what: letters, "count": len(letters), "dry_run": dry_run})
    else:
        err.print(f"{'would be ' if dry_run else ''}{what}: {len(letters)}")


def _row(letter: JobRecord | RawLetter) -> dict[str, Any]:
    if isinstance(letter, JobRecord):
        failure = letter.failure
        return {
            "id": letter.job_id,
            "reason": failure.reason if failure else None,
            "message": failure.message if failure else None,
            "kind": letter.task,
            "run_id": letter.run_id,
            "died_at_utc": format_utc(letter.changed_at_utc),
        }
    return {
        "id": letter.raw_id,
        "reason": letter.reason,
        "message": letter.detail,
        "kind": f"message on {letter.queue}",
        "run_id": None,
        "died_at_utc": format_utc(letter.kept_at_utc),
    }
