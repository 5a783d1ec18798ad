"""The runs directory as a mount that can go away and come back, seen by nobody else."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path

_NEW_NAMESPACE, _NEW_USER = 0x0002_0000, 0x1000_0000
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x4_0000
_DETACH = 2
#: Where a store says which one it is.
_IDENTITY = "_store.json"
_libc = ctypes.CDLL(None, use_errno=True)


class MountRefused(Exception):
    """This kernel or this user may not mount."""


class Mount:
    """``disk`` bound to ``point``, in a mount namespace that ends with the harness.

    ``point`` stays an empty directory below; ``other`` is another disk, to be mounted by mistake.
    """

    def __init__(self, disk: Path, point: Path, other: Path) -> None:
        self.disk, self.point, self.other = disk, point, other
        #: Why there is none, in words; empty when there is.
        self.refused = "not asked for"
        self.away = False
        self._over = False

    def enter(self) -> None:
        """Leave the namespace of everybody else; before any thread is started.

        Raises:
            MountRefused: with the reason; then ``disk`` and ``point`` have to be the same.
        """
        for directory in (self.disk, self.point, self.other):
            directory.mkdir(parents=True, exist_ok=True)
        user, group = os.getuid(), os.getgid()
        try:
            _checked(_libc.unshare(_NEW_NAMESPACE | (_NEW_USER if user else 0)), "unshare")
            if user:
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {user} 1")
                Path("/proc/self/gid_map").write_text(f"0 {group} 1")
            # Nothing that is mounted from now on shows outside.
            _checked(_libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None), "make private")
            self._bind(self.disk)
        except OSError as error:
            self.refused = f"{error.strerror}"
            raise MountRefused(self.refused) from error
        self.refused = ""

    def leave(self) -> None:
        """Unmount at once, whoever still uses it, as ``umount -l`` does."""
        self._unbind()
        self.away = True

    def mistake(self) -> None:
        """Mount another disk over it: one that holds another store, if stores say which one they are."""
        identity = self.disk / _IDENTITY
        if identity.exists() and not (self.other / _IDENTITY).exists():
            told = json.loads(identity.read_text())
            told["store_id"] = told["store_id"][::-1]
            (self.other / _IDENTITY).write_text(json.dumps(told))
        self._bind(self.other)
        self.away = self._over = True

    def come_back(self) -> None:
        """Have the right disk there again."""
        if self.away:
            if self._over:
                self._unbind()
            else:
                self._bind(self.disk)
        self.away = self._over = False

    def strays(self) -> list[Path]:
        """Unmount for good, and return every file that lies below the mount or on the other disk."""
        if self.refused:
            return []
        self.come_back()
        self._unbind()
        self.refused = "over"
        files = (path for place in (self.point, self.other) for path in place.rglob("*") if path.is_file())
        return sorted(path for path in files if path != self.other / _IDENTITY)

    def _bind(self, source: Path) -> None:
        _checked(_libc.mount(os.fsencode(source), os.fsencode(self.point), None, _BIND, None), "mount")

    def _unbind(self) -> None:
        _checked(_libc.umount2(os.fsencode(self.point), _DETACH), "unmount")


def _checked(answer: int, what: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
