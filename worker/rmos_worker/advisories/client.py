"""The advisory store over HTTP: bounded in time and size, retried where that can help."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from rmos_shared.advisories.answers import ASSETS_PATH, mistake_behind
from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import (
    AdvisoryMisconfigured,
    AdvisoryNotFound,
    AdvisoryRefused,
    AdvisoryUnavailable,
    FieldProblem,
    InvalidRequest,
    RmosError,
    SettingsInvalid,
)
from rmos_shared.ids import is_safe_id
from rmos_shared.telemetry.events import AdvisoryStoreBack, AdvisoryStoreUnreachable
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.scope import current_traceparent
from rmos_shared.telemetry.traces.base import Attributes, Kind, NoTraces, Traces
from rmos_worker.advisories.breaker import Breaker, Outage
from rmos_worker.advisories.deadline import DeadlineTransport

#: A larger answer is not read to its end.
MAX_ANSWER_BYTES = 1_048_576
#: The store's wish to be left alone longer than this is cut down to it.
MAX_RETRY_AFTER_SECONDS = 3_600.0
#: Answers that a repeat within seconds may well repair; 500 is not among them.
_QUICK = frozenset({429, 502, 503, 504})
#: Full jitter (tenacity draws from zero): up to 0.5 s after the first try, 1 s after the second, and so on.
_BACKOFF = wait_random_exponential(multiplier=0.5, max=5)
_CONNECTION_ERRORS = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
    OSError,  # ssl.SSLError is one; httpx lets some pass untranslated
)
#: Whatever else httpx and its parts may raise. Not Exception: Celery's soft time limit is one, and ours to
#: let through.
_OTHER_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
    ArithmeticError,
    RecursionError,
    ValueError,  # UnicodeError of a host name, among others
)
_WHAT_TO_DO: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "it found the request invalid; its log says why",
    HTTPStatus.CONFLICT: "conflict: it holds other content under this id, which stays",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the asset is larger than it takes",
}
#: Of every call, as spans name it: no id of a caller's is in it.
_ROUTE = f"{ASSETS_PATH}/{{asset_id}}"
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Answer:
    #: Method and path, for error texts.
    call: str
    status: int
    retry_after_seconds: float | None
    #: Read for 2xx, and for 404, which has two meanings; any other answer has said all with its status.
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    asset_id: str
    headers: dict[str, str]
    content: bytes | None

    @property
    def path(self) -> str:
        return f"{ASSETS_PATH}/{self.asset_id}"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class _Passing(Exception):
    """Worth another try within seconds; never leaves this module."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class AdvisoryClient:
    """An ``AdvisoryStore`` over HTTP.

    One call makes up to ``tries`` HTTP calls of at most ``timeout_seconds`` each, and takes no longer
    than ``total_seconds`` with all its tries and pauses, however slowly the answer drips in (see
    ``DeadlineTransport`` for what no one can bound). The connection pool is reused until ``close``, by
    any number of threads; make one client per process, after the fork. Redirects are not followed, cookies
    not kept and proxies from the environment not used, so the token goes to ``url`` only.

    Errors name method, path and status, never the payload or the token; foreign errors are their cause.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr | None = None,
        *,
        timeout_seconds: float,
        total_seconds: float,
        tries: int,
        breaker: Breaker,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Prepare, without connecting; ``transport`` and ``clock`` are for tests.

        ``traces`` has a span made of each HTTP call, below what the calling thread is busy with.

        Raises:
            SettingsInvalid: ``url`` or ``token`` cannot be used in an HTTP request.
        """
        self._base = _checked_url(url)
        address = httpx.URL(self._base)
        port = address.port or (443 if address.scheme == "https" else 80)
        self._server: Attributes = {"server.address": address.host, "server.port": port}
        self._timeout_seconds = timeout_seconds
        self._total_seconds = total_seconds
        self._tries = tries
        self._breaker = breaker
        self._clock = clock or SystemClock()
        self._traces = traces or NoTraces()
        # Without an httpx.Client around it: redirects, cookies and proxies are what no call may follow, and
        # looking for them took a quarter of a call's processor time.
        self._transport = transport or DeadlineTransport(self._clock)
        self._headers = {
            "Accept": "application/json",
            # A compressed answer could grow past every limit while it is unpacked.
            "Accept-Encoding": "identity",
            "User-Agent": "rmos-runs",
            **_authorization(token),
        }

    def save(self, asset: AdvisoryAsset) -> SaveOutcome:
        """Store ``asset`` unless its id is there already. Repeating the call is always safe.

        Raises:
            AdvisoryRefused: the store will never take it; among others, its id has other content.
            AdvisoryUnavailable: it may or may not be stored; repeat the call later.
            AdvisoryMisconfigured: what answers is not the store, or does not take our token.
            BreakerOpen: nothing was sent, because the store was down a moment ago.
        """
        return self._call(
            "PUT",
            asset.asset_id,
            lambda answer: _saved(answer, asset),
            request_id=asset.request_id,
            content=asset.to_bytes(),
        )

    def fetch(self, asset_id: str, *, request_id: str | None = None) -> AdvisoryAsset:
        """Return the asset with its last review, its content checked against its hash.

        Raises:
            AdvisoryNotFound: the store has no such asset.
            AdvisoryRefused: the store will never answer this.
            AdvisoryUnavailable: repeat the call later.
            AdvisoryMisconfigured: what answers is not the store, or does not take our token.
            BreakerOpen: nothing was sent, because the store was down a moment ago.
            InvalidRequest: ``asset_id`` can be no asset's id.
        """
        if not is_safe_id(asset_id):
            raise InvalidRequest((FieldProblem("asset_id", "can be no asset's id"),))
        return self._call("GET", asset_id, lambda answer: _fetched(answer, asset_id), request_id=request_id)

    def close(self) -> None:
        """Close the pooled connections."""
        self._transport.close()

    def _call(
        self,
        method: str,
        asset_id: str,
        judge: Callable[[_Answer], _Result],
        *,
        request_id: str | None,
        content: bytes | None = None,
    ) -> _Result:
        headers = {"Idempotency-Key": asset_id} if content is not None else {}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if request_id is not None:
            headers["X-Request-Id"] = _header_value(request_id)
        self._breaker.check()
        try:
            result = judge(self._with_quick_retries(method, asset_id, headers, content))
        except AdvisoryUnavailable as error:
            self._failed(error)
            raise
        except RmosError:
            self._succeeded()  # a refusal is an answer
            raise
        self._succeeded()
        return result

    def _failed(self, error: AdvisoryUnavailable) -> None:
        outage = self._breaker.record_failure(error.code)
        error.outage = outage is not Outage.NONE
        if outage is Outage.BEGINS:
            # Once for all workers; what this does to each job is not worth a line.
            emit(AdvisoryStoreUnreachable(error=error.code, reason=str(error)))

    def _succeeded(self) -> None:
        lasted = self._breaker.record_success()
        if lasted is not None:
            emit(AdvisoryStoreBack(outage_seconds=round(lasted, 1)))

    def _with_quick_retries(
        self, method: str, asset_id: str, headers: dict[str, str], content: bytes | None
    ) -> _Answer:
        deadline = self._clock.monotonic() + self._total_seconds

        def stop(state: RetryCallState) -> bool:
            wakes_at = self._clock.monotonic() + state.upcoming_sleep
            return state.attempt_number >= self._tries or wakes_at >= deadline

        retrying = Retrying(
            retry=retry_if_exception_type(_Passing),
            wait=_pause_seconds,
            stop=stop,
            sleep=self._clock.sleep,
            reraise=True,
        )
        try:
            return retrying(self._traced, _Call(method, asset_id, headers, content), deadline, retrying)
        except _Passing as error:
            tried = retrying.statistics["attempt_number"]
            raise AdvisoryUnavailable(
                f"the advisory store is unavailable: {error} (after {tried} of {self._tries} tries); "
                "repeat the call later",
                retry_after_seconds=error.retry_after_seconds,
            ) from error.__cause__

    def _traced(self, call: _Call, deadline: float, retrying: Retrying) -> _Answer:
        """Make one HTTP call, in a span of its own, to which the other side can add its own.

        Raises:
            _Passing: it is worth another try.
            AdvisoryUnavailable: it is not, within seconds.
        """
        span = self._traces.begin(
            f"{call.method} {_ROUTE}",
            Kind.CLIENT,
            parent=current_traceparent(),
            attributes={
                "http.request.method": call.method,
                "http.request.resend_count": retrying.statistics["attempt_number"] - 1,
                "url.template": _ROUTE,
                **self._server,
                "rmos.advisory_id": call.asset_id,
            },
        )
        trace = {} if span.traceparent is None else {"traceparent": span.traceparent}
        try:
            answer = self._once(call, call.headers | trace, deadline)
        except BaseException as error:
            span.end(error=type(error.__cause__ or error).__name__)
            raise
        failed = answer.status >= HTTPStatus.BAD_REQUEST
        span.end({"http.response.status_code": answer.status}, error=str(answer.status) if failed else None)
        if answer.status in _QUICK:
            status = f"{answer.call} was answered with status {answer.status}"
            raise _Passing(status, answer.retry_after_seconds)
        return answer

    def _once(self, call: _Call, headers: dict[str, str], deadline: float) -> _Answer:
        now = self._clock.monotonic()
        until = min(deadline, now + self._timeout_seconds)
        try:
            request = httpx.Request(
                call.method,
                self._base + call.path,
                headers=self._headers | headers,
                content=call.content,
                extensions={"timeout": httpx.Timeout(until - now).as_dict(), "deadline": until},
            )
            with closing(self._transport.handle_request(request)) as response:
                has_answer = response.is_success or (
                    call.method == "GET" and response.status_code == HTTPStatus.NOT_FOUND
                )
                body = self._body(response, str(call), until) if has_answer else b""
        except _CONNECTION_ERRORS as error:
            raise _Passing(f"{call} got no answer ({type(error).__name__})") from error
        except _OTHER_ERRORS as error:
            raise AdvisoryUnavailable(
                f"{call} to the advisory store failed ({type(error).__name__}); check RMOS_ADVISORY_URL"
            ) from error
        return _Answer(
            str(call),
            response.status_code,
            retry_after_seconds(response.headers.get("Retry-After"), self._clock.now()),
            body,
            response.headers.get("Content-Type", ""),
        )

    def _body(self, response: httpx.Response, call: str, until: float) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _garbled(call, "is compressed, which was not asked for")
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise _garbled(call, f"is larger than {MAX_ANSWER_BYTES} bytes")
            if self._clock.monotonic() >= until:
                raise _Passing(f"the answer to {call} did not end in time")
        return bytes(body)


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Return what a Retry-After header asks for, from 0 to ``MAX_RETRY_AFTER_SECONDS``.

    Seconds and HTTP dates are read; None when there is no header, or one that is neither.
    """
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,20}", header):
        seconds = float(header)
    else:
        try:
            moment = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:  # the zone "-0000": UTC, of a machine that does not tell its own
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _pause_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, _Passing) else None
    return max(_BACKOFF(state), asked or 0.0)


def _saved(answer: _Answer, asset: AdvisoryAsset) -> SaveOutcome:
    _check_settings(answer)
    _check_status(answer)
    receipt = _decoded(answer)
    if not isinstance(receipt, dict) or receipt.get("asset_id") != asset.asset_id:
        raise _garbled(answer.call, "does not name the asset that was saved")
    if receipt.get("content_hash") != asset.content_hash:
        raise _garbled(answer.call, "names another content_hash than that of the asset saved")
    if answer.status == HTTPStatus.CREATED:
        return SaveOutcome.CREATED
    if answer.status == HTTPStatus.OK:
        return SaveOutcome.ALREADY_SAME
    raise _garbled(answer.call, f"has status {answer.status}, which does not say whether it is stored")


def _fetched(answer: _Answer, asset_id: str) -> AdvisoryAsset:
    _check_settings(answer)
    if answer.status == HTTPStatus.NOT_FOUND:
        raise AdvisoryNotFound(asset_id)
    _check_status(answer)
    try:
        asset = AdvisoryAsset.read(_decoded(answer))
    except InvalidRequest as error:
        raise _garbled(answer.call, "is not an advisory asset") from error
    if asset.asset_id != asset_id:
        raise _garbled(answer.call, "is another asset than was asked for")
    if asset.content_hash != canonical_sha256(asset.suggestion_data):
        raise _garbled(answer.call, "has a content_hash that is not the hash of its suggestion_data")
    return asset


def _check_settings(answer: _Answer) -> None:
    method = answer.call.partition(" ")[0]
    mistake = mistake_behind(method, answer.status, content_type=answer.content_type, body=answer.body)
    if mistake is not None:
        raise AdvisoryMisconfigured(f"{_status_line(answer)}: {mistake}")


def _status_line(answer: _Answer) -> str:
    return f"the advisory store answered {answer.call} with status {answer.status}"


def _check_status(answer: _Answer) -> None:
    if httpx.codes.is_success(answer.status):
        return
    outcome = _status_line(answer)
    if httpx.codes.is_server_error(answer.status):
        raise AdvisoryUnavailable(
            f"{outcome}; see its log, and repeat the call later",
            retry_after_seconds=answer.retry_after_seconds,
        )
    raise AdvisoryRefused(f"{outcome}: {_WHAT_TO_DO.get(answer.status, 'repeating cannot help')}")


def _decoded(answer: _Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise _garbled(answer.call, "is not JSON") from error


def _garbled(call: str, problem: str) -> AdvisoryUnavailable:
    return AdvisoryUnavailable(
        f"the advisory store's answer to {call} {problem}; check what answers at RMOS_ADVISORY_URL, "
        "and repeat the call later"
    )


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise SettingsInvalid("RMOS_ADVISORY_URL is not a URL") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise SettingsInvalid("RMOS_ADVISORY_URL must begin with http:// or https:// and name a host")
    if parsed.port is not None and not 0 < parsed.port <= 65_535:  # noqa: PLR2004 - TCP's own limit
        raise SettingsInvalid("RMOS_ADVISORY_URL has a port outside 1 to 65535")
    if parsed.userinfo or "?" in url or "#" in url:  # even an empty one would swallow the path to come
        raise SettingsInvalid(
            "RMOS_ADVISORY_URL must not hold a user, a query or a fragment; a token goes into "
            "RMOS_ADVISORY_TOKEN"
        )
    return url.rstrip("/")


def _authorization(token: SecretStr | None) -> dict[str, str]:
    if token is None:
        return {}
    secret = token.get_secret_value()
    if not re.fullmatch(r"[!-~]+", secret):
        raise SettingsInvalid(
            "RMOS_ADVISORY_TOKEN must be visible ASCII characters without spaces; unset it if there is none"
        )
    return {"Authorization": f"Bearer {secret}"}


def _header_value(text: str) -> str:
    # Request ids may hold any printable character, headers may not; "%" too, so that it can be undone.
    return quote(text, safe="!\"#$&'()*+,/:;<=>?@[\\]^`{|}~")
