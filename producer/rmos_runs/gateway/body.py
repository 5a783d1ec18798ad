"""Request bodies: counted and timed while they come, then decoded strictly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from rmos_runs.gateway.errors import BodyTooLarge, BodyTooSlow, GatewayBusy
from rmos_shared.canonical import check_json
from rmos_shared.errors import FieldProblem, InvalidRequest

#: Of a body that is read only for its sender's sake.
_LITTLE_BYTES = 65_536


class Bodies:
    """How many bytes of bodies all requests together hold."""

    def __init__(self, most_bytes: int) -> None:
        """Allow so many."""
        self._left = most_bytes

    def hold(self, size: int) -> None:
        """Count bytes that are held from now on.

        Raises:
            GatewayBusy: they are too many.
        """
        if size > self._left:
            raise GatewayBusy("the gateway holds as many bytes of requests as it may; come again")
        self._left -= size

    def release(self, size: int) -> None:
        """Count bytes that are held no more."""
        self._left += size


class TimedBody:
    """Receives a body that keeps a pace: ``timeout_seconds``, and a second for each ``slowest_bytes``."""

    def __init__(
        self, receive: Receive, *, timeout_seconds: float, slowest_bytes: int, received: Callable[[], None]
    ) -> None:
        """Time what comes by ``receive``, from its first message on; ``received`` is called at each."""
        self._receive = receive
        self._received = received
        self._timeout_seconds = timeout_seconds
        self._slowest_bytes = slowest_bytes
        self._begun_at: float | None = None
        self._got_bytes = 0
        #: Nothing more comes.
        self.ended = False

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            BodyTooSlow: it does not come in time.
        """
        if self.ended:
            return await self._receive()
        now = asyncio.get_running_loop().time
        if self._begun_at is None:
            self._begun_at = now()
        allowed = self._begun_at + self._timeout_seconds + self._got_bytes / self._slowest_bytes
        try:
            async with asyncio.timeout_at(allowed):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(f"the body stopped or came too slowly after {self._got_bytes} bytes") from None
        self._received()
        self._got_bytes += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        return message


async def drain(body: TimedBody, headers: Headers) -> bool:
    """Read what nobody wants, if little, so that its sender sees the answer; say whether it is read."""
    if int(headers.get("content-length", _LITTLE_BYTES + 1)) > _LITTLE_BYTES:
        return False
    try:
        while not body.ended:
            await body()
    except BodyTooSlow:
        return False
    return True


async def read_json(request: Request, bodies: Bodies, *, most_bytes: int, empty: Any = None) -> Any:
    """Return a request's body, decoded; ``empty`` in place of no body, where that is allowed.

    Raises:
        BodyTooLarge: it is larger than ``most_bytes``, whatever its head announces.
        BodyTooSlow: see ``TimedBody``.
        GatewayBusy: see ``Bodies``.
        InvalidRequest: it is no strict JSON: a key stands twice, NaN, nested too deep.
        ClientDisconnect: nobody waits for an answer.
    """
    check_length(request, most_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            bodies.hold(len(chunk))
            body += chunk
            if len(body) > most_bytes:
                raise BodyTooLarge(f"the body is larger than {most_bytes} bytes")
        return decode(bytes(body)) if body or empty is None else empty
    finally:
        bodies.release(len(body))


def check_length(request: Request, most_bytes: int) -> None:
    """Refuse a body that announces more than ``most_bytes`` before any of it is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise BodyTooLarge(f"the body is larger than {most_bytes} bytes")


def decode(data: bytes, *, what: str = "body") -> Any:
    """Return strict JSON, decoded.

    Raises:
        InvalidRequest: it is none; the text quotes nothing of it.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidRequest((FieldProblem(what, "is not strict JSON in UTF-8"),)) from None
    check_json(value)
    return value


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and infinity are not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields
