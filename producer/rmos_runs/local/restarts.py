"""How soon a process that ended is started again: a pure decision."""

from __future__ import annotations

#: A process that lived this long was not failing when it ended.
STABLE_SECONDS = 10.0
#: Short lives in a row that are taken for bad luck: killed, or its port not free yet.
_AT_ONCE = 3
_CAP_SECONDS = 60.0


def short_lives_after(short_lives: int, lived_seconds: float) -> int:
    """Return how many short lives in a row there are, now that one more has ended."""
    return 0 if lived_seconds >= STABLE_SECONDS else short_lives + 1


def pause_seconds(short_lives: int) -> float:
    """Return how long a process is held back after so many short lives in a row.

    Nothing for the first few; then a second, doubled each time, up to a minute.
    """
    beyond = short_lives - _AT_ONCE
    return 0.0 if beyond <= 0 else min(2.0 ** (min(beyond, 16) - 1), _CAP_SECONDS)
