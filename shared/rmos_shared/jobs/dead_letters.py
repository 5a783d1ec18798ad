"""The dead letters: jobs and messages that could not be done, and what an operator does with them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Protocol, cast

from rmos_shared.errors import JobNotFound, TransitionRefused
from rmos_shared.jobs.model import JobRecord, RawLetter
from rmos_shared.jobs.records import RAW_FIELDS, raw_letter
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript

#: What the script says of a job whose task this version does not know.
OTHER_VERSION = "of another version"


class _Reader(Protocol):
    def readable(self, job_id: str) -> JobRecord | None:
        """Return a job's record for a list, which one damaged record must not end."""
        ...


class DeadLetters:
    """An operator's side of the ledger; atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript, reader: _Reader) -> None:
        """Use the ledger's script; ``reader`` finds the records of jobs."""
        self._script = script
        self._reader = reader

    def replay(self, letter_id: str, *, by: str, why: str) -> None:
        """Give a dead job a fresh start.

        Raises:
            JobNotFound: neither a job nor a raw letter has this id.
            TransitionRefused: it is not dead, or it is a raw letter, which is no job.
        """
        state = self._script.text("replay", letter_id, by, why, secrets.token_hex(8))
        if state == "unknown":
            if self.find_raw(letter_id) is None:
                raise JobNotFound(letter_id)
            raise TransitionRefused(
                f"raw letter {letter_id} is no job of the ledger's; enqueue its job anew, and discard it"
            )
        if state == OTHER_VERSION:
            raise TransitionRefused(
                f"job {letter_id} is of a task that only another version knows; replay it with that version"
            )
        if state != "replayed":
            raise TransitionRefused(
                f"job {letter_id} is {state}, not dead; only dead letters can be replayed"
            )

    def discard(self, letter_id: str, *, by: str, why: str) -> None:
        """Give a dead letter up for good; its record stays, with who did it and why.

        Raises:
            JobNotFound: neither a job nor a raw letter has this id.
            TransitionRefused: it is not dead.
        """
        state = self._script.text("discard", letter_id, by, why)
        if state == "unknown":
            state = self._script.text("discard_raw", letter_id, by, why)
        if state == "unknown":
            raise JobNotFound(letter_id)
        if state != "discarded":
            raise TransitionRefused(f"{letter_id} is {state}, not dead; only dead letters can be discarded")

    def dead(self) -> Iterator[JobRecord]:
        """Yield the dead jobs, oldest first; their ids alone are held in memory."""
        for job_id in self._script.members("dead"):
            record = self._reader.readable(job_id)
            if record is not None:
                yield record

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
