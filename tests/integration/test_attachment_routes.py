"""Attachments over HTTP, on a real server: taken with their hash, served to the runs that name them."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from rmos_runs.gateway.routes.attachments import attachment_routes
from rmos_runs.operations.attachments import UploadLimits
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import RmosError
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.attachments import Attachments
from rmos_shared.store.base import PIECE_BYTES
from rmos_shared.store.local import LocalStore
from support.records import make_run
from support.runs import Runs
from support.stores import local_store

PREFIX = "/api/rmos/runs"
UPLOAD = f"{PREFIX}/attachments?suffix=.nc"
MOST_BYTES = 8 * PIECE_BYTES
Eventually = Callable[..., None]


def digest_of(data: bytes) -> dict[str, str]:
    return {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}


@contextmanager
def serving(store: LocalStore, **routes: Any) -> Iterator[str]:
    """Serve the routes on a free port; errors are told as the gateway tells them."""
    app = FastAPI()
    runs = Runs(store)
    attachments = Attachments(store, most_bytes=MOST_BYTES)
    app.include_router(attachment_routes(attachments, runs.reader, **routes), prefix=PREFIX)

    @app.exception_handler(RmosError)
    def tell(_: Request, error: RmosError) -> JSONResponse:
        return JSONResponse({"error": error.code, "message": str(error)}, error.http_status)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return local_store(tmp_path / "runs")


@pytest.fixture
def client(store: LocalStore) -> Iterator[httpx.Client]:
    with serving(store) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as connected:
        yield connected


def stored(store: LocalStore) -> list[str]:
    return list(store.list("_attachments/"))


def in_chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


# Uploads


@pytest.mark.parametrize("size", [0, 1, 3 * PIECE_BYTES + 7, MOST_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_comes_whole_is_stored_once(
    client: httpx.Client,
    store: LocalStore,
    size: int,
    chunked: bool,  # noqa: FBT001 - a parameter
) -> None:
    data = os.urandom(size)
    key = attachment_key(data, ".nc")
    for _ in range(2):
        answer = client.post(UPLOAD, content=in_chunks(data) if chunked else data, headers=digest_of(data))
        assert (answer.status_code, answer.json()) == (201, {"key": key, "sha256": sha256_hex(data)})
    assert stored(store) == [key]
    assert store.get(key) == data


def test_another_content_than_claimed_is_refused_and_nothing_is_kept(
    client: httpx.Client, store: LocalStore
) -> None:
    answer = client.post(UPLOAD, content=b"sent", headers=digest_of(b"meant"))
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_REQUEST")
    assert sha256_hex(b"sent") in answer.text
    assert sha256_hex(b"meant") in answer.text
    assert stored(store) == []


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "sha-512=:YQ==:",
        "sha-256=:YQ==:",
        "sha-256=" + "a" * 64,
        "xsha-256=:" + "A" * 43 + "=:",
        "sha-256=:" + "A" * 43 + "=:x",
    ],
)
def test_an_upload_without_its_hash_is_refused(
    client: httpx.Client, store: LocalStore, header: str | None
) -> None:
    answer = client.post(UPLOAD, content=b"x", headers={} if header is None else {"Content-Digest": header})
    assert answer.status_code == 400
    assert "Content-Digest" in answer.text
    assert stored(store) == []


def test_the_hash_is_found_among_others(client: httpx.Client, store: LocalStore) -> None:
    header = "sha-512=:YQ==:, " + digest_of(b"x")["Content-Digest"] + ", md5=:YQ==:"
    assert client.post(UPLOAD, content=b"x", headers={"Content-Digest": header}).status_code == 201
    assert len(stored(store)) == 1


@pytest.mark.parametrize("suffix", ["nc", "../x", ".NC", "%00"])
def test_a_wrong_suffix_is_refused(client: httpx.Client, store: LocalStore, suffix: str) -> None:
    path = f"{PREFIX}/attachments?suffix={suffix}"
    answer = client.post(path, content=b"x", headers=digest_of(b"x"))
    assert (answer.status_code, "suffix" in answer.text) == (400, True)
    assert stored(store) == []


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_too_large_is_413(
    client: httpx.Client,
    store: LocalStore,
    chunked: bool,  # noqa: FBT001 - a parameter
) -> None:
    data = bytes(MOST_BYTES + 1)
    answer = client.post(UPLOAD, content=in_chunks(data) if chunked else data, headers=digest_of(data))
    assert (answer.status_code, answer.json()["error"]) == (413, "ATTACHMENT_TOO_LARGE")
    assert stored(store) == []


@contextmanager
def unfinished(url: str, *, sent: bytes = b"half") -> Iterator[socket.socket]:
    """Begin an upload of a kilobyte and send but a part of it."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in digest_of(b"x").items())
        connection.sendall(head.encode() + b"\r\n" + sent)
        yield connection


def test_a_sender_that_falls_silent_is_given_up(store: LocalStore) -> None:
    limits = UploadLimits(idle_seconds=0.3, total_seconds=30)
    with serving(store, limits=limits) as url, unfinished(url) as connection:
        assert connection.recv(4_096).startswith(b"HTTP/1.1 408")
    assert stored(store) == []


def test_a_sender_that_drips_is_given_up(store: LocalStore) -> None:
    limits = UploadLimits(idle_seconds=30, total_seconds=0.5)
    with serving(store, limits=limits) as url, unfinished(url) as connection:
        connection.settimeout(0.05)
        deadline, answer = time.monotonic() + 20, b""
        while not answer and time.monotonic() < deadline:
            try:
                answer = connection.recv(4_096)
            except TimeoutError:
                connection.sendall(b".")
        assert answer.startswith(b"HTTP/1.1 408")
    assert stored(store) == []


def drafts_open() -> int:
    """Count this process's open files that have no name."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += entry.readlink().name.endswith(" (deleted)")
        except OSError:  # the listing's own
            continue
    return count


def test_a_sender_that_goes_away_leaves_nothing(store: LocalStore, eventually: Eventually) -> None:
    before = drafts_open()
    with serving(store) as url:
        for _ in range(5):
            with unfinished(url, sent=bytes(500)):
                eventually(lambda: drafts_open() == before + 1)
            eventually(lambda: drafts_open() == before)
    assert stored(store) == []


def test_a_store_that_is_away_is_503(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "runs").rename(tmp_path / "away")
    answer = client.post(UPLOAD, content=b"x", headers=digest_of(b"x"))
    assert (answer.status_code, answer.json()["error"]) == (503, "STORE_UNAVAILABLE")
    assert client.get(f"{PREFIX}/{make_run().run_id}/attachments/x").status_code == 503


# Downloads


def place(store: LocalStore, data: bytes) -> tuple[str, str]:
    """Store an attachment and a run that names it; return the run's id and the attachment's name."""
    key = Attachments(store).put(data, ".nc")
    run = make_run(outputs={"preview_svg_path": key})
    Runs(store).writer.put_run(run)
    return run.run_id, key.rpartition("/")[2]


@pytest.mark.parametrize("size", [0, 1, 3 * PIECE_BYTES + 7])
def test_an_attachment_is_served_to_the_run_that_names_it(
    client: httpx.Client, store: LocalStore, size: int
) -> None:
    data = os.urandom(size)
    run_id, name = place(store, data)
    answer = client.get(f"{PREFIX}/{run_id}/attachments/{name}")
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["ETag"] == f'"{sha256_hex(data)}"'
    assert answer.headers["Content-Digest"] == digest_of(data)["Content-Digest"]


def test_through_no_other_run_and_by_no_other_name(client: httpx.Client, store: LocalStore) -> None:
    run_id, name = place(store, b"a")
    other = make_run()
    Runs(store).writer.put_run(other)
    unnamed = Attachments(store).put(b"b", ".nc").rpartition("/")[2]
    digest = sha256_hex(b"a")
    paths = [
        f"{other.run_id}/attachments/{name}",
        f"{make_run().run_id}/attachments/{name}",
        f"{run_id}/attachments/{unnamed}",
        f"{run_id}/attachments/{digest}",
        f"{run_id}/attachments/{digest[:2]}%2F{name}",
        f"{run_id}/attachments/..%2F..%2F_store.json",
        f"{run_id}/attachments/{run_id}.json",
        f"{run_id}/attachments/%00",
        f"{run_id}/attachments/%ED%A0%80",
        f"..%2F_attachments/attachments/{name}",
    ]
    for path in paths:
        answer = client.get(f"{PREFIX}/{path}")
        assert answer.status_code == 404, path
    missing = client.get(f"{PREFIX}/{run_id}/attachments/{unnamed}").json()
    assert missing["error"] == "ATTACHMENT_NOT_FOUND"


@pytest.mark.parametrize("size", [1, 3 * PIECE_BYTES + 7])
def test_a_damaged_attachment_breaks_off_before_its_end(
    client: httpx.Client, store: LocalStore, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    run_id, name = place(store, data)
    path = tmp_path / "runs/_attachments" / name[:2] / name
    path.chmod(0o640)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    received: list[bytes] = []
    with (
        client.stream("GET", f"{PREFIX}/{run_id}/attachments/{name}") as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(answer.iter_bytes())
    assert sum(map(len, received)) < size
    client.get(f"{PREFIX}/{run_id}/attachments/{name[1:]}")  # it goes on serving


def test_who_may_upload_and_who_may_read_is_the_applications_to_say(store: LocalStore) -> None:
    asked: list[str] = []
    guards = {name: [Depends(partial(asked.append, name))] for name in ("may_upload", "may_read")}
    run_id, name = place(store, b"a")
    with serving(store, **guards) as url:
        httpx.post(f"{url}{UPLOAD}", content=b"x", headers=digest_of(b"x"), trust_env=False)
        httpx.get(f"{url}{PREFIX}/{run_id}/attachments/{name}", trust_env=False)
    assert asked == ["may_upload", "may_read"]
