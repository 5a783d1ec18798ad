"""Waiting for jobs: one task asks the ledger for all that are waited for, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from rmos_shared.errors import RmosError
from rmos_shared.jobs.model import JobState

_FIRST_PAUSE_SECONDS = 0.01
_LAST_PAUSE_SECONDS = 0.1
#: So that asking for thousands takes a fraction of the time.
_PAUSE_PER_JOB_SECONDS = 0.000_2
#: After an answer that did not come.
_PAUSE_WITHOUT_BROKER_SECONDS = 0.5
_JOBS_A_PACKET = 500
_PENDING = frozenset(str(state) for state in JobState if state.pending)
_ENDED = {str(state): state for state in JobState if not state.pending}


class Ledger(Protocol):
    """What waiting needs of the job ledger."""

    async def states(self, job_ids: Sequence[str]) -> list[str | None]:
        """Return the state of each job, or None of one without a record."""
        ...


class JobWatch:
    """Lets any number of requests wait for jobs, with one connection and no thread."""

    def __init__(self, ledger: Ledger) -> None:
        """Ask ``ledger``."""
        self._ledger = ledger
        self._waiting: dict[str, set[asyncio.Future[JobState | None]]] = {}
        self._pause = _FIRST_PAUSE_SECONDS
        self._task: asyncio.Task[None] | None = None

    async def wait(self, job_id: str, seconds: float) -> JobState | None:
        """Return the state in which a job has ended within ``seconds``, else None: the job goes on.

        None as well when its record has expired, which a done job's does, and while the broker is away.
        """
        ended: asyncio.Future[JobState | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(ended)
        self._watch()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ended
        finally:
            self._waiting[job_id].discard(ended)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
        return ended.result() if ended.done() and not ended.cancelled() else None

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def _watch(self) -> None:
        self._pause = _FIRST_PAUSE_SECONDS
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while self._waiting:
            await asyncio.sleep(max(self._pause, len(self._waiting) * _PAUSE_PER_JOB_SECONDS))
            self._pause = min(self._pause * 1.5, _LAST_PAUSE_SECONDS)
            job_ids = [*self._waiting]
            try:
                for first in range(0, len(job_ids), _JOBS_A_PACKET):
                    asked = job_ids[first : first + _JOBS_A_PACKET]
                    for job_id, state in zip(asked, await self._ledger.states(asked), strict=True):
                        if state not in _PENDING:
                            self._tell(job_id, _ENDED.get(state or ""))
            except RmosError:
                # Whoever waits learns nothing meanwhile, and is told in time that its job goes on.
                self._pause = _PAUSE_WITHOUT_BROKER_SECONDS

    def _tell(self, job_id: str, state: JobState | None) -> None:
        for ended in self._waiting.get(job_id, ()):
            if not ended.done():
                ended.set_result(state)
