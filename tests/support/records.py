"""Valid records, to be stored or spoilt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rmos_shared.advisories.model import AdvisoryLink, Attempt, Review
from rmos_shared.canonical import canonical_sha256
from rmos_shared.ids import new_uuid7
from rmos_shared.runs.model import RunArtifact

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make_run(at: datetime = NOON, **fields: Any) -> RunArtifact:
    feasibility = {"score": 87.5, "note": "bridge plate, Adirondack, ½ turn"}
    values: dict[str, Any] = {
        "run_id": new_uuid7(at),
        "created_at_utc": at,
        "mode": "router",
        "tool_id": "endmill-3.175",
        "status": "OK",
        "request_summary": {},
        "feasibility": feasibility,
        "decision": {"risk_level": "GREEN", "score": 87.5},
        "hashes": {"feasibility_sha256": canonical_sha256(feasibility)},
        "outputs": {},
        "meta": {},
    }
    return RunArtifact.read(values | fields)


def make_link(run: RunArtifact, advisory_id: str = "adv1", **fields: Any) -> AdvisoryLink:
    values: dict[str, Any] = {
        "run_id": run.run_id,
        "advisory_id": advisory_id,
        "kind": "explanation",
        "created_at_utc": NOON + HOUR,
        "request_id": "req-1",
        "engine_id": "feasibility",
        "engine_version": "1",
        "summary": "All rules passed.",
        "inputs_sha256": "a" * 64,
        "advisory_sha256": "b" * 64,
        "policy_id": "green_auto",
        "policy_version": "1",
        "approved": True,
        "reviewed_by": "system:auto_explanation_green",
        "reason": "GREEN",
    }
    return AdvisoryLink.read(values | fields)


def make_review(link: AdvisoryLink, review_id: str = "rev1", **fields: Any) -> Review:
    values = {
        "review_id": review_id,
        "run_id": link.run_id,
        "advisory_id": link.advisory_id,
        "created_at_utc": NOON + 2 * HOUR,
        "approved": True,
        "reviewed_by": "ana",
    }
    return Review.read(values | fields)


def make_attempt(run: RunArtifact, **fields: Any) -> Attempt:
    values = {
        "run_id": run.run_id,
        "job_id": new_uuid7(NOON),
        "request_id": None,
        "failed_at_utc": NOON,
        "reason": "retries_exhausted",
        "message": "no answer",
    }
    return Attempt.read(values | fields)
