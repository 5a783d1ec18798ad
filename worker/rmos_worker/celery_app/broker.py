"""Celery's settings, the same for whoever publishes, consumes or watches (docs/celery.md).

Every process takes these options from here, Flower included.
"""

from __future__ import annotations

from typing import Any

from kombu import Queue

from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import DEAD_LETTER_QUEUE, QUEUES

#: Longest run of one task, in seconds, on the prefork pool; the child is killed then.
HARD_LIMIT_SECONDS = 300
SOFT_LIMIT_SECONDS = 240


def celery_config(settings: BrokerSettings) -> dict[str, Any]:
    """Return the Celery settings for this broker."""
    return {
        "broker_url": settings.broker_url.get_secret_value(),
        "broker_transport_options": {
            # kombu's own copy of messages in hand would be a second truth beside the ledger, two synced
            # writes a job, and an hour slower.
            "ack_emulation": False,
            # Longest that one stale connection holds the worker up; it has several, one after the other.
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            # A half-open connection is found after this and one wait, not after the 25 s of kombu.
            "health_check_interval": 5,
        },
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "broker_channel_error_retry": True,
        "task_queues": [
            *(Queue(name, routing_key=name) for name in QUEUES),
            Queue(DEAD_LETTER_QUEUE, routing_key=DEAD_LETTER_QUEUE),
        ],
        "task_default_queue": QUEUES[0],
        "task_create_missing_queues": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Celery's retry has an ETA, which the gate refuses; the lapsed lease brings the job back.
        "task_retry_on_worker_lost": False,
        "task_track_started": True,
        "task_time_limit": HARD_LIMIT_SECONDS,
        "task_soft_time_limit": SOFT_LIMIT_SECONDS,
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": 1,
        # SIGTERM lets running tasks end; SIGQUIT gives them this long. Not on idle workers: there is
        # nothing in their memory that the ledger does not have.
        "worker_soft_shutdown_timeout": 60.0,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "timezone": "UTC",
        "enable_utc": True,
    }
