"""Connections: clients that send their head too slowly, or do not read their answer, are dropped."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rmos_shared.settings.gateway import GatewaySettings


class TimedConnection(H11Protocol):
    """uvicorn's connection, which by itself waits for ever for a head and for a reader."""

    header_seconds: ClassVar[float]
    write_seconds: ClassVar[float]
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        """Give the first head its time."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give a head that has begun its time; what follows a head has its own (see ``TimedBody``)."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            _stop(self._head_timer)
            self._head_timer = None

    def pause_writing(self) -> None:
        """Give the reader its time: the answer does not leave."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_seconds, self._drop)

    def resume_writing(self) -> None:
        """Stop that time."""
        _stop(self._write_timer)
        self._write_timer = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Drop a reader that has left its answer; closing would wait for it."""
        if self.transport.get_write_buffer_size():
            self._drop()
        else:
            super().timeout_keep_alive_handler()

    def _stop_timers(self) -> None:
        _stop(self._head_timer)
        _stop(self._write_timer)
        self._head_timer = self._write_timer = None

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_seconds, self._drop)

    def _drop(self) -> None:
        self.transport.abort()


def timed_connection(settings: GatewaySettings) -> type[TimedConnection]:
    """Return the class of connections with these settings; uvicorn makes its own instances."""

    class _Connection(TimedConnection):
        header_seconds = settings.header_timeout_seconds
        write_seconds = settings.write_timeout_seconds

    return _Connection


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
