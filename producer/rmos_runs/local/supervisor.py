"""Keeps processes running: started, started again when they end, stopped together, their logs bounded."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rmos_runs.local.log_file import open_log, turn_over
from rmos_runs.local.restarts import pause_seconds, short_lives_after

_STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """One process that ended, by itself or by ``Supervisor.kill``."""

    name: str
    #: Its exit code; negative when a signal ended it.
    code: int
    #: How long it is held back before it is started again; 0 means that it runs already.
    pause_seconds: float
    #: Why it was killed; empty when it ended by itself.
    why: str = ""


@dataclass(slots=True)
class _Child:
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    inherited: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    short_lives: int = 0
    #: When it is due to be started again; None while it runs.
    due_at: float | None = field(default=None)
    #: Why it was killed.
    why: str = ""


class Supervisor:
    """Runs processes until ``stop``.

    One that ends again and again is held back longer each time, and the others go on. Should this process
    itself be killed, the kernel kills its children: nothing of theirs is lost, and none goes on beside those
    of the next start.
    """

    def __init__(self, logs_dir: Path) -> None:
        """Write each process's output to ``logs_dir``."""
        self._logs_dir = logs_dir
        self._children: dict[str, _Child] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        withheld: Collection[str] = (),
        inherited: tuple[int, ...] = (),
    ) -> None:
        """Start a process with ``environment`` added to our own, and the descriptors ``inherited`` open.

        Variables of our own that are ``withheld`` it does not get.
        """
        self._logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours = {variable: value for variable, value in os.environ.items() if variable not in withheld}
        child = _Child(command, {**ours, **environment}, self._logs_dir / f"{name}.log", inherited)
        self._children[name] = child
        self._spawn(child)

    def watch(self) -> list[Ended]:
        """Start ended processes that are due, turn over logs that grew too large; return the ended ones."""
        ended = []
        for name, child in self._children.items():
            turn_over(child.log)
            code = None if child.process is None else child.process.poll()
            if code is not None:
                now = time.monotonic()
                child.short_lives = short_lives_after(child.short_lives, now - child.started_at)
                pause = pause_seconds(child.short_lives)
                child.process, child.due_at = None, now + pause
                ended.append(Ended(name, code, pause, child.why))
                child.why = ""
            if child.due_at is not None and time.monotonic() >= child.due_at:
                self._spawn(child)
        return ended

    def kill(self, name: str, why: str) -> None:
        """Kill a process with all its children; ``watch`` starts it again, and tells why it ended."""
        child = self._children[name]
        if child.process is not None and child.process.poll() is None:
            child.why = why
            os.killpg(child.process.pid, signal.SIGKILL)

    def pids(self) -> dict[str, int]:
        """Return the process id of each process that runs."""
        return {name: child.process.pid for name, child in self._children.items() if child.process}

    def held_back(self) -> list[str]:
        """Return the names of the processes that wait to be started again."""
        return [name for name, child in self._children.items() if child.process is None]

    def log(self, name: str) -> Path:
        """Return where a process writes its output."""
        return self._children[name].log

    def stop(self) -> None:
        """Ask every process to end, the last one started first, and kill any that does not."""
        running = [child.process for child in self._children.values() if child.process is not None]
        # The first was started before the others, which depend on it, and ends after them.
        for group in (running[1:], running[:1]):
            _stop(group)
        self._children.clear()

    def _spawn(self, child: _Child) -> None:
        child.started_at, child.due_at = time.monotonic(), None
        log, parent = open_log(child.log), os.getpid()
        try:
            child.process = subprocess.Popen(  # noqa: S603 - our own programs
                child.command,
                env=child.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                pass_fds=child.inherited,
                preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509 - we start no threads before this
            )
        finally:
            os.close(log)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # The whole group: a worker's children must not outlive it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was told
