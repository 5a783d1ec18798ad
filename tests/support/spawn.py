"""Processes of ours, started as ``subprocess`` starts them, and without an interpreter's start.

``Popen`` and ``run`` are those of ``subprocess``. Where ``python -c`` or ``python -m`` is asked for, the
process is forked from a Python that has read the libraries (``warm.py``). Where that would not be the same,
as under a shifted clock or with options of the interpreter, it is started as ever.
"""

from __future__ import annotations

import array
import atexit
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, AnyStr

from support import warm

_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
#: Whatever of these differs from ``subprocess``'s own default is not for a warm process.
_PLAIN = {
    "preexec_fn": None,
    "close_fds": True,
    "pass_fds": (),
    "startupinfo": None,
    "shell": False,
    "process_group": -1,
    "gid": None,
    "gids": None,
    "uid": None,
}
#: How coverage tells processes that they are measured; here while only warm ones are told.
_COVERAGE = "COVERAGE_PROCESS_CONFIG"
_measured: dict[str, str] = {}
#: Read while an interpreter or a library starts.
_AT_START = ("SHIFT_CLOCK_SECONDS", "PROMETHEUS_MULTIPROC_DIR")


def measure_warm_processes_only() -> None:
    """Have coverage measure none but warm processes from here on.

    An interpreter that starts under coverage takes twice the time, and those that ``rmos up`` starts run
    nothing that no other process of the tests runs.
    """
    if _COVERAGE in os.environ:
        _measured[_COVERAGE] = os.environ.pop(_COVERAGE)


class Popen(subprocess.Popen[AnyStr]):
    """``subprocess.Popen``, quicker where the program is Python's."""

    def _execute_child(self, *arguments: Any) -> None:
        cold = super()._execute_child  # type: ignore[misc]
        told = inspect.signature(cold).bind(*arguments).arguments
        order = _order(told)
        if order is None:
            cold(*arguments)
            return
        own = zip(("p2cread", "c2pwrite", "errwrite"), range(warm.STREAMS), strict=True)
        streams = [told[name] if told[name] != -1 else number for name, number in own]
        self.pid = _interpreter().start(order, streams)
        self._child_created = True
        self._close_pipe_fds(*(told[name] for name in _PIPES))  # type: ignore[attr-defined]


def run(
    args: Sequence[Any],
    *,
    input: AnyStr | None = None,  # noqa: A002 - as subprocess names it
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[AnyStr]:
    """Do what ``subprocess.run`` does."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Popen[AnyStr](args, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _order(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what to ask the warm interpreter for; None for what it cannot do."""
    words = told["args"]
    if not warm.POSSIBLE or isinstance(words, str | bytes | os.PathLike) or len(words) < 3:
        return None
    python, way, program, *rest = map(os.fsdecode, words)
    environment = {
        os.fsdecode(name): os.fsdecode(value) for name, value in (told["env"] or os.environ).items()
    }
    differs = any(told.get(name, plain) != plain for name, plain in _PLAIN.items())
    if python != sys.executable or told["executable"] is not None or way not in {"-c", "-m"} or differs:
        return None
    if any(name in environment for name in _AT_START) or _options(environment) != _options(os.environ):
        return None
    return {
        "way": way,
        "program": program,
        "arguments": rest,
        "env": environment | _measured,
        # The server's own is that of its start.
        "cwd": os.fsdecode(told["cwd"] or Path.cwd()),
        "start_new_session": bool(told["start_new_session"]),
        "umask": told["umask"],
    }


def _options(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the options of the interpreter that its environment sets, but for its path."""
    return {n: v for n, v in environment.items() if n.startswith("PYTHON") and n != "PYTHONPATH"}


class _Interpreter:
    """The warm one of this process; it ends with it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        steering = ("RMOS_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONPATH", "COVERAGE_")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, warm.__file__, str(theirs.fileno())],
                env={name: value for name, value in os.environ.items() if not name.startswith(steering)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self, order: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Return the id of a new process, a child of this one."""
        body = json.dumps(order).encode()
        with self._lock:
            given = array.array("i", streams)
            head = warm.LENGTH.pack(len(body))
            self._control.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
            self._control.sendall(body)
            (answer,) = warm.ANSWER.unpack(self._control.recv(warm.ANSWER.size, socket.MSG_WAITALL))
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer), order["cwd"])
        return int(answer)

    def end(self) -> None:
        self._control.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@cache
def _interpreter() -> _Interpreter:
    started = _Interpreter()
    atexit.register(started.end)
    return started
