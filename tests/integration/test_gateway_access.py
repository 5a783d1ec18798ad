"""Who may call the gateway: keys, roles, rotation, and this machine alone without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rmos_runs.gateway.keys import Role
from rmos_shared.ids import new_uuid7
from support import spawn
from support.command import piped
from support.gateway import RUNS, GatewayProcess, keys_in

StartGateway = Callable[..., GatewayProcess]
ID = new_uuid7()
#: Every endpoint, by method and path, and the roles that it lets in.
ENDPOINTS: dict[tuple[str, str], set[str]] = {
    ("POST", RUNS): {"enqueue"},
    ("POST", f"{RUNS}/bulk"): {"enqueue"},
    ("POST", f"{RUNS}/{ID}/attach-advisory"): {"enqueue"},
    ("POST", f"{RUNS}/{ID}/suggest-and-attach"): {"enqueue"},
    ("GET", RUNS): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}"): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}/download"): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}/advisories"): {"read", "audit"},
    ("POST", f"{RUNS}/attachments"): {"enqueue"},
    ("GET", f"{RUNS}/{ID}/attachments/a.nc"): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}/history"): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}/compare"): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}/pack.zip"): {"read", "audit"},
    ("GET", f"{RUNS}/{ID}/tree"): {"read", "audit"},
    ("GET", f"{RUNS}/diff"): {"read", "audit"},
    ("GET", f"{RUNS}/export"): {"read", "audit"},
    ("GET", f"{RUNS}/batches"): {"read", "operate", "audit"},
    ("GET", f"{RUNS}/events"): {"read", "operate", "audit"},
    ("GET", f"{RUNS}/jobs/{ID}"): {"read", "enqueue", "operate", "audit"},
    ("GET", f"{RUNS}/dead-letters"): {"operate", "audit"},
    ("GET", f"{RUNS}/dead-letters/{ID}"): {"operate", "audit"},
    ("POST", f"{RUNS}/dead-letters/{ID}/replay"): {"operate"},
    ("POST", f"{RUNS}/dead-letters/{ID}/discard"): {"operate"},
    ("GET", f"{RUNS}/reviews"): {"review", "audit"},
    ("GET", f"{RUNS}/reviews/{ID}"): {"review", "read", "audit"},
    ("POST", f"{RUNS}/reviews/{ID}/a/approve"): {"review"},
    ("POST", f"{RUNS}/reviews/{ID}/a/reject"): {"review"},
    ("GET", f"{RUNS}/status"): {"operate", "audit"},
}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "api-keys.jsonl"


@pytest.fixture
def keys(keys_file: Path) -> dict[str, str]:
    return keys_in(keys_file)


@pytest.fixture
def gateway(start_gateway: StartGateway, keys: dict[str, str], keys_file: Path) -> GatewayProcess:
    assert keys
    return start_gateway(api_keys_file=keys_file)


def asked(http: httpx.Client, method: str, path: str, authorization: str | None = None) -> httpx.Response:
    """Make one call; of an answer that never ends only the head is read."""
    headers = {} if authorization is None else {"Authorization": authorization}
    with http.stream(method, path, headers=headers) as answer:
        if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            answer.read()
    return answer


def test_every_endpoint_refuses_no_key_a_wrong_key_and_a_wrong_role(
    gateway: GatewayProcess, keys: dict[str, str]
) -> None:
    wrong = ["", "Bearer", "Bearer rmos_wrong", f"Basic {keys['read']}", keys["read"]]
    with gateway.client() as http:
        document = http.get("/openapi.json").json()
        filled = {"run_id": ID, "job_id": ID, "letter_id": ID, "advisory_id": "a", "name": "a.nc"}
        served = {
            (method.upper(), path.format(**filled))
            for path, operations in document["paths"].items()
            for method in operations
            if path.startswith(RUNS)
        }
        assert served == set(ENDPOINTS), "each endpoint is tried here"
        for (method, path), roles in ENDPOINTS.items():
            refused = [asked(http, method, path)]
            refused += [asked(http, method, path, one) for one in wrong]
            for answer in refused:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert answer.json()["error"] == "KEY_REQUIRED"
            for role, key in keys.items():
                answer = asked(http, method, path, f"Bearer {key}")
                assert (answer.status_code == 403) is (role not in roles), (method, path, role)
                assert answer.status_code not in {401, 500}, (method, path, role)
        for path in ("/nothing", "/redoc", f"{RUNS}/{ID}/nothing"):
            assert http.get(path).status_code == 401, "what there is not is nobody's business either"
        assert http.delete(f"{RUNS}/{ID}").status_code == 401
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert http.get(path).status_code == 200
    log = gateway.log.read_text()
    assert not [key for key in keys.values() if key in log]


def test_keys_rotate_without_a_restart_and_damage_leaves_the_last_good_ones(
    gateway: GatewayProcess, keys: dict[str, str], keys_file: Path, tmp_path: Path
) -> None:
    def status(key: str) -> int:
        with gateway.client(key) as http:
            return http.get(f"{RUNS}/{ID}").status_code

    def rmos(*words: str) -> subprocess.CompletedProcess[str]:
        return piped("keys", *words, "--file", str(keys_file), home=tmp_path / "home")

    added = rmos("add", "second", "--role", "read", "--role", "audit")
    assert added.returncode == 0
    second = added.stdout.strip()
    assert second.startswith("rmos_")
    assert status(second) == 404
    assert rmos("add", "second", "--role", "read").returncode == 5
    assert rmos("revoke", "read").returncode == 0
    assert (status(keys["read"]), status(second)) == (401, 404)
    assert rmos("revoke", "read").returncode == 4
    listed = rmos("list", "--json").stdout
    assert '"second"' in listed
    assert second not in listed + keys_file.read_text()
    assert keys_file.stat().st_mode & 0o777 == 0o600
    good = keys_file.read_bytes()
    for damage in (b"{", b'{"name":"x"}\n', b"", b"\xff\n"):
        keys_file.write_bytes(damage)
        assert status(second) == 404, damage
    keys_file.unlink()
    assert status(second) == 404
    assert len(gateway.events("api_keys.unreadable")) == 5
    keys_file.write_bytes(good)
    assert status(second) == 404
    # Revoking all of them lets nobody in, not everybody.
    for name in ("second", "enqueue", "review", "operate", "audit"):
        assert rmos("revoke", name).returncode == 0
    with gateway.client() as http:
        assert http.get(f"{RUNS}/{ID}").status_code == 401
    assert status(second) == 401


def test_the_callers_name_is_the_one_on_record(
    gateway: GatewayProcess, keys: dict[str, str], ledger: Any, eventually: Callable[..., None]
) -> None:
    def callers() -> list[str]:
        finished = gateway.events("request.finished")
        return [event["caller"] for event in finished if event["method"] == "POST"]

    both: list[dict[str, Any]] = []
    for role in ("enqueue", "operate"):
        with gateway.client(keys[role]) as http:
            body: Any = {"json": {"mode": "x"}, "headers": {"Idempotency-Key": "same"}}
            both.append(http.post(RUNS, **body).json())
    assert both[1]["error"] == "ROLE_REQUIRED"
    # A line is written once its answer has left.
    eventually(lambda: callers() == ["key:enqueue", "key:operate"], told=callers)
    assert ledger.stats().accepted == 1


# Without keys


def test_without_keys_only_programs_on_this_machine_may_call(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    host = f"127.0.0.1:{gateway.port}"
    with gateway.client() as http:
        assert http.get(f"{RUNS}/{ID}").status_code == 404
        # Swagger's own page is of the same origin.
        assert http.get(f"{RUNS}/{ID}", headers={"Origin": f"http://{host}"}).status_code == 404
        for header, value in (
            ("Host", "evil.example"),
            ("Host", f"localhost.evil.example:{gateway.port}"),
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("X-Forwarded-For", "8.8.8.8"),
            ("Forwarded", "for=8.8.8.8"),
            ("Via", "1.1 proxy"),
        ):
            answer = http.get(f"{RUNS}/{ID}", headers={header: value})
            assert (answer.status_code, answer.json()["error"]) == (403, "ROLE_REQUIRED"), header


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_without_keys_the_gateway_listens_nowhere_else(host: str, runs_dir: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for keys_file in ({}, {"RMOS_API_KEYS_FILE": str(empty)}):
        done = spawn.run(
            [sys.executable, "-m", "rmos_runs.gateway"],
            env={**os.environ, "RMOS_GATEWAY_HOST": host, "RMOS_RUNS_DIR": str(runs_dir), **keys_file},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: RMOS_GATEWAY_HOST: ")
        assert "rmos keys add" in done.stderr


def test_a_file_of_keys_that_is_missing_or_damaged_stops_the_start(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('\n{"name": "hunter2"}\n')
    for file in (tmp_path / "missing.jsonl", damaged):
        done = spawn.run(
            [sys.executable, "-m", "rmos_runs.gateway"],
            env={**os.environ, "RMOS_API_KEYS_FILE": str(file)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: RMOS_API_KEYS_FILE: ")
        assert "hunter2" not in done.stderr
        assert "Traceback" not in done.stderr


def test_a_stranger_on_the_network_needs_a_key(
    start_gateway: StartGateway, keys_file: Path, keys: dict[str, str]
) -> None:
    gateway = start_gateway(api_keys_file=keys_file, gateway_host="0.0.0.0")
    with httpx.Client(base_url=gateway.url, trust_env=False) as http:
        assert http.get(f"{RUNS}/{ID}").status_code == 401
        assert (
            http.get(f"{RUNS}/{ID}", headers={"Authorization": f"bearer  {keys['read']}"}).status_code == 404
        )
    assert set(keys) == {*Role}
