"""``rmos`` as a shell would run it: into a pipe, or on a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

from support import spawn

RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")


def environment(**changes: str) -> dict[str, str]:
    """Return ours without what would steer ``rmos`` or the width of its tables."""
    steering = ("RMOS_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, "TERM": "xterm-256color", **changes}


def piped(
    *arguments: str, home: Path, stdin: str | bytes = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run it with everything in pipes."""
    done = spawn.run(
        [*RMOS, *arguments],
        env=environment(RMOS_HOME=str(home), **changes),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )
    told = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in told.stderr
    return told


def on_terminal(*arguments: str, home: Path, width: int, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run it with standard output on a terminal of ``width`` columns, and standard error in a pipe."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = spawn.Popen[bytes](
        [*RMOS, *arguments],
        env=environment(RMOS_HOME=str(home), **changes),
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    shown = bytearray()
    # Linux answers EIO once the last writer has closed its side.
    with suppress(OSError):
        while data := os.read(master, 65_536):
            shown += data
    os.close(master)
    _, said = process.communicate(timeout=120)
    assert b"Traceback" not in said + shown
    lines = shown.decode().replace("\r\n", "\n")
    return subprocess.CompletedProcess(process.args, process.returncode, lines, said.decode())
