"""A Python that has read every library, and from which processes are forked: see ``spawn.py``.

Most of what a short process costs is the reading of libraries, and coverage doubles it. So this program
reads them once, and forks for each process that it is asked for. A fork has its own arguments, environment,
directory, session and standard streams, runs its program as ``__main__``, and is a child of whoever asked for
it: it is waited for and killed as any other. It differs from other processes in what ``/proc`` says of its
command line, and in its memory, which begins with what was read.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import platform
import runpy
import socket
import struct
import sys
import threading
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

LENGTH = struct.Struct("!I")
#: A process id, or what could not be done as a negative error number.
ANSWER = struct.Struct("!q")
STREAMS = 3
_CLONE_PARENT = 0x8000
_SIGCHLD = 17
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
#: Coverage replaces it.
_exit = os._exit
#: Whether this machine can fork a process that is its parent's child.
POSSIBLE = sys.platform == "linux" and _CLONE is not None

_LIBRARIES = (
    *("celery.bin.celery", "celery.bin.worker", "celery.apps.worker", "celery.apps.beat", "celery.bin.beat"),
    *("celery.worker.consumer", "celery.worker.strategy", "celery.worker.components", "celery.app.amqp"),
    *("celery.worker.request", "celery.worker.state", "celery.worker.control", "celery.worker.loops"),
    *(
        "celery.concurrency.prefork",
        "celery.concurrency.thread",
        "celery.events.snapshot",
        "celery.loaders.app",
    ),
    *("celery.app.control", "celery.app.events", "celery.app.log", "celery.fixups.django", "celery.backends"),
    *("kombu.transport.redis", "kombu.asynchronous.hub", "billiard.pool", "billiard.popen_fork"),
    *("redis.asyncio", "redis.sentinel", "httpx", "tenacity", "structlog", "standardwebhooks"),
    *("typer.main", "typer.rich_utils", "rich.progress", "rich.table", "rich.markup", "rich.markdown"),
    *("uvicorn.main", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"),
    *("uvicorn.logging", "fastapi", "fastapi_offline", "sse_starlette", "sqlalchemy.dialects.sqlite"),
    *("sqlalchemy.dialects.postgresql.psycopg", "multiprocessing.spawn", "concurrent.futures.process"),
    *("coverage", "coverage.sqldata", "encodings.idna", "zipfile", "unittest.mock"),
)
_OURS = ("rmos_shared", "rmos_advisory_store", "rmos_worker", "rmos_runs")
#: Read in the new process itself, for they look at its environment or its streams as they are read.
_NOT_READ = ("__main__", "rmos_worker.celery_app.main", "rmos_runs.cli")


def read_libraries() -> None:
    for name in _LIBRARIES:
        with suppress(ImportError):  # of another version; then the new process reads what it needs
            importlib.import_module(name)
    for name in _OURS:
        _read_package(importlib.import_module(name))


def _read_package(package: types.ModuleType) -> None:
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(_NOT_READ):
            found = importlib.import_module(module.name)
            if module.ispkg:
                _read_package(found)


def fork_sibling() -> int:
    """Fork as ``os.fork`` does, but for this process's parent."""
    assert threading.active_count() == 1
    interpreter, kernel = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    interpreter.PyOS_BeforeFork()
    pid = int(kernel.syscall(_CLONE, _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        interpreter.PyOS_AfterFork_Child()
    else:
        interpreter.PyOS_AfterFork_Parent()
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return what is asked for, with the standard streams; None at the end."""
    streams = array.array("i")
    head, told, _, _ = control.recvmsg(LENGTH.size, socket.CMSG_LEN(STREAMS * streams.itemsize))
    if not head:
        return None
    streams.frombytes(told[0][2])
    (left,) = LENGTH.unpack(head)
    body = bytearray()
    while len(body) < left:
        body += control.recv(left - len(body))
    return json.loads(body), list(streams)


def settle(order: dict[str, Any], streams: list[int]) -> None:
    """Take the directory, session, streams and environment that were asked for."""
    for own, stream in enumerate(streams):
        os.dup2(stream, own)  # those given are above the standard ones
        os.close(stream)
    if order["start_new_session"]:
        os.setsid()
    if order["umask"] >= 0:
        os.umask(order["umask"])
    if order["cwd"] is not None:
        os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for own, name in enumerate(("stdin", "stdout", "stderr")):
        renewed = _stream(own, getattr(sys, name))
        setattr(sys, name, renewed)
        setattr(sys, f"__{name}__", renewed)


def _stream(own: int, old: TextIO) -> TextIO:
    raw: Any = io.FileIO(own, "r" if own == 0 else "w", closefd=False)
    raw = io.BufferedReader(raw) if own == 0 else io.BufferedWriter(raw)
    by_line = own == 2 or os.isatty(own)
    return io.TextIOWrapper(
        raw, encoding=old.encoding, errors=old.errors, newline="\n", line_buffering=by_line
    )


def run_program(way: str, program: str, arguments: list[str]) -> None:
    """Be ``python -c program`` or ``python -m program``."""
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        importlib.import_module("coverage").process_startup(force=True)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[0:0] = ["" if way == "-c" else str(Path.cwd()), *paths]
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [way, *arguments]
    if way == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), sys.modules["__main__"].__dict__)  # noqa: S102 - it is asked for


def leave(code: int) -> NoReturn:
    """End as an interpreter does, but without taking apart all that was read: that is a tenth of a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        _exit(code)
    sys.exit(code)  # somebody reads no more, or closed it; then the interpreter says what it says


def be(order: dict[str, Any]) -> NoReturn:
    """Run the program that was asked for to its end."""
    try:
        run_program(order["way"], order["program"], order["arguments"])
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            raise
        code = ended.code or 0
    except Exception:  # noqa: BLE001 - whatever the program raises
        sys.excepthook(*sys.exc_info())
        code = 1
    else:
        code = 0
    leave(code)


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork at each order; return it in the new process, and None at the end in this one."""
    while (received := receive(control)) is not None:
        order, streams = received
        if fork_sibling() == 0:
            try:
                settle(order, streams)
            except OSError as error:
                control.sendall(ANSWER.pack(-(error.errno or 1)))
                os._exit(1)
            control.sendall(ANSWER.pack(os.getpid()))
            control.close()
            return order
        for stream in streams:
            os.close(stream)
    return None


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # this file's own directory
    read_libraries()
    gc.collect()
    gc.freeze()
    if (order := serve(control)) is not None:
        be(order)


if __name__ == "__main__":
    _itself = sys.modules["__main__"]  # kept, for its functions are still at work when another takes its name
    main()
