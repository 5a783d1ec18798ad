"""``rmos store``: the directory that holds the artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, print_object
from rmos_runs.local.home import Home
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.identity import StoreIdentity

app = typer.Typer(no_args_is_help=True)


@app.command()
def init(
    *,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="Also where files lie already: a restored backup without its identity."),
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make a store in RMOS_RUNS_DIR, or in the home. Only a new and empty directory becomes one.

    A store that is there already stays as it is. The home is held to it from then on.
    """
    place = Home(home)
    identity = place.init_store(adopt=adopt)
    _print(identity, place.store_settings().runs_dir, as_json=as_json)


@app.command()
def show(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Show which store it is. Its id is what RMOS_STORE_ID holds workers to."""
    settings = Home(home).store_settings()
    store = chosen_store(settings)
    _print(store.identity(), settings.runs_dir, as_json=as_json)


def _print(identity: StoreIdentity, runs_dir: Path, *, as_json: bool) -> None:
    print_object({"runs_dir": str(runs_dir.resolve()), **identity.dump()}, as_json=as_json)
