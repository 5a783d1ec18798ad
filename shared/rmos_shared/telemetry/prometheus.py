"""Events as metrics for Prometheus: a second sink of them, beside the log."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from rmos_shared.telemetry import metrics
from rmos_shared.telemetry.events import Event, JobFailed, JobsFinished, RequestFinished
from rmos_shared.telemetry.log import EventMessage

#: One metric as it is exported: its name, kind and help, and its samples.
Family: TypeAlias = Metric
_TASK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_OUTCOMES = ("done", "waiting", "dead")
#: Anybody can send any word as a method; each of another kind would be a series of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class EventMetrics(logging.Handler):
    """Counts the events that are emitted; a handler of the logger ``rmos``, which takes quiet ones too.

    Series whose labels are known beforehand start at zero: the first increase of one that was not there is
    none to Prometheus.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, tasks: Iterable[str] = ()) -> None:
        """Export by ``registry``; None: by the files that the processes of a worker share."""
        super().__init__(logging.DEBUG)
        # Of each series a second one, with the time at which it began, is of no use to us.
        disable_created_metrics()
        names = tuple(tasks)
        events = _counter(metrics.EVENTS, registry)
        settled = _counter(metrics.JOBS_SETTLED, registry)
        durations = _histogram(metrics.TASK_DURATION, registry, _TASK_SECONDS)
        self._events = {key: events.labels(key) for key in _keys(Event)}
        self._settled = {
            (task, outcome): settled.labels(task, outcome) for task in names for outcome in _OUTCOMES
        }
        self._durations = {task: durations.labels(task) for task in names}
        self._failures = _counter(metrics.JOB_FAILURES, registry)
        self._requests = _counter(metrics.HTTP_REQUESTS, registry)
        self._request_durations = _histogram(metrics.HTTP_DURATION, registry, _REQUEST_SECONDS)
        self._forks = threading.Lock()
        self._logger = logging.getLogger("rmos")
        self._level = self._logger.level
        #: Of the log's handlers, before this one was attached.
        self._levels: list[tuple[logging.Handler, int]] = []

    def attach(self) -> None:
        """Begin to count, once the log is set up.

        The logger lets quiet events pass from now on, and the log's own handlers take what they took before.
        """
        self._level, lowest = self._logger.level, self._logger.getEffectiveLevel()
        self._levels = [(handler, handler.level) for handler in logging.getLogger().handlers]
        for handler, level in self._levels:
            handler.setLevel(max(level, lowest))
        self._logger.addHandler(self)
        self._logger.setLevel(logging.DEBUG)

    def detach(self) -> None:
        """Count no more, and leave the log as it was."""
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)
        for handler, level in self._levels:
            handler.setLevel(level)

    def survive_forks(self) -> None:
        """Let no child be forked while a thread counts: the locks of the library would stay locked in it."""
        os.register_at_fork(
            before=self._forks.acquire,
            after_in_parent=self._forks.release,
            after_in_child=self._forks.release,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Count the event of a log record."""
        if isinstance(record.msg, EventMessage):
            try:
                with self._forks:
                    self._count(record.msg.event)
            except Exception:  # noqa: BLE001 - as every handler: what is told must not fail for the telling
                self.handleError(record)

    def _count(self, event: Event) -> None:
        self._events[event.key].inc()
        if isinstance(event, JobsFinished):
            for outcome, jobs in zip(_OUTCOMES, (event.done, event.waiting, event.dead), strict=True):
                if jobs:
                    self._settled[event.task, outcome].inc(jobs)
            self._durations[event.task].observe(event.milliseconds / 1000)
        elif isinstance(event, JobFailed):
            self._failures.labels(event.task, event.key.partition(".")[2], event.reason).inc()
        elif isinstance(event, RequestFinished):
            method = event.method if event.method in _METHODS else "other"
            self._requests.labels(method, event.route, str(event.status)).inc()
            self._request_durations.labels(event.route).observe(event.milliseconds / 1000)


def exposition(families: Iterable[Family], accept: str = "") -> tuple[bytes, str]:
    """Return metrics as Prometheus reads them, and the content type; ``accept`` is what it asked for."""
    encode, content_type = choose_encoder(accept)
    return encode(_Collected(list(families))), content_type


def family(metric: metrics.Metric, rows: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    """Return a gauge or counter with a value for each row of label values."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        made.add_metric(labels, value)
    return made


class _Collected:
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)


def _counter(metric: metrics.Metric, registry: CollectorRegistry | None) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _histogram(
    metric: metrics.Metric, registry: CollectorRegistry | None, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=buckets)


def _keys(kind: type[Event]) -> Iterator[str]:
    for below in kind.__subclasses__():
        if "key" in vars(below):
            yield below.key
        yield from _keys(below)
