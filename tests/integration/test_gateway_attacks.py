"""Ids and paths that must not touch a file: encoded, double-encoded, Unicode, NUL, very long."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest

from support.gateway import RUNS, GatewayProcess
from support.records import make_run
from support.runs import Runs

SECRET = "hunter2-the-content-of-a-file-outside"
_UP = [
    *("..", "../..", "..%2f..", "%2e%2e", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "..%255c..", "..\\"),
    *("....//", "..;/", ".%2e/", "%c0%ae%c0%ae/", "%e0%80%ae", "\uff0e\uff0e/", "\u2025/", "..%00/"),
    *("..%c0%af", "..%ef%bc%8f", "..%e2%81%84", "..\u2215", "%uff0e%uff0e/"),
]
_TARGETS = ["secret", "secret.json", "../secret", "_store.json", "etc/passwd", "_store", "2026-08-01"]
_ODD = [
    *(
        "%00",
        "a%00b",
        "a%00.json",
        "%0a",
        "a%0d%0aX-A:1",
        "%7f",
        "%ff",
        "%c3%28",
        "%ed%a0%80",
        "%f0%28%8c%bc",
    ),
    *("%20", "+", "*", "%3f", "%23", "~", ".", "%2e", "-", "_", "__", "_store.json", ".hidden", "a.json"),
    *("a%2fb", "a%5cb", "%2fetc%2fpasswd", "%5c%5cserver%5cshare", "C:%5cwindows", "file:%2f%2f%2fetc"),
    *("con", "nul", "aux", "x" * 128, "x" * 129, "x" * 4_000, "%41" * 2_000, "\u202e", "\ud55c\uae00"),
    *("a\u0301", "\u212a", "\u0130", "${jndi:x}", "{{7*7}}", "%25%32%66", "%2525252e", "' OR 1=1 --"),
    *("a_advisory_b", "_advisory_", "%5f_advisory_", "%", "%2", "%zz", "%u0000", "\U0001f4a9"),
]
_SUFFIXES = ["", "/download", "/advisories"]


def attacks() -> Iterator[str]:
    """Yield paths as they go over the wire."""
    ids = [f"{up}/{target}" for up, target in product(_UP, _TARGETS)] + _ODD
    for identifier in ids:
        # What no request line can hold is sent encoded; all else as it stands.
        sent = "".join(
            char if "!" <= char <= "~" else quote(char, safe="", errors="surrogatepass")
            for char in identifier
        )
        for suffix in _SUFFIXES:
            yield f"{RUNS}/{sent}{suffix}"
        yield f"{RUNS}/{quote(identifier, safe='', errors='surrogatepass')}"
        yield f"{RUNS}/{quote(quote(identifier, safe='', errors='surrogatepass'), safe='')}"


@pytest.fixture
def gateway(start_gateway: Callable[..., GatewayProcess], runs_dir: Path, run_log: Runs) -> GatewayProcess:
    run_log.writer.put_run(make_run())
    for place in (runs_dir, runs_dir.parent):
        (place / "secret").write_text(SECRET)
        (place / "secret.json").write_text(f'"{SECRET}"')
    return start_gateway(rate_requests=100_000.0, burst_requests=100_000)


def test_no_id_and_no_path_reaches_a_file_or_fails(gateway: GatewayProcess, runs_dir: Path) -> None:
    paths = sorted({*attacks()})
    assert len(paths) >= 300
    identity = (runs_dir / "_store.json").read_text()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    for path in paths:
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", "127.0.0.1")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status in {400, 404, 405}, path
        assert SECRET not in body, path
        assert identity not in body, path
        assert "root:" not in body, path
    connection.close()
    assert gateway.events("gateway.failed") == []
    assert "Traceback" not in gateway.log.read_text()


def test_ids_in_queries_and_bodies_are_no_paths_either(gateway: GatewayProcess) -> None:
    with gateway.client() as client:
        for identifier in (
            "../secret",
            "..\\secret",
            "a\0b",
            "%2e%2e%2fsecret",
            "x" * 500,
            "/etc/passwd",
            "",
        ):
            answers = [
                client.get(RUNS, params={"parent_run_id": identifier}),
                client.post(f"{RUNS}/{make_run().run_id}/attach-advisory", json={"advisory_id": identifier}),
                client.post(RUNS, json={"mode": "x", "run_id": identifier}),
                client.post(RUNS, json={"mode": "x", "outputs": {"gcode_path": f"../{identifier}"}}),
            ]
            assert {answer.status_code for answer in answers} == {400}, identifier


@pytest.mark.parametrize("path", ["/docs/../../etc/passwd", "/static-offline-docs/..%2f..%2f__init__.py"])
def test_the_files_of_the_docs_are_the_only_ones_below_them(gateway: GatewayProcess, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request("GET", path)
    assert connection.getresponse().status in {400, 404}
    connection.close()
