"""TCP ports of loopback."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

#: Where Linux says which ports outgoing connections get.
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL = 32_768
#: Above what well-known services have.
_LOWEST = 10_240
_TRIES = 100


def free_port() -> int:
    """Return a TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lasting_port() -> int:
    """Return a free TCP port of loopback that no connection is given by chance.

    The kernel takes ports for outgoing connections from a range of its own. A server that keeps its port
    there may find it taken after a restart, even by a client of its own that tried to reach it meanwhile.
    """
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else _USUAL_EPHEMERAL
    for _ in range(_TRIES):
        port = _LOWEST + secrets.randbelow(max(1, first - _LOWEST))
        if is_free(port):
            return port
    return free_port()


def is_free(port: int) -> bool:
    """Say whether a server could listen on ``port`` of loopback now."""
    with socket.socket() as probe:
        # As servers do: a port that merely remembers its last connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
