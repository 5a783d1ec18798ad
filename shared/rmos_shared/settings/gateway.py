"""What the HTTP gateway needs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.settings.store import StoreSettings


class GatewaySettings(ProducerSettings, StoreSettings):
    """What the HTTP gateway needs."""

    gateway_host: str = Field(
        "127.0.0.1",
        description="Address that the gateway listens on; other than loopback only with API keys.",
    )
    gateway_port: int = Field(8710, ge=0, le=65_535, description="Port that the gateway listens on.")
    api_keys_file: Path | None = Field(
        None, description="File of `rmos keys`; none, or a file without keys: only this machine may call."
    )
    max_body_bytes: int = Field(
        16_777_216, ge=1_024, le=1_073_741_824, description="Largest body of one request, in bytes."
    )
    max_bodies_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        description="Bytes of request bodies held at one time, over all requests; more are answered 503.",
    )
    max_bulk_bytes: int = Field(
        268_435_456, ge=1_024, description="Largest body of `POST /bulk`, in bytes; it is never held whole."
    )
    max_bulk_lines: int = Field(
        10_000, ge=1, le=1_000_000, description="Lines that one `POST /bulk` may hold."
    )
    bulk_requests: int = Field(4, ge=1, le=1_000, description="Requests about many runs at one time.")
    max_wait_seconds: float = Field(
        30.0, ge=0, le=600, description="Longest `Prefer: wait`; a longer one is cut to this."
    )
    rate_requests: float = Field(
        500.0, gt=0, le=1_000_000, description="Requests a second that one API key may make on average."
    )
    burst_requests: int = Field(
        1_000, ge=1, le=1_000_000, description="Requests that one API key may make at once."
    )
    concurrent_requests: int = Field(
        2_000, ge=1, le=100_000, description="Requests under way at one time, those that wait included."
    )
    event_clients: int = Field(
        500, ge=1, le=100_000, description="Clients that may follow `GET /events` at one time."
    )
    header_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="Longest time for the head of a request to arrive."
    )
    body_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="Time for a body to arrive, beside what its slowest pace allows."
    )
    slowest_body_bytes: int = Field(
        16_384,
        ge=1,
        le=1_073_741_824,
        description="Bytes a second, on average, below which a body is too slow and its connection ends.",
    )
    write_timeout_seconds: float = Field(
        20.0, gt=0, le=600, description="How long a client may leave its answer unread before it is dropped."
    )
    keep_alive_seconds: int = Field(
        15, ge=1, le=600, description="How long a connection without a request is kept."
    )
    request_timeout_seconds: float = Field(
        30.0, gt=0, le=600, description="Longest work on one request, its body and its wait apart."
    )
    store_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="Longest wait for one answer of the artifact store."
    )
    store_threads: int = Field(
        8, ge=1, le=256, description="Threads that read the artifact store; what is more waits its turn."
    )
