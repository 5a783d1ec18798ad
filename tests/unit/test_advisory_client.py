"""The advisory client against every answer a server may give, without a server and without sleeping."""

from __future__ import annotations

import inspect
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpcore
import httpx
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from rmos_shared.advisories.answers import ASSETS_PATH
from rmos_shared.advisories.base import AdvisoryStore, SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import (
    AdvisoryMisconfigured,
    AdvisoryNotFound,
    AdvisoryRefused,
    AdvisoryUnavailable,
    BreakerOpen,
    InvalidRequest,
    RmosError,
    SettingsInvalid,
)
from rmos_shared.telemetry.events import AdvisoryStoreBack, AdvisoryStoreUnreachable
from rmos_shared.telemetry.scope import Scope, busy_with
from rmos_shared.telemetry.traces.otel import OtelTraces
from rmos_worker.advisories.breaker import Outage
from rmos_worker.advisories.client import MAX_ANSWER_BYTES, AdvisoryClient, retry_after_seconds
from rmos_worker.advisories.deadline import translated
from support.breakers import NoBreaker
from support.events import events_in

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TOKEN = "t0p-secret-token"
PAYLOAD = "the-payload-nobody-may-log"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Handler = Callable[[httpx.Request], httpx.Response]


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return 1_000.0 + self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


class CountingBreaker(NoBreaker):
    def __init__(self) -> None:
        self.events: list[str] = []

    def record_success(self) -> float | None:
        self.events.append("success")
        return None

    def record_failure(self, why: str) -> Outage:
        self.events.append("failure")
        self.why = why
        return Outage.NONE


class Server:
    """Answers with the given handlers in turn, the last one for ever, and keeps what was sent."""

    def __init__(self, *handlers: Handler, total_seconds: float = 15.0, tries: int = 3) -> None:
        self.clock = FakeClock()
        self.breaker = CountingBreaker()
        self.requests: list[httpx.Request] = []
        self._handlers = handlers
        self.client = AdvisoryClient(
            "http://store.test/base/",
            SecretStr(TOKEN),
            timeout_seconds=5.0,
            total_seconds=total_seconds,
            tries=tries,
            breaker=self.breaker,
            transport=httpx.MockTransport(self._handle),
            clock=self.clock,
        )

    def _handle(self, request: httpx.Request) -> httpx.Response:
        handler = self._handlers[min(len(self.requests), len(self._handlers) - 1)]
        self.requests.append(request)
        return handler(request)


def make_asset(**changes: Any) -> AdvisoryAsset:
    data = {"summary": PAYLOAD}
    fields: dict[str, Any] = {
        "asset_id": "a1",
        "asset_type": "analysis",
        "created_at_utc": NOW,
        "source": "ai_analysis",
        "provider": "rmos",
        "model": "feasibility_explainer",
        "prompt": PAYLOAD,
        "content_hash": canonical_sha256(data),
        "suggestion_data": data,
        "confidence": 1,
        "request_id": "req-1",
    }
    return AdvisoryAsset(**(fields | changes))


ASSET = make_asset()


def status(code: int, **headers: str) -> Handler:
    fixed = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(code, headers=fixed, json={"error": "X", "message": PAYLOAD})


def body(content: bytes, code: int = 200, **headers: str) -> Handler:
    fixed = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(code, headers=fixed, content=content)


def receipt(code: int = 201, **changes: Any) -> Handler:
    answer = {"asset_id": ASSET.asset_id, "content_hash": ASSET.content_hash} | changes
    return lambda _: httpx.Response(code, json=answer)


def failure(error: Exception) -> Handler:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    return fail


def assert_tells_no_secret(error: BaseException) -> None:
    assert TOKEN not in str(error)
    assert PAYLOAD not in str(error)


def test_is_an_advisory_store() -> None:
    store: AdvisoryStore = Server(receipt()).client
    assert store.save(ASSET) is SaveOutcome.CREATED


def test_sends_what_the_store_needs() -> None:
    server = Server(receipt())
    server.client.save(ASSET)
    (request,) = server.requests
    assert request.method == "PUT"
    assert str(request.url) == "http://store.test/base/api/advisory/assets/a1"
    assert request.headers["Idempotency-Key"] == "a1"
    assert request.headers["X-Request-Id"] == "req-1"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["Accept-Encoding"] == "identity"
    assert AdvisoryAsset.read(json.loads(request.content)) == ASSET


def test_an_odd_request_id_is_sent_reversibly() -> None:
    server = Server(receipt())
    server.client.save(make_asset(request_id=" Auftrag №7 100% "))
    assert server.requests[0].headers["X-Request-Id"] == "%20Auftrag%20%E2%84%967%20100%25%20"


def test_same_content_is_a_success() -> None:
    server = Server(receipt(200))
    assert server.client.save(ASSET) is SaveOutcome.ALREADY_SAME
    assert server.breaker.events == ["success"]


def test_a_whole_asset_is_a_receipt_too() -> None:
    server = Server(lambda _: httpx.Response(201, json=ASSET.dump()))
    assert server.client.save(ASSET) is SaveOutcome.CREATED


def test_fetches_what_was_stored() -> None:
    server = Server(body(ASSET.to_bytes()))
    assert server.client.fetch("a1", request_id="r 2") == ASSET
    assert server.requests[0].headers["X-Request-Id"] == "r%202"
    assert "Idempotency-Key" not in server.requests[0].headers


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_passing_trouble_is_retried_within_seconds(code: int) -> None:
    server = Server(status(code), status(code), receipt())
    assert server.client.save(ASSET) is SaveOutcome.CREATED
    assert len(server.requests) == 3
    assert server.clock.slept[0] <= 0.5
    assert server.clock.slept[1] <= 1.0
    assert server.breaker.events == ["success"]


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_after_the_last_try_the_store_is_unavailable(code: int) -> None:
    server = Server(status(code))
    with pytest.raises(AdvisoryUnavailable, match=rf"PUT /api/advisory/assets/a1 .*status {code}") as caught:
        server.client.save(ASSET)
    assert type(caught.value) is AdvisoryUnavailable
    assert len(server.requests) == 3
    assert server.breaker.events == ["failure"]
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("code", [500, 501, 505, 507, 599])
def test_other_server_errors_are_left_to_the_job(code: int) -> None:
    server = Server(status(code, Retry_After="7"))
    with pytest.raises(AdvisoryUnavailable, match=f"status {code}") as caught:
        server.client.save(ASSET)
    assert caught.value.retry_after_seconds == 7
    assert len(server.requests) == 1
    assert server.breaker.events == ["failure"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (400, "invalid"),
        (409, "conflict"),
        (410, "cannot help"),
        (413, "larger"),
        (418, "cannot help"),
        (422, "cannot help"),
        (499, "cannot help"),
        (799, "cannot help"),
    ],
)
def test_refusals_are_final(code: int, said: str) -> None:
    server = Server(status(code, Location="http://elsewhere.test/"))
    with pytest.raises(AdvisoryRefused, match=rf"PUT /api/advisory/assets/a1 with status {code}: ") as caught:
        server.client.save(ASSET)
    assert said in str(caught.value)
    assert len(server.requests) == 1
    assert server.breaker.events == ["success"], "a refusal shows that the store is up"
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (401, "RMOS_ADVISORY_TOKEN"),
        (403, "RMOS_ADVISORY_TOKEN"),
        (404, "RMOS_ADVISORY_URL"),
        (405, "RMOS_ADVISORY_URL"),
        (300, "redirects are not followed"),
        (301, "redirects are not followed"),
        (302, "redirects are not followed"),
        (304, "redirects are not followed"),
        (307, "redirects are not followed"),
        (308, "redirects are not followed"),
    ],
)
def test_an_operators_mistake_is_waited_for(code: int, said: str) -> None:
    server = Server(status(code, Location="http://elsewhere.test/"))
    with pytest.raises(
        AdvisoryMisconfigured, match=rf"PUT /api/advisory/assets/a1 with status {code}: "
    ) as caught:
        server.client.save(ASSET)
    assert said in str(caught.value)
    assert len(server.requests) == 1
    assert (server.breaker.events, server.breaker.why) == (["failure"], "ADVISORY_MISCONFIGURED")
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(404, json={"error": "ADVISORY_NOT_FOUND", "message": "m"}),
        lambda _: httpx.Response(404, json={"detail": "no asset a1"}),
        lambda _: httpx.Response(404, json=["Not Found"]),
        lambda _: httpx.Response(404, text="no such asset"),
        lambda _: httpx.Response(404, content=b"[" * 100_000),
        lambda _: httpx.Response(404),
    ],
)
def test_fetching_what_is_not_there(answer: Handler) -> None:
    server = Server(answer)
    with pytest.raises(AdvisoryNotFound):
        server.client.fetch("a1")
    assert server.breaker.events == ["success"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(404, json={"error": "NOT_FOUND", "message": "m"}),
        lambda _: httpx.Response(404, json={"detail": "Not Found"}),
        lambda _: httpx.Response(404, html="<html>nginx</html>"),
        lambda _: httpx.Response(405, json={"error": "METHOD_NOT_ALLOWED"}),
    ],
)
def test_fetching_from_what_is_no_advisory_store(answer: Handler) -> None:
    server = Server(answer)
    with pytest.raises(AdvisoryMisconfigured, match="RMOS_ADVISORY_URL"):
        server.client.fetch("a1")
    assert server.breaker.events == ["failure"]


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(*[status(500)] * 4, receipt())
    told = [Outage.NONE, Outage.BEGINS, Outage.LASTS, Outage.LASTS]
    server.breaker.record_failure = lambda why: told.pop(0)  # type: ignore[method-assign]  # noqa: ARG005 - its name is the protocol's
    server.breaker.record_success = lambda: 12.34  # type: ignore[method-assign]
    outages = []
    for _ in range(4):
        with pytest.raises(AdvisoryUnavailable) as caught:
            server.client.save(ASSET)
        outages.append(caught.value.outage)
    server.client.save(ASSET)
    assert outages == [False, True, True, True]
    begun, ended = events_in(caplog)
    assert isinstance(begun, AdvisoryStoreUnreachable)
    assert "status 500" in begun.reason
    assert ended == AdvisoryStoreBack(outage_seconds=12.3)
    assert [line.levelname for line in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.parametrize("asset_id", ["", "..", "a/b", "a%2Fb", "a\\b", "a\0", "-a", "x" * 129, "é"])
def test_an_id_that_is_none_is_never_sent(asset_id: str) -> None:
    server = Server(status(200))
    with pytest.raises(InvalidRequest):
        server.client.fetch(asset_id)
    assert server.requests == []


GARBLED = {
    "empty": b"",
    "html": b"<html>welcome</html>",
    "not_utf8": b'{"asset_id": "\xff\xfe"}',
    "cut_short": b'{"asset_id": "a1", ',
    "a_list": b"[]",
    "null": b"null",
    "another_thing": b'{"status": "ok"}',
    "deep": b"[" * 100_000,
    "deep_object": b'{"a":' * 100_000,
    "long_number": b'{"asset_id": ' + b"9" * 5_000 + b"}",
    "other_id": make_asset(asset_id="a2").to_bytes(),
    "other_hash": json.dumps(ASSET.dump() | {"content_hash": "0" * 64}).encode(),
    "too_large": b" " * (MAX_ANSWER_BYTES + 1),
}


@pytest.mark.parametrize("content", GARBLED.values(), ids=GARBLED)
@pytest.mark.parametrize("code", [200, 201])
def test_a_garbled_answer_to_a_save_may_be_repeated_later(content: bytes, code: int) -> None:
    server = Server(body(content, code))
    with pytest.raises(AdvisoryUnavailable, match="answer to PUT /api/advisory/assets/a1") as caught:
        server.client.save(ASSET)
    assert len(server.requests) == 1
    assert server.breaker.events == ["failure"]
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("code", [202, 204, 206, 299])
def test_a_success_that_does_not_say_stored_is_none(code: int) -> None:
    with pytest.raises(AdvisoryUnavailable):
        Server(receipt(code)).client.save(ASSET)


@pytest.mark.parametrize(
    "content",
    [
        *GARBLED.values(),
        json.dumps(ASSET.dump() | {"suggestion_data": {"summary": "tampered with"}}).encode(),
        json.dumps(ASSET.dump() | {"surprise": 1}).encode(),
        json.dumps(ASSET.dump() | {"confidence": float("nan")}).encode(),
    ],
    ids=[*GARBLED, "tampered", "unknown_field", "nan"],
)
def test_a_garbled_asset_is_not_believed(content: bytes) -> None:
    server = Server(body(content))
    with pytest.raises(AdvisoryUnavailable, match="answer to GET /api/advisory/assets/a1"):
        server.client.fetch("a1")
    assert server.breaker.events == ["failure"]


def test_a_compressed_answer_is_not_unpacked() -> None:
    def bomb() -> Iterator[bytes]:
        yield pytest.fail("the body was read")

    headers = {"Content-Encoding": "gzip"}
    with pytest.raises(AdvisoryUnavailable, match="compressed"):
        Server(lambda _: httpx.Response(200, headers=headers, content=bomb())).client.fetch("a1")


class Drip(httpx.SyncByteStream):
    """A body that comes one byte a second."""

    def __init__(self, clock: FakeClock, content: bytes) -> None:
        self._clock = clock
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        for byte in self._content:
            self._clock.seconds += 1
            yield bytes([byte])


def test_a_dripping_body_cannot_outlast_the_budget() -> None:
    server = Server(lambda _: httpx.Response(200, stream=Drip(server.clock, ASSET.to_bytes())))
    with pytest.raises(AdvisoryUnavailable, match="did not end in time"):
        server.client.fetch("a1")
    assert server.clock.seconds <= 15 + 1
    assert len(server.requests) == 3


def test_an_endless_body_is_cut_off() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65_536

    server = Server(lambda _: httpx.Response(200, content=endless()))
    with pytest.raises(AdvisoryUnavailable, match="larger than"):
        server.client.fetch("a1")


def test_the_budget_covers_all_tries() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        server.clock.seconds += request.extensions["timeout"]["read"]
        raise httpx.ReadTimeout("slow")

    server = Server(slow, total_seconds=8.0, tries=10)
    with pytest.raises(AdvisoryUnavailable):
        server.client.save(ASSET)
    assert server.clock.seconds == pytest.approx(8.0)
    assert len(server.requests) == 2
    assert server.requests[0].extensions["timeout"]["read"] == pytest.approx(5.0)


def test_retry_after_is_honoured() -> None:
    server = Server(status(429, Retry_After="4"), receipt())
    server.client.save(ASSET)
    assert server.clock.slept == [4.0]


def test_retry_after_as_a_date_is_honoured() -> None:
    server = Server(
        status(503, Retry_After=format_datetime(NOW + timedelta(seconds=6), usegmt=True)), receipt()
    )
    server.client.save(ASSET)
    assert server.clock.slept == [6.0]


def test_a_retry_after_beyond_the_budget_is_passed_on_at_once() -> None:
    server = Server(status(503, Retry_After="20"))
    with pytest.raises(AdvisoryUnavailable) as caught:
        server.client.save(ASSET)
    assert caught.value.retry_after_seconds == 20
    assert server.clock.slept == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("30", 30),
        ("3601", 3_600),
        ("9" * 20, 3_600),
        ("9" * 21, None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0663", None),
        ("Mon, 04 May 2026 12:01:00 GMT", 60),
        ("Mon, 04 May 2026 12:01:00 -0000", 60),
        ("Mon, 04 May 2026 14:01:00 +0200", 60),
        ("Mon, 04 May 2026 11:00:00 GMT", 0),
        ("Mon, 04 May 2099 12:00:00 GMT", 3_600),
        ("Mon, 99 May 2026 12:01:00 GMT", None),
    ],
)
def test_reading_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@given(st.text(st.characters(max_codepoint=255)))
def test_no_retry_after_can_break_the_client(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or 0 <= seconds <= 3_600


HTTPX_ERRORS = [
    kind
    for _, kind in inspect.getmembers(httpx, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__.startswith("httpx")
]
QUICK = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError, OSError)


def foreign_error(kind: type[Exception]) -> Exception:
    request = httpx.Request("GET", "http://store.test")
    if kind is httpx.HTTPStatusError:
        return httpx.HTTPStatusError(PAYLOAD, request=request, response=httpx.Response(500))
    if issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError:
        return kind()  # type: ignore[call-arg]  # those below it bring a text of their own
    return kind(PAYLOAD)


@pytest.mark.parametrize(
    "kind",
    [*HTTPX_ERRORS, ssl.SSLError, OSError, UnicodeError, ValueError, OverflowError, RecursionError],
    ids=lambda kind: kind.__name__,
)
def test_every_foreign_error_is_translated(kind: type[Exception]) -> None:
    original = foreign_error(kind)
    server = Server(failure(original))
    with pytest.raises(AdvisoryUnavailable, match=kind.__name__) as caught:
        server.client.save(ASSET)
    assert type(caught.value) is AdvisoryUnavailable
    assert caught.value.__cause__ is original
    assert len(server.requests) == (3 if issubclass(kind, QUICK) else 1)
    assert server.breaker.events == ["failure"]
    assert_tells_no_secret(caught.value)


def test_all_httpx_errors_were_found() -> None:
    assert {httpx.InvalidURL, httpx.ReadError, httpx.StreamConsumed} < set(HTTPX_ERRORS)
    assert len(HTTPX_ERRORS) >= 25


def test_an_error_amid_the_body_is_translated() -> None:
    def broken() -> Iterator[bytes]:
        yield b"{"
        raise httpx.RemoteProtocolError("peer closed")

    server = Server(lambda _: httpx.Response(200, content=broken()), body(ASSET.to_bytes()))
    assert server.client.fetch("a1") == ASSET


class SoftTimeLimit(Exception):
    """As Celery's: an Exception, raised anywhere, and not the client's to swallow."""


def test_what_is_not_http_passes_through() -> None:
    server = Server(failure(SoftTimeLimit()))
    with pytest.raises(SoftTimeLimit):
        server.client.save(ASSET)
    assert server.breaker.events == []
    assert len(server.requests) == 1


def test_tenacity_never_shows() -> None:
    server = Server(status(503))
    with pytest.raises(RmosError) as caught:
        server.client.save(ASSET)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert not isinstance(seen, tenacity.RetryError)
        seen = seen.__cause__ or seen.__context__


def test_an_open_breaker_makes_no_call() -> None:
    server = Server(receipt())

    def refuse() -> None:
        raise BreakerOpen("held back", retry_after_seconds=3)

    server.breaker.check = refuse  # type: ignore[method-assign]
    with pytest.raises(BreakerOpen):
        server.client.save(ASSET)
    assert server.requests == []
    assert server.breaker.events == []


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Server(status(503), receipt()).client.save(ASSET)
    Server(body(ASSET.to_bytes())).client.fetch("a1")
    assert TOKEN not in caplog.text
    assert PAYLOAD not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store.test",
        "//store.test",
        "ftp://store.test",
        "http://",
        "http://user:pw@store.test",
        "http://store.test/?q=1",
        "http://store.test/#f",
        "http://store.test/?",
        "http://store.test/#",
        "http://store.test:99999",
        "http://store.test:0",
        "http://[::1",
        "http://store.test/\x00",
        "http://" + "a" * 70_000,
    ],
)
def test_a_url_that_cannot_work_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_ADVISORY_URL"):
        AdvisoryClient(url, timeout_seconds=1, total_seconds=1, tries=1, breaker=NoBreaker())


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel", "\x7f"])
def test_a_token_that_cannot_be_sent_stops_the_start(token: str) -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_ADVISORY_TOKEN") as caught:
        AdvisoryClient(
            "http://store.test",
            SecretStr(token),
            timeout_seconds=1,
            total_seconds=1,
            tries=1,
            breaker=NoBreaker(),
        )
    assert not token or token not in str(caught.value)


def test_every_answer_is_recorded_as_a_success() -> None:
    server = Server(receipt(), status(404))
    server.client.save(ASSET)
    with pytest.raises(AdvisoryNotFound):
        server.client.fetch("a1")
    assert server.breaker.events == ["success", "success"]


def test_cookies_are_not_kept() -> None:
    server = Server(lambda _: httpx.Response(404, headers={"Set-Cookie": "a=b"}))
    for _ in range(2):
        with pytest.raises(AdvisoryNotFound):
            server.client.fetch("a1")
    assert "Cookie" not in server.requests[1].headers


class Wire(httpcore.MockStream):
    """A connection that keeps what each write sends, or fails to send it."""

    def __init__(self, answer: bytes, error: Exception | None = None) -> None:
        super().__init__([answer])
        self.sent: list[bytes] = []
        self._error = error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - httpcore's signature
        if self._error is not None:
            raise self._error
        self.sent.append(buffer)


def client_over(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> AdvisoryClient:
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", lambda *_, **__: wire)
    limits: dict[str, Any] = {"timeout_seconds": 5.0, "total_seconds": 5.0}
    return AdvisoryClient("http://store.test", tries=1, breaker=NoBreaker(), **limits)


def test_an_answer_that_came_before_all_was_sent_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", httpcore.WriteError())
    with closing(client_over(wire, monkeypatch)) as client, pytest.raises(AdvisoryRefused, match="larger"):
        client.save(ASSET)


def test_without_a_token_none_is_sent() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return receipt()(request)

    client = AdvisoryClient(
        "http://store.test",
        timeout_seconds=1,
        total_seconds=1,
        tries=1,
        breaker=NoBreaker(),
        transport=httpx.MockTransport(handle),
    )
    client.save(ASSET)
    assert "Authorization" not in seen[0].headers


def test_the_module_keeps_the_store_and_the_client_on_one_path() -> None:
    app = pytest.importorskip("rmos_advisory_store.app")
    assert app.PREFIX == ASSETS_PATH


def public_errors_of_httpcore() -> list[type[Exception]]:
    kinds = [getattr(httpcore, name) for name in httpcore.__all__]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", public_errors_of_httpcore())
def test_no_error_of_httpcore_gets_past_the_transport(kind: type[Exception]) -> None:
    with pytest.raises(httpx.TransportError, match="why") as caught, translated():
        raise kind("why")
    assert type(caught.value) is getattr(httpx, kind.__name__, httpx.ConnectError)
    assert isinstance(caught.value.__cause__, kind)


def test_each_call_is_a_span_below_the_job_and_carries_its_own_place() -> None:
    memory = InMemorySpanExporter()
    traces = OtelTraces("rmos-test", memory)
    server = Server(status(503), receipt())
    server.client._traces = traces
    with busy_with(Scope(traceparent=CALLER)):
        assert server.client.save(ASSET) is SaveOutcome.CREATED
    traces.close()
    first, second = memory.get_finished_spans()
    for number, (span, request, answered) in enumerate(
        zip((first, second), server.requests, (503, 201), strict=True)
    ):
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == CALLER.split("-")[2]
        context = span.get_span_context()
        assert context is not None
        assert request.headers["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        assert span.name == f"PUT {ASSETS_PATH}/{{asset_id}}"
        told = dict(span.attributes or {})
        assert told.pop("error.type", None) == ("503" if answered == 503 else None)
        assert told == {
            "http.request.method": "PUT",
            "http.request.resend_count": number,
            "http.response.status_code": answered,
            "url.template": f"{ASSETS_PATH}/{{asset_id}}",
            "server.address": "store.test",
            "server.port": 80,
            "rmos.advisory_id": "a1",
        }


def test_the_trace_goes_on_where_nobody_collects_spans() -> None:
    server = Server(receipt())
    server.client.save(ASSET)
    with busy_with(Scope(traceparent=CALLER)):
        server.client.save(ASSET)
    assert [request.headers.get("traceparent") for request in server.requests] == [None, CALLER]
