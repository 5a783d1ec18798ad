"""What a JSON Schema cannot say, for schemathesis: what a caller must compute, and cursors."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import schemathesis

from rmos_shared.ids import new_uuid7

#: They must agree with other fields of the same request.
_COMPUTED = ("hashes", "created_at_utc")
#: What the test has stored.
_KNOWN = {
    "run_id": os.environ.get("TEST_RUN_ID"),
    "advisory_id": os.environ.get("TEST_ADVISORY_ID"),
    "level": os.environ.get("TEST_TILE_LEVEL"),
    "index": os.environ.get("TEST_TILE_INDEX"),
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    del context, kwargs
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.method.upper() == "POST" and case.path == "/api/rmos/runs" and isinstance(case.body, dict):
        for name in _COMPUTED:
            case.body.pop(name, None)
        # Something must identify the attempt.
        if not any(case.body.get(name) for name in ("request_id", "mode", "tool_id")):
            case.body["mode"] = "router"
    # So that the checks see real records, not only that there is none.
    for name, value in _KNOWN.items():
        if value and name in (case.path_parameters or {}):
            case.path_parameters[name] = value
    if case.headers and "Idempotency-Key" in case.headers:
        # Another request under a key that was used is refused, and must be.
        case.headers["Idempotency-Key"] = new_uuid7()
    if case.method.upper() == "POST" and case.path == "/api/rmos/runs/attachments":
        case.body, case.query = b"G21", {"suffix": ".nc"}
        digest = base64.b64encode(hashlib.sha256(b"G21").digest()).decode()
        case.headers["Content-Digest"] = f"sha-256=:{digest}:"
    if case.query:
        case.query.pop("cursor", None)


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: Any, value: Any) -> bytes:
    del context
    return value if isinstance(value, bytes) else str(value).encode()
