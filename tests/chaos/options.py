"""What a run of the harness may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: How often, in seconds, a fault of each family comes if no number is given.
EVERY_SECONDS: Mapping[str, float] = {
    "kills": 8.0,
    "cuts": 6.0,
    "troubles": 12.0,
    "homes": 40.0,
    "mounts": 40.0,
    "channels": 12.0,
    "damage": 15.0,
    "later": 40.0,
    "gateway": 10.0,
    "malformed": 3.0,
}
#: No family has fewer than this, unless it is told to: so many that each has a chance to show.
_FEWEST = {"kills": 3, "cuts": 3, "troubles": 5, "gateway": 7}


@dataclass(frozen=True, slots=True)
class Options:
    """The bounds of one run; ``seed`` fixes which faults come when, not how the processes race."""

    seconds: float
    seed: int
    #: Jobs to have done; each run brings two, its creation and its explanation.
    jobs: int
    #: Longest wait, after the last fault, for everything to be done.
    drain_seconds: float
    #: Faults by family (``EVERY_SECONDS`` for one left out), or by kind, apart from its family's.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: Kinds of faults to have, to look closely at some; all if empty.
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """Runs that go in by the Python client."""
        return max(1, self.jobs // 2 - self.posts)

    @property
    def posts(self) -> int:
        """Runs that go in over HTTP."""
        return max(1, self.jobs // 6)

    @property
    def hard_cap_seconds(self) -> int:
        """However badly it goes, the run ends after this: start, faults, drain, audit and end."""
        return int(self.seconds + 2 * self.drain_seconds + 180)

    def count(self, family: str, *, at_least: int = 0) -> int:
        """Return how many faults of a family there are to be."""
        usual = max(_FEWEST.get(family, 1), at_least, round(self.seconds / EVERY_SECONDS[family]))
        return self.counts.get(family, usual)
