"""Answers that are sent as they are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rmos_runs.gateway.threads import Threads


class StreamedAnswer(Response):
    """Sends pieces as they come, at the pace of the reader.

    Starlette's own reads the request on the side, to see whether the client is gone; here the request's body
    may be what the answer is made of.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send ``pieces``, each as soon as it is there."""
        self._pieces = pieces
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def pieces_of(source: Iterator[bytes], threads: Threads) -> AsyncIterator[bytes]:
    """Yield the pieces of an iterator that blocks, each made in a thread when the last has left."""
    while (piece := await threads.next_of(source)) is not None:
        yield piece
