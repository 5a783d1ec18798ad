"""The client for asyncio programs: the same calls, awaited; no call blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from itertools import islice
from types import TracebackType
from typing import Self

from rmos_producer.client import AnyRequest, Explain, Receipt, RunsClient
from rmos_shared.models.advisory import Detail, Kind
from rmos_shared.models.job import JobRecord
from rmos_shared.settings import ProducerSettings


class AsyncRunsClient:
    """``RunsClient`` in threads; errors and guarantees are the same."""

    def __init__(self, client: RunsClient) -> None:
        """Wrap ``client``; ``connect`` makes one."""
        self._client = client

    @classmethod
    def connect(cls, settings: ProducerSettings | None = None, *, broker_url: str | None = None) -> Self:
        """Return a client as ``RunsClient.connect`` does."""
        return cls(RunsClient.connect(settings, broker_url=broker_url))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

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
        return await asyncio.to_thread(self._client.create_run, request, explain=explain)

    async def create_runs(
        self, requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest], *, explain: Explain = False
    ) -> AsyncIterator[Receipt]:
        """Have many runs stored, from a plain or an asynchronous iterable; see ``RunsClient.create_runs``.

        A plain iterable is read in threads, one at a time, so that one which blocks does not block the loop.
        """
        # One batch at a time, so that a later error takes no receipt of an accepted run with it.
        async for batch in _batches(requests, self._client.batch_jobs):
            for receipt in await asyncio.to_thread(self._client.create_batch, batch, explain=explain):
                yield receipt

    async def suggest_and_attach(
        self, run_id: str, *, detail: Detail = "summary", request_id: str | None = None
    ) -> Receipt:
        """Have a run explained; see ``RunsClient.suggest_and_attach``."""
        return await asyncio.to_thread(
            self._client.suggest_and_attach, run_id, detail=detail, request_id=request_id
        )

    async def attach_advisory(
        self, run_id: str, advisory_id: str, *, kind: Kind = "advisory", request_id: str | None = None
    ) -> Receipt:
        """Have an advisory linked; see ``RunsClient.attach_advisory``."""
        return await asyncio.to_thread(
            self._client.attach_advisory, run_id, advisory_id, kind=kind, request_id=request_id
        )

    async def job(self, job_id: str) -> JobRecord:
        """Return the ledger's record of a job; see ``RunsClient.job``."""
        return await asyncio.to_thread(self._client.job, job_id)

    async def wait(self, job_id: str, timeout: float) -> JobRecord:  # noqa: ASYNC109 - the same signature
        """Return the record of a job once it has ended; see ``RunsClient.wait``."""
        return await asyncio.to_thread(self._client.wait, job_id, timeout)


async def _batches(
    requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest], size: int
) -> AsyncIterator[list[tuple[int, AnyRequest]]]:
    if isinstance(requests, AsyncIterable):
        batch: list[tuple[int, AnyRequest]] = []
        index = 0
        async for request in requests:
            batch.append((index, request))
            index += 1
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
    else:
        source = enumerate(requests)
        while batch := await asyncio.to_thread(_take, source, size):
            yield batch


def _take(source: Iterable[tuple[int, AnyRequest]], size: int) -> list[tuple[int, AnyRequest]]:
    return list(islice(source, size))
