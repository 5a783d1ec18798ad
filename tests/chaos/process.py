"""One process of the pipeline, with everything that it forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
        #: Whether its next end is our doing.
        self.doomed = False

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
        self.doomed = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WITH_PARENT, sys.executable, *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, how: signal.Signals) -> None:
        self.doomed = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, how)

    def kill(self) -> None:
        """End the main process as the kernel's out-of-memory killer would."""
        if self._process is not None:
            self.doomed = True
            self._process.kill()
            self._process.wait(timeout=15)

    def end(self) -> None:
        """Leave nothing of its group behind, however it went."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(timeout=15)

    def told(self) -> str:
        """Return the end of its log."""
        with suppress(OSError):
            return self.log.read_text(errors="replace")[-3_000:]
        return ""

    def last_words(self) -> str:
        """Return the last line of its log that says anything."""
        return next((line for line in reversed(self.told().splitlines()) if line.strip()), "")[:300]
