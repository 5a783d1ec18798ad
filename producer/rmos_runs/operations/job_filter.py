"""Which jobs an operator means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobRecord, JobState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant; a filter that is left out leaves all in."""

    states: tuple[JobState, ...] = ()
    task: str | None = None
    queue: str | None = None
    #: Of the last failure.
    reason: str | None = None
    #: Since it was accepted.
    older_than_hours: float | None = None
    run_ids: frozenset[str] | None = None

    def takes(self, job: JobRecord, now: datetime) -> bool:
        """Say whether the job is meant."""
        reason = None if job.failure is None else job.failure.reason
        return (
            (not self.states or job.state in self.states)
            and self.task in {None, job.task}
            and self.queue in {None, job.queue}
            and self.reason in {None, reason}
            and is_older(job.accepted_at_utc, self.older_than_hours, now)
            and (self.run_ids is None or job.run_id in self.run_ids)
        )

    def about(self) -> dict[str, Any]:
        """Return the filter for the record of an act: what is set, and of run ids their number."""
        return about(
            states=[state.value for state in self.states] or None,
            task=self.task,
            queue=self.queue,
            reason=self.reason,
            older_than_hours=self.older_than_hours,
            run_ids=None if self.run_ids is None else len(self.run_ids),
        )


def chosen_jobs(ledger: JobLedger, choice: JobFilter) -> Iterator[JobRecord]:
    """Yield the jobs that the filter takes, of each state newest first; one that moves on may come twice."""
    now = datetime.now(UTC)
    for state in choice.states or (None,):
        for job in ledger.jobs(state):
            if choice.takes(job, now):
                yield job


def is_older(moment: datetime, hours: float | None, now: datetime) -> bool:
    """Say whether a moment is at least so many hours ago; without hours, always."""
    return hours is None or now - moment >= timedelta(hours=hours)


def about(**chosen: Any) -> dict[str, Any]:
    """Return what is set of a filter, for the record of an act."""
    return {name: value for name, value in chosen.items() if value is not None}


def run_ids_in(lines: Iterable[str]) -> frozenset[str]:
    """Return the run ids of a file that holds one a line; blank lines count for nothing."""
    return frozenset(line.strip() for line in lines if line.strip())
