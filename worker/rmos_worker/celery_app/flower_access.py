"""Who may look at Flower: whoever reaches it can revoke tasks and shut workers down."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

#: Flower's own options by which somebody has to say who they are.
_CREDENTIALS = ("basic_auth", "auth", "oauth2_key", "auth_provider")


def refusal(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return why Flower must not start as it is told to; None when it may.

    Without credentials it may listen on loopback only, or on a Unix socket.
    """
    if any(_option(name, arguments, environment) for name in _CREDENTIALS):
        return None
    if _option("unix_socket", arguments, environment):
        return None
    address = _option("address", arguments, environment)
    if _is_loopback(address):
        return None
    where = f"on {address}" if address else "on every address of this machine"
    return (
        f"Flower would listen {where} without credentials; set FLOWER_BASIC_AUTH to user:password, or "
        "FLOWER_ADDRESS to 127.0.0.1"
    )


def _option(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return an option's value as Flower reads it: the command line outranks the environment."""
    flags = {f"--{name}", f"--{name.replace('_', '-')}"}
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            return value if equals else "".join(arguments[position + 1 : position + 2])
    return environment.get(f"FLOWER_{name.upper()}", "")


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
