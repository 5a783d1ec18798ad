"""The client for asyncio programs: the same calls, awaited; none blocks the event loop or holds a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Self

from rmos_runs.client import disk_seconds, late
from rmos_runs.jobs import (
    AnyRequest,
    Batch,
    Explain,
    awaited,
    batches,
    look,
    pauses,
    prepare_attachment,
    prepare_run,
    prepare_runs,
    prepare_suggestion,
)
from rmos_runs.receipt import Prepared, Receipt
from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.jobs.async_ledger import AsyncJobLedger
from rmos_shared.jobs.model import JobRecord
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.tasks.table import CREATE, CREATE_MANY


class AsyncRunsClient:
    """``RunsClient`` on asyncio to the socket; guarantees and errors are the same.

    It belongs to the event loop that first uses it. Requests are checked in the loop, which takes some 50
    microseconds each, and more for those of megabytes.
    """

    def __init__(self, ledger: AsyncJobLedger, settings: ProducerSettings) -> None:
        """Use the given parts; ``connect`` makes them."""
        self._ledger = ledger
        self._settings = settings

    @classmethod
    def connect(cls, settings: ProducerSettings | None = None, *, broker_url: str | None = None) -> Self:
        """Return a client as ``RunsClient.connect`` does."""
        if settings is None:
            settings = ProducerSettings.load(**({} if broker_url is None else {"broker_url": broker_url}))
        return cls(AsyncJobLedger.connect(settings), settings)

    async def close(self) -> None:
        """Close the connections."""
        await self._ledger.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def create_run(self, request: AnyRequest, *, explain: Explain = False) -> Receipt:
        """Have a run stored; see ``RunsClient.create_run``."""
        return await self._accept(
            prepare_run(request, CREATE, explain=explain, most_bytes=self._settings.max_payload_bytes)
        )

    async def create_runs(
        self, requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest], *, explain: Explain = False
    ) -> AsyncIterator[Receipt]:
        """Have many runs stored, from a plain or an asynchronous iterable; see ``RunsClient.create_runs``.

        A plain iterable is read in threads, one batch at a time, so that one which blocks does not block the
        loop.
        """
        # One batch at a time, so that a later error takes no receipt of an accepted run with it.
        async for batch in self._batches(requests, explain):
            outcomes = await self._ledger.accept(batch.jobs, disk_seconds=disk_seconds(self._settings))
            for prepared, acceptance in zip(batch, outcomes, strict=True):
                yield prepared.receipt_of(acceptance)

    async def suggest_and_attach(
        self, run_id: str, *, detail: DetailLevel = "summary", request_id: str | None = None
    ) -> Receipt:
        """Have a run explained; see ``RunsClient.suggest_and_attach``."""
        return await self._accept(
            prepare_suggestion(run_id, detail, request_id, most_bytes=self._settings.max_payload_bytes)
        )

    async def attach_advisory(
        self, run_id: str, advisory_id: str, *, kind: AdvisoryKind = "advisory", request_id: str | None = None
    ) -> Receipt:
        """Have an advisory linked; see ``RunsClient.attach_advisory``."""
        return await self._accept(
            prepare_attachment(
                run_id, advisory_id, kind, request_id, most_bytes=self._settings.max_payload_bytes
            )
        )

    async def job(self, job_id: str) -> JobRecord:
        """Return the ledger's record of a job; see ``RunsClient.job``."""
        return await self._ledger.get(job_id)

    async def wait(self, job: str | Receipt, timeout: float) -> JobRecord:  # noqa: ASYNC109 - the same signature
        """Return the record of a job once it has ended; see ``RunsClient.wait``."""
        job_id = awaited(job)
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        for pause in pauses():
            record = await self._ended(job_id)
            if record is not None:
                return record
            left = deadline - now()
            if left <= 0:
                break
            await asyncio.sleep(min(pause, left))
        raise late(job_id, timeout)

    async def _ended(self, job_id: str) -> JobRecord | None:
        looking = look(job_id)
        asked = next(looking)
        while True:
            try:
                asked = looking.send(await self._ledger.find(asked))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what ``look`` returns

    async def _accept(self, prepared: Prepared) -> Receipt:
        (acceptance,) = await self._ledger.accept([prepared.job], disk_seconds=disk_seconds(self._settings))
        return prepared.receipt_of(acceptance)

    async def _batches(
        self, requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest], explain: Explain
    ) -> AsyncIterator[Batch]:
        most_jobs = self._settings.accept_batch_jobs
        if isinstance(requests, AsyncIterable):
            batch, number = Batch(most_jobs), 0
            async for request in requests:
                (prepared,) = self._prepared([(number, request)], explain)
                number += 1
                if batch.put(prepared):
                    yield batch
                    batch = Batch(most_jobs)
            if batch:
                yield batch
        else:
            source = batches(self._prepared(enumerate(requests), explain), most_jobs)
            while (taken := await asyncio.to_thread(next, source, None)) is not None:
                yield taken

    def _prepared(self, requests: Iterable[tuple[int, AnyRequest]], explain: Explain) -> Iterator[Prepared]:
        most_bytes = self._settings.max_payload_bytes
        return prepare_runs(requests, CREATE_MANY, explain=explain, most_bytes=most_bytes)
