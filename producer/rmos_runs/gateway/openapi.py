"""The OpenAPI document: what FastAPI finds by itself, and what the routes read by hand."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rmos_runs.gateway.models import (
    ApprovalBody,
    AttachBody,
    ProblemBody,
    ReasonBody,
    RejectionBody,
    SuggestBody,
)
from rmos_shared.jobs.arguments import CODE_VERSION
from rmos_shared.models.base import Frozen
from rmos_shared.runs.model import RunRequest

ABOUT: dict[str, Any] = {
    "title": "rmos-runs",
    "version": CODE_VERSION,
    "summary": "The permanent record of every attempt to make a toolpath.",
    "description": (
        "Puts runs in, reads them, and works off what could not be done. Errors are JSON with `error`, "
        "`message` and `problems`; with `Accept: application/problem+json` they are problems of RFC 9457. "
        "Every answer bears `X-Request-ID`, the caller's if it sent one (letters, digits, `._:@+=-`), "
        "and `traceparent` is carried."
    ),
    "openapi_tags": [
        {"name": "runs", "description": "The record."},
        {"name": "attachments", "description": "Large outputs of runs, by the hash of their content."},
        {"name": "records", "description": "History, comparison, packs and trees of runs."},
        {"name": "audit", "description": "The audit log as static files, for any client of C2SP tlog-tiles."},
        {"name": "advisories", "description": "What is said about a run."},
        {"name": "jobs", "description": "What is accepted and not done yet."},
        {"name": "events", "description": "Changes of jobs and runs, as they happen."},
        {"name": "operators", "description": "Dead letters, reviews, the ledger."},
        {"name": "health", "description": "For whoever keeps it running; no key is needed."},
    ],
}
#: What the routes read by hand, or answer only on demand.
SCHEMAS: tuple[type[Frozen], ...] = (
    RunRequest,
    AttachBody,
    SuggestBody,
    ApprovalBody,
    RejectionBody,
    ReasonBody,
    ProblemBody,
)
_REF = "#/components/schemas/"
_OPEN_TAG = "health"
_EXAMPLES: dict[str, Any] = {
    "RunRequest": {
        "request_id": "req-42",
        "mode": "router",
        "tool_id": "router:endmill_4p0mm",
        "status": "OK",
        "feasibility": {"risk_level": "GREEN", "blocking": False, "rules_triggered": []},
        "decision": {"risk_level": "GREEN", "score": 94.3},
        "outputs": {"gcode_text": "G21\nG90\nM30\n"},
    },
    "AttachBody": {"advisory_id": "adv-17", "kind": "note"},
    "SuggestBody": {"explanation_detail": "full"},
    "ApprovalBody": {"reason": "checked", "note": "against the tool table"},
    "RejectionBody": {"reason": "incomplete", "note": "the thin floor is not named"},
    "ReasonBody": {"why": "the disk is back"},
    "ErrorBody": {
        "error": "INVALID_REQUEST",
        "message": "invalid request: mode: must not be blank",
        "problems": [{"field": "mode", "reason": "must not be blank"}],
        "request_id": "01a20d3c3a8b73898836cc2b6ecc4ed6",
        "detail": {
            "error": "INVALID_REQUEST",
            "message": "invalid request: mode: must not be blank",
            "problems": [{"field": "mode", "reason": "must not be blank"}],
            "request_id": "01a20d3c3a8b73898836cc2b6ecc4ed6",
        },
    },
    "Accepted": {
        "run_id": "01a20d3c3a8b73898836cc2b6ecc4ed6",
        "job_id": "01a20d3c3a8b73898836cc2b6ecc4ed7",
        "status_url": "/api/rmos/runs/jobs/01a20d3c3a8b73898836cc2b6ecc4ed7",
    },
}
#: Where null says the same as leaving the field out.
_NULLABLE = ("run_id", "created_at_utc", "request_summary", "decision", "hashes", "outputs", "meta")


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, made when it is first asked for."""
    if app.openapi_schema is None:
        told = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas: dict[str, Any] = told["components"]["schemas"]
        schemas.update(_requests())
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for name, example in _EXAMPLES.items():
            schemas[name]["examples"] = [example]
        told["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path in told["paths"].values():
            for operation in path.values():
                _repair(operation)
        app.openapi_schema = told
    return app.openapi_schema


def _repair(operation: dict[str, Any]) -> None:
    # FastAPI adds an answer of its own for wrong parameters, which this application never gives.
    if "HTTPValidationError" in json.dumps(operation["responses"].get("422", {})):
        del operation["responses"]["422"]
    if _OPEN_TAG not in operation["tags"]:
        operation["security"] = [{"key": []}]


def _requests() -> dict[str, Any]:
    """Return the schemas of what is read by hand; parts that answers have too bear names of their own."""
    _, found = models_json_schema([(model, "validation") for model in SCHEMAS], ref_template=_REF + "{model}")
    definitions: dict[str, Any] = found["$defs"]
    own = {model.__name__ for model in SCHEMAS}
    text = json.dumps(definitions)
    for name in definitions.keys() - own:
        text = text.replace(f'"{_REF}{name}"', f'"{_REF}{name}Input"')
    renamed = {name if name in own else f"{name}Input": schema for name, schema in json.loads(text).items()}
    run = renamed["RunRequest"]["properties"]
    for name in _NULLABLE:
        run[name] = {"anyOf": [_plain(run[name]), {"type": "null"}]}
    run["run_id"]["anyOf"][0]["pattern"] = "^[0-9a-e][0-9a-f]{11}7[0-9a-f]{3}[89ab][0-9a-f]{15}$"
    renamed["ClaimedDecisionInput"]["properties"]["score"] = {
        "anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, {"type": "null"}]
    }
    return renamed


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in {"default", "title"}}
