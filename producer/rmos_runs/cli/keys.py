"""``rmos keys``: the API keys of the HTTP gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, err, out, print_json, print_rows
from rmos_runs.cli.table import Row
from rmos_runs.gateway.keys import ApiKey, Role, add_key, read_keys, revoke_key
from rmos_runs.local.home import Home
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Its name, which stands with what it does.")]
RolesOption = Annotated[
    list[Role], typer.Option("--role", help="What it may do; give the option again for more.")
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", envvar="RMOS_API_KEYS_FILE", help="The file; that of the home if left out."),
]


@app.command()
def add(
    name: NameArgument,
    *,
    roles: RolesOption,
    file: FileOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make a key and print it. It is printed this once, for the file holds its hash alone.

    A running gateway knows it at once.
    """
    place = _file(file, home)
    token = add_key(place, name, roles, now=datetime.now(UTC))
    if as_json:
        print_json({"name": name, "roles": [*roles], "key": token})
        return
    out.print(token, markup=False)
    err.print(f"keep it: it is not shown again; its hash is in {place}", markup=False)


@app.command("list")
def list_keys(
    *, file: FileOption = None, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME
) -> None:
    """List the keys by name, revoked ones too."""
    keys = read_keys(_file(file, home))
    print_rows(map(_row, keys), as_json=as_json, title="API keys")


@app.command()
def revoke(
    name: NameArgument,
    *,
    file: FileOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Revoke a key. A running gateway refuses it from now on; its line stays in the file."""
    revoke_key(_file(file, home), name, now=datetime.now(UTC))
    if as_json:
        print_json({"revoked": name})
    else:
        err.print(f"revoked: {name}", markup=False)


def _file(file: Path | None, home: Path) -> Path:
    return file or Home(home).keys_file


def _row(key: ApiKey) -> Row:
    return {
        "name": key.name,
        "roles": ",".join(key.roles),
        "created_at_utc": format_utc(key.created_at_utc),
        "revoked_at_utc": None if key.revoked_at_utc is None else format_utc(key.revoked_at_utc),
    }
