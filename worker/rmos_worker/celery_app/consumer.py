"""Celery's consumer, telling Flower of tasks only a few times a second.

It also lives on where the pool lost a child at a bad moment.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from celery.worker.consumer import Consumer

from rmos_shared.telemetry.events import EventsNotPublished
from rmos_shared.telemetry.log import emit

#: Publishing what happened after each turn of the loop took half of the main process's time.
_EVERY_SECONDS = 0.2


class GroupingConsumer(Consumer):
    """Publishes the events of tasks in groups; set as ``worker_consumer``.

    A group is published when it has 24 events, Celery's own limit, or once it is ``_EVERY_SECONDS`` old.
    """

    #: Celery's, which its stubs lack.
    hub: Any
    connection_errors: Any
    _flush_events: Any
    #: When the timer that was set last is due.
    _due = 0.0
    #: Not Celery's -1: at the start that it counts as none, a child that was just killed is taken for a pool
    #: that cannot start, and the worker ends. A pool that truly cannot is ended by its own limit, a hundred
    #: children lost within a second.
    restart_count = 0

    def loop_args(self) -> Any:
        """Return what the loop is started with, once children that died meanwhile are replaced."""
        # After a lost connection Celery watches every child anew, and trips over one that it no longer
        # watches: it has seen its death and not noted it yet, or seen one where there was none.
        if self.restart_count > 1:
            self.pool.maintain_pool()
            for child in getattr(getattr(self.pool, "_pool", None), "_pool", ()):
                if getattr(child, "_sentinel_poll", 0) is None:
                    del child._sentinel_poll  # noqa: SLF001 - Celery makes it anew where it is missing
        return super().loop_args()

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # the stubs are wrong
        """See to it that what was just buffered is published soon."""
        now = monotonic()
        # A timer that the loop forgot, as after a lost connection, is due one day and then set again.
        if self.hub and now >= self._due:
            self._due = now + _EVERY_SECONDS
            self.hub.call_later(_EVERY_SECONDS, self._flush_events)

    def stop(self) -> None:
        """Stop, and publish what is left."""
        try:
            self._flush_events()
        except self.connection_errors as error:
            emit(EventsNotPublished(error=type(error).__name__))
        super().stop()
