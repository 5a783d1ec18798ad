"""One process of the pipeline, with everything that it forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Has the kernel kill the process should the harness be killed, then becomes the program itself.
_WITH_PARENT = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1,9); os.execv(sys.argv[1],sys.argv[1:])"


class Process:
    """A program in a process group of its own, started again and again under one name."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = tuple(arguments)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        #: Groups of earlier starts, none of which may outlive its leader.
        self._groups: set[int] = set()
        self.starts = 0
        #: Whether its next end is our doing.
        self.doomed = False
        self.signalled_at: float | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; call from the main thread only, for the kernel ends it with the thread that did."""
        self.starts += 1
        self.doomed = False
        self.signalled_at = None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WITH_PARENT, sys.executable, *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._groups.add(self._process.pid)

    def signal(self, how: signal.Signals) -> None:
        self.doomed = True
        self.signalled_at = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(self.pid, how)

    def kill(self) -> None:
        """End the main process as the kernel's out-of-memory killer would."""
        if self._process is not None:
            self.doomed = True
            self._process.kill()
            self._process.wait(timeout=15)

    def children(self) -> list[int]:
        try:
            told = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(child) for child in told.split()]

    def leftovers(self, seconds: float) -> list[int]:
        """Wait for the groups of ended processes to vanish. Returns those that have not in time."""
        deadline = time.monotonic() + seconds
        while True:
            current = {self.pid} if self.alive else set()
            self._groups = {group for group in self._groups if _lives(group)} | current
            left = sorted(self._groups - current)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def end(self) -> None:
        """Leave nothing behind, however it went."""
        for group in list(self._groups):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(timeout=15)

    def told(self) -> str:
        """Return the end of its log."""
        with suppress(OSError):
            return self.log.read_text(errors="replace")[-3_000:]
        return ""


def _lives(group: int) -> bool:
    """Say whether a process of the group runs; zombies that init has yet to reap do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False
