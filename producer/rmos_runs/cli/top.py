"""``rmos top``: the status on a terminal, renewed each second."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption
from rmos_runs.cli.status import read_home, status
from rmos_runs.cli.status_view import BAD, HEADING, Line, fitted, sections
from rmos_runs.operations.status import QUICK, SystemStatus

_REFRESH_SECONDS = 1.0
#: How soon a key, a new size of the terminal, or a new status is seen.
_LOOK_SECONDS = 0.1
#: A status that is older than this is not called one of now.
_STALE_SECONDS = 5.0


def top(*, home: HomeOption = DEFAULT_HOME) -> None:
    """Show the status on the terminal, renewed each second. The key q or Ctrl-C ends it.

    Looks at fewer jobs than `rmos status`: at the first 1,000 of a state. Without a terminal it prints one
    status and ends, as `rmos status` does.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        status(as_json=False, home=home)
        return
    screen = Console(highlight=False)
    with _quiet(), _keys() as keys, Live(console=screen, screen=True, auto_refresh=False) as live:
        watch = _Watch(home)
        watch.start()
        _show(watch, live, screen, keys)


def _show(watch: _Watch, live: Live, screen: Console, keys: int) -> None:
    drawn: object = None
    while True:
        if watch.error is not None:
            raise watch.error
        size = screen.size
        now = (watch.latest, size, watch.stale)
        if now != drawn:
            drawn = now
            lines = _lines(watch, size.width, size.height)
            live.update(Group(*(Text(line.text, style=line.style) for line in lines)), refresh=True)
        if _asked_to_end(keys):
            return


def _asked_to_end(keys: int) -> bool:
    if not select.select([keys], [], [], _LOOK_SECONDS)[0]:
        return False
    pressed = os.read(keys, 64)
    return not pressed or pressed[:1].lower() == b"q"


def _lines(watch: _Watch, width: int, height: int) -> list[Line]:
    found = watch.latest
    if found is None:
        return [Line("rmos top: the first look is under way; q ends", HEADING)]
    age = "no answer since " if watch.stale else ""
    title = Line(f"rmos top  {age}{_clock(found.at_utc)}  q ends", BAD if watch.stale else HEADING)
    return [title, *fitted(sections(found, width, brief=True), height - 1)]


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"


class _Watch(threading.Thread):
    """Looks each second, apart from the terminal: a server or disk that hangs must not hold up the keys."""

    def __init__(self, home: Path) -> None:
        super().__init__(name="watch", daemon=True)
        self._home = home
        self._began = time.monotonic()
        self.latest: SystemStatus | None = None
        #: What ended it: a bug, for what is away is part of a status.
        self.error: Exception | None = None

    @property
    def stale(self) -> bool:
        return time.monotonic() - self._began > _STALE_SECONDS

    def run(self) -> None:
        while True:
            self._began = time.monotonic()
            try:
                self.latest = read_home(self._home, QUICK)
            except Exception as error:  # noqa: BLE001 - raised again where the terminal is put right first
                self.error = error
                return
            took = time.monotonic() - self._began
            # One that is dear is made seldom, so that looking takes a fifth of the time at the most.
            time.sleep(max(_REFRESH_SECONDS - took, 4 * took))


@contextmanager
def _keys() -> Iterator[int]:
    """Yield the terminal with each key at once and unseen; afterwards it is as it was, however this ends."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    handlers = {
        signum: signal.signal(signum, handler)
        for signum, handler in (
            (signal.SIGTERM, _interrupt),
            (signal.SIGHUP, _interrupt),
            # A stopped one would leave the shell with the screen and the keys of this.
            (signal.SIGTSTP, signal.SIG_IGN),
        )
    }
    try:
        tty.setcbreak(keys)
        yield keys
    except KeyboardInterrupt:
        pass  # as it is meant to end
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep log lines off the screen; what they tell of is in the status."""
    silence = logging.NullHandler()
    logging.getLogger().addHandler(silence)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(silence)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
