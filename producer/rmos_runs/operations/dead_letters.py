"""Which dead letters an operator means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

from rmos_shared.jobs.dead_letters import DeadLetters
from rmos_shared.jobs.model import DeadReason, JobRecord, RawLetter

Letters = Iterator[JobRecord | RawLetter]


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant."""

    reason: DeadReason | None = None
    task: str | None = None
    older_than_hours: float | None = None

    def takes(self, letter: JobRecord | RawLetter, now: datetime) -> bool:
        """Say whether the letter is meant."""
        if isinstance(letter, JobRecord):
            reason, task, died = (
                (letter.failure and letter.failure.reason),
                letter.task,
                letter.changed_at_utc,
            )
        else:
            reason, task, died = letter.reason, None, letter.kept_at_utc
        old_enough = self.older_than_hours is None or now - died >= timedelta(hours=self.older_than_hours)
        return old_enough and self.reason in {None, reason} and self.task in {None, task}


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
