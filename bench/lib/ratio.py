"""Two ways of doing the same work, in turn (A B A B), as one ratio with its spread.

Absolute figures prove nothing on a shared machine; a ratio within one run does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_EXACT = 100
#: With this many rounds the outliers, which are other people's load, can be told.
_ENOUGH = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result: ``ours`` divided by ``reference``, median and spread over the rounds.

    More is better, unless the mark is one that must not be passed (``at_most``).
    """

    #: Names the row in ``notes.md``.
    key: str
    name: str
    reference: str
    ratio: float
    low: float
    high: float
    reach: float
    at_most: bool
    #: Median figures with their unit, for orientation only.
    ours: str
    theirs: str
    #: The ratio of the run before, on the same page.
    before: float | None = None
    #: What the design aims at, where ``reach`` only guards what is reached.
    aim: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the mark is met within the spread."""
        return self.low <= self.reach if self.at_most else self.high >= self.reach

    @property
    def mark(self) -> str:
        """The mark in words."""
        mark = f"at {'most' if self.at_most else 'least'} {self.reach:g}"
        return mark if self.aim is None else f"{mark}, a guard; the aim is {self.aim:g}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a row is called and what it must reach.

    Where the design's ``aim`` is out of reach, ``reach`` guards what is reached, less the noise between runs.
    """

    key: str
    name: str
    reference: str
    reach: float
    unit: str
    at_most: bool = False
    aim: float | None = None

    def row(self, ours: Sequence[float], theirs: Sequence[float]) -> Row:
        """Return the row of figures taken in turn: the n-th of each belong together."""
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        low, high = _spread(ratios)
        return Row(
            key=self.key,
            name=self.name,
            reference=self.reference,
            ratio=statistics.median(ratios),
            low=low,
            high=high,
            reach=self.reach,
            at_most=self.at_most,
            ours=f"{figure(statistics.median(ours))} {self.unit}",
            theirs=f"{figure(statistics.median(theirs))} {self.unit}",
            aim=self.aim,
        )


def compare(
    mark: Mark, ours: Callable[[], object], reference: Callable[[], object], *, amount: int, rounds: int
) -> Row:
    """Time both in turn, once to warm up and then ``rounds`` times.

    Each does ``amount`` pieces of work. A mark that must not be passed compares the time of one piece, in
    the mark's unit of ``ms``; any other the pieces per second.
    """
    mine, others = [], []
    for index in range(rounds + 1):
        pair = _seconds(ours), _seconds(reference)
        if index:
            mine.append(pair[0])
            others.append(pair[1])
    if mark.at_most:
        return mark.row([1000 * s / amount for s in mine], [1000 * s / amount for s in others])
    return mark.row([amount / s for s in mine], [amount / s for s in others])


def figure(value: float) -> str:
    """Return a number with three digits that count, and never an exponent."""
    return f"{value:,.0f}" if abs(value) >= _EXACT else f"{value:.3g}"


def _spread(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the middle half of many, lowest and highest of few."""
    if len(ratios) < _ENOUGH:
        return min(ratios), max(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, high


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
