"""``rmos index``: the cache of list fields."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, err, print_object, store_of
from rmos_runs.local.home import Home
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.index.choice import chosen_database, index_state, store_id_of
from rmos_shared.settings.index import IndexSettings

app = typer.Typer(no_args_is_help=True)


@app.command()
def rebuild(
    *,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that read; one for each CPU if left out.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make the index anew from every file of the store. The old one stays in use until the end."""
    from rmos_shared.index.process import processes_for_a_rebuild  # noqa: PLC0415 - as for all that follow
    from rmos_shared.index.rebuild import Progress as Done  # noqa: PLC0415
    from rmos_shared.index.rebuild import rebuild as make  # noqa: PLC0415

    store = store_of(home)
    database = chosen_database(_settings(home))
    with _bar() as progress:
        task = progress.add_task("", total=None)

        def tell(done: Done) -> None:
            progress.update(
                task,
                completed=done.days_done,
                total=done.days,
                description=f"{done.day}  {done.runs} runs, {done.corrupt} corrupt",
            )

        made = make(
            database,
            store,
            store_id=store_id_of(store),
            processes=processes or processes_for_a_rebuild(),
            tell=tell,
        )
    database.close()
    print_object({"days": made.days, "runs": made.runs, "corrupt": made.corrupt}, as_json=as_json)


@app.command()
def status(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Show up to when the index is complete. Exits with 7 when it is missing or cannot be used."""
    print_object(_status(_settings(home), store_id_of(store_of(home))), as_json=as_json)


@app.command()
def reconcile(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Look once for all that only the store or only the index holds."""
    settings = _settings(home)
    store = store_of(home)
    store_id = store_id_of(store)
    _status(settings, store_id)  # one of another store is not filled with this one's runs
    from rmos_shared.index.reconciler import Reconciler  # noqa: PLC0415

    database = chosen_database(settings)
    changes = Reconciler(store).round(database.current())
    database.close()
    print_object({"changes": changes, **_status(settings, store_id)}, as_json=as_json)


@app.command()
def run(*, home: HomeOption = DEFAULT_HOME) -> None:
    """Keep the index as the store is, until stopped. It is what `rmos up` runs as the process indexer.

    A second one waits until the first has gone.
    """
    from rmos_shared.index.process import run_indexer  # noqa: PLC0415
    from rmos_shared.settings.logs import LogSettings  # noqa: PLC0415
    from rmos_shared.telemetry.log_output import configure_logs  # noqa: PLC0415

    logs = LogSettings.load()
    configure_logs(logs.log_format, logs.log_level or "INFO")
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: stopping.set())
    try:
        broker = Home(home).producer_settings()
    except BrokerUnavailable:
        err.print("[yellow]no broker: new runs are found by looking alone[/]")
        broker = None
    run_indexer(_settings(home), store_of(home), broker, stopping)


def _status(settings: IndexSettings, store_id: str | None) -> dict[str, Any]:
    state = index_state(settings, store_id)
    behind = datetime.now(UTC) - state.complete_until_utc
    return state.dump() | {"behind_seconds": round(behind.total_seconds(), 1)}


def _settings(home: Path) -> IndexSettings:
    return Home(home).index_settings()


@contextmanager
def _bar() -> Iterator[Progress]:
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=err,
        transient=True,
    ) as progress:
        yield progress
