"""``rmos reviews``: what waits for a person."""

from __future__ import annotations

from itertools import islice
from typing import Any

import typer

from rmos_producer.cli.context import DEFAULT_HOME, HomeOption, JsonOption, LimitOption, print_rows, runs_of
from rmos_producer.cli.runs import Day, utc_day
from rmos_shared.models.advisory import ComposedAdvisory

app = typer.Typer(help="The review queue.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``list`` a command of its own even while it is the only one."""


@app.command("list")
def list_reviews(
    *,
    date_from: Day = None,
    date_to: Day = None,
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
