"""The error tree, ordered by what the caller should do next.

::

    RmosError
    ├── CallerError            correct the call; the same call can never succeed
    │   ├── InvalidRequest         one FieldProblem per wrong field
    │   ├── AttachmentTooLarge
    │   ├── NotFound
    │   │   ├── RunNotFound
    │   │   ├── JobNotFound
    │   │   ├── ActNotFound
    │   │   ├── AdvisoryNotFound
    │   │   ├── AttachmentNotFound
    │   │   ├── BatchNotFound
    │   │   └── EndpointNotFound
    │   ├── Conflict               the name is taken by other content
    │   │   ├── ArtifactConflict
    │   │   └── JobConflict
    │   ├── AdvisoryRefused        the advisory store said no, for good
    │   ├── WebhookRefused         the receiver did not take the message
    │   │   ├── WebhookForbidden       its address may not be called
    │   │   └── EndpointDisabled       disabled, or gone for good (410)
    │   ├── TimestampRefused       a time-stamp authority refused, or answered another query
    │   ├── TransitionRefused      the job or batch is not in a state that allows it
    │   ├── NumberDiffers          an act would reach more or fewer than its operator saw
    │   ├── SourceInvalid          nothing can be migrated from there
    │   └── SettingsInvalid
    ├── TryLater               nothing is wrong with the call; repeat it unchanged
    │   ├── BrokerUnavailable
    │   ├── AdvisoryUnavailable
    │   │   ├── AdvisoryMisconfigured  its address or token is wrong; an operator must correct the settings
    │   │   └── BreakerOpen        not even tried: the store was down a moment ago
    │   ├── StoreUnavailable       disk full, read-only, gone
    │   │   └── DurabilityUnknown  published, but the disk would not say that it will stay
    │   ├── WebhookUnavailable     the receiver did not answer, or asked for patience
    │   │   └── EndpointResting        not even tried
    │   ├── TimestampUnavailable   the time-stamp authority did not answer
    │   ├── TooManyClients
    │   ├── IndexUnavailable       its database does not answer, or others hold it
    │   ├── RunPending             the run is still on its way
    │   ├── AttachmentPending      what the run names is not stored yet
    │   ├── SealerBusy             another worker seals the audit log
    │   ├── UploadTimeout          the sender was too slow; nothing was kept
    │   └── WaitTimeout
    └── DamageFound            tell an operator; repeating or repairing the call does not help
        ├── BrokerDamaged          a key of the ledger is not what the ledger writes
        ├── IndexDamaged           it is missing, damaged, of another version or store: make it anew
        ├── CorruptArtifact        never a kind of NotFound, so that no broad handler eats it
        └── InvariantBroken

Each class carries its ``code`` (for machines), ``exit_code`` (of the ``rmos`` command) and
``http_status`` (of the gateway). Texts hold names, paths and reasons, never payload values or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class RmosError(Exception):
    """Something in rmos-runs failed."""

    code: ClassVar[str] = "RMOS_ERROR"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class CallerError(RmosError):
    """The call can never succeed as it is; repair it."""

    code = "CALLER_ERROR"
    exit_code = 3
    http_status = 400


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: a dotted path such as ``decision.score``, and why, without its value."""

    field: str
    reason: str

    def __str__(self) -> str:
        """Return ``field: reason``."""
        return f"{self.field}: {self.reason}"


class InvalidRequest(CallerError):
    """The request breaks the contract; every wrong field is named in ``problems``."""

    code = "INVALID_REQUEST"

    def __init__(self, problems: tuple[FieldProblem, ...], *, what: str = "request") -> None:
        """Keep ``problems`` (never empty) and say them in one line."""
        self.problems = problems
        self.what = what
        super().__init__(f"invalid {what}: " + "; ".join(map(str, problems)))

    @classmethod
    def of(cls, error: ValidationError, *, what: str = "request") -> InvalidRequest:
        """Translate pydantic's error, leaving out the values it would quote."""
        return cls(
            tuple(
                FieldProblem(
                    ".".join(str(part) for part in item["loc"]) or what,
                    item["msg"].removeprefix("Value error, "),
                )
                for item in error.errors(include_url=False, include_input=False, include_context=False)
            ),
            what=what,
        )


class NotFound(CallerError):
    """No such thing."""

    code = "NOT_FOUND"
    exit_code = 4
    http_status = 404


class RunNotFound(NotFound):
    """No run of this id is stored."""

    code = "RUN_NOT_FOUND"

    def __init__(self, run_id: str) -> None:
        """Name the run."""
        self.run_id = run_id
        super().__init__(f"run {run_id} is not in the store; `rmos runs list` shows what is")


class JobNotFound(NotFound):
    """The ledger holds no job of this id (done jobs leave it after a week)."""

    code = "JOB_NOT_FOUND"

    def __init__(self, job_id: str) -> None:
        """Name the job."""
        self.job_id = job_id
        super().__init__(f"job {job_id} is not in the ledger; done jobs leave it when their record expires")


class ActNotFound(NotFound):
    """The ledger holds no act of an operator of this id."""

    code = "ACT_NOT_FOUND"

    def __init__(self, act_id: str) -> None:
        """Name the act."""
        self.act_id = act_id
        super().__init__(f"act {act_id} is not in the ledger; `rmos acts list` shows what is")


class AdvisoryNotFound(NotFound):
    """The advisory store, or the run, has no advisory of this id."""

    code = "ADVISORY_NOT_FOUND"

    def __init__(self, advisory_id: str) -> None:
        """Name the advisory."""
        self.advisory_id = advisory_id
        super().__init__(f"advisory {advisory_id} was not found; check the id and the store's address")


class AttachmentNotFound(NotFound):
    """No attachment is stored under this key, or the run names none of this name."""

    code = "ATTACHMENT_NOT_FOUND"

    def __init__(self, key: str) -> None:
        """Name the attachment."""
        self.key = key
        super().__init__(f"attachment {key} was not found; it is named by its hash and suffix")


class AttachmentTooLarge(CallerError):
    """The attachment is larger than ``RMOS_MAX_ATTACHMENT_BYTES``; nothing was kept of it."""

    code = "ATTACHMENT_TOO_LARGE"
    http_status = 413

    def __init__(self, most_bytes: int) -> None:
        """Say how large it may be."""
        self.most_bytes = most_bytes
        super().__init__(
            f"the attachment is larger than the {most_bytes} bytes that RMOS_MAX_ATTACHMENT_BYTES allows"
        )


class BatchNotFound(NotFound):
    """Neither the ledger nor the store knows a batch of this id."""

    code = "BATCH_NOT_FOUND"

    def __init__(self, batch_id: str) -> None:
        """Name the batch."""
        self.batch_id = batch_id
        super().__init__(f"batch {batch_id} is not known; `rmos batches list` shows what is")


class EndpointNotFound(NotFound):
    """No webhook endpoint of this name is configured."""

    code = "ENDPOINT_NOT_FOUND"


class Conflict(CallerError):
    """The name is taken by different content, and what is there stays."""

    code = "CONFLICT"
    exit_code = 5
    http_status = 409


class ArtifactConflict(Conflict):
    """A file of this name is published with other content (contract section 4)."""

    code = "ARTIFACT_CONFLICT"

    def __init__(self, key: str) -> None:
        """Name the file."""
        self.key = key
        super().__init__(f"{key} is already published with different content; it stays as it is")


class JobConflict(Conflict):
    """A job of this id was accepted with another payload."""

    code = "JOB_CONFLICT"

    def __init__(self, job_id: str) -> None:
        """Name the job."""
        self.job_id = job_id
        super().__init__(f"job {job_id} was already accepted with a different payload; use a new id")


class AdvisoryRefused(CallerError):
    """The advisory store refused for a reason that repeating cannot change."""

    code = "ADVISORY_REFUSED"
    exit_code = 5
    http_status = 502


class WebhookRefused(CallerError):
    """A webhook's receiver did not take the message; a few tries later the same answer is final."""

    code = "WEBHOOK_REFUSED"
    exit_code = 5
    http_status = 502


class WebhookForbidden(WebhookRefused):
    """The address of a webhook endpoint may not be called: not allowed, or not public."""

    code = "WEBHOOK_FORBIDDEN"


class EndpointDisabled(WebhookRefused):
    """The webhook endpoint is disabled or no longer configured, or its receiver is gone for good (410)."""

    code = "ENDPOINT_DISABLED"
    http_status = 409


class TimestampRefused(CallerError):
    """A time-stamp authority refused, or its token is not of what it was asked for."""

    code = "TIMESTAMP_REFUSED"
    exit_code = 5
    http_status = 502


class TransitionRefused(CallerError):
    """The state of the job or batch does not allow this step."""

    code = "TRANSITION_REFUSED"
    exit_code = 5
    http_status = 409


class NumberDiffers(CallerError):
    """An act would reach another number than its operator confirmed; nothing was changed."""

    code = "NUMBER_DIFFERS"
    exit_code = 5
    http_status = 409


class SourceInvalid(CallerError):
    """What should be migrated is missing, cannot be read, or is of no known kind."""

    code = "SOURCE_INVALID"


class SettingsInvalid(CallerError):
    """A setting is missing or wrong; the text names its environment variable."""

    code = "SETTINGS_INVALID"
    exit_code = 2


class TryLater(RmosError):
    """Nothing is wrong with the call; the same call may succeed later."""

    code = "TRY_LATER"
    exit_code = 6
    http_status = 503


class BrokerUnavailable(TryLater):
    """Redis did not answer in time; repeating with the same ids is safe."""

    code = "BROKER_UNAVAILABLE"


class AdvisoryUnavailable(TryLater):
    """The advisory store did not answer, or asked for patience."""

    code = "ADVISORY_UNAVAILABLE"

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, outage: bool = False
    ) -> None:
        """Keep how long the store itself asked to wait, if it did, and whether nobody reaches it now."""
        self.retry_after_seconds = retry_after_seconds
        self.outage = outage
        super().__init__(message)


class AdvisoryMisconfigured(AdvisoryUnavailable):
    """The advisory store's address or our token for it is wrong; jobs wait until an operator repairs that."""

    code = "ADVISORY_MISCONFIGURED"


class BreakerOpen(AdvisoryUnavailable):
    """The circuit breaker is open: the call was not made, so no try is spent."""

    code = "BREAKER_OPEN"


class StoreUnavailable(TryLater):
    """The artifact store cannot be written or read now; nothing partial is visible."""

    code = "STORE_UNAVAILABLE"


class DurabilityUnknown(StoreUnavailable):
    """The name is published but the directory sync failed, so it may not survive a power cut."""

    code = "DURABILITY_UNKNOWN"


class WebhookUnavailable(TryLater):
    """A webhook's receiver did not answer in time, or asked for patience."""

    code = "WEBHOOK_UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        """Keep how long the receiver itself asked to wait, if it did."""
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class EndpointResting(WebhookUnavailable):
    """The receiver failed too often a moment ago, or has its share of the worker: the call was not made."""

    code = "ENDPOINT_RESTING"


class TimestampUnavailable(TryLater):
    """The time-stamp authority did not answer in time, or what answered is none."""

    code = "TIMESTAMP_UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        """Keep how long the authority itself asked to wait, if it did."""
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class TooManyClients(TryLater):
    """As many clients as allowed hold a connection of this kind open already."""

    code = "TOO_MANY_CLIENTS"


class IndexUnavailable(TryLater):
    """The index's database does not answer, or another process holds it; nothing of the store is in doubt."""

    code = "INDEX_UNAVAILABLE"


class RunPending(TryLater):
    """The run is accepted but not stored yet."""

    code = "RUN_PENDING"

    def __init__(self, run_id: str) -> None:
        """Name the run."""
        self.run_id = run_id
        super().__init__(f"run {run_id} is accepted and not stored yet")


class SealerBusy(TryLater):
    """Another worker seals the audit log at this moment."""

    code = "SEALER_BUSY"


class AttachmentPending(TryLater):
    """The run names an attachment that is not stored yet."""

    code = "ATTACHMENT_PENDING"

    def __init__(self, field: str) -> None:
        """Name the field of the request that names it."""
        self.field = field
        super().__init__(f"{field} names an attachment that is not stored yet")


class UploadTimeout(TryLater):
    """The upload came too slowly, and nothing of it was kept."""

    code = "UPLOAD_TIMEOUT"
    http_status = 408


class WaitTimeout(TryLater):
    """The job did not end within the time given; it goes on all the same."""

    code = "WAIT_TIMEOUT"
    http_status = 504


class DamageFound(RmosError):
    """Stored data is wrong; an operator must look."""

    code = "DAMAGE_FOUND"
    exit_code = 7


class BrokerDamaged(DamageFound):
    """A key of the ledger is not what the ledger writes; nothing was changed."""

    code = "BROKER_DAMAGED"


class IndexDamaged(DamageFound):
    """The index cannot be used: missing, damaged, or of another version or store; a rebuild makes it anew."""

    code = "INDEX_DAMAGED"

    def __init__(self, reason: str) -> None:
        """Say what is wrong with it."""
        self.reason = reason
        super().__init__(f"the index cannot be used: {reason}; `rmos index rebuild` makes it anew")


class CorruptArtifact(DamageFound):
    """A stored file cannot be read as what its name says. Corrupt is not missing."""

    code = "CORRUPT_ARTIFACT"

    def __init__(self, key: str, reason: str) -> None:
        """Name the file and what is wrong with it."""
        self.key = key
        self.reason = reason
        super().__init__(f"{key} is corrupt: {reason}; leave it in place and tell an operator")


class InvariantBroken(DamageFound):
    """accepted = done + dead + discarded + pending does not hold."""

    code = "INVARIANT_BROKEN"
    exit_code = 8
