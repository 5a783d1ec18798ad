"""``rmos runs verify``: every stored file proven."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rmos_runs.cli.context import DEFAULT_HOME, DayOption, HomeOption, JsonOption, err, out, utc_day
from rmos_runs.local.home import Home
from rmos_shared.errors import CorruptArtifact
from rmos_shared.runs.verification import Checked, StoreVerification
from rmos_shared.store.choice import chosen_store


def verify(
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Runs to check, with all that belongs to them.")
    ] = None,
    *,
    date_from: DayOption = None,
    date_to: DayOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="The whole store: every day, every attachment, and foreign files.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Parse every file, and prove its hashes and its place. Links, reviews and attachments are matched.

    Damaged files are named, each on a line, and make the exit code 7. Nothing is changed.
    """
    spans = date_from is not None or date_to is not None
    if bool(run_ids) + spans + every != 1:
        raise typer.BadParameter("name runs, or give --date-from or --date-to, or --all")
    settings = Home(home).store_settings()
    store = chosen_store(settings)
    store.identity()  # a store that is away is an error, not an empty one
    verification = StoreVerification(store)
    if run_ids:
        parts = iter([(run_id, verification.run(run_id)) for run_id in run_ids])
        total = len(run_ids)
    else:
        days = verification.days(utc_day(date_from), utc_day(date_to))
        parts = ((day, verification.day(day)) for day in days)
        total = len(days) + every
        if every:
            parts = chain(parts, [("elsewhere", verification.elsewhere())])
    damaged = _report(parts, total, as_json=as_json)
    if damaged:
        raise typer.Exit(CorruptArtifact.exit_code)


def _report(parts: Iterator[tuple[str, Iterator[Checked]]], total: int, *, as_json: bool) -> int:
    """Print damage as it is found and the figures at the end; return the number of damaged files.

    Nothing is kept: the list of damage in JSON is written piece by piece.
    """
    counts: Counter[str] = Counter()
    damaged = 0
    if as_json:
        out.file.write('{"damage":[')
    with _progress() as progress:
        bar = progress.add_task("", total=total)
        for name, files in parts:
            for checked in files:
                counts[checked.kind] += 1
                if checked.damage is not None:
                    _print_damage(checked, first=damaged == 0, as_json=as_json)
                    damaged += 1
                progress.update(bar, description=f"{name}  {counts.total()} files, {damaged} damaged")
            progress.advance(bar)
    figures: dict[str, Any] = {"files": counts.total(), "damaged": damaged, **counts}
    if as_json:
        out.file.write("]," + json.dumps(figures).removeprefix("{") + "\n")
    else:
        by_kind = (
            ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or "nothing is stored"
        )
        err.print(f"{counts.total()} files checked ({by_kind}), {damaged} damaged")
    return damaged


def _print_damage(checked: Checked, *, first: bool, as_json: bool) -> None:
    if as_json:
        entry = {"key": checked.key, "kind": checked.kind, "reason": checked.damage}
        out.file.write(("" if first else ",") + json.dumps(entry, ensure_ascii=False))
    else:
        out.print(f"{checked.key}: {checked.damage}", markup=False)


def _progress() -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=err,
        transient=True,
    )
