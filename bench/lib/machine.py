"""What the figures were taken on: hardware, file system and versions; nothing that names the host."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import redis

from lib.scene import running_server

_PACKAGES = (
    "rmos-runs",
    "celery",
    "kombu",
    "redis",
    "hiredis",
    "dramatiq",
    "rq",
    "huey",
    "taskiq",
    "taskiq-redis",
)
_GIBIBYTE = 1 << 30


def facts(scratch: Path) -> dict[str, str]:
    """Return them by name; starts a server to ask for its version."""
    with (
        running_server(scratch / "facts") as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        info = client.info("server")
        server_version = info.get("valkey_version", info["redis_version"])
        always = client.config_get("appendfsync")["appendfsync"]
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "memory": f"{_memory() / _GIBIBYTE:.0f} GiB",
        "file system of server and store": _file_system(scratch),
        "system": f"Linux {platform.release()}",
        "Python": platform.python_version(),
        "server": f"valkey {server_version}, append-only file, fsync {always}",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "load of the machine before": f"{os.getloadavg()[1]:.2f} (5 minutes)",
    }


def _field(file: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(file).read_text(), re.MULTILINE)
    return found.group(1) if found else "unknown"


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``: that of the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1]
