"""The command line's root: the commands by name, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module

import typer

from rmos_runs.cli.commands import COMMANDS
from rmos_runs.cli.context import err
from rmos_shared.errors import InvalidRequest, RmosError, SettingsInvalid


def root(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the ``rmos`` command with the named ones of its commands; no other's module is imported."""
    app = typer.Typer(
        # Without a callback, Typer would take a command that is alone for the root itself.
        callback=lambda: None,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in names:
        place, summary = COMMANDS[name]
        module, _, attribute = place.partition(":")
        found = getattr(import_module(f"rmos_runs.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=summary)
        else:
            app.command(name, help=f"{summary} {found.__doc__ or ''}")(found)
    return app


def run(name: str) -> None:
    """Run the command of that name; an expected error is one line on standard error, never a traceback."""
    try:
        # For a name that is none, all are there, so that the nearest can be suggested.
        root([name] if name in COMMANDS else COMMANDS)()
    except RmosError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except UnicodeEncodeError:
        if all(map(_is_text, sys.argv)):
            raise
        # No id, name or reason of ours is anything but text; file names are never encoded.
        err.print("error: an argument is not UTF-8 text", style="red")
        sys.exit(SettingsInvalid.exit_code)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _complain(error: RmosError) -> None:
    err.print(f"error {error.code}: {error}", markup=False, style="red")
    if isinstance(error, InvalidRequest):
        for problem in error.problems:
            err.print(f"  {problem}", markup=False)
