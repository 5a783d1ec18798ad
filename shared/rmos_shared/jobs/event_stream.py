"""Reading the ledger's stream of events: in a thread, or for many followers in one event loop.

The stream keeps the last events only. Who reads on from one that is no longer kept is told of a gap first,
then gets all that is left. A gap may also be told where nothing was missed, never the other way round. What
was missed is found in the ledger and the store themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, Self, cast

import redis
from redis import asyncio as async_redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.retry import Retry

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.connection import CUTS_TRIED_AGAIN, connection_options
from rmos_shared.jobs.events import (
    BEGINNING,
    EventState,
    JobEvent,
    Placed,
    Position,
    all_kept,
    entries_of,
    gap,
    placed,
)
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.settings.broker import BrokerSettings

__all__ = ["AsyncJobEvents", "EventState", "Follower", "JobEvent", "JobEvents"]

#: The longest that one command may wait for events; a connection that is dead is noticed after it.
MOST_BLOCK_SECONDS = 5.0
#: How long a reader that was cancelled may take to end.
_CANCEL_SECONDS = 0.1
#: Entries that one read asks for; each holds up to 25 events.
_COUNT = 200
#: Events that a process keeps for followers that are up to date, or nearly.
_RECENT = 4_096
#: Followers that catch up at one time; the others wait their turn.
_CATCHING_UP = 8
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 2.0


class JobEvents:
    """The stream for one reader in a thread, such as the indexer. Raises as ``JobLedger`` does."""

    def __init__(self, client: redis.Redis, *, prefix: str = "rmos:") -> None:
        """Use ``client``, whose answers may take ``MOST_BLOCK_SECONDS`` longer than others."""
        self._client = client
        self._key = f"{prefix}events"

    @classmethod
    def connect(cls, settings: BrokerSettings) -> Self:
        """Return a reader on the broker; connects when first used."""
        client = redis.Redis.from_url(
            settings.broker_url.get_secret_value(),
            retry=Retry(*CUTS_TRIED_AGAIN, supported_errors=(redis.ConnectionError,)),
            **_blocking_options(settings),
        )
        return cls(client)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def position(self) -> str:
        """Return the ``event_id`` after which all is new from now on."""
        with broker_errors():
            return _latest(self._client.xrevrange(self._key, count=1))

    def read(self, after: str, *, block_seconds: float = 0.0, most: int = 1_000) -> list[JobEvent]:
        """Return up to ``most`` events that come after one, oldest first.

        While there are none it waits for ``block_seconds``, at most ``MOST_BLOCK_SECONDS``, and returns none.
        Go on after the ``event_id`` of the last. Where events were missed a gap comes first, beside those.

        Raises:
            InvalidRequest: ``after`` is no id of an event.
        """
        position = Position.parse(after)
        while True:
            answer = self._ask(position, block_seconds, most)
            if answer.missed:
                return [gap(), *(event for _, event in self._ask(BEGINNING, 0, most).events[:most])]
            if answer.events or answer.end == position:
                return [event for _, event in answer.events[:most]]
            position = answer.end  # what another program added is passed over

    def _ask(self, after: Position, block_seconds: float, most: int) -> _Answer:
        with broker_errors(), self._client.pipeline(transaction=False) as pipe:
            _ask(pipe, self._key, after, block_seconds=block_seconds, count=min(most, _COUNT))
            return _Answer(after, pipe.execute(raise_on_error=False))


class AsyncJobEvents:
    """The stream for any number of followers in one event loop, which share one connection that waits.

    The last events are kept once for all followers. One that falls behind those reads on from the server by
    itself, at its own pace, so a slow one costs no memory and holds up nobody.
    """

    def __init__(
        self,
        client: async_redis.Redis,
        *,
        timeout_seconds: float,
        prefix: str = "rmos:",
        recent: int = _RECENT,
    ) -> None:
        """Use ``client`` as ``JobEvents`` does; a read that does not wait ends within ``timeout_seconds``."""
        self._client = client
        self._key = f"{prefix}events"
        self._timeout_seconds = timeout_seconds
        self._turns = asyncio.Semaphore(_CATCHING_UP)
        self._starting = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._position = BEGINNING
        #: Set once there is more to read, or all has ended; each serves once.
        self.news = asyncio.Event()
        self.recent = Recent(recent)
        self.closed = False

    @classmethod
    def connect(cls, settings: BrokerSettings) -> Self:
        """Return the stream of the broker; connects when first used."""
        client = async_redis.Redis.from_url(
            settings.broker_url.get_secret_value(),
            retry=AsyncRetry(*CUTS_TRIED_AGAIN, supported_errors=(redis.ConnectionError,)),
            **_blocking_options(settings),
        )
        return cls(client, timeout_seconds=settings.broker_timeout_seconds)

    async def close(self) -> None:
        """End all followers, and close the connections."""
        self.closed = True
        self._tell()
        while self._reader is not None and not self._reader.done():
            # Again and again: a client that is just connecting may swallow one, and then wait.
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=_CANCEL_SECONDS)
        await self._client.aclose()

    async def follow(self, after: str | None = None) -> AsyncIterator[JobEvent]:
        """Yield every event after one, or from now on, until the stream is closed.

        Where events were missed, a gap comes first.

        Raises:
            InvalidRequest: ``after`` is no id of an event.
            BrokerUnavailable: the broker is away at the start, or while this one catches up. While it waits
                for news it outlives that.
        """
        try:
            follower = await self.follower(after)
            while not self.closed:
                for event in await follower.batch():
                    yield event
        except BrokerUnavailable:
            if not self.closed:
                raise

    async def follower(self, after: str | None = None) -> Follower:
        """Return one that can be asked with a time-out; raises as ``follow``."""
        position = None if after is None else Position.parse(after)
        async with self._starting:
            # Before the first follower has looked, or it would miss what happens between the two.
            if not self.closed and (self._reader is None or self._reader.done()):
                self._position = await self._latest()
                self._reader = asyncio.get_running_loop().create_task(self._run())
        return Follower(self, await self._latest() if position is None else position)

    async def read(self, after: Position) -> list[Placed]:
        """Return what the server has after a position, a gap first where events were missed."""
        async with self._in_time(), self._turns:
            return await self._read(after)

    async def _read(self, after: Position, block_seconds: float = 0.0) -> list[Placed]:
        while True:
            answer = await self._ask(after, block_seconds)
            if answer.missed:
                return [(BEGINNING, gap()), *(await self._ask(BEGINNING)).events]
            if answer.events or answer.end == after:
                return answer.events
            after = answer.end

    async def _ask(self, after: Position, block_seconds: float = 0.0) -> _Answer:
        with broker_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                _ask(pipe, self._key, after, block_seconds=block_seconds)
                return _Answer(after, await pipe.execute(raise_on_error=False))

    async def _latest(self) -> Position:
        async with self._in_time():
            with broker_errors():
                return Position.parse(_latest(await self._client.xrevrange(self._key, count=1)))

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"the broker did not answer within {self._timeout_seconds:g} s"
            ) from error
        except Exception as error:
            if not self.closed:
                raise
            # The client knows no better than to fail where its connection is closed while it is made.
            raise BrokerUnavailable("the stream of events was closed") from error

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                events = await self._read(self._position, MOST_BLOCK_SECONDS)
            except (BrokerUnavailable, BrokerDamaged, redis.RedisError):
                # Followers that are up to date wait; the others are told as they ask.
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE_SECONDS)
                continue
            pause = _FIRST_PAUSE_SECONDS
            if events:
                self._position = events[-1][0]
                self.recent.add(events)
                self._tell()

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


class Recent:
    """The last events that the shared reader has read, for all followers; of a bounded size."""

    def __init__(self, most: int) -> None:
        """Keep up to ``most``."""
        self._events: deque[Placed] = deque(maxlen=most)
        #: Events added so far; the number of the next.
        self.total = 0
        #: Grows with each gap of the reader: positions before and after it cannot be compared.
        self.generation = 0

    def add(self, events: Sequence[Placed]) -> None:
        """Add what was read; after a gap nothing of before is kept."""
        if events[0][1].is_gap:
            self._events.clear()
            self.generation += 1
            events = events[1:]
        self._events.extend(events)
        self.total += len(events)

    def since(self, number: int) -> list[Placed] | None:
        """Return the events from a number on; None when they are not all here any more."""
        first = self.total - len(self._events)
        return None if number < first else list(islice(self._events, number - first, None))


class Follower:
    """One reader's place in the shared stream."""

    def __init__(self, stream: AsyncJobEvents, position: Position) -> None:
        """Begin after ``position``, with what the server has."""
        self._stream = stream
        self._position = position
        #: Of the next recent event; None while it must ask the server.
        self._number: int | None = None
        self._generation = stream.recent.generation

    @property
    def position(self) -> str:
        """The ``event_id`` after which the next batch begins."""
        return str(self._position)

    async def batch(self, seconds: float | None = None) -> list[JobEvent]:
        """Return the next events, a gap first where some were missed; none when the time is up, or all ends.

        It may also return none a little before.

        Raises:
            BrokerUnavailable: it is behind, and the broker is away. The place is kept; ask again.
        """
        news = self._stream.news  # of before the look, so that what comes during it wakes us
        events = await self._next()
        if not events and not self._stream.closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), seconds)
            events = await self._next()
        if events:
            self._position = events[-1][0]
        return [event for _, event in events]

    async def _next(self) -> list[Placed]:
        recent = self._stream.recent
        if self._number is not None and self._generation == recent.generation:
            events, self._number = recent.since(self._number), recent.total
            if events is not None:
                # What it has read from the server itself may come by once more.
                return [one for one in events if one[0] > self._position]
        # All that is added from here on, while the server answers, is among the recent ones.
        generation, number = recent.generation, recent.total
        events = await self._stream.read(self._position)
        caught_up = not events and generation == recent.generation
        self._number, self._generation = (number if caught_up else None), generation
        return events


def _blocking_options(settings: BrokerSettings) -> dict[str, Any]:
    options = connection_options(settings)
    return options | {"socket_timeout": options["socket_timeout"] + MOST_BLOCK_SECONDS}


def _ask(pipe: Any, key: str, after: Position, *, block_seconds: float = 0, count: int = _COUNT) -> None:
    """Ask for what comes after a position, and then whether the position itself is still there.

    In this order, so that nothing can go missing between the two unnoticed.
    """
    block = int(min(block_seconds, MOST_BLOCK_SECONDS) * 1000)
    words = ("BLOCK", block) if block > 0 else ()
    pipe.execute_command("XREAD", "COUNT", count, *words, "STREAMS", key, after.read_after)
    if after == BEGINNING:
        pipe.execute_command("XINFO", "STREAM", key)
    else:
        pipe.execute_command("XRANGE", key, after.entry_id, after.entry_id, "COUNT", 1)


class _Answer:
    """What ``_ask`` was answered."""

    def __init__(self, after: Position, answers: Sequence[Any]) -> None:
        entries, there = answers
        if isinstance(entries, Exception):
            raise entries
        read = entries_of(entries)
        self.events = list(placed(read, after))
        #: After all that was read, what could not be understood included.
        self.end = Position.parse(read[-1][0].decode()) if read else after
        #: Whether events between the position and the first of these may be gone.
        self.missed: bool
        if after == BEGINNING:
            # Of a stream that is not there nothing can be told; nobody can have read from it either.
            self.missed = bool(read) and not isinstance(there, Exception) and not all_kept(there)
        elif isinstance(there, Exception):
            raise there
        else:
            self.missed = not there


def _latest(entries: Any) -> str:
    return cast("bytes", entries[0][0]).decode() if entries else str(BEGINNING)
