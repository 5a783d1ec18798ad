"""What a run of the harness may be told."""

from __future__ import annotations

from dataclasses import dataclass

#: One process of the pipeline is killed or deployed this often, and connections are cut this often.
_SECONDS_PER_KILL = 8.0
_SECONDS_PER_CUT = 6.0


@dataclass(frozen=True, slots=True)
class Options:
    """The bounds of one run; ``seed`` fixes which faults come when, not how the processes race."""

    seconds: float
    seed: int
    #: Jobs to have done; each run brings two, its creation and its explanation.
    jobs: int
    kills: int
    cuts: int
    malformed: int
    #: Longest wait, after the last fault, for everything to be done.
    drain_seconds: float
    #: Kinds of faults to have, to look closely at some; all if empty.
    only: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        return max(1, self.jobs // 2)

    @property
    def hard_cap_seconds(self) -> int:
        """However badly it goes, the run ends after this: start, faults, drain, audit and end."""
        return int(self.seconds + self.drain_seconds + 60)


def default_kills(seconds: float) -> int:
    return max(3, round(seconds / _SECONDS_PER_KILL))


def default_cuts(seconds: float) -> int:
    return max(3, round(seconds / _SECONDS_PER_CUT))
