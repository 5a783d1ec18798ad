"""What a producer needs of the job ledger, for asyncio programs: no call holds a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, cast

import redis
from redis import asyncio as async_redis
from redis.asyncio.retry import Retry

from rmos_shared.errors import BrokerUnavailable, JobNotFound
from rmos_shared.jobs.arguments import accept_args, accept_once_args
from rmos_shared.jobs.connection import CUTS_TRIED_AGAIN, connection_options
from rmos_shared.jobs.ledger import Acceptance, acceptances, once_acceptances
from rmos_shared.jobs.model import Job, JobRecord, OnceJob
from rmos_shared.jobs.records import job_record
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import on_disk, script_keys, script_source
from rmos_shared.settings.broker import BrokerSettings

#: Calls that talk to the server at one time; the others wait their turn. Enough to keep one server busy, and
#: a thousand tasks that wait for their jobs open no thousand connections.
_CONNECTIONS = 16


class AsyncJobLedger:
    """``JobLedger`` for asyncio: the same script, answers and errors, and every call within the time-out.

    It belongs to the event loop that first uses it.
    """

    def __init__(self, client: async_redis.Redis, *, timeout_seconds: float, prefix: str = "rmos:") -> None:
        """Use ``client``, which must not decode responses; a call takes at most ``timeout_seconds``."""
        self._client = client
        self._prefix = prefix
        self._keys = script_keys(prefix)
        self._accepting = client.register_script(script_source())
        self._timeout_seconds = timeout_seconds
        self._turns = asyncio.Semaphore(_CONNECTIONS)

    @classmethod
    def connect(cls, settings: BrokerSettings) -> Self:
        """Return a ledger on the broker; connects when first used."""
        client = async_redis.Redis.from_url(
            settings.broker_url.get_secret_value(),
            retry=Retry(*CUTS_TRIED_AGAIN, supported_errors=(redis.ConnectionError,)),
            **connection_options(settings),
        )
        return cls(client, timeout_seconds=settings.broker_timeout_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def accept(self, jobs: Sequence[Job], *, disk_seconds: float | None = None) -> list[Acceptance]:
        """Write the jobs down; see ``JobLedger.accept``."""
        return acceptances(await self._run("accept", accept_args(jobs), disk_seconds))

    async def accept_once(
        self, items: Sequence[OnceJob], *, ttl_seconds: int, disk_seconds: float | None = None
    ) -> list[tuple[Acceptance, str]]:
        """Write down each job whose caller's key is not known yet; see ``JobLedger.accept_once``."""
        args = accept_once_args(items, ttl_seconds)
        return once_acceptances(await self._run("accept_once", args, disk_seconds))

    async def states(self, job_ids: Sequence[str]) -> list[str | None]:
        """Return the state of each job, or None of one without a record; all in one packet."""
        async with self._turn(), self._client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(f"{self._prefix}job:{job_id}", "state")
            answers = await pipe.execute(raise_on_error=True)
        return [None if answer is None else answer.decode() for answer in answers]

    async def ping(self) -> None:
        """Return once the server has answered."""
        async with self._turn():
            await self._client.ping()

    async def _run(self, operation: str, args: Sequence[Any], disk_seconds: float | None) -> Any:
        words: dict[str, Any] = {"keys": self._keys, "args": [operation, *args]}
        async with self._turn():
            if disk_seconds is None:
                return await self._accepting(**words)
            async with self._client.pipeline(transaction=False) as pipe:
                await self._accepting(**words, client=cast("async_redis.Redis", pipe))
                pipe.waitaof(1, 0, int(disk_seconds * 1000))
                return on_disk(await pipe.execute(raise_on_error=False))

    async def get(self, job_id: str) -> JobRecord:
        """Return a job's record.

        Raises:
            JobNotFound: no job of this id was accepted, or it is done and its record has expired.
        """
        record = await self.find(job_id)
        if record is None:
            raise JobNotFound(job_id)
        return record

    async def find(self, job_id: str) -> JobRecord | None:
        """Return a job's record, or None."""
        async with self._turn():
            fields = await cast(
                "Awaitable[dict[bytes, bytes]]", self._client.hgetall(f"{self._prefix}job:{job_id}")
            )
        return job_record(job_id, fields) if fields else None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds), self._turns:
                with broker_errors():
                    yield
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"the broker did not answer within {self._timeout_seconds:g} s; repeat the call with the "
                "same ids: that is safe"
            ) from error
