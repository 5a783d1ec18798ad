"""``rmos reviews``: what waits for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from rmos_producer.cli.context import (
    DEFAULT_HOME,
    ByOption,
    DayOption,
    HomeOption,
    JsonOption,
    LimitOption,
    person,
    print_object,
    print_rows,
    runs_of,
    utc_day,
)
from rmos_shared.ids import new_uuid7
from rmos_shared.models.advisory import ComposedAdvisory, Review

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_reviews(
    *,
    date_from: DayOption = None,
    date_to: DayOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the advisories that the policy left to a person and nobody has reviewed."""
    with runs_of(home) as runs:
        waiting = list(islice(runs.waiting_reviews(utc_day(date_from), utc_day(date_to)), limit))
    print_rows([_row(advisory) for advisory in waiting], as_json=as_json, title="waiting for a person")


def _row(advisory: ComposedAdvisory) -> dict[str, Any]:
    told = advisory.link.dump()
    names = ("run_id", "advisory_id", "summary")
    return {name: told[name] for name in names}


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
    """Approve an advisory. The verdict is a new record; no file changes."""
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
    """Reject an advisory. The verdict is a new record; no file changes."""
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
    review = Review.read(
        {
            "review_id": new_uuid7(),
            "run_id": run_id,
            "advisory_id": advisory_id,
            "created_at_utc": datetime.now(UTC),
            "approved": approved,
            "reviewed_by": person(by),
            "note": note,
        }
    )
    with runs_of(home) as runs:
        runs.add_review(review)
    print_object(review.dump(), as_json=as_json)
