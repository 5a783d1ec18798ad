"""The metrics that the processes export for Prometheus: one table, for code, reference and checks.

Labels have few values each: names of tasks, queues, states, reasons, events and routes. No id is among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as ``/metrics`` names it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


# -- counted by each process, from the events that it reports -------------------------------------

EVENTS = Metric("rmos_events_total", "counter", "Events, by the key that the log has too.", ("event",))
JOBS_SETTLED = Metric(
    "rmos_jobs_settled_total",
    "counter",
    "Jobs that a worker has settled, by what became of them: done, waiting or dead.",
    ("task", "outcome"),
)
JOB_FAILURES = Metric(
    "rmos_job_failures_total",
    "counter",
    "Tries of jobs that failed, by what was decided (rescheduled, dead, given_back) and why.",
    ("task", "outcome", "reason"),
)
TASK_DURATION = Metric(
    "rmos_task_duration_seconds",
    "histogram",
    "Time that a worker took for the jobs of one notification, from its claim to their settlement.",
    ("task",),
)
HTTP_REQUESTS = Metric(
    "rmos_http_requests_total",
    "counter",
    "Requests that the gateway has answered; 499 is for clients that went away.",
    ("method", "route", "status"),
)
HTTP_DURATION = Metric(
    "rmos_http_request_duration_seconds",
    "histogram",
    "Time from the head of a request to the end of its answer, waits asked for by the caller included.",
    ("route",),
)

# -- seen by each worker --------------------------------------------------------------------------

WORKER_ALIVE = Metric(
    "rmos_worker_alive", "gauge", "1 while `/livez` says that this worker is alive, 0 once it is stalled."
)
WORKER_SLOTS = Metric("rmos_worker_slots", "gauge", "Tasks that this worker can do at one time.")
WORKER_BUSY = Metric("rmos_worker_busy_slots", "gauge", "Tasks that this worker is doing.")
WORKER_TAKEN = Metric(
    "rmos_worker_notifications_total", "counter", "Notifications that this worker has begun to work on."
)
WORKER_IDLE = Metric(
    "rmos_worker_idle_seconds",
    "gauge",
    "How long jobs have been in line, a slot free, and none taken; 0 as soon as one of these is not so.",
)
WORKER_LOOP = Metric(
    "rmos_worker_loop_age_seconds",
    "gauge",
    "Time since this worker's loop, which takes the jobs, turned last.",
)
BUILD = Metric("rmos_build_info", "gauge", "1; the label says which version runs.", ("version",))

# -- read by the gateway, once for all, when it is asked ------------------------------------------

PART_UP = Metric(
    "rmos_part_up",
    "gauge",
    "1 where the gateway could read this part, else 0 and its figures are left out.",
    ("part",),
)
JOBS = Metric(
    "rmos_jobs", "gauge", "Jobs in the ledger, by state; done ones are counted by a counter.", ("state",)
)
JOBS_ACCEPTED = Metric("rmos_jobs_accepted_total", "counter", "Jobs that the ledger has accepted.")
JOBS_DONE = Metric("rmos_jobs_done_total", "counter", "Jobs that are done.")
INVARIANT = Metric(
    "rmos_invariant_holds", "gauge", "1 while accepted = done + dead + discarded + pending, else 0: a defect."
)
RAW_LETTERS = Metric("rmos_raw_letters", "gauge", "Messages of other programs among the dead letters.")
QUEUE_READY = Metric("rmos_queue_ready_jobs", "gauge", "Jobs in line.", ("queue",))
QUEUE_AGE = Metric(
    "rmos_queue_oldest_ready_age_seconds",
    "gauge",
    "How long the first in line has been; 0: nobody is.",
    ("queue",),
)
WAITING = Metric(
    "rmos_waiting_jobs", "gauge", "Jobs that are put off, of the first 10,000 due, by why.", ("reason",)
)
DEAD_LETTERS = Metric(
    "rmos_dead_letters", "gauge", "Dead letters, of the latest 10,000, by why.", ("reason",)
)
JOB_LATENCY = Metric(
    "rmos_job_latency_seconds",
    "gauge",
    "Time from a job's acceptance to its end, over those done in the last five minutes.",
    ("task", "quantile"),
)
BREAKER = Metric(
    "rmos_breaker_state",
    "gauge",
    "1 for the state that the breaker before the advisory store is in.",
    ("state",),
)
OUTAGE = Metric(
    "rmos_advisory_outage_seconds", "gauge", "How long the advisory store has been away; 0: it is not."
)
WORKERS = Metric(
    "rmos_worker_processes", "gauge", "Processes that run tasks, by whether their heart beats.", ("state",)
)
HEARTBEAT_AGE = Metric(
    "rmos_worker_heartbeat_age_seconds",
    "gauge",
    "The oldest last heartbeat of the processes whose heart beats.",
)
STORAGE_FREE = Metric("rmos_storage_free_bytes", "gauge", "Room that is left to the artifact store.")
STORAGE_SIZE = Metric(
    "rmos_storage_size_bytes", "gauge", "Size of the file system that the artifact store is on."
)
INDEX_BEHIND = Metric(
    "rmos_index_behind_seconds",
    "gauge",
    "How far the index is behind the artifact store; none: there is no index.",
)
REVIEWS = Metric("rmos_reviews_waiting_runs", "gauge", "Runs that wait for a person, of the first 1,000.")
AUDIT_ENTRIES = Metric("rmos_audit_log_entries", "gauge", "Entries of the audit log's newest checkpoint.")
AUDIT_AGE = Metric(
    "rmos_audit_checkpoint_age_seconds",
    "gauge",
    "Age of the audit log's newest checkpoint; none: nothing is sealed yet.",
)
AUDIT_OVERDUE = Metric(
    "rmos_audit_overdue_seconds", "gauge", "How much later the next seal is than the last one promised."
)
AUDIT_UNSEALED = Metric(
    "rmos_audit_unsealed", "gauge", "Publications and acts that the audit log does not hold yet."
)
AUDIT_UNSEALED_AGE = Metric(
    "rmos_audit_oldest_unsealed_age_seconds", "gauge", "How long the oldest of these waits; 0: there is none."
)
AUDIT_DEAD = Metric(
    "rmos_audit_seal_job_dead", "gauge", "1 while the seal job is a dead letter: nothing is sealed till then."
)
AUDIT_SIGNED = Metric("rmos_audit_signed", "gauge", "1 where the newest checkpoint is signed, else 0.")
AUDIT_SEALS = Metric("rmos_audit_seals_total", "counter", "Seals of the audit log.")
AUDIT_LATE = Metric(
    "rmos_audit_late_entries_total",
    "counter",
    "Files that lay in the store and nobody had told the audit log of in time.",
)
STATUS_READ = Metric("rmos_status_read_seconds", "gauge", "Time that reading the figures above took.")

OF_BOTH = (EVENTS, JOBS_SETTLED, JOB_FAILURES, TASK_DURATION, HTTP_REQUESTS, HTTP_DURATION, BUILD)
OF_WORKERS = (WORKER_ALIVE, WORKER_SLOTS, WORKER_BUSY, WORKER_TAKEN, WORKER_IDLE, WORKER_LOOP)
OF_STATUS = (
    *(PART_UP, JOBS, JOBS_ACCEPTED, JOBS_DONE, INVARIANT, RAW_LETTERS, QUEUE_READY, QUEUE_AGE, WAITING),
    *(DEAD_LETTERS, JOB_LATENCY, BREAKER, OUTAGE, WORKERS, HEARTBEAT_AGE, STORAGE_FREE, STORAGE_SIZE),
    *(INDEX_BEHIND, REVIEWS, AUDIT_ENTRIES, AUDIT_AGE, AUDIT_OVERDUE, AUDIT_UNSEALED, AUDIT_UNSEALED_AGE),
    *(AUDIT_DEAD, AUDIT_SIGNED, AUDIT_SEALS, AUDIT_LATE, STATUS_READ),
)
