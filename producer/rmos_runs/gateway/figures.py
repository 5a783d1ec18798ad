"""The state of the system as metrics: what no worker can tell, read once by the gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rmos_runs.operations.sealing_status import SealingStatus
from rmos_runs.operations.status import SystemStatus
from rmos_shared.jobs.arguments import CODE_VERSION
from rmos_shared.jobs.figures.model import LedgerFigures
from rmos_shared.jobs.model import DeadReason, LedgerStats, WaitReason
from rmos_shared.tasks.table import QUEUES, TASKS
from rmos_shared.telemetry import metrics
from rmos_shared.telemetry.prometheus import Family, family

_PARTS = ("ledger", "storage", "index", "reviews")
_BREAKER_STATES = ("closed", "open", "half_open")
#: Other programs can write any word into the ledger; each would be a series of its own.
_OTHER = "other"


def families(status: SystemStatus | None, *, read_seconds: float) -> list[Family]:
    """Return the metrics of a status; what is away is left out. None: it could not be read at all."""
    away = {*_PARTS} if status is None else {part.part for part in status.unreachable}
    told = [
        family(metrics.PART_UP, (((part,), float(part not in away)) for part in _PARTS)),
        family(metrics.STATUS_READ, [((), read_seconds)]),
        family(metrics.BUILD, [((CODE_VERSION,), 1.0)]),
    ]
    if status is None:
        return told
    if status.ledger is not None:
        told += _stats(status.ledger)
    if status.figures is not None:
        told += _figures(status.figures)
    if status.storage is not None:
        told += [
            family(metrics.STORAGE_FREE, [((), float(status.storage.free_bytes))]),
            family(metrics.STORAGE_SIZE, [((), float(status.storage.total_bytes))]),
        ]
    if status.index is not None:
        told.append(family(metrics.INDEX_BEHIND, [((), status.index.behind_seconds)]))
    if status.reviews is not None:
        told.append(family(metrics.REVIEWS, [((), float(status.reviews.runs))]))
    if status.audit is not None:
        told += _audit(status.audit)
    return told


def _audit(audit: SealingStatus) -> list[Family]:
    return [
        family(metrics.AUDIT_ENTRIES, [((), float(audit.entries))]),
        family(metrics.AUDIT_AGE, [] if audit.sealed_seconds is None else [((), audit.sealed_seconds)]),
        family(metrics.AUDIT_OVERDUE, [((), audit.overdue_seconds)]),
        family(metrics.AUDIT_UNSEALED, [((), float(audit.unsealed))]),
        family(metrics.AUDIT_UNSEALED_AGE, [((), audit.oldest_unsealed_seconds or 0.0)]),
        family(metrics.AUDIT_DEAD, [((), float(audit.dead_job is not None))]),
        family(metrics.AUDIT_SIGNED, [((), float(audit.signed_by is not None))]),
        family(metrics.AUDIT_SEALS, [((), float(audit.seals))]),
        family(metrics.AUDIT_LATE, [((), float(audit.late))]),
    ]


def _stats(stats: LedgerStats) -> list[Family]:
    states = {
        "accepted": stats.ready,
        "running": stats.running,
        "waiting": stats.waiting,
        "dead": stats.dead,
        "discarded": stats.discarded,
    }
    return [
        family(metrics.JOBS, (((state,), float(jobs)) for state, jobs in states.items())),
        family(metrics.JOBS_ACCEPTED, [((), float(stats.accepted))]),
        family(metrics.JOBS_DONE, [((), float(stats.done))]),
        family(metrics.INVARIANT, [((), float(stats.invariant))]),
        family(metrics.RAW_LETTERS, [((), float(stats.raw))]),
    ]


def _figures(figures: LedgerFigures) -> list[Family]:
    ages: dict[str, float] = dict.fromkeys(QUEUES, 0.0)
    for queue in figures.queues:
        name = queue.queue if queue.queue in QUEUES else _OTHER
        ages[name] = max(ages.get(name, 0.0), queue.oldest_ready_seconds or 0.0)
    breaker, outage = figures.breaker, figures.breaker.since_utc
    beating = [worker for worker in figures.workers if not worker.silent]
    return [
        _counted(metrics.QUEUE_READY, ((queue.queue, queue.ready) for queue in figures.queues), QUEUES),
        family(metrics.QUEUE_AGE, (((queue,), age) for queue, age in ages.items())),
        _counted(metrics.WAITING, ((group.reason, group.jobs) for group in figures.waiting), [*WaitReason]),
        _counted(
            metrics.DEAD_LETTERS,
            ((group.reason, group.letters) for group in figures.dead_letters),
            [*DeadReason],
        ),
        family(
            metrics.JOB_LATENCY,
            (
                ((flow.task, quantile), seconds)
                for flow in figures.flow
                if flow.task in TASKS
                for quantile, seconds in (
                    ("0.5", flow.accepted_to_done_seconds_p50),
                    ("0.99", flow.accepted_to_done_seconds_p99),
                )
                if seconds is not None
            ),
        ),
        family(metrics.BREAKER, (((state,), float(state == breaker.state)) for state in _BREAKER_STATES)),
        family(
            metrics.OUTAGE,
            [((), 0.0 if outage is None else max(0.0, (figures.at_utc - outage).total_seconds()))],
        ),
        family(
            metrics.WORKERS,
            [
                (("beating",), float(len(beating))),
                (("silent",), float(len(figures.workers) - len(beating))),
            ],
        ),
        family(
            metrics.HEARTBEAT_AGE,
            [((), max((worker.heartbeat_seconds or 0.0 for worker in beating), default=0.0))],
        ),
    ]


def _counted(metric: metrics.Metric, groups: Iterable[tuple[str, int]], known: Iterable[str]) -> Family:
    """Return a gauge with a value for each known word, none missing, and one for all others together."""
    counts = Counter(dict.fromkeys(map(str, known), 0))
    for word, count in groups:
        counts[word if word in counts else _OTHER] += count
    return family(metric, (((word,), float(count)) for word, count in counts.items()))
