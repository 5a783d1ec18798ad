"""Flower's queues, with the numbers of the ledger.

Flower itself shows the queues of the workers that it has asked so far, and so none that no worker consumes:
the dead letters would come and go.
"""

from __future__ import annotations

from asyncio import get_running_loop
from typing import Any

from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView
from tornado.web import HTTPError, authenticated

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.jobs.queues import JobQueues


async def _rows(queues: JobQueues) -> list[dict[str, Any]]:
    """Return each queue as Flower's template takes it.

    Raises:
        HTTPError: 503, the broker does not answer in its time.
    """
    try:
        # In a thread: the loop also reads the events.
        lengths = await get_running_loop().run_in_executor(None, queues.lengths)
    except BrokerUnavailable as error:
        raise HTTPError(503, "The broker cannot be reached") from error
    return [
        {"name": length.queue, "messages": length.messages, "messages_ready": length.jobs}
        for length in lengths
    ]


class BrokerPage(BrokerView):  # type: ignore[misc]  # Flower has no types
    """The page of queues."""

    def initialize(self, queues: JobQueues, broker: str) -> None:
        """Take the ledger's queues, and the broker's address without its password."""
        self._queues = queues
        self._broker = broker

    @authenticated
    async def get(self) -> None:
        """Show the length of every queue and the number of dead letters."""
        self.render("broker.html", broker_url=self._broker, queues=await _rows(self._queues))


class QueueLengths(GetQueueLengths):  # type: ignore[misc]  # as above
    """The same for programs."""

    def initialize(self, queues: JobQueues) -> None:
        """Take the ledger's queues."""
        self._queues = queues

    @authenticated
    async def get(self) -> None:
        """Answer the length of every queue and the number of dead letters."""
        self.write({"active_queues": await _rows(self._queues)})
