"""One deadline per HTTP request, because httpx bounds only each single read."""

from __future__ import annotations

import math
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from rmos_shared.clock import Clock

#: Written in one go, so that a server which reads slowly cannot stretch a large body past the deadline.
_WRITE_BYTES = 65_536
Resolve = Callable[[str, int], Sequence[str]]


class DeadlineTransport(httpx.BaseTransport):
    """HTTP/1.1 over a connection pool, where ``extensions["deadline"]`` bounds a request as a whole.

    The deadline, in seconds of ``clock.monotonic``, covers connecting, sending, and every read of head
    and body: a server that sends one byte now and then would otherwise hold its caller for ever. The
    body must be read by the thread that sent the request. Not covered: name resolution, which Python
    cannot interrupt, and the second and further addresses of a name.

    httpx has no argument for the network backend, a hook of httpcore's pool, so that pool is used as it is.

    Raises:
        httpx.TimeoutException: the deadline passed.
        httpx.TransportError: whatever else httpcore raises, by the same name where httpx has it.
    """

    def __init__(self, clock: Clock, *, resolve: Resolve | None = None) -> None:
        """Prepare, without connecting.

        ``resolve`` returns the addresses to connect to for a host and a port, in order, or raises what its
        caller is to get; without it the system resolves. What it returns is not looked up again.
        """
        self._deadline = _Deadline(clock)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5,
            network_backend=_Backend(self._deadline, resolve or _unresolved),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return its response, the body unread."""
        self._deadline.at = request.extensions["deadline"]
        url = request.url
        with translated():
            response = self._pool.handle_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


@contextmanager
def translated() -> Iterator[None]:
    """Raise httpcore's errors as httpx's of the same name."""
    try:
        yield
    except tuple(_HTTPX) as error:
        raise _HTTPX[type(error)](str(error)) from error


_HTTPX: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProtocolError: httpx.ProtocolError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable: httpx.ConnectError,
}


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with translated():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Deadline(threading.local):
    """The deadline of the request that this thread is busy with."""

    at: float = math.inf

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def left(self) -> float:
        left = self.at - self._clock.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the request's deadline passed")
        return left


def _unresolved(host: str, port: int) -> Sequence[str]:  # noqa: ARG001 - as Resolve is called
    return (host,)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: _Deadline, resolve: Resolve) -> None:
        self._deadline = deadline
        self._resolve = resolve
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        *others, last = self._resolve(host, port)
        for address in others:
            try:
                return self._connected(address, port, local_address, socket_options)
            except httpcore.ConnectError:
                continue
        return self._connected(last, port, local_address, socket_options)

    def _connected(
        self,
        address: str,
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> _Stream:
        return _Stream(
            self._inner.connect_tcp(address, port, self._deadline.left(), local_address, socket_options),
            self._deadline,
        )


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline rules
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline rules
        for start in range(0, len(buffer), _WRITE_BYTES):
            self._inner.write(buffer[start : start + _WRITE_BYTES], self._deadline.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
