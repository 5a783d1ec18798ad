"""``rmos reviews``: what waits for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    ByOption,
    Damage,
    DayOption,
    HomeOption,
    JsonOption,
    LimitOption,
    ledger_of,
    out,
    person,
    print_json,
    print_rows,
    runs_of,
    store_of,
    utc_day,
)
from rmos_runs.cli.table import Row
from rmos_runs.cli.verdict import run_lines
from rmos_runs.operations.reviews import record_review
from rmos_shared.errors import SettingsInvalid
from rmos_shared.jobs.events import EventState
from rmos_shared.runs.reader import RunReader, WaitingEntry
from rmos_shared.runs.writer import RunWriter

app = typer.Typer(no_args_is_help=True)
#: A verdict counts by its file; who follows the events may hear of it later.
_ANNOUNCE_SECONDS = 2.0


@app.command("list")
def list_reviews(
    *,
    date_from: DayOption = None,
    date_to: DayOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the advisories that the policy left to a person and nobody has reviewed.

    A damaged file that may hide one is named, and makes the exit code 7.
    """
    damage = Damage()
    with runs_of(home) as runs:
        entries = runs.waiting_reviews(utc_day(date_from), utc_day(date_to))
        print_rows(
            _rows(entries, damage),
            as_json=as_json,
            title="waiting for a person",
            limit=limit,
            more=lambda _: "raise --limit, or choose the days with --date-from and --date-to",
        )
    damage.exit()


def _rows(entries: Iterable[WaitingEntry], damage: Damage) -> Iterator[Row]:
    for entry in entries:
        if entry.error is not None:
            damage.tell(entry.error)
        if entry.advisory is not None:
            link = entry.advisory.link
            yield {"run_id": link.run_id, "advisory_id": link.advisory_id, "summary": link.summary}


AdvisoryArgument = Annotated[str, typer.Argument(help="The advisory, as `rmos reviews list` shows it.")]
RunArgument = Annotated[str, typer.Argument(help="The run.")]
NoteOption = Annotated[str | None, typer.Option(help="Why; kept with the verdict.")]


@app.command()
def approve(
    run_id: RunArgument,
    advisory_id: AdvisoryArgument,
    *,
    by: ByOption = None,
    note: NoteOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Approve an advisory: its words, not the cut. The verdict is a new record; no file changes."""
    _review(home, run_id, advisory_id, approved=True, by=by, note=note, as_json=as_json)


@app.command()
def reject(
    run_id: RunArgument,
    advisory_id: AdvisoryArgument,
    *,
    by: ByOption = None,
    note: NoteOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Reject an advisory: its words, not the cut. The verdict is a new record; no file changes."""
    _review(home, run_id, advisory_id, approved=False, by=by, note=note, as_json=as_json)


def _review(
    home: Path,
    run_id: str,
    advisory_id: str,
    *,
    approved: bool,
    by: str | None,
    note: str | None,
    as_json: bool,
) -> None:
    store = store_of(home)
    run = RunReader(store).get_artifact(run_id)
    review = record_review(
        RunWriter(store), run_id, advisory_id, approved=approved, reviewed_by=person(by), note=note
    )
    with suppress(SettingsInvalid), ledger_of(home, broker_timeout_seconds=_ANNOUNCE_SECONDS) as ledger:
        ledger.announce(EventState.REVIEWED, run_id, request_id=run.request_id)
    if as_json:
        decision = run.decision
        verdict = {
            "status": run.status,
            "risk_level": decision.risk_level,
            "block_reason": decision.block_reason,
        }
        print_json(review.dump() | {"judged": "advisory", "run_verdict": verdict})
        return
    what = "approved" if approved else "rejected"
    out.print(f"{what} by {review.reviewed_by}: advisory {advisory_id}", markup=False)
    out.print("The run itself stays as the server judged it:")
    for line in run_lines(run):
        out.print(line, markup=False)
