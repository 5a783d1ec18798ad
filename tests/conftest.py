"""Fixtures that every test may use: a real server, and nothing shared between tests but its process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rmos_producer.embedded import EmbeddedServer

SAMPLES = Path(__file__).parents[1] / "producer/rmos_producer/samples/create_runs.ndjson"


@pytest.fixture(scope="session")
def sample_requests() -> list[dict[str, Any]]:
    """The 600 requests that a real feasibility engine judged."""
    return [json.loads(line) for line in SAMPLES.read_text().splitlines()]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real valkey-server on a free port, one per test process."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def broker_url(server: EmbeddedServer) -> str:
    """The address of an empty database on the real server."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url
