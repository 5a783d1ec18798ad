"""Reading the figures: many small steps, none of which holds the server up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rmos_shared.jobs.figures.breaker import read_breaker
from rmos_shared.jobs.figures.flow import read_flow
from rmos_shared.jobs.figures.model import (
    OTHERS,
    DeadLetterGroup,
    HeldJob,
    LedgerFigures,
    QueueFigures,
    TaskJobs,
    WaitingJobs,
    WorkerFigures,
)
from rmos_shared.jobs.figures.moment import moment_of, number_of
from rmos_shared.jobs.model import DeadReason, JobState
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript

#: Jobs that one step looks at; it holds the server up for a few milliseconds.
_PAGE_JOBS = 250
_PAGE_WORKERS = 100
_MOST_WORKERS = 1_000
_MOST_JOBS_OF_A_WORKER = 20
#: Tasks and reasons are few; of what another program writes more are counted together.
_MOST_GROUPS = 100


@dataclass(slots=True)
class _Group:
    """Jobs of one task that are there for one reason, and the first and the last of their times."""

    jobs: int
    first_ms: float
    last_ms: float

    def join(self, other: _Group) -> None:
        self.jobs += other.jobs
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms = max(self.last_ms, other.last_ms)


_Groups = dict[tuple[str, str], _Group]


class JobFigures:
    """What a status shows of the ledger. It changes nothing, and raises as ``JobLedger``."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def read(self, *, most_jobs: int, most_events: int) -> LedgerFigures:
        """Return the figures.

        Looks at up to ``most_jobs`` jobs of each state (and line), and at some ``most_events`` events. Jobs
        that move meanwhile may be counted twice or not at all.
        """
        now_ms, queues = self._lines()
        lines = ["taken", *(f"ready:{queue.queue}" for queue in queues)]
        workers, more_workers = self._workers(now_ms)
        leases = [f"leases:{worker.worker}" for worker in workers if worker.running]
        by_state: dict[JobState, _Groups] = {
            JobState.ACCEPTED: self._survey(lines, most_jobs),
            JobState.RUNNING: self._survey(leases, most_jobs),
            JobState.WAITING: self._survey(["waiting"], most_jobs, by_reason=True),
            JobState.DEAD: self._survey(["dead"], most_jobs, by_reason=True, latest=True),
            JobState.DISCARDED: self._survey(["discarded"], most_jobs, latest=True),
        }
        flow, seconds = read_flow(self._script, now_ms, most_events=most_events)
        totals = {
            JobState.ACCEPTED: sum(self._sizes(lines)),
            JobState.RUNNING: sum(worker.running for worker in workers),
            **{
                state: self._sizes([state.value])[0]
                for state in (JobState.WAITING, JobState.DEAD, JobState.DISCARDED)
            },
        }
        return LedgerFigures(
            at_utc=moment_of(now_ms),
            queues=queues,
            tasks=_tasks(by_state),
            waiting=_waiting(by_state[JobState.WAITING]),
            dead_letters=self._dead_letters(by_state[JobState.DEAD]),
            flow=flow,
            flow_seconds=seconds,
            breaker=read_breaker(self._script, moment_of(now_ms)),
            workers=workers,
            more_workers=more_workers,
            most_examined=most_jobs,
            capped=[
                state.value
                for state, groups in by_state.items()
                if totals[state] > most_jobs and sum(group.jobs for group in groups.values()) < totals[state]
            ],
        )

    def _lines(self) -> tuple[float, list[QueueFigures]]:
        answer = self._script.run("lines")
        now_ms = float(answer[0])
        return now_ms, [
            QueueFigures(
                queue=_text(queue),
                ready=int(ready),
                oldest_ready_seconds=_seconds_since(now_ms, since),
            )
            for queue, ready, since in zip(answer[1::3], answer[2::3], answer[3::3], strict=True)
        ]

    def _survey(
        self, indexes: list[str], most: int, *, by_reason: bool = False, latest: bool = False
    ) -> _Groups:
        """Return the jobs of each index, the first or the latest ``most`` of it, by task and reason."""
        groups: _Groups = {}
        for index in indexes:
            for key, group in self._pages(index, most, by_reason=by_reason, latest=latest):
                known = key if key in groups or len(groups) < _MOST_GROUPS else (OTHERS, OTHERS)
                groups.setdefault(known, _Group(0, group.first_ms, group.last_ms)).join(group)
        return groups

    def _pages(
        self, index: str, most: int, *, by_reason: bool, latest: bool
    ) -> Iterator[tuple[tuple[str, str], _Group]]:
        for first in range(0, most, _PAGE_JOBS):
            last = min(first + _PAGE_JOBS, most) - 1
            ranks = (-1 - last, -1 - first) if latest else (first, last)
            seen = 0
            for task, reason, jobs, lowest, highest in self._script.run(
                "survey", index, *ranks, int(by_reason)
            ):
                seen += int(jobs)
                group = _Group(int(jobs), number_of(lowest) or 0, number_of(highest) or 0)
                yield (_text(task) or "unknown", _text(reason) or "unknown"), group
            if seen <= last - first:
                return

    def _workers(self, now_ms: float) -> tuple[list[WorkerFigures], bool]:
        workers: list[WorkerFigures] = []
        for first in range(0, _MOST_WORKERS, _PAGE_WORKERS):
            page = self._script.run("workers", first, first + _PAGE_WORKERS - 1, _MOST_JOBS_OF_A_WORKER)
            workers += (_worker(now_ms, answer) for answer in page)
            if len(page) < _PAGE_WORKERS:
                break
        more = len(workers) >= _MOST_WORKERS and self._sizes(["workers"])[0] > len(workers)
        # A worker that beat meanwhile may stand on two pages.
        return sorted({one.worker: one for one in workers}.values(), key=lambda one: one.worker), more

    def _dead_letters(self, dead: _Groups) -> list[DeadLetterGroup]:
        by_reason = _by_reason(dead)
        raw = self._raw_letters()
        if raw is not None:
            # The one reason for which a message is kept.
            reason = DeadReason.MALFORMED_MESSAGE.value
            by_reason.setdefault(reason, _Group(0, raw.first_ms, raw.last_ms)).join(raw)
        return [
            DeadLetterGroup(
                reason=reason,
                letters=group.jobs,
                first_seen_utc=moment_of(group.first_ms),
                last_seen_utc=moment_of(group.last_ms),
            )
            for reason, group in _most_first(by_reason)
        ]

    def _raw_letters(self) -> _Group | None:
        key = f"{self._script.prefix}raw"
        with broker_errors(), self._script.client.pipeline(transaction=False) as pipe:
            pipe.zcard(key)
            pipe.zrange(key, 0, 0, withscores=True)
            pipe.zrange(key, -1, -1, withscores=True)
            amount, first, last = pipe.execute()
        return _Group(amount, first[0][1], last[0][1]) if first and last else None

    def _sizes(self, indexes: list[str]) -> list[int]:
        with broker_errors(), self._script.client.pipeline(transaction=False) as pipe:
            for index in indexes:
                pipe.zcard(f"{self._script.prefix}{index}")
            return [int(size) for size in pipe.execute()]


def _tasks(by_state: dict[JobState, _Groups]) -> list[TaskJobs]:
    counts: dict[str, dict[str, int]] = {}
    for state, groups in by_state.items():
        for (task, _), group in groups.items():
            states = counts.setdefault(task, {})
            states[state.value] = states.get(state.value, 0) + group.jobs
    return [TaskJobs(task=task, **states) for task, states in sorted(counts.items())]


def _waiting(groups: _Groups) -> list[WaitingJobs]:
    return [
        WaitingJobs(
            reason=reason,
            jobs=group.jobs,
            first_due_utc=moment_of(group.first_ms),
            last_due_utc=moment_of(group.last_ms),
        )
        for reason, group in _most_first(_by_reason(groups))
    ]


def _by_reason(groups: _Groups) -> dict[str, _Group]:
    joined: dict[str, _Group] = {}
    for (_, reason), group in groups.items():
        joined.setdefault(reason, _Group(0, group.first_ms, group.last_ms)).join(group)
    return joined


def _most_first(groups: dict[str, _Group]) -> list[tuple[str, _Group]]:
    return sorted(groups.items(), key=lambda item: (-item[1].jobs, item[0]))


def _worker(now_ms: float, answer: list[Any]) -> WorkerFigures:
    name, silent_from, beat, running, *jobs = answer
    return WorkerFigures(
        worker=_text(name),
        heartbeat_seconds=_seconds_since(now_ms, beat),
        silent=(number_of(silent_from) or 0) <= now_ms,
        running=int(running),
        jobs=[
            HeldJob(job_id=_text(job_id), task=_text(task), since_utc=moment_of(number_of(since) or 0))
            for job_id, task, since in zip(jobs[::3], jobs[1::3], jobs[2::3], strict=True)
        ],
    )


def _seconds_since(now_ms: float, then: bytes | int) -> float | None:
    at = float(then) if isinstance(then, int) else number_of(then)
    return None if at is None else max(now_ms - at, 0) / 1000


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
