"""The reference advisory store as a real process, driven by the real client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

import anyio.to_thread
import httpx
import pytest
from pydantic import SecretStr

from rmos_advisory_store.app import create_app
from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import (
    AdvisoryMisconfigured,
    AdvisoryNotFound,
    AdvisoryRefused,
    AdvisoryUnavailable,
    SettingsInvalid,
)
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings
from rmos_worker.advisories.client import AdvisoryClient
from support.breakers import NoBreaker

PATH = "/api/advisory/assets"


class Store(Protocol):
    """The process fixture, as far as these tests use it."""

    url: str
    log: Path
    advisory_dir: Path

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def faults(self, **switches: float) -> None: ...


StartStore = Callable[..., Store]
Connect = Callable[..., AdvisoryClient]


@pytest.fixture
def store(advisory_store: StartStore) -> Store:
    return advisory_store()


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as opened:

        def make(url: str, token: str | None = None, **changes: Any) -> AdvisoryClient:
            limits = {"timeout_seconds": 10, "total_seconds": 20, "tries": 3} | changes
            secret = None if token is None else SecretStr(token)
            client = AdvisoryClient(url, secret, breaker=NoBreaker(), **limits)
            return opened.enter_context(closing(client))

        yield make


@pytest.fixture
def http(store: Store) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=store.url, trust_env=False, timeout=20) as client:
        yield client


def make_asset(asset_id: str = "a1", *, text: str = "why", **changes: Any) -> AdvisoryAsset:
    data = {"summary": text}
    fields: dict[str, Any] = {
        "asset_id": asset_id,
        "asset_type": "analysis",
        "created_at_utc": datetime(2026, 5, 4, tzinfo=UTC),
        "source": "ai_analysis",
        "provider": "rmos",
        "model": "feasibility_explainer",
        "prompt": "p",
        "content_hash": canonical_sha256(data),
        "suggestion_data": data,
        "confidence": 0.5,
    }
    return AdvisoryAsset(**(fields | changes))


def put(http: httpx.Client, asset: AdvisoryAsset, **headers: str) -> httpx.Response:
    return http.put(f"{PATH}/{asset.asset_id}", content=asset.to_bytes(), headers=headers)


def assert_error(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "message", "problems"}
    if code is not None:
        assert body["error"] == code
    return body


def test_saves_once_and_keeps_the_first(store: Store, connect: Connect) -> None:
    client = connect(store.url)
    asset = make_asset()
    assert client.save(asset) is SaveOutcome.CREATED
    assert client.save(asset) is SaveOutcome.ALREADY_SAME
    retried = make_asset(created_at_utc=datetime(2027, 1, 1, tzinfo=UTC), request_id="another")
    assert client.save(retried) is SaveOutcome.ALREADY_SAME
    with pytest.raises(AdvisoryRefused, match=r"409.*conflict"):
        client.save(make_asset(text="something else"))
    assert client.fetch("a1") == asset
    with pytest.raises(AdvisoryNotFound):
        client.fetch("a2")


def test_status_codes_of_put(http: httpx.Client) -> None:
    created = put(http, make_asset())
    assert created.status_code == 201
    assert created.json() == {
        "asset_id": "a1",
        "content_hash": make_asset().content_hash,
        "outcome": "created",
    }
    assert put(http, make_asset(), **{"Idempotency-Key": "a1"}).status_code == 200
    assert_error(put(http, make_asset(text="other")), 409, "CONFLICT")


def test_the_token_is_asked_for(advisory_store: StartStore, connect: Connect) -> None:
    store = advisory_store(advisory_token="open-sesame")
    assert httpx.get(f"{store.url}/health", trust_env=False).status_code == 200
    for given in ["", "Bearer", "Bearer wrong", "Basic open-sesame", "open-sesame", "Bearer \xff"]:
        answer = httpx.get(
            f"{store.url}{PATH}", headers={b"Authorization": given.encode("latin-1")}, trust_env=False
        )
        assert_error(answer, 401, "UNAUTHORIZED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    with pytest.raises(AdvisoryMisconfigured, match=r"401.*RMOS_ADVISORY_TOKEN"):
        connect(store.url, "wrong").save(make_asset())
    assert connect(store.url, "open-sesame").save(make_asset()) is SaveOutcome.CREATED
    assert "open-sesame" not in store.log.read_text()


def test_an_empty_token_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_ADVISORY_TOKEN"):
        create_app(AdvisoryStoreSettings.load(advisory_dir=tmp_path, advisory_token=""))


def changed(**fields: Any) -> bytes:
    return json.dumps(make_asset().dump() | fields).encode()


BAD_BODIES = {
    "empty": b"",
    "not_json": b"{",
    "not_utf8": b'{"a": "\xff"}',
    "an_array": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "deep_data": changed().replace(b'{"summary": "why"}', b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    "deep_data_past_the_rule": changed().replace(b'{"summary": "why"}', b'{"a":' * 200 + b"1" + b"}" * 200),
    "long_number": b'{"confidence": ' + b"9" * 5_000 + b"}",
    "unknown_field": changed(surprise=1),
    "missing_field": json.dumps({"asset_id": "a1"}).encode(),
    "other_id": changed(asset_id="a2"),
    "bad_id": changed(asset_id="../a1"),
    "naive_time": changed(created_at_utc="2026-05-04T00:00:00"),
    "wrong_hash": changed(content_hash="0" * 64),
    "nan": changed(confidence=float("nan")),
    "infinite_data": changed(suggestion_data={"x": float("inf")}),
    "confidence": changed(confidence=1.5),
    "kind": changed(asset_type="spell"),
    "surrogate": changed(prompt="\ud800"),
}


def test_bad_bodies_are_400(http: httpx.Client, store: Store) -> None:
    for name, content in BAD_BODIES.items():
        answer = http.put(f"{PATH}/a1", content=content)
        assert answer.status_code == 400, (name, answer.text)
        assert assert_error(answer, 400, "INVALID_REQUEST")["problems"], name
    assert_error(http.get(f"{PATH}/a1"), 404, "ADVISORY_NOT_FOUND")
    assert store.log.read_text() == ""


def test_the_idempotency_key_must_be_the_id(http: httpx.Client) -> None:
    body = assert_error(put(http, make_asset(), **{"Idempotency-Key": "k"}), 400, "INVALID_REQUEST")
    assert body["problems"] == [{"field": "Idempotency-Key", "reason": "must be the asset id"}]


BAD_IDS = ["..%2Fetc", "..%2F..%2Fetc%2Fpasswd", "a%5Cb", "a%00b", "%FF", "-a", "%2E%2E", ".", "x" * 129]


def test_bad_ids_reach_no_file(store: Store, http: httpx.Client) -> None:
    port = int(store.url.rpartition(":")[2])
    for bad in [*BAD_IDS, "../etc/passwd", "..", "a/../../b"]:
        # A raw socket, since any client would tidy the path up.
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(f"GET {PATH}/{bad} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = raw.recv(65_536).split(b"\r\n", 1)[0]
        assert head.split()[1] in {b"400", b"404"}, (bad, head)
    for bad in BAD_IDS:
        answer = http.put(f"{PATH}/{bad}", content=make_asset().to_bytes())
        assert answer.status_code in {400, 404, 405}, bad
    assert list(store.advisory_dir.rglob("*/*.json")) == []


def test_unknown_paths_and_methods_are_json_too(http: httpx.Client) -> None:
    assert_error(http.get("/nothing"), 404, "NOT_FOUND")
    assert_error(http.get(f"{PATH}/"), 404)
    assert_error(http.delete(f"{PATH}/a1"), 405, "METHOD_NOT_ALLOWED")
    assert http.get("/docs").status_code == 404


def test_large_bodies_are_413_announced_or_not(advisory_store: StartStore) -> None:
    store = advisory_store(max_asset_bytes=2_048)
    whole = make_asset(text="x" * 4_096).to_bytes()
    with httpx.Client(base_url=store.url, trust_env=False, timeout=20) as http:
        assert_error(http.put(f"{PATH}/a1", content=whole), 413)
        chunked = http.put(f"{PATH}/a1", content=(whole[i : i + 512] for i in range(0, len(whole), 512)))
        assert_error(chunked, 413)
        assert_error(http.post(f"{PATH}/a1/review", content=whole), 413)
        assert put(http, make_asset()).status_code == 201, "the connection is still good"


def test_reviews_compose_and_change_no_file(store: Store, http: httpx.Client) -> None:
    put(http, make_asset())
    (file,) = store.advisory_dir.rglob("a1.json")
    before = file.read_bytes(), file.stat().st_mtime_ns
    verdict = {"approved": True, "reviewed_by": "kim", "note": "looked at it"}
    answer = http.post(f"{PATH}/a1/review", json=verdict)
    assert answer.status_code == 201
    approved = http.get(f"{PATH}/a1").json()
    assert approved == answer.json()
    assert approved["reviewed"]
    assert approved["approved_for_workflow"]
    assert (approved["reviewed_by"], approved["review_note"]) == ("kim", "looked at it")
    assert approved["rejection_reason"] is None
    assert approved["reviewed_at_utc"].endswith("Z")

    http.post(f"{PATH}/a1/review", json={"approved": False, "reviewed_by": "lee", "note": "chatter"})
    rejected = http.get(f"{PATH}/a1").json()
    assert rejected["reviewed"]
    assert not rejected["approved_for_workflow"]
    assert (rejected["reviewed_by"], rejected["rejection_reason"]) == ("lee", "chatter")
    assert rejected["review_note"] is None
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert put(http, make_asset()).status_code == 200


def test_bad_reviews(http: httpx.Client) -> None:
    verdict: dict[str, Any] = {"approved": True, "reviewed_by": "kim"}
    assert_error(http.post(f"{PATH}/a1/review", json=verdict), 404, "ADVISORY_NOT_FOUND")
    assert_error(http.post(f"{PATH}/-a/review", json=verdict), 400)
    put(http, make_asset())
    for bad in [{}, verdict | {"approved": "yes"}, verdict | {"reviewed_by": " "}, verdict | {"x": 1}, []]:
        assert_error(http.post(f"{PATH}/a1/review", json=bad), 400, "INVALID_REQUEST")
    assert not http.get(f"{PATH}/a1").json()["reviewed"]


def test_lists_what_waits_for_a_person(http: httpx.Client, store: Store) -> None:
    for number in range(5):
        put(http, make_asset(f"a{number}"))
    put(http, make_asset("auto", approved_for_workflow=True, reviewed=True))
    http.post(f"{PATH}/a1/review", json={"approved": False, "reviewed_by": "kim"})

    seen: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = http.get(PATH, params={"pending": "true", "limit": 2, **after}).json()
        assert len(page["items"]) <= 2
        assert "suggestion_data" not in page["items"][0]
        seen += [item["asset_id"] for item in page["items"]]
        if page["next_after"] is None:
            break
        after = {"after": page["next_after"]}
    assert seen == ["a0", "a2", "a3", "a4"]
    assert len(http.get(PATH).json()["items"]) == 6
    assert len(http.get(PATH, params={"limit": 0}).json()["items"]) == 1, "clamped"
    for bad in [{"limit": "x"}, {"pending": "maybe"}, {"after": "../x"}]:
        assert assert_error(http.get(PATH, params=bad), 400, "INVALID_REQUEST")["problems"]
    assert store.log.read_text() == ""


def test_a_corrupt_asset_is_told_and_hides_no_other(http: httpx.Client, store: Store) -> None:
    for asset_id in ("a1", "a2", "a3"):
        put(http, make_asset(asset_id))
    (file,) = store.advisory_dir.rglob("a2.json")
    file.chmod(0o640)
    file.write_bytes(b"{")
    assert_error(http.get(f"{PATH}/a2"), 500, "CORRUPT_ARTIFACT")
    assert_error(put(http, make_asset("a2")), 500, "CORRUPT_ARTIFACT")
    page = http.get(PATH).json()
    assert [item["asset_id"] for item in page["items"]] == ["a1", "a3"]
    assert page["corrupt"] == ["a2"]
    assert "file.corrupt file='" in store.log.read_text()
    assert "a2.json" in store.log.read_text()


def test_eight_clients_save_one_asset(store: Store, connect: Connect) -> None:
    barrier = threading.Barrier(8)

    def save(client: AdvisoryClient) -> SaveOutcome:
        barrier.wait(timeout=30)
        return client.save(make_asset())

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(save, [connect(store.url) for _ in range(8)]))
    assert sorted(outcome.value for outcome in outcomes) == ["already_same"] * 7 + ["created"]


def test_one_client_serves_many_threads(store: Store, connect: Connect) -> None:
    client = connect(store.url)

    def both(number: int) -> bool:
        asset = make_asset(f"a{number}")
        return client.save(asset) is SaveOutcome.CREATED and client.fetch(f"a{number}") == asset

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(both, range(40)))


def test_a_killed_store_keeps_what_it_acknowledged(store: Store, connect: Connect) -> None:
    client = connect(store.url, tries=1)
    stop = threading.Event()
    acknowledged: list[str] = []

    def keep_saving() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                client.save(make_asset(f"a{number}"))
            except AdvisoryUnavailable:
                return
            acknowledged.append(f"a{number}")

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(keep_saving)
        while len(acknowledged) < 10 and not saving.done():
            time.sleep(0.01)
        store.kill()
        stop.set()
        saving.result(timeout=30)
    assert len(acknowledged) >= 10
    with pytest.raises(AdvisoryUnavailable, match="no answer"):
        client.fetch("a1")
    store.start()
    assert [client.fetch(asset_id).asset_id for asset_id in acknowledged] == acknowledged
    assert client.save(make_asset("a1")) is SaveOutcome.ALREADY_SAME


def test_a_stopped_store_starts_again(store: Store, connect: Connect) -> None:
    client = connect(store.url)
    client.save(make_asset())
    store.stop()
    store.start()
    assert client.fetch("a1") == make_asset()


def test_injected_503_then_recovery(store: Store, connect: Connect) -> None:
    store.faults(error_rate=1)
    client = connect(store.url)
    with pytest.raises(AdvisoryUnavailable, match=r"status 503.*3 of 3 tries"):
        client.save(make_asset())
    assert httpx.get(f"{store.url}/health", trust_env=False).status_code == 200, "health has no faults"
    store.faults()
    assert client.save(make_asset()) is SaveOutcome.CREATED


def test_injected_429_tells_when(store: Store, connect: Connect) -> None:
    store.faults(rate_429=1, retry_after_seconds=120)
    with pytest.raises(AdvisoryUnavailable, match=r"status 429.*1 of 3 tries") as caught:
        connect(store.url).save(make_asset())
    assert caught.value.retry_after_seconds == 120


def test_a_dropped_answer_is_repeated_safely(store: Store, connect: Connect) -> None:
    store.faults(drop_rate=1)
    client = connect(store.url)
    with pytest.raises(AdvisoryUnavailable, match="got no answer"):
        client.save(make_asset())
    store.faults()
    assert client.save(make_asset()) is SaveOutcome.ALREADY_SAME, "the work was done, the answer lost"
    assert store.log.read_text() == ""


def test_injected_latency_runs_into_the_time_out(store: Store, connect: Connect) -> None:
    store.faults(latency_ms=60_000)
    began = time.monotonic()
    with pytest.raises(AdvisoryUnavailable, match="ReadTimeout"):
        connect(store.url, timeout_seconds=0.3, total_seconds=1).fetch("a1")
    assert time.monotonic() - began < 10
    store.kill()  # a graceful stop would wait for the sleepers


def test_a_429_carries_its_pause(advisory_store: StartStore) -> None:
    store = advisory_store({"rate_429": 1.0, "retry_after_seconds": 7})
    answer = httpx.get(f"{store.url}{PATH}", trust_env=False)
    assert_error(answer, 429, "INJECTED_FAULT")
    assert answer.headers["Retry-After"] == "7"


class DrippingServer:
    """Accepts one connection after the other and sends each a byte every 50 ms, for ever."""

    def __init__(self, head: bytes, drip: bytes) -> None:
        self._head = head
        self._drip = drip
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection:
                try:
                    connection.sendall(self._head)
                    while not self._stop.wait(0.05):
                        connection.sendall(self._drip)
                except OSError:
                    continue


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    ],
    ids=["head", "informational", "body"],
)
def test_a_dripping_server_cannot_outlast_the_budget(connect: Connect, head: bytes, drip: bytes) -> None:
    with DrippingServer(head, drip) as server:
        began = time.monotonic()
        with pytest.raises(AdvisoryUnavailable, match=r"ReadTimeout|did not end in time"):
            connect(server.url, timeout_seconds=0.5, total_seconds=1.2).fetch("a1")
        assert 0.4 < time.monotonic() - began < 5


def test_only_what_waits_for_the_disk_is_done_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[object] = []
    run_sync = anyio.to_thread.run_sync

    async def counted(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        handed.append(function)
        return await run_sync(function, *args, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    app = create_app(AdvisoryStoreSettings.load(advisory_dir=tmp_path, advisory_token="t"))

    async def save() -> httpx.Response:
        headers = {"Authorization": "Bearer t"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://store", headers=headers) as http:
            return await http.put(f"{PATH}/a1", content=make_asset().to_bytes())

    assert asyncio.run(save()).status_code == 201
    assert len(handed) == 1
