"""How fast jobs come and go, counted from the stream of events when asked: no step of a job pays for it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from rmos_shared.jobs.events import EventState, all_kept, pairs_of
from rmos_shared.jobs.figures.model import OTHERS, TaskFlow
from rmos_shared.jobs.figures.moment import number_of
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript

_MINUTE_MS = 60_000.0
_WINDOW_MS = 5 * _MINUTE_MS
#: Entries of one read; with 25 events each, a megabyte or so.
_ENTRIES = 500
#: Ids of one step.
_IDS = 1_000
#: Jobs of each task that are measured, evenly drawn from those done in the window.
_MEASURED = 500
#: A program may write events of tasks without number; those of more are counted together.
_MOST_TASKS = 100
_COUNTED = (EventState.ACCEPTED, EventState.DONE, EventState.DEAD)
_ENTRY_ID = re.compile(rb"(\d{1,15})-\d+")


@dataclass(slots=True)
class FlowCount:
    """Counts entries of the stream, which must come newest first. Memory grows with the events alone."""

    now_ms: float
    #: By task, state, and whether in the last minute.
    counts: Counter[tuple[str, EventState, bool]] = field(default_factory=Counter)
    #: By task, the jobs that are done, newest first, and when.
    done: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    #: By job, how long it took from its last start.
    took_ms: dict[str, float] = field(default_factory=dict)
    events: int = 0
    #: Time of the oldest entry so far.
    oldest_ms: float | None = None
    _unstarted: dict[str, float] = field(default_factory=dict)
    _tasks: set[str] = field(default_factory=set)

    def add(self, entry: tuple[bytes, Mapping[bytes, bytes] | None]) -> None:
        """Count one entry; what another program added is passed over."""
        match = _ENTRY_ID.fullmatch(entry[0])
        if match is None:
            return
        at, fields = float(match[1]), entry[1] or {}
        self.oldest_ms = at
        lines = fields.get(b"jobs", b"").decode("utf-8", "replace").split("\n")
        self.events += len(lines)
        try:
            state = EventState(fields.get(b"state", b"").decode("utf-8", "replace"))
        except ValueError:
            return
        for line in lines:
            job_id, _, rest = line.partition("\t")
            if job_id and not (state is EventState.ACCEPTED and b"again" in fields):
                self._add(state, at, job_id, self._known(rest.partition("\t")[0]))

    def _add(self, state: EventState, at: float, job_id: str, task: str) -> None:
        if state in _COUNTED:
            self.counts[task, state, self.now_ms - at <= _MINUTE_MS] += 1
        if state is EventState.DONE:
            self.done[task].append((job_id, at))
            self._unstarted[job_id] = at
        elif state is EventState.RUNNING and job_id in self._unstarted:
            self.took_ms[job_id] = self._unstarted.pop(job_id) - at

    def _known(self, task: str) -> str:
        if task not in self._tasks and len(self._tasks) >= _MOST_TASKS:
            return OTHERS
        self._tasks.add(task)
        return task

    def measured(self) -> dict[str, list[tuple[str, float]]]:
        """Return, by task, the jobs whose time is looked up, and when each was done."""
        return {task: jobs[:: -(-len(jobs) // _MEASURED)] for task, jobs in self.done.items()}

    def flows(self, seconds: float, accepted_ms: Mapping[str, float]) -> list[TaskFlow]:
        """Return the figures of each task, by name, for a look ``seconds`` back.

        ``accepted_ms`` tells when the ``measured`` jobs were accepted; those it lacks are left out.
        """
        measured = self.measured()
        return [
            self._flow(task, seconds, measured.get(task, []), accepted_ms)
            for task in sorted({task for task, _, _ in self.counts})
        ]

    def _flow(
        self,
        task: str,
        seconds: float,
        jobs: Sequence[tuple[str, float]],
        accepted_ms: Mapping[str, float],
    ) -> TaskFlow:
        since_accepted = [at - accepted_ms[job_id] for job_id, at in jobs if job_id in accepted_ms]
        since_started = [self.took_ms[job_id] for job_id, _ in jobs if job_id in self.took_ms]
        rates: dict[str, float] = {}
        for state in _COUNTED:
            recent, earlier = (self.counts[task, state, is_recent] for is_recent in (True, False))
            rates[f"{state.value}_per_second_1m"] = recent / min(seconds, _MINUTE_MS / 1000)
            rates[f"{state.value}_per_second_5m"] = (recent + earlier) / seconds
        return TaskFlow(
            task=task,
            measured=len(since_accepted),
            accepted_to_done_seconds_p50=_quantile(since_accepted, 0.5),
            accepted_to_done_seconds_p99=_quantile(since_accepted, 0.99),
            started_to_done_seconds_p50=_quantile(since_started, 0.5),
            started_to_done_seconds_p99=_quantile(since_started, 0.99),
            **rates,
        )


def read_flow(script: LedgerScript, now_ms: float, *, most_events: int) -> tuple[list[TaskFlow], float]:
    """Return the flow of each task over up to five minutes, and how many seconds that looks back.

    It reads some ``most_events`` of the newest events at the most, and looks up some hundred jobs a task.

    Raises:
        BrokerUnavailable: the server does not answer.
        BrokerDamaged: the stream is none. The next change of a job makes it anew.
    """
    key, count, end = f"{script.prefix}events", FlowCount(now_ms), "+"
    cut = False
    while not cut:
        with broker_errors():
            entries: Any = script.client.xrevrange(key, end, int(now_ms - _WINDOW_MS), count=_ENTRIES)
        for entry in entries:
            count.add(entry)
        if len(entries) < _ENTRIES:
            break
        end = f"({entries[-1][0].decode()}"
        cut = count.events >= most_events
    seconds = _seconds_back(script, key, count, cut=cut)
    jobs = [job_id for jobs in count.measured().values() for job_id, _ in jobs]
    return count.flows(seconds, dict(_accepted(script, jobs))), seconds


def _seconds_back(script: LedgerScript, key: str, count: FlowCount, *, cut: bool) -> float:
    """Return how far back all events are counted; at least a hundredth of a second, to divide by."""
    whole, oldest_ms = _WINDOW_MS / 1000, count.oldest_ms
    if not cut:
        try:
            with broker_errors():
                # As it comes: redis-py has its own form of xinfo_stream for each protocol.
                answer = script.client.execute_command("XINFO", "STREAM", key)  # type: ignore[no-untyped-call]
                info = pairs_of(answer)
        except redis.ResponseError:
            return whole  # there is none: nothing has happened yet
        first = info.get(b"first-entry")
        match = _ENTRY_ID.fullmatch(first[0]) if first else None
        if match is None or float(match[1]) < count.now_ms - _WINDOW_MS or all_kept(info):
            return whole
        oldest_ms = float(match[1])
    back_ms = _WINDOW_MS if oldest_ms is None else count.now_ms - oldest_ms
    return min(max(back_ms / 1000, 0.01), whole)


def _accepted(script: LedgerScript, job_ids: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield when each job was accepted, in milliseconds; without those whose records are gone."""
    for first in range(0, len(job_ids), _IDS):
        some = job_ids[first : first + _IDS]
        for job_id, text in zip(some, script.run("acceptances", *some), strict=True):
            at = number_of(text)
            if at is not None:
                yield job_id, at


def _quantile(milliseconds: Sequence[float], share: float) -> float | None:
    """Return, in seconds, the smallest value that this share of all does not exceed; None of nothing."""
    if not milliseconds:
        return None
    ranked = sorted(milliseconds)
    return max(ranked[max(0, -(-int(share * 100) * len(ranked) // 100) - 1)], 0.0) / 1000
