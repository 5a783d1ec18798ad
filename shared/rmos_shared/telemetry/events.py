"""What happens, one type for each: its key, its level, its fields. Logs are a sink of it (``log.py``).

A docstring here is the entry of the event in the reference. Fields hold ids, counts, keys of files, and what
our own errors say; never a payload, a secret, or a text from outside. A key changes only with a note in the
changelog.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    key: ClassVar[str]
    level: ClassVar[int] = logging.WARNING


# -- jobs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsFinished(Event):
    """A notification is worked off: how many of its jobs are done, put off or dead."""

    key: ClassVar[str] = "jobs.finished"
    level: ClassVar[int] = logging.INFO
    task: str
    jobs: int
    done: int
    waiting: int
    dead: int
    milliseconds: float
    #: Of the first job.
    job_id: str
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    """The fields of a job that was not done."""

    task: str
    job_id: str
    run_id: str
    request_id: str | None
    reason: str
    #: The class of what was raised.
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRescheduled(JobFailed):
    """A job is put off. At level DEBUG when an outage puts off many; that is reported once."""

    key: ClassVar[str] = "job.rescheduled"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDead(JobFailed):
    """A job is among the dead letters."""

    key: ClassVar[str] = "job.dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGivenBack(JobFailed):
    """A job is in line again, because the process that worked on it is asked to end."""

    key: ClassVar[str] = "job.given_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementLost(Event):
    """The broker stayed away while a job was to be settled. The job will run again."""

    key: ClassVar[str] = "job.settlement_lost"
    level: ClassVar[int] = logging.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReadyAgain(Event):
    """A round of the reconciler put jobs in line again."""

    key: ClassVar[str] = "jobs.ready_again"
    level: ClassVar[int] = logging.DEBUG
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsNotPutBack(Event):
    """A closing channel could not put the jobs it had taken in line; they wait for the grace."""

    key: ClassVar[str] = "jobs.not_put_back"
    level: ClassVar[int] = logging.INFO


# -- messages -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRefused(Event):
    """A message that another program pushed onto a queue is a raw letter now."""

    key: ClassVar[str] = "message.refused"
    queue: str
    raw_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastDropped(Event):
    """A control message or event that Celery would trip over is passed over."""

    key: ClassVar[str] = "broadcast.dropped"
    exchange: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFailed(Event):
    """A control command failed; whoever sent it is told the class of the error."""

    key: ClassVar[str] = "control.failed"
    method: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsNotPublished(Event):
    """The last events for Flower could not be published by a worker that ends."""

    key: ClassVar[str] = "events.not_published"
    level: ClassVar[int] = logging.INFO
    error: str


# -- the ledger and its workers -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDamaged(Event):
    """Keys of the ledger are of a wrong type; an empty list: they are repaired."""

    key: ClassVar[str] = "ledger.damaged"
    level: ClassVar[int] = logging.ERROR
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordUnreadable(Event):
    """A list left out a job whose record cannot be read."""

    key: ClassVar[str] = "record.unreadable"
    level: ClassVar[int] = logging.ERROR
    job_id: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeFailed(Event):
    """The ledger refused to hand out jobs; reported once for each text."""

    key: ClassVar[str] = "message.take_failed"
    level: ClassVar[int] = logging.ERROR
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationSkipped(Event):
    """A round of the reconciler could not be made; the next comes within a second."""

    key: ClassVar[str] = "reconciliation.skipped"
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationFailed(Event):
    """A round of the reconciler met a bug, which the traceback names."""

    key: ClassVar[str] = "reconciliation.failed"
    level: ClassVar[int] = logging.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatLost(Event):
    """A heartbeat did not reach the ledger. If several in a row are lost, the worker's jobs run elsewhere."""

    key: ClassVar[str] = "worker.heartbeat_lost"
    worker: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatFailed(Event):
    """A heartbeat met a bug, which the traceback names."""

    key: ClassVar[str] = "worker.heartbeat_failed"
    level: ClassVar[int] = logging.ERROR
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireFailed(Event):
    """A worker that ends could not say so; its jobs run elsewhere once its lease has lapsed."""

    key: ClassVar[str] = "worker.retire_failed"
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleAccepted(Event):
    """A scheduled job is accepted, or was before."""

    key: ClassVar[str] = "schedule.accepted"
    level: ClassVar[int] = logging.INFO
    entry: str
    job_id: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRefused(Event):
    """An entry of the schedule is wrong; its job is not accepted."""

    key: ClassVar[str] = "schedule.refused"
    level: ClassVar[int] = logging.ERROR
    entry: str
    error: str


# -- the stores -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCorrupt(Event):
    """A stored file cannot be read as what it should be."""

    key: ClassVar[str] = "file.corrupt"
    level: ClassVar[int] = logging.ERROR
    file: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisoryStoreUnreachable(Event):
    """An outage of the advisory store begins: calls wait, and jobs with them."""

    key: ClassVar[str] = "advisory_store.unreachable"
    level: ClassVar[int] = logging.ERROR
    error: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisoryStoreBack(Event):
    """The outage of the advisory store is over."""

    key: ClassVar[str] = "advisory_store.back"
    outage_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerUnreachable(Event):
    """The breaker's state cannot be read or written; calls pass unguarded meanwhile."""

    key: ClassVar[str] = "breaker.unreachable"
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(Event):
    """The reference advisory store could not do what a request asked for, and the caller is not to blame."""

    key: ClassVar[str] = "request.failed"
    level: ClassVar[int] = logging.ERROR
    code: str
    error: str


# -- policies -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFailed(Event):
    """An approval policy met a bug, which the traceback names; a person must decide."""

    key: ClassVar[str] = "policy.failed"
    level: ClassVar[int] = logging.ERROR
    policy: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsafePolicyInForce(Event):
    """``UnsafeApproveAll`` approves every advisory unread, RED ones too."""

    key: ClassVar[str] = "policy.unsafe_approve_all"
