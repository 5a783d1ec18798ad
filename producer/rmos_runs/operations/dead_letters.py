"""Which dead letters an operator means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from rmos_runs.operations.job_filter import about, is_older
from rmos_shared.jobs.dead_letters import DeadLetters
from rmos_shared.jobs.model import DeadReason, JobRecord, RawLetter

Letters = Iterator[JobRecord | RawLetter]


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant; a filter that is left out leaves all in."""

    reason: DeadReason | None = None
    task: str | None = None
    #: Since it died.
    older_than_hours: float | None = None
    queue: str | None = None
    run_ids: frozenset[str] | None = None

    def takes(self, letter: JobRecord | RawLetter, now: datetime) -> bool:
        """Say whether the letter is meant; a raw letter is of no task and no run."""
        if isinstance(letter, JobRecord):
            reason, task, run_id = (letter.failure and letter.failure.reason), letter.task, letter.run_id
        else:
            reason, task, run_id = letter.reason, None, None
        return (
            self.reason in {None, reason}
            and self.task in {None, task}
            and self.queue in {None, letter.queue}
            and is_older(died_at(letter), self.older_than_hours, now)
            and (self.run_ids is None or run_id in self.run_ids)
        )

    def about(self) -> dict[str, Any]:
        """Return the filter for the record of an act: what is set, and of run ids their number."""
        return about(
            reason=None if self.reason is None else self.reason.value,
            task=self.task,
            queue=self.queue,
            older_than_hours=self.older_than_hours,
            run_ids=None if self.run_ids is None else len(self.run_ids),
        )


def every_letter(letters: DeadLetters) -> Letters:
    """Yield all letters: jobs, then raw messages, each oldest first."""
    return chain(letters.dead(), letters.raw_letters())


def chosen(letters: Letters, choice: LetterFilter) -> Letters:
    """Yield the letters that the filter takes."""
    now = datetime.now(UTC)
    return (letter for letter in letters if choice.takes(letter, now))


def id_of(letter: JobRecord | RawLetter) -> str:
    """Return the id by which a letter is replayed or discarded."""
    return letter.job_id if isinstance(letter, JobRecord) else letter.raw_id


def died_at(letter: JobRecord | RawLetter) -> datetime:
    """Return when it became a dead letter."""
    return letter.changed_at_utc if isinstance(letter, JobRecord) else letter.kept_at_utc


def kind_of(letter: JobRecord | RawLetter) -> str:
    """Return the task of a job; of a message, the queue on which it lay."""
    return letter.task if isinstance(letter, JobRecord) else f"message on {letter.queue}"
