"""Two ways of doing the same work, in turn (A B A B), as one ratio with its spread.

Absolute times prove nothing on a shared machine; a ratio within one run does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result: how many times faster (above 1) ``ours`` is than ``reference``."""

    name: str
    reference: str
    ratio: float
    low: float
    high: float
    reach: float

    @property
    def reached(self) -> bool:
        """Whether the mark is met within the spread."""
        return self.high >= self.reach


def compare(
    name: str,
    ours: Callable[[], object],
    against: str,
    reference: Callable[[], object],
    *,
    reach: float,
    rounds: int,
) -> Row:
    """Time both in turn, once to warm up and then ``rounds`` times; return the median ratio."""
    return compare_seconds(
        name, lambda: _seconds(ours), against, lambda: _seconds(reference), reach=reach, rounds=rounds
    )


def compare_seconds(
    name: str,
    ours: Callable[[], float],
    against: str,
    reference: Callable[[], float],
    *,
    reach: float,
    rounds: int,
) -> Row:
    """As ``compare``, for work that tells its own seconds."""
    ratios = []
    for index in range(rounds + 1):
        ratio = reference() / ours()
        if index:
            ratios.append(ratio)
    return Row(name, against, statistics.median(ratios), min(ratios), max(ratios), reach)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
