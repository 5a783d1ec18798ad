"""What only the gateway refuses, or cannot do now."""

from __future__ import annotations

from rmos_shared.errors import CallerError, TryLater
from rmos_shared.jobs.model import JobRecord


class KeyRequired(CallerError):
    """No API key came with the call, or none that is known."""

    code = "KEY_REQUIRED"
    http_status = 401


class RoleRequired(CallerError):
    """The caller may not do this."""

    code = "ROLE_REQUIRED"
    http_status = 403


class RouteNotFound(CallerError):
    """The gateway has nothing at this path."""

    code = "ROUTE_NOT_FOUND"
    exit_code = 4
    http_status = 404


class MethodRefused(CallerError):
    """The path is there, and this method is not; a stored run never changes (contract section 4)."""

    code = "METHOD_REFUSED"
    exit_code = 5
    http_status = 405

    def __init__(self, allowed: str) -> None:
        """Name the methods that there are."""
        self.allowed = allowed
        super().__init__(f"this method is not served here; allowed: {allowed}")


class BodyTooSlow(CallerError):
    """The body did not arrive in time."""

    code = "BODY_TOO_SLOW"
    http_status = 408


class JobDead(CallerError):
    """The job that the caller waited for is among the dead letters; repeating the call does not help."""

    code = "JOB_DEAD"
    exit_code = 9
    http_status = 409

    def __init__(self, record: JobRecord) -> None:
        """Say why it died, as far as the ledger may show it."""
        self.record = record
        failure = record.failure
        self.reason = "unknown" if failure is None else failure.reason
        why = "" if failure is None else f": {failure.message}"
        super().__init__(
            f"job {record.job_id} was accepted and is {record.state.value} ({self.reason}){why}; an operator "
            "finds it among the dead letters and can replay it"
        )


class BodyTooLarge(CallerError):
    """The body is larger than the gateway takes."""

    code = "BODY_TOO_LARGE"
    http_status = 413


class IdempotencyMismatch(CallerError):
    """The Idempotency-Key was used before with another request."""

    code = "IDEMPOTENCY_MISMATCH"
    exit_code = 5
    http_status = 422


class RateExceeded(TryLater):
    """The key makes more requests than it may; the answer says when to come again."""

    code = "RATE_EXCEEDED"
    http_status = 429

    def __init__(self, retry_after_seconds: float) -> None:
        """Keep how long to wait."""
        self.retry_after_seconds = retry_after_seconds
        super().__init__("this key makes more requests than it may; see Retry-After")


class GatewayBusy(TryLater):
    """The gateway has as much under way as it takes."""

    code = "GATEWAY_BUSY"


class RequestTimeout(TryLater):
    """The request took longer than it may; what it asked for may or may not be done."""

    code = "REQUEST_TIMEOUT"
    http_status = 504
