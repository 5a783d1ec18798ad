"""The Celery app: tasks that answer notifications, the gate, and the reconciler in every worker."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps, signals
from celery.apps.beat import Beat
from celery.exceptions import Retry

from rmos_shared.errors import RmosError
from rmos_shared.jobs.connection import connect_broker
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.start import StartRecord
from rmos_shared.sealing.parts import log_signer
from rmos_shared.settings.logs import LogSettings
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import AUDIT_QUEUE, BACKGROUND_QUEUE, DELIVER, TASKS, TaskSpec
from rmos_shared.telemetry.events import LogUnsigned
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.log_output import configure_logs, is_for_eyes
from rmos_worker.advisories.breaker import RedisBreaker
from rmos_worker.celery_app.broadcast import ControlNode
from rmos_worker.celery_app.broker import celery_config
from rmos_worker.celery_app.monitoring import monitoring_step
from rmos_worker.celery_app.schedule import add_schedule
from rmos_worker.engine.executor import Report
from rmos_worker.engine.reconciler import Reconciler
from rmos_worker.engine.wiring import Services
from rmos_worker.webhooks.endpoints import WebhookConfig, load_webhooks
from rmos_worker.webhooks.registration import Registration

_PR_SET_PDEATHSIG = 1
#: Words for the states in which a worker may find jobs that it is not to do.
_BEFORE = {"done": "done before", "running": "with another worker", "accepted": "with another worker"}
#: By the one queue of a worker. Nobody waits for a batch; a seal is promised, and must go on under load.
_NICENESS = {BACKGROUND_QUEUE: 19, AUDIT_QUEUE: 10}


class JobDead(Exception):
    """The ledger has the job among the dead letters; see ``rmos dlq show``."""


class PutOff(Exception):
    """The ledger has the job in line again later, or another worker has it."""


class ServicesOfProcess:
    """The services of whichever process asks: a prefork child must not use its parent's connections."""

    def __init__(self, settings: WorkerSettings, store: LocalStore, webhooks: WebhookConfig) -> None:
        """Prepare; the first task of a process starts its services."""
        self._settings = settings
        self._store = store
        self._webhooks = webhooks
        self._lock = threading.Lock()
        self._of: tuple[int, Services] | None = None
        #: The priority of its tasks (``nice``); 0: as any.
        self.niceness = 0
        self._thread = threading.local()

    def give_way(self) -> None:
        """Let others have the processor first, if this worker's work may wait.

        Of the thread that asks alone: heartbeat and reconciler wait for nobody.
        """
        if self.niceness and not getattr(self._thread, "gives_way", False):
            self._thread.gives_way = True
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self.niceness)

    def get(self) -> Services:
        """Return this process's services, started."""
        with self._lock:
            if self._of is None or self._of[0] != os.getpid():
                self._of = (os.getpid(), Services.start(self._settings, self._store, self._webhooks))
            return self._of[1]

    def stop(self, **_: Any) -> None:
        """Stop this process's services, if it has any."""
        with self._lock:
            if self._of is not None and self._of[0] == os.getpid():
                self._of[1].stop()
                self._of = None


def create_app(settings: WorkerSettings) -> Celery:
    """Return the worker's app, with the gate in its transport and a reconciler in every worker."""
    app = Celery("rmos")
    app.conf.update(
        celery_config(settings),
        broker_transport="rmos_worker.celery_app.gate:GatedTransport",
        worker_consumer="rmos_worker.celery_app.consumer:GroupingConsumer",
    )
    app.control.mailbox.node_cls = ControlNode  # type: ignore[attr-defined]  # the stubs lack it
    # Made before any child, so that all of them know the store which their worker found at its start.
    store = chosen_store(settings)
    webhooks = load_webhooks(settings.webhooks_file)
    services = ServicesOfProcess(settings, store, webhooks)
    for spec in TASKS.values():
        _add_task(app, spec, services)
    add_schedule(app, settings)
    app.steps["worker"].update(
        {
            _store_step(store.probe),
            _background_step(services),
            _audit_step(settings, store),
            _reconciler_step(settings),
            _start_step(settings),
            _webhooks_step(settings, webhooks),
            monitoring_step(settings),
        }
    )
    _add_logs(app, LogSettings.load())
    # Weak references would let these closures be collected.
    signals.worker_before_create_process.connect(_keep_memory_shared, weak=False)
    signals.worker_process_init.connect(_end_with_worker, weak=False)
    signals.worker_process_shutdown.connect(services.stop, weak=False)
    signals.worker_shutdown.connect(services.stop, weak=False)
    return app


def _keep_memory_shared(**_: Any) -> None:
    # A full garbage collection writes to every object it looks at, and what a child writes to it no longer
    # shares with its parent. Objects from before the fork stay, so nobody needs to look at them.
    gc.freeze()


def _end_with_worker(**_: Any) -> None:
    # A child whose worker was killed would go on with its task, and nobody would end it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _QuietBeat(Beat):
    def run(self) -> None:
        self.quiet = True
        super().run()


def _add_logs(app: Celery, settings: LogSettings) -> None:
    for_eyes = is_for_eyes(settings.log_format)

    # Connected, this also keeps Celery from adding handlers of its own.
    def configure(loglevel: int | str | None = None, **_: Any) -> None:
        configure_logs(settings.log_format, settings.log_level or loglevel or "INFO")

    def begin(instance: Any, **_: Any) -> None:
        # Before Celery would, for it has warnings to give first.
        configure()
        instance.quiet = instance.quiet or not for_eyes

    signals.setup_logging.connect(configure, weak=False)
    signals.celeryd_init.connect(begin, weak=False)
    # Banners are for eyes. They are also what ends a worker or beat that is started on a full disk.
    if not for_eyes:
        app.Beat = app.subclass_with_self(_QuietBeat)  # type: ignore[misc]  # the stubs are wrong


def _add_task(app: Celery, spec: TaskSpec, services: ServicesOfProcess) -> None:
    # A dead job is logged in our own words already; Celery need not add its traceback.
    @app.task(name=spec.name, queue=spec.queue, throws=(JobDead,))
    def answer(job_ids: list[str]) -> str:
        executor = services.get().executor
        # After the services are started: their threads have the priority of the thread that starts them.
        services.give_way()
        return celery_state(executor.answer(job_ids))


def celery_state(report: Report) -> str:
    """End the task in the Celery state that tells Flower what the ledger has; its words are for a person.

    Raises:
        JobDead: FAILURE, some job is dead.
        Retry: RETRY, some job waits, or another worker has it; nothing is published, and whoever does the
            job later is told of under another message id.
    """
    total = len(report.done) + len(report.waiting) + len(report.dead) + len(report.refused)
    before = Counter(report.refused.values())
    if report.dead or before["dead"]:
        died_before = [job_id for job_id, state in report.refused.items() if state == "dead"]
        reasons = sorted({*report.dead.values(), *(["dead before"] if died_before else [])})
        dead = [*report.dead, *died_before]
        raise JobDead(f"{_of(len(dead), total)} dead ({', '.join(reasons)}): rmos dlq show {min(dead)}")
    if report.waiting:
        reasons = sorted({*report.why_waiting.values()})
        delay = min(report.waiting.values())
        raise _retry(f"{_of(len(report.waiting), total)} put off for {delay:.0f} s ({', '.join(reasons)})")
    if before["waiting"]:
        raise _retry(f"{_of(before['waiting'], total)} put off before, and not due yet")
    if not report.done and before["running"] + before["accepted"]:
        raise _retry(f"{_of(total, total)} with another worker")
    ends = {"done": len(report.done)} | {_BEFORE.get(state, state): count for state, count in before.items()}
    return ", ".join(f"{_of(count, total)} {words}" for words, count in ends.items() if count)


def _of(number: int, total: int) -> str:
    jobs = f"{total} job{'s' * (total != 1)}"
    return jobs if number == total else f"{number} of {jobs}"


def _retry(words: str) -> Retry:
    # Celery tells Flower of the error alone.
    return Retry(words, exc=PutOff(words))


def _store_step(probe: Callable[[], None]) -> type[bootsteps.StartStopStep]:
    class StoreStep(bootsteps.StartStopStep):
        """Refuses to start a worker whose store cannot write, sync and publish."""

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            # Not in start: the pool may be started, and its children forked, before it.
            super().__init__(parent, **kwargs)
            try:
                probe()
            except RmosError as error:
                raise SystemExit(f"error {error.code}: {error}") from None

    return StoreStep


def _audit_step(settings: WorkerSettings, store: LocalStore) -> type[bootsteps.StartStopStep]:
    class AuditStep(bootsteps.StartStopStep):
        """Refuses to start the worker that seals the audit log with a key that cannot be read."""

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            # Not in start, as above.
            super().__init__(parent, **kwargs)
            if AUDIT_QUEUE in parent.app.amqp.queues.consume_from:
                try:
                    signer = log_signer(settings, store)
                except RmosError as error:
                    raise SystemExit(f"error {error.code}: {error}") from None
                if signer is None:
                    emit(LogUnsigned())

    return AuditStep


def _background_step(services: ServicesOfProcess) -> type[bootsteps.StartStopStep]:
    class BackgroundStep(bootsteps.StartStopStep):
        """Has the tasks of a worker give way to all others that consumes nothing but what may wait."""

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            # Not in start, as above.
            super().__init__(parent, **kwargs)
            consumed = parent.app.amqp.queues.consume_from
            services.niceness = min(_NICENESS.get(name, 0) for name in consumed)

    return BackgroundStep


def _webhooks_step(settings: WorkerSettings, config: WebhookConfig) -> type[bootsteps.StartStopStep]:
    class WebhooksStep(bootsteps.StartStopStep):
        """Tells the ledger which endpoints there are, in the worker that delivers to them and in no other."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._ledger = JobLedger(connect_broker(settings))
            self._registration = Registration(self._ledger.webhooks, config)

        def include_if(self, parent: Any) -> bool:
            return DELIVER.queue in parent.app.amqp.queues.consume_from

        def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            self._registration.start()

        def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            self._registration.stop(settings.broker_timeout_seconds)
            self._ledger.close()

    return WebhooksStep


def _start_step(settings: WorkerSettings) -> type[bootsteps.StartStopStep]:
    class StartStep(bootsteps.StartStopStep):
        """Has it written down that the worker began."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._ledger = JobLedger(connect_broker(settings))
            name = str(parent.hostname).partition("@")[0]
            self._record = StartRecord(self._ledger.acts, settings, f"worker-{name}")

        def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            self._record.start()

        def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            self._record.stop(settings.broker_timeout_seconds)
            self._ledger.close()

    return StartStep


def _reconciler_step(settings: WorkerSettings) -> type[bootsteps.StartStopStep]:
    class ReconcilerStep(bootsteps.StartStopStep):
        """Starts and stops the reconciler with the worker's main process."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            client = connect_broker(settings)
            self._ledger = JobLedger(client)
            self._reconciler = Reconciler(self._ledger, RedisBreaker.of(client, settings), settings)

        def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            self._reconciler.start()

        def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            self._reconciler.stop()
            self._ledger.close()

    return ReconcilerStep
