"""Whether a worker does its work: it takes the jobs that it could take. A pure decision, made time and again.

A worker that answers a ping has proven that it answers pings. What counts is that it takes jobs: while there
are some in line and one of its slots is free, it takes one within a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a worker is doing."""

    #: Nothing that it could take is in line.
    IDLE = "idle"
    #: Jobs are in line, and it takes them, or did so a moment ago.
    WORKING = "working"
    #: Every slot is taken by a job, however long.
    BUSY = "busy"
    #: It was asked to end, which has a time limit of its own.
    STOPPING = "stopping"
    #: The broker does not answer. A new worker could do no more, and many that start at once make its return
    #: harder; Celery comes back to it by itself.
    BROKER_AWAY = "broker_away"
    #: Jobs are in line, a slot is free, and it has taken none for too long.
    STALLED = "stalled"
    #: The loop that takes the jobs stands still.
    LOOP_HANGS = "loop_hangs"
    #: Nobody has looked at it for too long, so nobody knows.
    UNWATCHED = "unwatched"

    @property
    def alive(self) -> bool:
        """Whether it is better left alone than started anew."""
        return self not in {State.STALLED, State.LOOP_HANGS, State.UNWATCHED}


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker, as it was seen at one moment; times are those of one monotonic clock, in seconds."""

    at: float
    #: Notifications that it has begun to work on.
    taken: int
    busy: int
    slots: int
    #: When its loop turned last.
    loop_at: float
    stopping: bool
    #: Whether a job is in line that it may take; None: the broker does not answer.
    work: bool | None


@dataclass(frozen=True, slots=True)
class Liveness:
    """What is known of a worker: how it was seen last, and since when nothing has excused it."""

    seen: Seen
    #: Since when jobs have been in line, a slot free, and none taken.
    idle_since: float
    #: Since when its loop is bound to turn: not while the broker is away, nor while it ends.
    bound_since: float

    @classmethod
    def first(cls, seen: Seen) -> Liveness:
        """Return what is known of a worker that has just begun."""
        return cls(seen, idle_since=seen.at, bound_since=seen.at)

    def after(self, seen: Seen, *, patience_seconds: float) -> Liveness:
        """Return what is known now that the worker was seen again.

        A long time between two looks excuses everything: the process or the machine was stopped.
        """
        excused = seen.stopping or seen.work is None or seen.at - self.seen.at > patience_seconds / 2
        idle = seen.work and seen.busy < max(seen.slots, 1) and seen.taken == self.seen.taken and not excused
        return Liveness(
            seen,
            idle_since=self.idle_since if idle else seen.at,
            bound_since=seen.at if excused else self.bound_since,
        )

    @property
    def idle_seconds(self) -> float:
        """How long jobs were in line, a slot free, and none taken, when it was seen last."""
        return self.seen.at - self.idle_since

    @property
    def loop_seconds(self) -> float:
        """How long its loop had not turned when it was seen last."""
        return max(0.0, self.seen.at - self.seen.loop_at)

    def state(self, now: float, *, patience_seconds: float, look_seconds: float) -> State:
        """Return what the worker is doing; a look at it takes ``look_seconds`` at the very most."""
        seen = self.seen
        states = (
            (State.UNWATCHED, now - seen.at > patience_seconds + look_seconds),
            (State.STOPPING, seen.stopping),
            (State.BROKER_AWAY, seen.work is None),
            (State.LOOP_HANGS, seen.at - max(seen.loop_at, self.bound_since) >= patience_seconds),
            (State.STALLED, self.idle_seconds >= patience_seconds),
            (State.BUSY, seen.busy >= max(seen.slots, 1)),
            (State.WORKING, bool(seen.work or seen.busy)),
        )
        return next((state for state, holds in states if holds), State.IDLE)
