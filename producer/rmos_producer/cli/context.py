"""What every command needs: the home, a client, the run log, and two ways to print."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rmos_producer.client import RunsClient
from rmos_producer.home import Home
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.run_log import RunLog
from rmos_shared.store.local import LocalStore

#: Results go to standard output, everything said about them to standard error.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="RMOS_HOME",
        help="Directory of a local installation; see rmos up.",
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most rows to print.")]
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who decides; the name of the system account if left out.")
]
DayOption = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="UTC date, inclusive.")]
DEFAULT_HOME = Path(".rmos")


@contextmanager
def client_of(home: Path, **settings: object) -> Iterator[RunsClient]:
    """Yield a client for the broker of the environment, or of what runs on ``home``."""
    with RunsClient.connect(Home(home).producer_settings(**settings)) as client:
        yield client


@contextmanager
def ledger_of(home: Path) -> Iterator[JobLedger]:
    """Yield the job ledger."""
    ledger = JobLedger.connect(Home(home).producer_settings())
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def runs_of(home: Path) -> Iterator[RunLog]:
    """Yield the run log; without a broker it still reads all that the files tell."""
    place = Home(home)
    settings = place.store_settings()
    store = LocalStore(settings.runs_dir, store_id=settings.store_id)
    store.identity()  # a store that is away is an error, not an empty one
    with ExitStack() as stack:
        try:
            ledger = JobLedger.connect(place.producer_settings(broker_timeout_seconds=2.0))
            stack.callback(ledger.close)
            ledger.stats()
        except BrokerUnavailable:
            err.print("[yellow]the broker is away: explanation states come from the files alone[/]")
            yield RunLog(store)
        else:
            yield RunLog(store, ledger)


def person(by: str | None) -> str:
    """Return the identity that is kept with a person's decision."""
    return f"person:{by or getpass.getuser()}"


def utc_day(moment: datetime | None) -> date | None:
    """Return the date that a ``--date-from`` or ``--date-to`` names."""
    return None if moment is None else moment.date()


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def print_object(value: Any, *, as_json: bool) -> None:
    """Print one object: on one line for programs, indented for people."""
    if as_json:
        print_json(value)
    else:
        out.print_json(data=value, ensure_ascii=False)


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool, title: str) -> None:
    """Print rows as one JSON list, or as a table whose columns are the keys."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        err.print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in rows[0]:
        # Ids are there to be copied, so they alone are never broken over lines.
        table.add_column(name, overflow="fold", no_wrap=name == "id" or name.endswith("_id"))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)
