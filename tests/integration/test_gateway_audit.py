"""The gateway serves the log as C2SP tlog-tiles says: a client of that standard alone can follow it."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rmos_runs.auditor.log_source import TimedSource, UrlSource
from rmos_runs.auditor.witness import Witness
from rmos_runs.auditor.witness_state import WitnessState
from rmos_shared.auditlog.layout import LOG, cosignature_key
from rmos_shared.auditlog.note import KeyKind, Note, verified
from rmos_shared.clock import SystemClock
from rmos_shared.errors import CorruptArtifact, StoreUnavailable
from support.audit_log import tiles_of
from support.command import piped
from support.gateway import GatewayProcess, keys_in
from support.http_server import Act, HttpServer, answer, drips, floods, hangs
from support.sealed import SealedStore, new_signer

AUDIT = "/api/rmos/audit"
StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def log(runs_dir: Path) -> SealedStore:
    sealed = SealedStore(runs_dir)
    sealed.grow(300)
    return sealed


def test_it_serves_every_tile_and_the_newest_checkpoint_as_they_lie_in_the_store(
    log: SealedStore, start_gateway: StartGateway
) -> None:
    witness = new_signer("w.example/w1", KeyKind.COSIGNATURE)
    with start_gateway().client() as http:
        answer = http.get(f"{AUDIT}/checkpoint")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "private, max-age=2"
        note = Note.parse(answer.content)
        assert (note.text, verified(note, [log.signer.verifier])[0].name) == (log.newest.text, log.origin)
        for tile in tiles_of(log.newest.size):
            path = f"{AUDIT}/{tile.path.removeprefix(LOG)}"
            answer = http.get(path)
            assert answer.status_code == 200, path
            assert answer.content == log.store.get(tile.path)
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        log.grow(5)
        line = witness.sign(log.newest.text, datetime.now(UTC))
        key = cosignature_key(log.newest.size, witness.verifier.key_id.hex())
        log.store.create(key, Note(log.newest.text, (line,)).to_bytes())
        note = Note.parse(http.get(f"{AUDIT}/checkpoint").content)
        assert [one.name for one in verified(note, [log.signer.verifier, witness.verifier])] == [
            log.origin,
            "w.example/w1",
        ]


@pytest.mark.usefixtures("log")
def test_a_client_that_knows_the_standard_alone_finds_the_root(start_gateway: StartGateway) -> None:
    """Not a line of ours in it: hashes of the entries make the tiles, and these the root."""

    def subtree(hashes: list[bytes]) -> bytes:
        if len(hashes) == 1:
            return hashes[0]
        split = 1 << (len(hashes) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + subtree(hashes[:split]) + subtree(hashes[split:])).digest()

    with start_gateway().client() as http:
        _, size, root = http.get(f"{AUDIT}/checkpoint").text.splitlines()[:3]
        leaves: list[bytes] = []
        for index in range(0, int(size), 256):
            width = min(256, int(size) - index)
            name = f"{index // 256:03d}" + (f".p/{width}" if width < 256 else "")
            bundle = http.get(f"{AUDIT}/tile/entries/{name}").content
            hashes = b""
            while bundle:
                length = int.from_bytes(bundle[:2])
                hashes += hashlib.sha256(b"\x00" + bundle[2 : 2 + length]).digest()
                bundle = bundle[2 + length :]
            assert http.get(f"{AUDIT}/tile/0/{name}").content == hashes
            leaves += [hashes[start : start + 32] for start in range(0, len(hashes), 32)]
    assert len(leaves) == int(size)
    assert base64.b64encode(subtree(leaves)).decode() == root


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/007",
        "tile/64/000",
        "tile/00/000",
        "tile/0/0",
        "tile/0/x000/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/",
        "tile/0/..%2f..%2fcheckpoints%2f000",
        "tile/0/../../../_store.json",
        "tile/%2e%2e/checkpoints",
        "tile/entries/001/",
        "tile/entries//000",
        "checkpoint/",
        "seals/000/000/000/000",
        "tile/0/000%00",
    ],
)
def test_what_is_no_file_of_the_standard_is_not_served(
    log: SealedStore, start_gateway: StartGateway, path: str
) -> None:
    assert log.newest.size
    with start_gateway().client() as http:
        answer = http.get(f"{AUDIT}/{path}")
        assert answer.status_code in {400, 404}
        assert answer.json()["error"] in {"INVALID_REQUEST", "LOG_FILE_NOT_FOUND", "ROUTE_NOT_FOUND"}


def test_nothing_is_sealed_yet_and_nothing_can_be_changed(start_gateway: StartGateway) -> None:
    with start_gateway().client() as http:
        answer = http.get(f"{AUDIT}/checkpoint")
        assert (answer.status_code, answer.json()["error"]) == (404, "LOG_FILE_NOT_FOUND")
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            assert http.request(method, f"{AUDIT}/checkpoint").status_code == 405
            assert http.request(method, f"{AUDIT}/tile/0/000").status_code == 405


@pytest.mark.usefixtures("log")
def test_who_may_read_runs_or_audit_may_read_the_log(start_gateway: StartGateway, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.jsonl"
    keys = keys_in(keys_file)
    gateway = start_gateway(api_keys_file=keys_file)
    for role, key in keys.items():
        with gateway.client(key) as http:
            status = http.get(f"{AUDIT}/checkpoint").status_code
            assert status == (200 if role in {"read", "audit"} else 403), role
            assert http.get(f"{AUDIT}/tile/0/000").status_code == status
    with gateway.client() as http:
        assert http.get(f"{AUDIT}/checkpoint").status_code == 401
    assert {line["route"] for line in gateway.events("request.finished")} >= {
        f"{AUDIT}/checkpoint",
        f"{AUDIT}/tile/{{level}}/{{index:path}}",
    }

    def look(key: str | None) -> bool:
        (tmp_path / "state").mkdir(exist_ok=True)
        source = UrlSource(f"{gateway.url}{AUDIT}", api_key=key, timeout_seconds=5)
        signer = new_signer("w.example/w1", KeyKind.COSIGNATURE)
        return Witness(source, signer, WitnessState(tmp_path / "state"), SystemClock()).look().new

    with pytest.raises(StoreUnavailable, match="--api-key-file"):
        look(None)
    assert look(keys["audit"])
    # And as a program.
    (tmp_path / "api-key").write_text(f"{keys['audit']}\n")
    piped("audit", "keygen", str(tmp_path / "w.pem"), "--name", "w.example/w2", home=tmp_path)
    words = ("--key", str(tmp_path / "w.pem"), "--state", str(tmp_path / "seen"), "--once")
    address = ("audit", "witness", f"{gateway.url}{AUDIT}")
    done = piped(*address, *words, "--api-key-file", str(tmp_path / "api-key"), home=tmp_path)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "cosigned"), done.stderr
    assert piped(*address, *words, home=tmp_path).returncode == 6
    assert piped(*address, *words, "--publish", home=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "act",
    [
        hangs(),
        hangs(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        drips(b"HTTP/1.1 200 OK\r\n\r\n", b"x", each_seconds=0.05),
    ],
    ids=["silent", "headed", "dripping"],
)
def test_a_witness_waits_for_no_server_longer_than_it_was_told(act: Act) -> None:
    with HttpServer(act) as server:
        source = TimedSource(UrlSource(server.url, api_key=None, timeout_seconds=0.5), 0.5)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer"):
            source.newest()
        assert time.monotonic() - began < 5
    with HttpServer(floods(64 << 20)) as server, pytest.raises(CorruptArtifact, match="larger"):
        UrlSource(server.url, api_key=None, timeout_seconds=5).newest()


def test_a_witness_follows_no_redirect() -> None:
    moved = answer(302, b"", Location="http://127.0.0.1:1/")
    with HttpServer(moved) as server, pytest.raises(StoreUnavailable, match="status 302"):
        UrlSource(server.url, api_key="secret", timeout_seconds=2).newest()
    with HttpServer(answer(503)) as server, pytest.raises(StoreUnavailable, match="503") as raised:
        UrlSource(server.url, api_key="secret", timeout_seconds=2).newest()
    assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="not an http"):
        UrlSource("ftp://x.example/", api_key=None, timeout_seconds=2)
