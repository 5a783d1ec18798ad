"""The step that lets a worker be watched: its endpoint, its liveness, its metrics."""

from __future__ import annotations

import atexit
from http import HTTPStatus
from typing import Any

from celery import bootsteps
from celery.worker import state as celery_state
from prometheus_client import ProcessCollector

from rmos_shared.errors import RmosError
from rmos_shared.jobs.arguments import CODE_VERSION
from rmos_shared.jobs.connection import connect_broker
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.tasks.table import QUEUES, TASKS
from rmos_shared.telemetry import metrics
from rmos_shared.telemetry.prometheus import EventMetrics, Family, exposition, family
from rmos_worker.monitoring.endpoint import Answer, Endpoint
from rmos_worker.monitoring.metric_files import MetricFiles
from rmos_worker.monitoring.watch import LivenessWatch, Pool

_TURN_SECONDS = 1.0
#: Turns of the loop within the time after which it counts as hanging, at least.
_TURNS = 10


class Monitoring:
    """What one worker tells of itself, over HTTP."""

    def __init__(self, worker: Any, settings: WorkerSettings) -> None:
        """Take the port, and let the children that are forked from now on count with this process.

        Raises:
            SettingsInvalid: the port cannot be had.
        """
        consumed = worker.app.amqp.queues.consume_from
        self._worker = worker
        self._settings = settings
        self._ledger = JobLedger(connect_broker(settings))
        self._watch = LivenessWatch(
            self._ledger.queues,
            [queue for queue in QUEUES if queue in consumed],
            self._pool,
            patience_seconds=settings.worker_stalled_seconds,
            broker_seconds=settings.broker_timeout_seconds,
        )
        routes = {"/livez": self._livez, "/metrics": self._metrics}
        self._endpoint = Endpoint(settings.worker_http_host, settings.worker_http_port, routes)
        self._files = MetricFiles()
        atexit.register(self._files.remove)
        events = EventMetrics(tasks=TASKS)
        events.survive_forks()
        events.attach()
        self._process = ProcessCollector(registry=None)

    def start(self) -> None:
        """Begin to look, and to answer."""
        self._watch.start()
        self._endpoint.start()

    def stop(self) -> None:
        """Do nothing: whoever asks while the worker stops is told so."""

    def terminate(self) -> None:
        """Do nothing, as ``stop``."""

    def join_loop(self, hub: Any) -> None:
        """Have the worker's loop tell that it turns."""
        every = min(_TURN_SECONDS, self._settings.worker_stalled_seconds / _TURNS)
        hub.call_repeatedly(every, self._watch.turned)

    def _pool(self) -> Pool:
        pool = self._worker.pool
        return Pool(
            taken=celery_state.all_total_count[0],
            busy=len(celery_state.active_requests),
            slots=pool.num_processes,
            stopping=any(
                (
                    self._worker.blueprint.state != bootsteps.RUN,  # type: ignore[attr-defined]  # the stubs lack it
                    celery_state.should_stop is not None,
                    celery_state.should_terminate is not None,
                )
            ),
        )

    def _livez(self, _accept: str) -> Answer:
        state, liveness = self._watch.state(), self._watch.liveness()
        fields = {
            "alive": state.alive,
            "state": state.value,
            "queues": self._watch.names,
            "slots": liveness.seen.slots,
            "busy": liveness.seen.busy,
            "taken": liveness.seen.taken,
            "idle_seconds": round(liveness.idle_seconds, 3),
            "loop_age_seconds": round(liveness.loop_seconds, 3),
        }
        return Answer.of_json(fields, HTTPStatus.OK if state.alive else HTTPStatus.SERVICE_UNAVAILABLE)

    def _metrics(self, accept: str) -> Answer:
        return Answer(*exposition([*self._files.collect(), *self._own(), *self._process.collect()], accept))

    def _own(self) -> list[Family]:
        liveness = self._watch.liveness()
        figures = (
            (metrics.WORKER_ALIVE, self._watch.state().alive),
            (metrics.WORKER_SLOTS, liveness.seen.slots),
            (metrics.WORKER_BUSY, liveness.seen.busy),
            (metrics.WORKER_TAKEN, liveness.seen.taken),
            (metrics.WORKER_IDLE, liveness.idle_seconds),
            (metrics.WORKER_LOOP, liveness.loop_seconds),
        )
        told = [family(metric, [((), float(value))]) for metric, value in figures]
        return [*told, family(metrics.BUILD, [((CODE_VERSION,), 1.0)])]


def monitoring_step(settings: WorkerSettings) -> type[bootsteps.StartStopStep]:
    """Return the step that watches a worker, where a port is set for it."""

    class MonitoringStep(bootsteps.StartStopStep):
        """Begins to watch once the pool has started, and before the consumer does."""

        requires = ("celery.worker.components:Pool",)

        def include_if(self, parent: Any) -> bool:  # noqa: ARG002 - Celery's signature
            return settings.worker_http_port != 0

        def create(self, parent: Any) -> Monitoring:  # type: ignore[override]  # the stubs are wrong
            # Before the pool is started and its children are forked: they count with the main process.
            try:
                return Monitoring(parent, settings)
            except RmosError as error:
                raise SystemExit(f"error {error.code}: {error}") from None

        def register_with_event_loop(self, parent: Any, hub: Any) -> None:  # noqa: ARG002 - as above
            self.obj.join_loop(hub)

    return MonitoringStep
