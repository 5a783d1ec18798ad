"""``rmos status`` and ``rmos top``: what goes on, at one moment or each second."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer
from rich.text import Text

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, out, print_json, store_of
from rmos_runs.cli.status_view import UNLIMITED, sections
from rmos_runs.local.home import Home
from rmos_runs.operations.status import THOROUGH, Bounds, Sources, SystemStatus, read_status
from rmos_shared.index.choice import chosen_catalog, has_index
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.models.base import format_utc
from rmos_shared.runs.query import RunCatalog
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.nightly import NightlySettings
from rmos_shared.store.choice import chosen_store


def status(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Show the state of the whole system.

    That is queues, jobs, rates, what waits and is dead, workers, storage. The command's cost is bounded: of
    very many jobs of a state the first 10,000 are looked at, and it says so.

    --json prints one object: ledger (the counts), pending, invariant, figures (queues, tasks, waiting,
    dead_letters, flow, breaker, workers; capped names the states that were not looked at to their end),
    pauses, nightly, storage, index, reviews, audit. A part that is not reachable is null, and unreachable has
    its code and message.
    Times are UTC, lengths of time in seconds, sizes in bytes.

    Exits with 6 when a part is not reachable, with 7 when one is damaged; the others are shown all the same.
    """
    found = read_home(home, THOROUGH)
    if as_json:
        print_json(found.dump())
    else:
        print_status(found)
    if found.unreachable:
        raise typer.Exit(max(one.exit_code for one in found.unreachable))


def print_status(found: SystemStatus) -> None:
    """Print a status: as wide as the terminal, and to a pipe without a limit."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    out.print(Text(f"rmos status at {format_utc(found.at_utc.replace(microsecond=0))}"))
    for section in sections(found, width):
        out.print()
        for line in section.lines:
            out.print(Text(line.text, style=line.style))


def read_home(home: Path, bounds: Bounds) -> SystemStatus:
    """Return the state of the system that runs on a home, or that the environment names."""
    with _sources(home) as sources:
        return read_status(sources, bounds)


@contextmanager
def _sources(home: Path) -> Iterator[Sources]:
    with ExitStack() as stack:

        def ledger() -> JobLedger:
            opened = JobLedger.connect(Home(home).producer_settings())
            stack.callback(opened.close)
            return opened

        def index() -> IndexSettings:
            return Home(home).index_settings()

        def catalog() -> RunCatalog:
            store, settings = store_of(home), index()
            if not has_index(settings):
                settings = settings.model_copy(update={"index_url": None})
            opened = chosen_catalog(settings, RunReader(store), store)
            stack.callback(opened.close)
            return opened

        yield Sources(
            ledger=ledger,
            store=lambda: chosen_store(Home(home).store_settings()),
            index=index,
            catalog=catalog,
            nightly=NightlySettings.load,
        )
