"""The gate: a kombu transport whose messages come from the ledger, so that nothing else gets in.

A message that Celery cannot use is deleted by Celery, or stops the worker; and one that Celery pops with
``BRPOP`` is gone if the answer is lost (docs/celery.md). So messages are popped by the ledger's ``take``: one
step on the server that hands out only the notifications that the ledger wrote, and keeps everything
else among the dead letters. Control messages and events come by pub/sub; ``broadcast.py`` sees to them.
"""

from __future__ import annotations

import json
from functools import cached_property
from queue import Empty
from time import monotonic
from typing import Any, Literal

import redis
from kombu.transport.redis import Transport
from redis.exceptions import NoScriptError

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.queues import JobQueues, Taken
from rmos_shared.tasks.table import QUEUES
from rmos_shared.telemetry.events import JobsNotPutBack, MessageRefused, TakeFailed
from rmos_shared.telemetry.log import emit
from rmos_worker.celery_app.broadcast import CheckedBroadcasts

#: Messages taken at once by a worker that says no limit; Celery's always do.
_MOST = 1
_COMMANDS = {"look": "EVALSHA", "wait": "BRPOP"}


class GatedChannel(CheckedBroadcasts):
    """A channel that looks for notifications with ``take`` and, while there are none, waits for a wake token.

    kombu sends one command whenever it may take a message, reads the answer once it has come, and calls both
    by the name of ``BRPOP``.
    """

    #: kombu's, which its stubs lack: the queues in turn, and what a lost connection raises.
    _queue_cycle: Any
    connection_errors: Any
    #: A worker told to consume any other queue beside them gets nothing from it.
    _ours = frozenset(QUEUES)
    #: What the command under way is: kombu's own, for replies to control messages, which come on queues of
    #: their own and are none of our business; our look; or our wait.
    _asked: Literal["kombu", "look", "wait"] = "kombu"
    #: Whether the last look found every queue empty.
    _empty = False
    #: What the server said when it refused last.
    _last_refusal = ""
    #: The queue whose token ended the last wait.
    _woken: str | None = None

    @cached_property
    def _queues(self) -> JobQueues:
        return JobLedger(redis.Redis(connection_pool=self.pool)).queues

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._ours.isdisjoint(self.active_queues):
            self._asked = "kombu"
            super()._brpop_start(timeout)  # type: ignore[misc]  # the stubs lack it
            return
        queues = [
            queue for queue in self._queue_cycle.consume(len(self.active_queues)) if queue in self._ours
        ]
        if self._empty:
            self._asked = "wait"
            words = self._queues.wait_command(*queues, seconds=timeout or self.brpop_timeout)
        else:
            self._asked = "look"
            # Whose token woke us comes first, or its notification would wait for the next look.
            queues.sort(key=lambda queue: queue != self._woken)
            words = self._queues.take_command(*queues, most=self.qos.can_consume_max_estimate() or _MOST)
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        connection.send_command(*words)

    def _brpop_read(self, **options: Any) -> bool:
        if self._asked == "kombu":
            return bool(super()._brpop_read(**options))  # type: ignore[misc]  # as above
        self._empty = False
        connection = self.client.connection
        try:
            try:
                answer = self.client.parse_response(connection, _COMMANDS[self._asked], **options)
            except NoScriptError:
                # A new server, or one whose scripts were flushed.
                self._load_script()
                raise Empty from None
            except redis.ResponseError as error:
                self._refused(error)
                raise Empty from None
            except self.connection_errors:
                connection.disconnect()
                raise
            if self._asked == "wait":
                self._woken = JobQueues.queue_of_token(answer)
                raise Empty
            self._hand_over(Taken.read(answer))
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]  # the stubs lack it
        return True

    def _hand_over(self, messages: list[Taken]) -> None:
        """Give the notifications to Celery.

        Raises:
            Empty: there was none among them.
        """
        self._empty = not messages
        notifications = [message for message in messages if message.notification is not None]
        for message in messages:
            if message.notification is None:
                emit(MessageRefused(queue=message.queue, raw_id=message.raw_id))
        if messages:
            self._queue_cycle.rotate(messages[-1].queue)
        if not notifications:
            raise Empty
        for message in notifications:
            # As kombu's own reader does.
            self.connection._deliver(json.loads(message.notification or b""), message.queue)  # noqa: SLF001

    def _size(self, queue: str) -> int:
        # Asked for each queue when the worker connects; one that is damaged must not keep it from the others.
        try:
            return int(super()._size(queue))
        except redis.ResponseError:
            return 0

    def _refused(self, error: redis.ResponseError) -> None:
        """Outlive a damaged key of the ledger: report it once, and wait before the next look."""
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            emit(TakeFailed(error=str(error)))
        # A look also takes away tokens that cannot be waited for.
        self._empty = self._asked == "look"

    def _load_script(self) -> None:
        try:
            self._queues.load()
        except BrokerUnavailable as error:
            raise redis.ConnectionError("the ledger's script cannot be loaded") from error

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - kombu's signature
        # A closing channel gives back what was taken and not answered. kombu would push a message of its own.
        (job_ids,), _, _ = json.loads(message.body)
        try:
            self._queues.put_back(job_ids)
        except BrokerUnavailable:
            emit(JobsNotPutBack())

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        # Celery closes a lost connection twice. The second time kombu 5.7 trips over what the first took
        # away, and an AttributeError ends the worker, where a lost connection is what it can repair.
        if self.connection.client is None:
            raise redis.ConnectionError("the connection is closed")
        return super()._connparams(asynchronous)  # type: ignore[misc]  # the stubs lack it


class GatedTransport(Transport):
    """Celery's Redis transport with the gate; set as ``broker_transport``."""

    Channel = GatedChannel
