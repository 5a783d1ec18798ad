"""The OpenAPI document held against the gateway itself, by every check that schemathesis has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from support.gateway import RUNS, GatewayProcess, keys_in
from support.records import make_link, make_run
from support.runs import Runs
from support.sealed import SealedStore

HOOKS = Path(__file__).parents[1] / "support/openapi_hooks.py"
#: Bounded: the same cases each time, some seconds for each endpoint.
_EXAMPLES = 5
_CONFIG = """
[generation]
deterministic = true
max-examples = {examples}
# Patterns of the document can name printable characters as far as Latin-1 has them.
codec = "latin-1"
database = "none"

[checks]
enabled = true
max_response_time = 30
"""


@pytest.mark.timeout(420)
def test_every_check_of_schemathesis_passes(
    start_gateway: Callable[..., GatewayProcess], run_log: Runs, runs_dir: Path, tmp_path: Path
) -> None:
    # One key may do everything; those of one role are tried in test_gateway_access.py.
    keys_file = tmp_path / "api-keys.jsonl"
    key = keys_in(keys_file, ["enqueue", "read", "review", "operate", "audit"], together=True)["all"]
    run = make_run()
    run_log.writer.put_run(run)
    run_log.writer.attach(make_link(run, "adv1", approved=False, reviewed_by=None))
    size = SealedStore(runs_dir).seal().size
    gateway = start_gateway(
        api_keys_file=keys_file, rate_requests=100_000.0, burst_requests=100_000, max_wait_seconds=0.2
    )
    (tmp_path / "schemathesis.toml").write_text(_CONFIG.format(examples=_EXAMPLES))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml")),
            *("run", f"{gateway.url}/openapi.json", "--checks", "all", "--workers", "1"),
            *("--phases", "examples,coverage,fuzzing", "--mode", "all", "--no-color"),
            *("--header", f"Authorization: Bearer {key}", "--continue-on-failure"),
            # An answer without an end; test_gateway.py and test_event_route.py follow it.
            *("--exclude-path", f"{RUNS}/events"),
        ],
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": str(HOOKS),
            "NO_PROXY": "127.0.0.1",
            "TEST_RUN_ID": run.run_id,
            "TEST_ADVISORY_ID": "adv1",
            "TEST_TILE_LEVEL": "entries",
            "TEST_TILE_INDEX": f"000.p/{size}",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    with gateway.client() as http:
        operations = sum(map(len, http.get("/openapi.json").json()["paths"].values())) - 1
    assert f"Tested: {operations}" in done.stdout
    assert "Failures:" not in done.stdout
    assert gateway.events("gateway.failed") == []


@pytest.fixture
def document(start_gateway: Callable[..., GatewayProcess]) -> dict[str, Any]:
    with start_gateway().client() as http:
        told: dict[str, Any] = http.get("/openapi.json").json()
    return told


def test_the_document_is_of_version_3_1_and_describes_every_route(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            if not path.startswith("/api/"):
                continue
            assert operation["security"] == [{"key": []}], where
            for status in ("400", "401", "403", "429", "500", "503"):
                content = operation["responses"][status]["content"]
                assert set(content) == {"application/json", "application/problem+json"}, where
            assert "422" not in operation["responses"] or method == "post", where
            assert method != "post" or "requestBody" in operation, where


def test_every_reference_leads_somewhere_and_every_example_is_valid(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas
    examples = 0
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator({**schema, "components": document["components"]})
        for example in schema.get("examples", []):
            validator.validate(example)
            examples += 1
        assert name
    assert examples >= 5
