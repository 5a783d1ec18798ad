"""Where a command and its children spend their time: stacks, as a sampling profiler sees them.

Sleeping and waiting for a socket do not count; waiting for the disk does, for the kernel calls it no sleep.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

_RATE = 199
_LINE = re.compile(r":\d+\)$")


def watched(command: tuple[str, ...], samples: Path) -> tuple[str, ...]:
    """Return a command that runs ``command`` and, when either ends, writes samples of it and its children."""
    spy = str(Path(sys.executable).with_name("py-spy"))
    options = ("--format", "raw", "--function", "--subprocesses", "--nonblocking", "--rate", str(_RATE))
    return (spy, "record", "--output", str(samples), *options, "--", *command)


def stacks(samples: Path) -> Counter[tuple[str, ...]]:
    """Return how often each stack was seen, outermost frame first, as ``function (file)``.

    Raises:
        ValueError: there are no samples; the profiler may not look at processes here.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for line in samples.read_text().splitlines() if samples.exists() else ():
        stack, _, count = line.rpartition(" ")
        # The first names the process, with its arguments; each other one ends in a line number.
        frames = [frame for frame in stack.split(";") if not frame.startswith("process ")]
        found[tuple(_LINE.sub(")", frame) for frame in frames)] += int(count)
    if not found:
        raise ValueError("the profiler took no samples")
    return found
