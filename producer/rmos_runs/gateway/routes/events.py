"""``GET /api/rmos/runs/events``: changes of jobs and runs as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.params import Depends
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable, TooManyClients
from rmos_shared.jobs.event_stream import AsyncJobEvents, EventState, Follower, JobEvent
from rmos_shared.models.base import JobId, SafeId

#: How long a client is asked to wait before it connects again.
_RETRY_MS = 2_000
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EventLimits:
    """What clients of the stream may take."""

    #: Connections at a time; more are refused with 503.
    most_clients: int = 500
    #: Longest silence; then a comment is sent, with the place in the stream.
    ping_seconds: float = 15.0
    #: A client that takes nothing for so long is dropped. It comes back where it was.
    send_seconds: float = 10.0
    #: A connection ends after so long. The client comes back where it was, with a key that is still valid.
    connection_seconds: float = 3_600.0


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a client wants; a gap always is."""

    run_id: str | None = None
    job_id: str | None = None
    states: frozenset[EventState] = frozenset()

    def passes(self, event: JobEvent) -> bool:
        """Say whether the event is to be sent."""
        return event.is_gap or (
            self.run_id in {None, event.run_id}
            and self.job_id in {None, event.job_id}
            and (not self.states or event.state in self.states)
        )


class _Clients:
    """Counts connections."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    def enter(self) -> None:
        if self._open >= self._most:
            raise TooManyClients(f"{self._most} clients follow the events already; try again later")
        self._open += 1

    def leave(self) -> None:
        self._open -= 1


class _EventResponse(EventSourceResponse):
    """Gives its place back however it ends."""

    def __init__(self, clients: _Clients, content: AsyncIterator[ServerSentEvent], **options: Any) -> None:
        super().__init__(content, **options)
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._clients.leave()


def events_router(
    stream: AsyncJobEvents, *, limits: EventLimits | None = None, dependencies: Sequence[Depends] = ()
) -> APIRouter:
    """Return the route, below ``/api/rmos/runs``. Include it before those that take a run id in its place.

    ``stream`` belongs to the app's event loop; close it when the app shuts down. The route raises
    ``InvalidRequest``, ``TooManyClients`` and ``BrokerUnavailable`` before the stream begins. A broker that
    goes away later ends no connection: nothing is sent until it is back.
    """
    limits = limits or EventLimits()
    clients = _Clients(limits.most_clients)
    router = APIRouter(tags=["events"], dependencies=[*dependencies])

    @router.get(
        "/events",
        summary="Follow changes of jobs and runs",
        response_class=EventSourceResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def follow(
        *,
        run_id: Annotated[SafeId | None, Query(description="Only events of this run.")] = None,
        job_id: Annotated[JobId | None, Query(description="Only events of this job.")] = None,
        state: Annotated[list[EventState] | None, Query(description="Only these states.")] = None,
        last_event_id: Annotated[
            str | None, Header(description="Go on after this event; without it, from now on.")
        ] = None,
    ) -> EventSourceResponse:
        """Send each change as it happens: `job` and `run` events, and `gap` where some are no longer kept."""
        wanted = EventFilter(run_id, job_id, frozenset(state or ()))
        clients.enter()
        try:
            follower = await stream.follower(last_event_id or None)
        except BaseException:
            clients.leave()
            raise
        return _EventResponse(
            clients,
            _sent(stream, follower, wanted, limits),
            ping=0,  # ours tell the place as well
            send_timeout=limits.send_seconds,
        )

    return router


async def _sent(
    stream: AsyncJobEvents, follower: Follower, wanted: EventFilter, limits: EventLimits
) -> AsyncIterator[ServerSentEvent]:
    # The place at once: who is cut off before the first event misses none either.
    yield ServerSentEvent(comment="connected", id=follower.position, retry=_RETRY_MS)
    ends_at = time.monotonic() + limits.connection_seconds
    last_sent = time.monotonic()
    while not stream.closed and (left := ends_at - time.monotonic()) > 0:
        silence = limits.ping_seconds - (time.monotonic() - last_sent)
        if silence <= 0:
            yield ServerSentEvent(comment="ping", id=follower.position)
            last_sent = time.monotonic()
            continue
        try:
            events = await follower.batch(min(silence, left))
        except (BrokerUnavailable, BrokerDamaged):
            await asyncio.sleep(min(_PAUSE_SECONDS, silence))
            continue
        for event in filter(wanted.passes, events):
            yield message_of(event)
            last_sent = time.monotonic()


def message_of(event: JobEvent) -> ServerSentEvent:
    """Return an event as it is sent: its type, its data as JSON, and the id to go on after."""
    if event.is_gap:
        # Without an id: until the next event the client's place is where it was.
        return ServerSentEvent(event="gap", data=_json({"at_utc": event.dump()["at_utc"]}))
    told = event.dump()
    event_id = told.pop("event_id")
    if event.job_id:
        return ServerSentEvent(event="job", id=event_id, data=_json(told))
    told = {name: told[name] for name in ("run_id", "request_id", "state", "at_utc")}
    return ServerSentEvent(event="run", id=event_id, data=_json(told))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
