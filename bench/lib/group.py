"""A process with all its children: started, watched, and ended whatever happens."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_BENCH = Path(__file__).parents[1]
_STOP_SECONDS = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _UTIME, _CSTIME = 3, 11, 14
_PR_SET_PDEATHSIG = 1


class Group:
    """Runs ``command`` in a session of its own; a context manager.

    Its output goes to ``log``. On exit the whole session is killed: what it worked on is thrown away.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Prepare, without starting."""
        self._command = command
        self._environment = environment_of(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no threads of ours are running
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it."""
        process = self._process
        if process is None:
            return
        # The first before the others, so that it starts no new ones.
        process.kill()
        self._signal(signal.SIGKILL)
        process.wait(_STOP_SECONDS)

    @property
    def pid(self) -> int:
        """The first process; also the number of the session."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the first process is gone."""
        return self._process is not None and self._process.poll() is not None

    def interrupt(self) -> None:
        """Ask the first process, and no other, to end as Ctrl-C does."""
        os.kill(self.pid, signal.SIGINT)

    def pause(self) -> None:
        """Have all processes stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def pids(self) -> list[int]:
        """Return every process of the session."""
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in numbers if (fields := _stat(pid)) and int(fields[_SESSION]) == self.pid]

    def cpu_seconds(self) -> float:
        """Return what all processes have used so far, those that ended and were waited for included."""
        return sum(cpu_seconds(pid) for pid in self.pids())

    def memory_bytes(self) -> int:
        """Return the memory of all processes; what they share counts once."""
        return sum(_proportional_bytes(pid) for pid in self.pids())


def program(name: str, *arguments: object) -> tuple[str, ...]:
    """Return the command that runs the module ``name`` of this folder as a process."""
    return (sys.executable, "-m", f"lib.{name}", *map(str, arguments))


def environment_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that is to find the modules of the bench."""
    return {**os.environ, "PYTHONPATH": str(_BENCH), **environment}


def cpu_seconds(pid: int) -> float:
    """Return what a process and its children that have ended have used so far."""
    fields = _stat(pid)
    return 0.0 if fields is None else sum(map(int, fields[_UTIME : _CSTIME + 1])) / _TICKS


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _proportional_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
