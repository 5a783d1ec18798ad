"""``rmos dlq``: the dead letters."""

from __future__ import annotations

from enum import StrEnum
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
    err,
    ledger_of,
    print_json,
    print_object,
    print_rows,
)
from rmos_runs.cli.sink import STANDARD_OUTPUT, Sink
from rmos_runs.operations.dead_letters import (
    LetterFilter,
    Letters,
    chosen,
    died_at,
    every_letter,
    id_of,
    kind_of,
)
from rmos_runs.operations.letter_export import LetterForm, exported
from rmos_runs.operations.letter_groups import grouped
from rmos_shared.errors import JobNotFound
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.model import DeadReason, JobRecord, RawLetter
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)

IdsArgument = Annotated[list[str] | None, typer.Argument(help="Letters; leave out to choose by the options.")]
ReasonOption = Annotated[DeadReason | None, typer.Option(help="Only letters of this reason.")]
AgeOption = Annotated[
    float | None, typer.Option("--older-than", min=0, help="Only letters at least this many hours old.")
]


class ExportForm(StrEnum):
    """What an export of letters is."""

    CSV = "csv"
    JSONL = "jsonl"


@app.command("list")
def list_letters(
    *,
    reason: ReasonOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    older_than: AgeOption = None,
    run_id_file: RunFileOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the dead letters, oldest first, without their payloads.

    --json: a list of id, reason, message, kind, run_id, died_at_utc.
    """
    choice = LetterFilter(reason, task, older_than, queue, runs_named_in(run_id_file))
    with ledger_of(home) as ledger:
        print_rows(
            map(_row, chosen(every_letter(ledger.dead_letters), choice)),
            as_json=as_json,
            title="dead letters",
            limit=limit,
            more=lambda _: "raise --limit, or choose by --reason, --task or --older-than",
        )


@app.command()
def groups(
    *,
    reason: ReasonOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    older_than: AgeOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Group the dead letters by reason, error and place. The largest group comes first.

    The place is the last line of our own code in the traceback; the example is the letter that died last.

    --json: a list of count, reason, error_type, kind, example, place, first_seen_utc, last_seen_utc.
    """
    choice = LetterFilter(reason, task, older_than, queue)
    with ledger_of(home) as ledger:
        found = grouped(chosen(every_letter(ledger.dead_letters), choice))
    rows = [
        {
            "count": group.count,
            "reason": group.reason,
            "error_type": group.error_type,
            "kind": group.kind,
            "example": group.example,
            "place": group.place,
            "first_seen_utc": format_utc(group.first_seen),
            "last_seen_utc": format_utc(group.last_seen),
        }
        for group in found
    ]
    print_rows(rows, as_json=as_json, title="dead letters by cause")


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
    """Show a dead letter: what went wrong, where and how often. It also shows what was done about it."""
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
def export(
    output: Annotated[
        str, typer.Argument(metavar="FILE", help="A new file, never one that is there; - is standard output.")
    ],
    *,
    form: Annotated[ExportForm, typer.Option("--format", help="How it is written.")] = ExportForm.JSONL,
    payloads: Annotated[
        bool,
        typer.Option(
            "--payloads", help="The original bytes as well; the file is then for its owner alone (0600)."
        ),
    ] = False,
    reason: ReasonOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    older_than: AgeOption = None,
    run_id_file: RunFileOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write the dead letters to a file, one a line, as they come. Memory stays flat.

    JSON lines hold the history too; CSV is harmless to spreadsheets.

    --json: file, size_bytes, sha256, letters.
    """
    sink = Sink(output, force=None, binary=False, private=payloads)
    choice = LetterFilter(reason, task, older_than, queue, runs_named_in(run_id_file))
    count = 0

    def counted(letters: Letters) -> Letters:
        nonlocal count
        for letter in letters:
            count += 1
            yield letter

    with ledger_of(home) as ledger:
        letters = counted(chosen(every_letter(ledger.dead_letters), choice))
        kind: LetterForm = "csv" if form is ExportForm.CSV else "jsonl"
        sink.take(exported(letters, ledger.dead_letters, kind, payloads=payloads))
    if sink.name == STANDARD_OUTPUT:
        return
    written = {"file": sink.name, "size_bytes": sink.size_bytes, "sha256": sink.sha256, "letters": count}
    if as_json:
        print_json(written)
    else:
        err.print(f"{count} dead letters in {sink.name}", markup=False)


@app.command()
def replay(
    ids: IdsArgument = None,
    *,
    reason: ReasonOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
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
    """Give dead jobs a fresh start. The record stays until the job is done. Messages cannot be replayed.

    Letters that options choose are replayed once their number is confirmed, at the prompt or by --yes-number.
    Ctrl-C stops it and says how far it got; the same command does the rest. See rmos acts.

    --json: act_id, kind, found, count (replayed, or would be), refused (by id), outcome, sample, dry_run.
    """
    choice = LetterFilter(reason, task, older_than, queue, runs_named_in(run_id_file))
    with ledger_of(home) as ledger:
        perform(
            ledger,
            ActKind.REPLAY,
            _meant(ledger.dead_letters.dead(), ids, choice, every=every),
            what="dead letters",
            dry_run=dry_run,
            number=yes_number,
            alias=alias,
            why=why,
            as_json=as_json,
            rate=rate,
        )


@app.command()
def discard(
    ids: IdsArgument = None,
    *,
    why: NeededWhyOption,
    reason: ReasonOption = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    older_than: AgeOption = None,
    run_id_file: RunFileOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    yes_number: NumberOption = None,
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Give dead letters up for good. Their records stay, with who did it and why.

    Letters that options choose are discarded once their number is confirmed. --json: as of rmos dlq replay.
    """
    choice = LetterFilter(reason, task, older_than, queue, runs_named_in(run_id_file))
    with ledger_of(home) as ledger:
        perform(
            ledger,
            ActKind.DISCARD,
            _meant(every_letter(ledger.dead_letters), ids, choice, every=every),
            what="dead letters",
            dry_run=dry_run,
            number=yes_number,
            alias=alias,
            why=why,
            as_json=as_json,
        )


def _meant(letters: Letters, ids: list[str] | None, choice: LetterFilter, *, every: bool) -> Meant:
    if ids:
        if every or choice != LetterFilter():
            raise typer.BadParameter("name letters, or choose them by options; not both")
        return named(ids)
    if choice == LetterFilter() and not every:
        raise typer.BadParameter(
            "name letters, or choose them by --reason, --task, --queue, --older-than, --run-id-file or --all"
        )
    return gathered(chosen(letters, choice), choice.about(), id_of=id_of, row=_row)


def _row(letter: JobRecord | RawLetter) -> dict[str, Any]:
    if isinstance(letter, JobRecord):
        reason, message = letter.failure and letter.failure.reason, letter.failure and letter.failure.message
        run_id: str | None = letter.run_id
    else:
        reason, message, run_id = letter.reason, letter.detail, None
    return {
        "id": id_of(letter),
        "reason": reason,
        "message": message,
        "kind": kind_of(letter),
        "run_id": run_id,
        "died_at_utc": format_utc(died_at(letter)),
    }
