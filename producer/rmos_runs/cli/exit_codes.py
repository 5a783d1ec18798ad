"""The exit codes of ``rmos``."""

from __future__ import annotations

#: As shells have it for a program that a signal has ended.
STOPPED = 130
#: Every code that the command ends with of itself, and what it means.
EXIT_CODES = {
    0: "done",
    1: "unexpected error",
    2: "usage or settings",
    3: "invalid input",
    4: "not found",
    5: "conflict or not allowed",
    6: "try again later",
    7: "damage found",
    8: "invariant broken",
    9: "job ended dead",
    STOPPED: "stopped by Ctrl-C",
}
