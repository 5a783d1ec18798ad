"""The tasks by name, and the queue and payload of each: the one table that both sides read."""

from __future__ import annotations

from dataclasses import dataclass

from rmos_shared.models.base import Frozen
from rmos_shared.tasks.payloads import (
    AttachAdvisory,
    CreateRun,
    DeliverWebhook,
    PlanBatch,
    ReexplainRun,
    ReportBatch,
    SealLog,
    SuggestAndAttach,
    TimestampCheckpoint,
)

#: Consumed by nobody; mirrors the number of dead letters, so that Flower's Broker page shows it.
DEAD_LETTER_QUEUE = "runs.dead_letter"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One kind of work."""

    name: str
    queue: str
    payload: type[Frozen]
    #: What its jobs are about; the latest unfinished job on ``topic:run_id`` can be looked up.
    topic: str
    #: Job ids that one notification may carry.
    ids_per_notification: int = 1
    #: The webhook event of a job that is done; none: webhooks tell neither of that nor of its death.
    event: str = ""


CREATE = TaskSpec(
    "runs.create", "runs.create", CreateRun, "create", ids_per_notification=25, event="run.created"
)
CREATE_MANY = TaskSpec(
    "runs.create_many", "runs.batch", CreateRun, "create", ids_per_notification=100, event="run.created"
)
SUGGEST = TaskSpec(
    "runs.suggest_and_attach", "runs.advise", SuggestAndAttach, "explain", event="run.explained"
)
ATTACH = TaskSpec("runs.attach_advisory", "runs.advise", AttachAdvisory, "attach", event="advisory.attached")
#: All that a batch of re-explanations does, for a worker of its own that gives way to every other.
BACKGROUND_QUEUE = "runs.reexplain"
PLAN = TaskSpec("batches.plan", BACKGROUND_QUEUE, PlanBatch, "batch")
REEXPLAIN = TaskSpec(
    "runs.reexplain",
    BACKGROUND_QUEUE,
    ReexplainRun,
    "explain",
    ids_per_notification=10,
    event="run.explained",
)
REPORT = TaskSpec("batches.report", BACKGROUND_QUEUE, ReportBatch, "batch", event="batch.done")
DELIVER = TaskSpec("webhooks.deliver", "runs.notify", DeliverWebhook, "webhook")
#: By itself, so that however much is published, the audit log comes after at once.
AUDIT_QUEUE = "runs.audit"
SEAL = TaskSpec("audit.seal", AUDIT_QUEUE, SealLog, "audit")
TIMESTAMP = TaskSpec("audit.timestamp", AUDIT_QUEUE, TimestampCheckpoint, "timestamp")

TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (CREATE, CREATE_MANY, SUGGEST, ATTACH, PLAN, REEXPLAIN, REPORT, DELIVER, SEAL, TIMESTAMP)
}
QUEUES: tuple[str, ...] = tuple(dict.fromkeys(spec.queue for spec in TASKS.values()))
