"""The dead letters: jobs and messages that could not be done, and what an operator does with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, cast

from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.model import JobRecord, RawLetter
from rmos_shared.jobs.records import RAW_FIELDS, raw_letter
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.jobs.steering import JobSteering


class _Reader(Protocol):
    def records(self, job_ids: Iterable[str]) -> Iterator[JobRecord]:
        """Yield the records of jobs for a list, which one damaged record must not end."""
        ...


class DeadLetters:
    """An operator's side of the ledger; atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript, reader: _Reader, steering: JobSteering) -> None:
        """Use the ledger's script; ``reader`` finds the records of jobs, and ``steering`` changes them."""
        self._script = script
        self._reader = reader
        self._steering = steering

    def replay(self, letter_id: str, *, by: str, why: str) -> None:
        """Give a dead job a fresh start. For many at once see ``JobSteering.apply``.

        Raises:
            JobNotFound: neither a job nor a raw letter has this id.
            TransitionRefused: it is not dead, or it is a raw letter, which is no job.
        """
        self._one(ActKind.REPLAY, letter_id, by, why)

    def discard(self, letter_id: str, *, by: str, why: str) -> None:
        """Give a dead letter up for good; its record stays, with who did it and why.

        Raises:
            JobNotFound: neither a job nor a raw letter has this id.
            TransitionRefused: it is not dead.
        """
        self._one(ActKind.DISCARD, letter_id, by, why)

    def dead(self) -> Iterator[JobRecord]:
        """Yield the dead jobs, oldest first; their ids alone are held in memory."""
        yield from self._reader.records(self._script.members("dead"))

    def raw_letters(self) -> Iterator[RawLetter]:
        """Yield the raw letters, oldest first, without their bytes; their ids alone are held in memory."""
        for raw_id in self._script.members("raw"):
            letter = self.find_raw(raw_id)
            if letter is not None:
                yield letter

    def payload(self, job_id: str) -> bytes | None:
        """Return the payload of a job that is not done, for an operator's eyes only."""
        with broker_errors():
            return cast("bytes | None", self._script.client.get(f"{self._script.prefix}payload:{job_id}"))

    def find_raw(self, raw_id: str) -> RawLetter | None:
        """Return a raw letter without its bytes, or None."""
        with broker_errors():
            answer = self._script.client.hmget(f"{self._script.prefix}raw:{raw_id}", RAW_FIELDS)
        return raw_letter(raw_id, cast("list[bytes | None]", answer))

    def raw_item(self, raw_id: str) -> bytes | None:
        """Return the bytes of a raw letter, verbatim, or None."""
        with broker_errors():
            return cast(
                "bytes | None", self._script.client.hget(f"{self._script.prefix}raw:{raw_id}", "item")
            )

    def _one(self, kind: ActKind, letter_id: str, by: str, why: str) -> None:
        for refused in self._steering.apply(kind, [letter_id], by=by, why=why).values():
            raise refused
