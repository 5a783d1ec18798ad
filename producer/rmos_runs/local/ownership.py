"""One owner of a home: two servers on one append-only file would each lose what the other wrote."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rmos_runs.local.home import Home
from rmos_shared.errors import CallerError
from rmos_shared.models.base import format_utc

#: How long the server of an owner that was killed may take to end.
_WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.05


class HomeTaken(CallerError):
    """Another ``rmos up`` or ``rmos demo`` runs on this home."""

    code = "HOME_TAKEN"
    exit_code = 5
    http_status = 409


class Ownership:
    """The lock on a home.

    The server inherits it (``descriptor``), so it lasts as long as the supervisor or the server lives,
    whichever is longer, and ends with them however they end.
    """

    def __init__(self, home: Home) -> None:
        """Prepare to take ``home``."""
        self._home = home
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open lock; only while it is held."""
        if self._descriptor is None:
            raise HomeTaken("the home is not taken yet")
        return self._descriptor

    def take(self) -> None:
        """Take the home. The server of a killed owner is waited for, a living owner is not.

        Raises:
            HomeTaken: saying which process has it, and since when.
        """
        self._home.make()
        descriptor = os.open(self._home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _locked(descriptor):
            owner = _read(descriptor)
            if _alive(owner.get("pid")) or time.monotonic() > deadline:
                os.close(descriptor)
                raise HomeTaken(
                    f"{self._home.root} is in use: process {owner.get('pid', 'unknown')} runs on it since "
                    f"{owner.get('since_utc', 'unknown')}; stop that one, or choose another --home"
                )
            time.sleep(_POLL_SECONDS)
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        owner = {"pid": os.getpid(), "since_utc": format_utc(datetime.now(UTC).replace(microsecond=0))}
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Give the home free; the server must have ended."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> dict[str, Any]:
    with suppress(ValueError):
        owner = json.loads(os.pread(descriptor, 4_096, 0))
        if isinstance(owner, dict):
            return owner
    return {}


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True
