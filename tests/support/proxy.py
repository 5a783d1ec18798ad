"""A TCP proxy on loopback through which a network fails on demand."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

_CHUNK_BYTES = 65_536
_HOLD_SECONDS = 0.02
_LAST_WORDS_SECONDS = 2.0
_DoneT = TypeVar("_DoneT")


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """Yield a proxy in front of the server at ``url``, an address of loopback."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    proxy = Proxy(lambda: ("127.0.0.1", port))
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@dataclass(slots=True, eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: The last bytes asked, so that a cut may choose its moment.
    asked: bytes = b""
    asked_at: float = 0.0
    frozen: bool = False
    ended_how: str | None = None


@dataclass(slots=True)
class _Swallow:
    """Answers yet to be swallowed, to requests that contain ``only`` and came after ``since``."""

    left: int = 0
    only: bytes = b""
    since: float = 0.0


@dataclass(slots=True)
class _Weather:
    paused_until: float = 0.0
    refusing_until: float = 0.0
    slow_until: float = 0.0
    slow_seconds: float = 0.0
    swallow: _Swallow = field(default_factory=_Swallow)


class Proxy:
    """Forwards to ``target`` (asked anew for each connection) until told otherwise. Thread safe.

    Its loop runs in a thread of its own; every method returns once the loop has done what was asked.
    """

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._connections: set[_Connection] = set()
        self._weather = _Weather()
        self._listener: socket.socket | None = None
        #: Every connection that was accepted and has not come to its end.
        self._accepted: dict[socket.socket, asyncio.Task[None]] = {}
        self.port = 0
        #: Answers that a client waited for and never saw.
        self.swallowed = 0

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
        self._loop.close()

    # -- the weather ------------------------------------------------------------------------------

    def cut(self) -> int:
        """End every connection at once, with whatever is under way on it. Returns their number."""
        return self._do(self._cut())

    def cut_before_answer(self, count: int, *, only: bytes = b"", waiting: bool = False) -> None:
        """Let ``count`` requests reach the server, and end their connections instead of answering.

        Only requests that contain ``only``; with ``waiting`` also those that are waiting for it now.
        """
        self._do(self._arm(count, only, 0.0 if waiting else self._loop.time()))

    def pause(self, seconds: float) -> None:
        """Forward nothing for a while; connections stay open and bytes wait."""
        self._weather.paused_until = self._loop.time() + seconds

    def freeze(self) -> int:
        """Forward nothing on today's connections ever again, and tell nobody. Returns their number."""
        return self._do(self._freeze())

    def slow(self, seconds: float, *, each: float) -> None:
        """Hold every chunk back for ``each`` seconds, for a while."""
        self._weather.slow_seconds = each
        self._weather.slow_until = self._loop.time() + seconds

    def refuse(self, seconds: float) -> int:
        """End every connection, and each new one at once for a while. Returns the number of the former."""
        self._weather.refusing_until = self._loop.time() + seconds
        return self.cut()

    def heal(self) -> None:
        """Fair weather from now on; frozen connections end."""
        self._weather = _Weather()
        self._do(self._end_frozen())

    # -- inside the loop --------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, _DoneT]) -> _DoneT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=15)

    # Not asyncio's own server: what that one accepts as it is closed it loses, with the socket unclosed.

    async def _listen(self) -> None:
        # With the protocol by its name, or asyncio sends small pieces late.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(100)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept, self._listener)
        self.port = int(self._listener.getsockname()[1])

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            self._accepted[accepted] = self._loop.create_task(self._serve(accepted))

    async def _close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        await self._cut()
        accepted = dict(self._accepted)
        for task in accepted.values():
            task.cancel()
        await asyncio.gather(*accepted.values(), return_exceptions=True)
        for connection in accepted:
            connection.close()  # a task that was cancelled ahead of its first step has closed nothing

    async def _cut(self) -> int:
        connections = list(self._connections)
        for connection in connections:
            self._end(connection, "cut")
        return len(connections)

    async def _arm(self, count: int, only: bytes, since: float) -> None:
        self._weather.swallow = _Swallow(count, only, since)

    async def _freeze(self) -> int:
        for connection in self._connections:
            connection.frozen = True
        return len(self._connections)

    async def _end_frozen(self) -> None:
        for connection in list(self._connections):
            if connection.frozen:
                self._end(connection, "cut")

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            if self._loop.time() >= self._weather.refusing_until:
                with suppress(OSError, asyncio.CancelledError):  # cancelled only when the proxy itself ends
                    await self._forward(*await asyncio.open_connection(sock=accepted))
        finally:
            accepted.close()
            del self._accepted[accepted]

    async def _forward(self, reader: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._target())
            connection = _Connection(to_client, to_server)
            self._connections.add(connection)
            try:
                await asyncio.gather(self._ask(connection, reader), self._answer(connection, from_server))
            finally:
                self._end(connection, "cut")
                to_server.transport.abort()
                self._connections.discard(connection)
            await to_client.wait_closed()  # the last words may still be on their way
        finally:
            to_client.transport.abort()

    async def _ask(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._hold(connection)
                if connection.ended_how is not None:
                    return
                connection.asked, connection.asked_at = data, self._loop.time()
                connection.server.write(data)
                await connection.server.drain()
        self._end(connection, "client")

    async def _answer(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._hold(connection)
                swallowed = self._swallows(connection)
                if swallowed:
                    self.swallowed += 1
                    self._end(connection, "cut")
                elif connection.ended_how is None:
                    connection.client.write(data)
                    await connection.client.drain()
        self._end(connection, "server")

    def _swallows(self, connection: _Connection) -> bool:
        swallow = self._weather.swallow
        if connection.ended_how is not None or not swallow.left:
            return False
        if connection.asked_at < swallow.since or swallow.only not in connection.asked:
            return False
        swallow.left -= 1
        return True

    async def _hold(self, connection: _Connection) -> None:
        weather = self._weather
        if self._loop.time() < weather.slow_until:
            await asyncio.sleep(weather.slow_seconds)
        while connection.ended_how is None and (  # noqa: ASYNC110 - it waits for a time as well as for an event
            connection.frozen or self._loop.time() < self._weather.paused_until
        ):
            await asyncio.sleep(_HOLD_SECONDS)

    def _end(self, connection: _Connection, how: str) -> None:
        if connection.ended_how is None:
            connection.ended_how = how
            if how == "cut":
                connection.client.transport.abort()
            else:
                # What the other side has said already still arrives, as on a real line.
                connection.client.close()
            # The server learns of the end, and what it had said by then is still read.
            with suppress(OSError, RuntimeError):
                connection.server.write_eof()
            self._loop.call_later(_LAST_WORDS_SECONDS, connection.server.transport.abort)
