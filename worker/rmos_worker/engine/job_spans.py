"""A span for each job: from its claim to its settlement, in the trace of whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rmos_shared.jobs.work import Claim
from rmos_shared.tasks.table import TASKS
from rmos_shared.telemetry.traces.base import Kind, Span, Traces


class JobSpans:
    """The spans of jobs of one task that are done together.

    One for each job and not for the group: a person follows one request, and wants to see its job in its
    trace. The jobs of a group share the time that they took, so each span tells how many they were.
    """

    def __init__(self, traces: Traces, claims: Sequence[Claim]) -> None:
        """Begin them; where nobody sees spans, nothing is done."""
        self._spans: list[tuple[str, Span]] = []
        #: The jobs, and in them the place in the trace of what they cause.
        self.claims: Sequence[Claim] = claims
        if traces.exported:
            self._spans = [(claim.job_id, _begin(traces, claim, len(claims))) for claim in claims]
            self.claims = [
                replace(claim, traceparent=span.traceparent)
                for claim, (_, span) in zip(claims, self._spans, strict=True)
            ]

    def end(self, outcome: Callable[[str], str], errors: Mapping[str, BaseException]) -> None:
        """End them; ``outcome`` returns the state of a job, ``errors`` are what was raised, by job."""
        for job_id, span in self._spans:
            error = errors.get(job_id)
            span.end({"rmos.outcome": outcome(job_id)}, error=None if error is None else type(error).__name__)


def _begin(traces: Traces, claim: Claim, together: int) -> Span:
    queue = TASKS[claim.task].queue
    attributes: dict[str, str | int | bool] = {
        "messaging.system": "rmos",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": claim.job_id,
        "messaging.batch.message_count": together,
        "rmos.task": claim.task,
        "rmos.run_id": claim.run_id,
        "rmos.retry_count": claim.retry_count,
    }
    if claim.request_id is not None:
        attributes["rmos.request_id"] = claim.request_id
    return traces.begin(
        f"process {claim.task}", Kind.CONSUMER, parent=claim.traceparent, attributes=attributes
    )
