"""The doorbell: a Celery message that carries job ids and nothing else.

Flower, logs and ``inspect`` therefore cannot leak a payload. Losing a bell costs only time, for the
reconciler rings again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

from celery import Celery
from kombu.exceptions import BatchPublishError, KombuError  # type: ignore[attr-defined]  # stubs older than kombu 5.7
from redis.exceptions import RedisError

from rmos_shared.broker import celery_config
from rmos_shared.settings import BrokerSettings
from rmos_shared.tasks import TASKS, TaskSpec

logger = logging.getLogger(__name__)

#: Messages sent in one round trip.
_BATCH_MESSAGES = 500
_UNDELIVERED = (BatchPublishError, KombuError, RedisError, OSError)


class Doorbell:
    """Rings for jobs that the ledger holds already. Thread safe."""

    def __init__(self, app: Celery) -> None:
        """Publish through ``app``'s connections."""
        self._app = app

    @classmethod
    def connect(cls, settings: BrokerSettings) -> Doorbell:
        """Return a doorbell with an app of its own; connects when first rung."""
        app = Celery("rmos", set_as_current=False)
        app.conf.update(celery_config(settings))
        # A caller waits for the bell, though not in vain without it: connecting must not take it long.
        seconds = settings.broker_timeout_seconds / 2
        app.conf.broker_transport_options |= {"socket_connect_timeout": seconds, "socket_timeout": seconds}
        return cls(app)

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    def ring(self, jobs: Iterable[tuple[str, str]], *, again: bool = False) -> bool:
        """Publish bells for (task name, job id) pairs, grouped as their tasks allow.

        ``again`` gives the messages ids of their own: revoking a task in Flower must not silence later bells.

        Returns whether all went out. A broker that is away is logged and otherwise ignored: the jobs are
        in the ledger, so their bells count as lost and are rung again.
        """
        bells = list(_bells(jobs))
        try:
            with (
                self._app.producer_pool.acquire(block=True, timeout=5) as producer,
                producer.batch(_BATCH_MESSAGES),  # type: ignore[attr-defined]  # as above
            ):
                for spec, job_ids in bells:
                    self._app.send_task(
                        spec.name,
                        args=[job_ids],
                        queue=spec.queue,
                        task_id=_message_id(job_ids, again=again),
                        producer=producer,
                        retry=False,
                    )
        except _UNDELIVERED as error:
            logger.warning(
                "doorbells not delivered; the reconciler will ring again",
                extra={"bells": len(bells), "error": type(error).__name__},
            )
            return False
        return True


def _bells(jobs: Iterable[tuple[str, str]]) -> Iterator[tuple[TaskSpec, list[str]]]:
    for task, group in groupby(jobs, key=lambda pair: pair[0]):
        spec = TASKS[task]
        ids = (job_id for _, job_id in group)
        while chunk := list(islice(ids, spec.ids_per_bell)):
            yield spec, chunk


def _message_id(job_ids: Sequence[str], *, again: bool) -> str:
    # A single job's first message bears the job's id, so that Flower finds it by that.
    return job_ids[0] if len(job_ids) == 1 and not again else f"{job_ids[0]}~{secrets.token_hex(4)}"
