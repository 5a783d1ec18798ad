"""A program on a terminal of its own, with keys that can be pressed and a screen that can be read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.command import RMOS, environment

_STEERING = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9])")
_ENTER_SCREEN, _LEAVE_SCREEN, _HOME = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H"


class Terminal:
    """``rmos`` on a terminal of ``width`` by ``height``, as a shell starts it: in the foreground."""

    def __init__(
        self, *arguments: str, home: Path, width: int = 80, height: int = 24, **changes: str
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._slave = slave
        self.settings: list[Any] = termios.tcgetattr(slave)
        self._written = bytearray()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *RMOS, *arguments],
            env=environment(RMOS_HOME=str(home), **changes),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(timeout=15)
        os.close(self._slave)
        os.close(self._master)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait_for(self, holds: Callable[[str], object], seconds: float = 60) -> str:
        """Read until what is on the screen is as wanted, and return it."""
        deadline = time.monotonic() + seconds
        while not holds(self.screen):
            assert time.monotonic() < deadline, self.screen
            self._read(0.1)
        return self.screen

    def end(self, seconds: float = 60) -> int:
        """Wait until it has ended, and return its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen
            self._read(0.05)
        self._read(0.05)
        return self.process.returncode

    @property
    def output(self) -> str:
        """All that it ever wrote."""
        return self._written.decode("utf-8", "replace")

    @property
    def screen(self) -> str:
        """What was drawn last, without colours; lines end as the program ended them."""
        drawn = self.output.rpartition(_HOME)[2].partition(_LEAVE_SCREEN)[0]
        return _STEERING.sub("", drawn).replace("\r\n", "\n")

    def is_as_it_was(self) -> bool:
        """Say whether the screen, the cursor and the keys are those of the shell again."""
        last = {
            state: max(self.output.rfind(code) for code in codes)
            for state, codes in {
                "screen": (_LEAVE_SCREEN,),
                "program": (_ENTER_SCREEN, _HOME),
                "cursor": ("\x1b[?25h",),
                "no cursor": ("\x1b[?25l",),
            }.items()
        }
        return (
            last["screen"] > last["program"]
            and last["cursor"] > last["no cursor"]
            and termios.tcgetattr(self._slave) == self.settings
        )

    def _read(self, seconds: float) -> None:
        while select.select([self._master], [], [], seconds)[0]:
            self._written += os.read(self._master, 65_536)
            seconds = 0
