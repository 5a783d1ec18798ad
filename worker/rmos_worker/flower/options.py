"""Flower's options: read from ``FLOWER_*``, with defaults of ours where its own are unsafe or unhelpful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flower.options import default_options
from tornado.options import Error, OptionParser

from rmos_shared.errors import SettingsInvalid
from rmos_worker.flower.access import Access
from rmos_worker.flower.tasks import COLUMNS, readable

_PREFIX = "FLOWER_"
_DEFAULTS: Mapping[str, Any] = {
    "address": "127.0.0.1",
    "read_only": True,
    # A worker that was killed is marked at once; one that never comes back under its name leaves the page.
    "purge_offline_workers": 600,
    # Some 3 kB of memory each.
    "max_tasks": 10_000,
    "tasks_columns": ",".join(COLUMNS),
    "format_task": readable,
}
#: Programs that Flower would run, in place of what is checked here.
_REFUSED = frozenset({"conf", "format_task"})


def read_options(environment: Mapping[str, str]) -> OptionParser:
    """Return Flower's options, of which there is one set in a process.

    Raises:
        SettingsInvalid: naming the variable that is wrong, or that strangers would be served.
    """
    options: OptionParser = default_options
    for name, value in _DEFAULTS.items():
        setattr(options, name, value)
    for variable, value in environment.items():
        name = variable.removeprefix(_PREFIX).lower()
        if variable.startswith(_PREFIX) and value and name in options:
            _read(options, variable, name, value)
    Access(
        address=options.address,
        unix_socket=options.unix_socket,
        basic_auth=tuple(entry for entry in options.basic_auth if entry),
        auth=options.auth,
        read_only=options.read_only,
    ).check()
    return options


def _read(options: OptionParser, variable: str, name: str, value: str) -> None:
    if name in _REFUSED:
        raise SettingsInvalid(f"{variable}: a file or program of one's own is not taken")
    try:
        options.parse_command_line(["", f"--{name}={value}"], final=False)
    except (Error, ValueError, TypeError):
        # The value itself is left out: it may be a password.
        raise SettingsInvalid(f"{variable}: Flower cannot read its value") from None
