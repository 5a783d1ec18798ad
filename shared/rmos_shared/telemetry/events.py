"""What happens, one type for each: its key, its level, its fields. Logs are a sink of it (``log.py``).

A docstring here is the entry of the event in the reference. Fields hold ids, counts, keys of files, and what
our own errors say; never a payload, a secret, or a text from outside. A key changes only with a note in the
changelog.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, dataclass_transform


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; a subclass is a frozen dataclass of its fields, all given by name."""

    key: ClassVar[str]
    level: ClassVar[int] = logging.WARNING

    def __init_subclass__(cls, *, key: str | None = None, level: int | None = None) -> None:
        """Take key and level from the class statement; what has no key is only a base of others."""
        if key is not None:
            cls.key = key
        if level is not None:
            cls.level = level
        dataclass(frozen=True, kw_only=True)(cls)


# -- jobs -----------------------------------------------------------------------------------------


class JobsFinished(Event, key="jobs.finished", level=logging.INFO):
    """A notification is worked off: how many of its jobs are done, put off or dead."""

    task: str
    jobs: int
    done: int
    waiting: int
    dead: int
    milliseconds: float
    #: Of the first job.
    job_id: str
    run_id: str
    request_id: str | None


class JobFailed(Event):
    """The fields of a job that was not done."""

    task: str
    job_id: str
    run_id: str
    request_id: str | None
    reason: str
    #: The class of what was raised.
    error: str


class JobRescheduled(JobFailed, key="job.rescheduled"):
    """A job is put off. At level DEBUG when an outage puts off many; that is reported once."""


class JobDead(JobFailed, key="job.dead"):
    """A job is among the dead letters."""


class JobGivenBack(JobFailed, key="job.given_back"):
    """A job is in line again, because the process that worked on it is asked to end."""


class SettlementLost(Event, key="job.settlement_lost", level=logging.ERROR):
    """The broker stayed away while a job was to be settled. The job will run again."""


class JobsReadyAgain(Event, key="jobs.ready_again", level=logging.DEBUG):
    """A round of the reconciler put jobs in line again."""

    jobs: int


class JobsNotPutBack(Event, key="jobs.not_put_back", level=logging.INFO):
    """A closing channel could not put the jobs it had taken in line; they wait for the grace."""


# -- messages -------------------------------------------------------------------------------------


class MessageRefused(Event, key="message.refused"):
    """A message that another program pushed onto a queue is a raw letter now."""

    queue: str
    raw_id: str


class BroadcastDropped(Event, key="broadcast.dropped"):
    """A control message or event that Celery would trip over is passed over."""

    exchange: str
    error: str


class ControlFailed(Event, key="control.failed"):
    """A control command failed; whoever sent it is told the class of the error."""

    method: str
    error: str


class EventsNotPublished(Event, key="events.not_published", level=logging.INFO):
    """The last events for Flower could not be published by a worker that ends."""

    error: str


class FlowerStarted(Event, key="flower.started", level=logging.INFO):
    """Flower listens; with ``controls`` whoever may look may also revoke tasks and shut workers down."""

    address: str
    port: int
    controls: bool


# -- the ledger and its workers -------------------------------------------------------------------


class LedgerDamaged(Event, key="ledger.damaged", level=logging.ERROR):
    """Keys of the ledger are of a wrong type; an empty list: they are repaired."""

    keys: tuple[str, ...]


class RecordUnreadable(Event, key="record.unreadable", level=logging.ERROR):
    """A list left out a job, or an act of an operator, whose record cannot be read."""

    job_id: str
    error: str


class TakeFailed(Event, key="message.take_failed", level=logging.ERROR):
    """The ledger refused to hand out jobs; reported once for each text."""

    error: str


class ReconciliationSkipped(Event, key="reconciliation.skipped"):
    """A round of the reconciler could not be made; the next comes within a second."""

    error: str


class ReconciliationFailed(Event, key="reconciliation.failed", level=logging.ERROR):
    """A round of the reconciler met a bug, which the traceback names."""


class HeartbeatLost(Event, key="worker.heartbeat_lost"):
    """A heartbeat did not reach the ledger. If several in a row are lost, the worker's jobs run elsewhere."""

    worker: str
    error: str


class HeartbeatFailed(Event, key="worker.heartbeat_failed", level=logging.ERROR):
    """A heartbeat met a bug, which the traceback names."""

    worker: str


class RetireFailed(Event, key="worker.retire_failed"):
    """A worker that ends could not say so; its jobs run elsewhere once its lease has lapsed."""

    worker: str


class WorkerStalled(Event, key="worker.stalled", level=logging.ERROR):
    """A worker takes no jobs though it could, or its loop stands still; `/livez` fails until that changes."""

    state: str
    queues: tuple[str, ...]


class WorkerAliveAgain(Event, key="worker.alive_again"):
    """A worker that had stalled takes jobs again."""


class WatchFailed(Event, key="worker.watch_failed", level=logging.ERROR):
    """A look at whether this worker takes jobs met a bug, which the traceback names; the next comes soon."""


class ScheduleAccepted(Event, key="schedule.accepted", level=logging.INFO):
    """The batch of an entry of the schedule is opened, or was before."""

    entry: str
    batch_id: str
    outcome: str
    #: Whether it comes late, for beat was away, or the schedule paused, when it was due.
    late: bool


class ScheduleHeld(Event, key="schedule.held"):
    """An entry is due while an operator has the schedule paused; it is made up for once that is over."""

    entry: str


class ScheduleRefused(Event, key="schedule.refused", level=logging.ERROR):
    """An entry of the schedule is wrong; it opens no batch."""

    entry: str
    error: str


class ScheduleDelayed(Event, key="schedule.delayed"):
    """Beat could not ask the ledger, or open a batch there; it looks again within half a minute."""

    entry: str
    error: str


class BatchUnreadable(Event, key="batch.unreadable", level=logging.ERROR):
    """What the ledger has of a batch cannot be read; the batch stands still."""

    batch_id: str
    error: str


class BatchEnded(Event, key="batch.ended", level=logging.INFO):
    """The last job of a batch has ended and its report is written."""

    batch_id: str
    state: str
    jobs: int
    linked: int
    dead: int


# -- the audit log --------------------------------------------------------------------------------


class LogSealed(Event, key="log.sealed", level=logging.INFO):
    """The audit log has a new checkpoint."""

    #: Entries of the log.
    size: int
    #: Of one job.
    seals: int
    records: int
    #: Of these, what lay in the store and nobody had told of.
    late: int
    signed: bool


class LogUnsigned(Event, key="log.unsigned"):
    """The worker that seals the audit log has no key: whoever can write to the store could make it anew."""


class KeyUnintroduced(Event, key="key.unintroduced", level=logging.ERROR):
    """An act names a new key for the audit log, and the key in use has not signed that: it is not trusted."""

    act_id: str


class PublicationsUntold(Event, key="publications.untold"):
    """The ledger could not be told what was published; the audit log will find it in the store, as late."""

    error: str


class ActUnrecorded(Event, key="act.unrecorded"):
    """The broker is away, so something was done without the record of the act that it is."""

    kind: str


class StartUnrecorded(Event, key="start.unrecorded"):
    """That this process began is not on record yet; it is tried again until it is."""

    error: str


class FeedUnreadable(Event, key="feed.unreadable", level=logging.ERROR):
    """Another program wrote an entry of the audit log's feed, or some of its publications: passed by."""

    feed_id: str
    error: str


# -- the stores -----------------------------------------------------------------------------------


class FileCorrupt(Event, key="file.corrupt", level=logging.ERROR):
    """A stored file cannot be read as what it should be."""

    file: str
    reason: str


class AdvisoryStoreUnreachable(Event, key="advisory_store.unreachable", level=logging.ERROR):
    """An outage of the advisory store begins: calls wait, and jobs with them."""

    error: str
    reason: str


class AdvisoryStoreBack(Event, key="advisory_store.back"):
    """The outage of the advisory store is over."""

    outage_seconds: float


class BreakerUnreachable(Event, key="breaker.unreachable"):
    """The breaker's state cannot be read or written; calls pass unguarded meanwhile."""

    error: str


class RequestFailed(Event, key="request.failed", level=logging.ERROR):
    """The reference advisory store could not do what a request asked for, and the caller is not to blame."""

    code: str
    error: str


# -- webhooks -------------------------------------------------------------------------------------


class WebhookEndpointDisabled(Event, key="webhook.endpoint_disabled", level=logging.ERROR):
    """A webhook's receiver said that it is gone for good (410); `rmos webhooks enable` takes it up again."""

    endpoint: str


class WebhooksNotConfigured(Event, key="webhooks.not_configured"):
    """The ledger could not be told which webhook endpoints there are; that is tried again each second."""

    error: str


# -- the index ------------------------------------------------------------------------------------


class IndexUnused(Event, key="index.unused", level=logging.ERROR):
    """Lists are answered by the store, slower, because the index is damaged or away."""

    error: str


class IndexInUse(Event, key="index.in_use", level=logging.INFO):
    """Lists are answered by the index again."""


class IndexRebuilding(Event, key="index.rebuilding"):
    """The index is made anew from the store."""

    reason: str


class IndexRebuilt(Event, key="index.rebuilt", level=logging.INFO):
    """The index was made anew, and is in use from now on."""

    runs: int
    corrupt: int
    seconds: float


class IndexerWaiting(Event, key="indexer.waiting"):
    """The indexer cannot do its work now and tries again; lists say up to when they are complete."""

    error: str


class IndexerFailed(Event, key="indexer.failed", level=logging.ERROR):
    """The indexer met a bug, which the traceback names; it tries again."""


# -- traces ---------------------------------------------------------------------------------------


class TracesNotExported(Event, key="traces.not_exported"):
    """This process has spans to export, and cannot; its work goes on without. Reported once an outage."""

    reason: str


class TracesExported(Event, key="traces.exported", level=logging.INFO):
    """The collector takes spans again."""


# -- policies -------------------------------------------------------------------------------------


class PolicyFailed(Event, key="policy.failed", level=logging.ERROR):
    """An approval policy met a bug, which the traceback names; a person must decide."""

    policy: str
    run_id: str


class UnsafePolicyInForce(Event, key="policy.unsafe_approve_all"):
    """``UnsafeApproveAll`` approves every advisory unread, RED ones too."""


# -- the gateway ----------------------------------------------------------------------------------


class RequestFinished(Event, key="request.finished", level=logging.INFO):
    """The gateway has answered a request, or its client went away (status 499)."""

    method: str
    #: The template, such as /api/rmos/runs/{run_id}.
    route: str
    status: int
    milliseconds: float
    request_id: str
    caller: str


class ChangeRefused(Event, key="request.change_refused"):
    """Somebody asked the gateway to change or delete what never changes."""

    method: str
    route: str
    run_id: str | None
    request_id: str
    caller: str


class GatewayFailed(Event, key="gateway.failed", level=logging.ERROR):
    """A request met damage, a part that is away, or a bug; a bug comes with its traceback."""

    code: str
    error: str
    request_id: str


class ApiKeysChanged(Event, key="api_keys.changed", level=logging.INFO):
    """The file of API keys was read again; so many are in force."""

    keys: int


class ApiKeysUnreadable(Event, key="api_keys.unreadable", level=logging.ERROR):
    """The file of API keys is damaged, empty or gone; the last good keys stay in force."""

    error: str
