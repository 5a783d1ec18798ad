"""The gate: a kombu transport whose messages come from the ledger, so that nothing else gets in.

A message that Celery cannot use is deleted by Celery, or stops the worker; and one that Celery pops with
``BRPOP`` is gone if the answer is lost (docs/celery.md). So messages are popped by the ledger's ``take``: one
step on the server that hands out only the bells which the ledger itself rang, and keeps everything else among
the dead letters. Control messages travel by pub/sub and are not touched.
"""

from __future__ import annotations

import json
import logging
from functools import cached_property
from queue import Empty
from time import monotonic
from typing import Any

import redis
from kombu.transport.redis import Channel, Transport
from redis.exceptions import NoScriptError

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ledger.job_ledger import JobLedger, Taken
from rmos_shared.tasks import QUEUES

logger = logging.getLogger(__name__)


class GatedChannel(Channel):
    """A channel that looks for bells with ``take`` and, while there are none, waits for a wake token.

    kombu sends one command whenever it may take a message, reads the answer once it has come, and calls both
    by the name of ``BRPOP``.
    """

    #: kombu's, which its stubs lack: the queues in turn, and what a lost connection raises.
    _queue_cycle: Any
    connection_errors: Any
    #: A worker told to consume any other queue beside them gets nothing from it.
    _ours = frozenset(QUEUES)
    #: Whether the command under way is the wait, not the look.
    _resting = False
    #: The queue whose token ended the last wait.
    _woken: str | None = None

    @cached_property
    def _ledger(self) -> JobLedger:
        return JobLedger(redis.Redis(connection_pool=self.pool))

    @property
    def _gated(self) -> bool:
        # Replies to control messages come on channels of their own, which are none of our business.
        return not self._ours.isdisjoint(self.active_queues)

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self._gated:
            super()._brpop_start(timeout)  # type: ignore[misc]  # the stubs lack it
            return
        queues = [
            queue for queue in self._queue_cycle.consume(len(self.active_queues)) if queue in self._ours
        ]
        if self._resting:
            words = self._ledger.wait_command(*queues, seconds=timeout or self.brpop_timeout)
        else:
            # Whose token woke us comes first, or its bell would wait for the next look.
            words = self._ledger.take_command(*sorted(queues, key=lambda queue: queue != self._woken))
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        connection.send_command(*words)

    def _brpop_read(self, **options: Any) -> bool:
        if not self._gated:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]  # as above
        rested, self._resting = self._resting, False
        connection = self.client.connection
        try:
            try:
                answer = self.client.parse_response(connection, "BRPOP" if rested else "EVALSHA", **options)
            except NoScriptError:
                # A new server, or one whose scripts were flushed.
                self._load_script()
                raise Empty from None
            except self.connection_errors:
                connection.disconnect()
                raise
            if rested:
                self._woken = JobLedger.queue_of_token(answer)
                raise Empty
            self._deliver(Taken.read(answer))
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]  # the stubs lack it
        return True

    def _deliver(self, taken: Taken | None) -> None:
        """Give a bell to Celery.

        Raises:
            Empty: it was none, or there was nothing.
        """
        if taken is None:
            self._resting = True
            raise Empty
        self._queue_cycle.rotate(taken.queue)
        if taken.bell is None:
            logger.warning(
                "message refused at the gate",
                extra={"queue": taken.queue, "reason": taken.reason, "raw_id": taken.raw_id},
            )
            raise Empty
        self.connection._deliver(json.loads(taken.bell), taken.queue)  # noqa: SLF001 - as kombu's own reader

    def _load_script(self) -> None:
        try:
            self._ledger.script.load()
        except BrokerUnavailable as error:
            raise redis.ConnectionError("the ledger's script cannot be loaded") from error

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - kombu's signature
        # A closing channel gives back what was taken and not answered. kombu would push a message of its own.
        (job_ids,), _, _ = json.loads(message.body)
        try:
            self._ledger.ring_again(job_ids)
        except BrokerUnavailable:
            logger.info("bells not given back; they count as lost and are rung again")

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        # Celery closes a lost connection twice. The second time kombu 5.7 trips over what the first took
        # away, and an AttributeError ends the worker, where a lost connection is what it can mend.
        if self.connection.client is None:
            raise redis.ConnectionError("the connection is closed")
        return super()._connparams(asynchronous)  # type: ignore[misc]  # the stubs lack it


class GatedTransport(Transport):
    """Celery's Redis transport with the gate; set as ``broker_transport``."""

    Channel = GatedChannel
