"""What every command needs: the home, a client, the runs, and two ways to print."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import date, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rmos_runs.cli.table import Layout, Row, tabbed
from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_shared.errors import BrokerDamaged, BrokerUnavailable, CorruptArtifact, SettingsInvalid
from rmos_shared.index.choice import chosen_catalog, has_index
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.query import RunCatalog
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.told import ToldStore

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
DayOption = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="UTC date, inclusive.")]
DEFAULT_HOME = Path(".rmos")
#: Rows that decide how a table is laid out; later ones are printed as they come.
_LAID_OUT_ROWS = 200
#: How long one telling of the audit log may take.
_TELL_SECONDS = 2.0


@contextmanager
def client_of(home: Path, **settings: object) -> Iterator[RunsClient]:
    """Yield a client for the broker of the environment, or of what runs on ``home``."""
    with RunsClient.connect(Home(home).producer_settings(**settings)) as client:
        yield client


@contextmanager
def ledger_of(home: Path, **settings: object) -> Iterator[JobLedger]:
    """Yield the job ledger."""
    ledger = JobLedger.connect(Home(home).producer_settings(**settings))
    try:
        yield ledger
    finally:
        ledger.close()


def store_of(home: Path) -> ArtifactStore:
    """Return the artifact store of the home.

    Raises:
        StoreUnavailable: it is away, which is not the same as empty.
    """
    store = chosen_store(Home(home).store_settings())
    store.identity()
    return store


@contextmanager
def ledger_if_set(home: Path) -> Iterator[JobLedger | None]:
    """Yield the job ledger for what need not fail without it; None where nobody says where it is."""
    with ExitStack() as stack:
        ledger = None
        with suppress(SettingsInvalid, BrokerUnavailable):
            ledger = stack.enter_context(ledger_of(home, broker_timeout_seconds=_TELL_SECONDS))
        yield ledger


def told(store: ArtifactStore, ledger: JobLedger | None) -> ArtifactStore:
    """Return the store as one that tells the audit log what is published in it.

    A broker that is away is not missed: the log then finds it by itself, as late.
    """
    return store if ledger is None else ToldStore(store, ledger.unsealed.tell)


def say_unrecorded() -> None:
    """Say that what is done now is on no record."""
    err.print("the broker is away: this act is not on record, and not in the audit log", style="yellow")


@contextmanager
def runs_of(home: Path) -> Iterator[RunReader]:
    """Yield the runs; without a broker they still tell all that the files do."""
    store = store_of(home)
    with ledger_if_up(home, "explanation states come from the files alone") as ledger:
        yield RunReader(store, ledger)


@contextmanager
def ledger_if_up(home: Path, without: str) -> Iterator[JobLedger | None]:
    """Yield the job ledger; None without a broker, after saying what that means."""
    with ExitStack() as stack:
        ledger: JobLedger | None = None
        try:
            ledger = JobLedger.connect(Home(home).producer_settings(broker_timeout_seconds=2.0))
            stack.callback(ledger.close)
            ledger.stats()
        except (BrokerUnavailable, BrokerDamaged):
            ledger = None
            err.print(f"the broker is away: {without}", style="yellow")
        yield ledger


@contextmanager
def catalog_of(home: Path) -> Iterator[tuple[RunCatalog, RunReader]]:
    """Yield the lists of runs, by the index where there is one, and the runs themselves."""
    settings = Home(home).index_settings()
    if not has_index(settings):
        settings = settings.model_copy(update={"index_url": None})
    with runs_of(home) as runs, closing(chosen_catalog(settings, runs, store_of(home))) as catalog:
        yield catalog, runs


def utc_day(moment: datetime | None) -> date | None:
    """Return the date that a ``--date-from`` or ``--date-to`` names."""
    return None if moment is None else moment.date()


class Damage:
    """Names damaged files as a command meets them, and ends it with 7 when there was one."""

    def __init__(self) -> None:
        """Start with none."""
        self._met = False

    def tell(self, error: CorruptArtifact) -> None:
        """Name a file on standard error, at once."""
        self._met = True
        err.print(f"corrupt: {error}", markup=False, style="red")

    def exit(self) -> None:
        """End the command, if anything was told."""
        if self._met:
            raise typer.Exit(CorruptArtifact.exit_code)


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    _write(f"{_json(value)}\n")


def print_object(value: Any, *, as_json: bool) -> None:
    """Print one object: on one line for programs, indented for people."""
    if as_json:
        print_json(value)
    else:
        out.print_json(data=value, ensure_ascii=False)


def print_rows(
    rows: Iterable[Row],
    *,
    as_json: bool,
    title: str,
    limit: int | None = None,
    more: Callable[[Row], str] | None = None,
) -> None:
    """Print rows as they come: as one JSON list, as columns on a terminal, else separated by tabs.

    The columns are the keys, most important first. A terminal without room for all of them shows the first
    ones and names the rest. With ``limit`` no more rows than that are printed; if there is another one, a
    last line says so, and how to go on: ``more`` makes that text of the last row.
    """
    source = iter(rows)
    last: Row | None = None

    def counted() -> Iterator[Row]:
        nonlocal last
        for row in islice(source, limit):
            last = row
            yield row

    if as_json:
        _print_list(counted())
    elif sys.stdout.isatty():
        _print_columns(counted(), title)
    else:
        for line in tabbed(counted()):
            _write(f"{line}\n")
    if last is None:
        if not as_json:
            err.print(f"{title}: none")
    elif limit is not None and next(source, None) is not None:
        tell_more(limit, title, more(last) if more else "raise --limit")


def tell_more(printed: int, title: str, way: str) -> None:
    """Say that a list goes on after what was printed, and how to get the rest."""
    sys.stdout.flush()
    err.print(f"{title}: there are more than these {printed}; for the rest: {way}", markup=False)


def _print_list(rows: Iterator[Row]) -> None:
    between = "["
    try:
        for row in rows:
            _write(between + _json(row))
            between = ","
    finally:
        # The output is JSON whatever happened; the exit code says if it is not all.
        _write("[]\n" if between == "[" else "]\n")


def _print_columns(rows: Iterator[Row], title: str) -> None:
    first = list(islice(rows, _LAID_OUT_ROWS))
    if not first:
        return
    layout = Layout.fitting(first, shutil.get_terminal_size().columns)
    lines = chain(layout.header(), *(map(layout.lines, first)))
    for line in chain([title], lines, chain.from_iterable(map(layout.lines, rows))):
        _write(f"{line}\n")
    if layout.hidden:
        sys.stdout.flush()
        err.print(
            f"columns hidden: {', '.join(layout.hidden)}; widen the terminal, or add --json", markup=False
        )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(text: str) -> None:
    # A file name that is no UTF-8 comes as lone surrogates; written so, they are JSON escapes.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())
