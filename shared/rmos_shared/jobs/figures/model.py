"""The figures of the ledger: values. Times are the server's, UTC."""

from __future__ import annotations

from typing import Literal

from rmos_shared.models.base import Frozen, UtcTime

#: What stands for the rest where a list would get too long.
OTHERS = "others"


class QueueFigures(Frozen):
    """A line of ready jobs."""

    queue: str
    ready: int
    #: How long the first in line has been ready; none: nobody is.
    oldest_ready_seconds: float | None


class TaskJobs(Frozen):
    """The jobs of one task, by state. Done ones are counted for all tasks together, and expire."""

    task: str
    accepted: int = 0
    running: int = 0
    waiting: int = 0
    dead: int = 0
    discarded: int = 0


class TaskFlow(Frozen):
    """How fast the jobs of one task come and go: jobs a second over the last minute and the last five.

    The seconds are of jobs done in the last five minutes, ``measured`` of them. ``accepted`` counts a job
    once, however often it was in line; a replayed one is as old as its first acceptance.
    """

    task: str
    accepted_per_second_1m: float
    accepted_per_second_5m: float
    done_per_second_1m: float
    done_per_second_5m: float
    dead_per_second_1m: float
    dead_per_second_5m: float
    measured: int
    accepted_to_done_seconds_p50: float | None
    accepted_to_done_seconds_p99: float | None
    started_to_done_seconds_p50: float | None
    started_to_done_seconds_p99: float | None


class WaitingJobs(Frozen):
    """Jobs that are put off for one reason, and when the first and the last of them are due."""

    reason: str
    jobs: int
    first_due_utc: UtcTime
    last_due_utc: UtcTime


class DeadLetterGroup(Frozen):
    """Dead letters of one reason, and when the first and the last of them died."""

    reason: str
    letters: int
    first_seen_utc: UtcTime
    last_seen_utc: UtcTime


class HeldJob(Frozen):
    """A job that a worker holds."""

    job_id: str
    task: str
    since_utc: UtcTime


class WorkerFigures(Frozen):
    """A process that runs tasks."""

    worker: str
    #: Since its last heartbeat; none: it has not beaten yet.
    heartbeat_seconds: float | None
    #: Its leases have lapsed: its jobs run elsewhere.
    silent: bool
    running: int
    #: Those that it has held longest, up to 20.
    jobs: list[HeldJob]


class BreakerFigures(Frozen):
    """Whether the advisory store is called."""

    #: ``half_open``: the next call, or one under way, tries whether it is back.
    state: Literal["closed", "open", "half_open"]
    #: Code of the error that calls of it end with.
    why: str | None = None
    #: Since when the outage lasts.
    since_utc: UtcTime | None = None
    #: Until when no call is made; none: one may be.
    until_utc: UtcTime | None = None


class LedgerFigures(Frozen):
    """All of them, at about one moment."""

    at_utc: UtcTime
    queues: list[QueueFigures]
    tasks: list[TaskJobs]
    waiting: list[WaitingJobs]
    #: Raw letters are among them.
    dead_letters: list[DeadLetterGroup]
    flow: list[TaskFlow]
    #: How far back ``flow`` looks: 300, or less where that many events are not kept, or not looked at.
    flow_seconds: float
    breaker: BreakerFigures
    workers: list[WorkerFigures]
    #: There are more workers than these.
    more_workers: bool
    #: Jobs of each state that were looked at, at the most: the first in line and due, the latest dead.
    most_examined: int
    #: The states of which there are more. ``tasks``, ``waiting`` and ``dead_letters`` lack the rest of them.
    capped: list[str]
