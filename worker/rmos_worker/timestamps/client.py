"""One query to a time-stamp authority, bounded in time and size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from rmos_shared.auditlog.timestamp import QUERY_TYPE, REPLY_TYPE, certificates, proven_answer, stamp_query
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import SettingsInvalid, TimestampRefused, TimestampUnavailable
from rmos_shared.settings.timestamps import TimestampSettings
from rmos_worker.advisories.client import retry_after_seconds
from rmos_worker.advisories.deadline import DeadlineTransport

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

#: Tokens with their certificates take some kilobytes.
_MOST_BYTES = 1 << 20
_PATIENCE = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class TimestampClient:
    """Asks an authority for tokens, and takes none that does not answer what was asked."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        roots: Sequence[Certificate] = (),
        clock: Clock | None = None,
    ) -> None:
        """Prepare, without connecting; with ``roots`` each token's signature is proven by them."""
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._roots = roots
        self._clock = clock or SystemClock()
        self._transport = DeadlineTransport(self._clock)

    @classmethod
    def of(cls, settings: TimestampSettings) -> TimestampClient | None:
        """Return the client that the settings ask for; None without ``RMOS_TSA_URL``.

        Raises:
            SettingsInvalid: ``RMOS_TSA_CERT_FILE`` cannot be read, or the library is not installed.
        """
        if settings.tsa_url is None:
            return None
        stamp_query(b"rmos-runs\n")  # so that a missing library is told at the start
        file = settings.tsa_cert_file
        try:
            roots = [] if file is None else certificates(file.read_bytes(), name="RMOS_TSA_CERT_FILE")
        except OSError as error:
            raise SettingsInvalid(
                f"RMOS_TSA_CERT_FILE cannot be read ({error.strerror}); correct the path"
            ) from error
        return cls(settings.tsa_url, timeout_seconds=settings.tsa_timeout_seconds, roots=roots)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def stamp(self, text: bytes) -> tuple[bytes, datetime]:
        """Return a new token for ``text`` (DER of a TimeStampResp), and the authority's time in it.

        Raises:
            TimestampUnavailable: no answer in time, 5xx, or an answer that is no token.
            TimestampRefused: it refused, or its token is not of this text, this query, or these roots.
        """
        query = stamp_query(text)
        answer = self._ask(query.der)
        return answer, proven_answer(query, answer, self._roots)

    def _ask(self, body: bytes) -> bytes:
        until = self._clock.monotonic() + self._timeout_seconds
        headers = {"Content-Type": QUERY_TYPE, "Accept": REPLY_TYPE, "Accept-Encoding": "identity"}
        try:
            request = httpx.Request(
                "POST",
                self._url,
                headers={**headers, "User-Agent": "rmos-runs"},
                content=body,
                extensions={"timeout": httpx.Timeout(self._timeout_seconds).as_dict(), "deadline": until},
            )
            with closing(self._transport.handle_request(request)) as response:
                _judge(response)
                return _read(response)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as error:
            raise TimestampUnavailable(
                f"the time-stamp authority gave no answer ({type(error).__name__}); check RMOS_TSA_URL"
            ) from error


def _judge(response: httpx.Response) -> None:
    status = response.status_code
    if response.is_success:
        return
    told = f"the time-stamp authority answered with status {status}"
    if response.is_server_error or status in _PATIENCE:
        wait = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
        raise TimestampUnavailable(told, retry_after_seconds=wait)
    raise TimestampRefused(f"{told}; correct RMOS_TSA_URL")


def _read(response: httpx.Response) -> bytes:
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > _MOST_BYTES:
            raise TimestampUnavailable("the time-stamp authority's answer is far too large for a token")
    return bytes(data)
