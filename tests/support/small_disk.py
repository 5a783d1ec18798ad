"""A worker whose run directory is a disk of its own, and a small one: ``celery -A small_disk``.

A tmpfs in a mount namespace that ends with the worker, so nothing is left behind, and root is not needed
where users may have namespaces. From outside it is seen through ``/proc/<pid>/root``.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEW_NAMESPACES = 0x0002_0000 | 0x1000_0000  # CLONE_NEWNS | CLONE_NEWUSER
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(answer: int, what: str) -> None:
    if answer != 0:
        raise SystemExit(f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(directory: Path, size: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    user, group = os.getuid(), os.getgid()
    _checked(_libc.unshare(_NEW_NAMESPACES), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={size},mode=755".encode()
    _checked(_libc.mount(b"none", os.fsencode(directory), b"tmpfs", 0, options), "mount")


# Before anything starts a thread: a process with threads may not leave its namespace.
_mount(Path(os.environ["RMOS_RUNS_DIR"]), os.environ.get("SMALL_DISK_SIZE", "1m"))

from rmos_shared.store.identity import init_store  # noqa: E402 - only now is the disk there

init_store(Path(os.environ["RMOS_RUNS_DIR"]))

from rmos_worker.celery_app.main import app  # noqa: E402, F401 - as above
