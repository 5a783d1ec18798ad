"""The gate: a kombu transport that lets doorbells through and keeps everything else.

A message that Celery cannot use is deleted by Celery, or stops the worker (docs/celery.md).
So each item popped from a task queue is looked at here, before kombu decodes it: what is not a doorbell
for jobs that the ledger knows goes to the dead letters, verbatim, and kombu is told that nothing was
popped. Control messages travel by pub/sub and other queues are not ours; neither is touched.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import redis
from kombu.transport.redis import Channel, Transport

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.models.job import DeadReason
from rmos_shared.tasks import QUEUES
from rmos_worker.doorbell_shape import NotABell, read_bell

logger = logging.getLogger(__name__)

#: How long a worker holds on to a refused message while the broker is away; it can do nothing else then.
_KEEP_SECONDS = 60.0
_KEEP_PAUSE_SECONDS = 0.2


class Gate:
    """Decides on popped items, and keeps the refused ones."""

    def __init__(self, ledger: JobLedger) -> None:
        """Ask and write ``ledger``."""
        self._ledger = ledger

    def admits(self, item: bytes, queue: str) -> bool:
        """Say whether kombu may have the item; one that it may not is in the dead letters on return.

        Raises:
            BrokerUnavailable: the ledger could not be asked or written, for as long as we may wait here.
        """
        try:
            bell = read_bell(item, queue)
        except NotABell as why:
            self._keep(item, queue, DeadReason.MALFORMED_MESSAGE, str(why))
            return False
        try:
            known = self._ledger.known(bell.job_ids, queue=queue)
        except BrokerUnavailable:
            # A good bell may be lost or passed, never kept as bad: the claim will judge it.
            return True
        if not known:
            self._keep(item, queue, DeadReason.UNKNOWN_JOB, "the ledger has no such job on this queue")
        return known

    def _keep(self, item: bytes, queue: str, reason: DeadReason, detail: str) -> None:
        raw_id = new_uuid7()
        deadline = time.monotonic() + _KEEP_SECONDS
        while True:
            try:
                self._ledger.keep_raw(raw_id, item, queue=queue, reason=reason, detail=detail)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    # The item is off the queue and nowhere else: its hash is all that may be logged.
                    logger.critical(
                        "a refused message could not be kept",
                        extra={"queue": queue, "reason": reason.value, "sha256": sha256_hex(item)},
                    )
                    raise
                time.sleep(_KEEP_PAUSE_SECONDS)
            else:
                logger.warning(
                    "message refused at the gate",
                    extra={"queue": queue, "reason": reason.value, "detail": detail, "raw_id": raw_id},
                )
                return


class GatedRedis(redis.Redis):
    """A client that shows each popped list item to the gate before kombu sees it."""

    def __init__(self, *args: Any, gate: Gate, **kwargs: Any) -> None:
        """Take what ``redis.Redis`` takes, and the gate."""
        super().__init__(*args, **kwargs)
        self._gate = gate

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """Read an answer; one to BRPOP that the gate does not admit reads as a time-out.

        Raises:
            redis.ConnectionError: what the gate refused could not be kept. Celery then connects again; an
                error of ours would end the worker.
        """
        response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP" and response:
            queue, item = response[0].decode(), response[1]
            try:
                if queue in QUEUES and not self._gate.admits(item, queue):
                    return None
            except BrokerUnavailable as error:
                raise redis.ConnectionError("the gate cannot reach the ledger") from error
        return response


class GatedChannel(Channel):
    """A channel whose client has the gate in it."""

    def _get_client(self) -> Any:
        super()._get_client()  # type: ignore[misc]  # the stubs lack it; it checks the version of redis-py
        return partial(GatedRedis, gate=Gate(JobLedger(redis.Redis(connection_pool=self.pool))))

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        # Celery closes a lost connection twice. The second time kombu 5.7 trips over what the first took
        # away, and an AttributeError ends the worker, where a lost connection is what it can mend.
        if self.connection.client is None:
            raise redis.ConnectionError("the connection is closed")
        return super()._connparams(asynchronous)  # type: ignore[misc]  # the stubs lack it


class GatedTransport(Transport):
    """Celery's Redis transport with the gate; set as ``broker_transport``."""

    Channel = GatedChannel
