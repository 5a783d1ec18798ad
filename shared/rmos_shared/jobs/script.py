"""The ledger's script, and how its keys are read: the one place that talks to Redis for the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, cast

import redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.tasks.table import (
    DEAD_LETTER_QUEUE,
    DELIVER,
    PLAN,
    REEXPLAIN,
    REPORT,
    SEAL,
    TASKS,
    TaskSpec,
)

#: A full server must still let jobs be claimed and settled, for that is what makes room, and messages be
#: kept that were just taken off a queue. Only what brings new data in is refused there.
MAY_EXCEED_MEMORY = "#!lua flags=allow-oom\n"
_BRINGING_IN = frozenset({"accept", "accept_once", "open_batch"})


#: The script's parts, in the order in which they build on one another.
PARTS = (
    "keys",
    "events",
    "batch_counts",
    "unsealed",
    "ends",
    "ready",
    "acts",
    "pauses",
    "records",
    "accept",
    "leases",
    "claim",
    "settle",
    "take",
    "reconcile",
    "dead_letters",
    "steering",
    "consistency",
    "stats",
    "liveness",
    "batches",
    "endpoints",
    "answer",
)
_LUA = "\n".join(resources.files(__package__).joinpath(f"lua/{part}.lua").read_text() for part in PARTS)


def _tables(tasks: Iterable[TaskSpec]) -> str:
    """Return the tasks and queues as the script reads them."""
    specs = list(tasks)
    rows = (
        f'["{spec.name}"] = {{queue = "{spec.queue}", topic = "{spec.topic}", '
        f'ids_per_notification = {spec.ids_per_notification}, event = "{spec.event}"}}'
        for spec in specs
    )
    queues = (f'"{queue}"' for queue in dict.fromkeys(spec.queue for spec in specs))
    return (
        f"local TASKS = {{{', '.join(rows)}}}\nlocal QUEUES = {{{', '.join(queues)}}}\n"
        f'local DELIVERY, DELIVERIES = "{DELIVER.name}", "{DELIVER.queue}"\n'
        f'local PLAN, REEXPLAIN, REPORT = "{PLAN.name}", "{REEXPLAIN.name}", "{REPORT.name}"\n'
        f'local SEAL = "{SEAL.name}"\n'
    )


def script_source(tasks: Iterable[TaskSpec] = TASKS.values()) -> str:
    """Return the script as a server takes it; ``MAY_EXCEED_MEMORY`` goes before it for what settles."""
    return _tables(tasks) + _LUA


def script_keys(prefix: str) -> tuple[str, str]:
    """Return the keys that the script is given."""
    return prefix, DEAD_LETTER_QUEUE


def on_disk(answers: Sequence[Any]) -> Any:
    """Return what an operation answered, of its answer and that to the WAITAOF after it on its connection.

    Raises:
        BrokerUnavailable: the append-only file does not hold it, or not in time. The operation is done then.
    """
    answer, synced = answers
    if isinstance(answer, Exception):
        raise answer
    if isinstance(synced, redis.ResponseError):
        raise BrokerUnavailable(
            "the broker keeps no append-only file; turn it on (appendonly yes)"
        ) from synced
    if isinstance(synced, Exception) or synced[0] < 1:
        raise BrokerUnavailable(
            "the broker's append-only file did not reach its disk in time; repeat the call: that is safe"
        )
    return answer


class LedgerScript:
    """Runs the operations of the script in ``lua/``; each raises ``BrokerUnavailable`` when Redis is away."""

    def __init__(
        self, client: redis.Redis, *, prefix: str, header: str, tasks: Iterable[TaskSpec] = TASKS.values()
    ) -> None:
        """Use ``client``, which must not decode responses; ``tasks`` are all that this version knows."""
        self.client = client
        self.prefix = prefix
        source = script_source(tasks)
        self._accepting = client.register_script(source)
        self._settling = client.register_script(header + source)
        self._keys = script_keys(prefix)

    def run(self, operation: str, *args: Any) -> Any:
        """Run one operation, atomically, and return its raw answer."""
        with broker_errors():
            return self._script_of(operation)(keys=self._keys, args=[operation, *args])

    @contextmanager
    def begun(self, operation: str, *args: Any) -> Iterator[Callable[[], Any]]:
        """Send one operation, and let the block work while the server does; it calls for the raw answer.

        Whatever goes wrong on the way, the operation is simply run again as ``run`` does.
        """
        script = self._script_of(operation)
        with broker_errors():
            connection = self.client.connection_pool.get_connection()
        asked = False
        try:
            with broker_errors(), suppress(redis.ConnectionError):
                connection.send_command(  # type: ignore[no-untyped-call]
                    "EVALSHA", script.sha, len(self._keys), *self._keys, operation, *args
                )
                asked = True

            def answer() -> Any:
                nonlocal asked
                was_asked, asked = asked, False
                if was_asked:
                    with broker_errors(), suppress(redis.ConnectionError, NoScriptError):
                        return connection.read_response()
                return self.run(operation, *args)

            yield answer
        finally:
            if asked:
                # Its answer must not be taken for that of another.
                connection.disconnect()  # type: ignore[no-untyped-call]
            self.client.connection_pool.release(connection)

    def run_to_disk(self, operation: str, *args: Any, timeout_seconds: float) -> Any:
        """As ``run``, and return only once the append-only file holds what the operation wrote.

        Both go over one connection, for a server waits for the writes of the connection that asks.

        Raises:
            BrokerUnavailable: also when it does not within the time, or the server keeps no such file. The
                operation is done then.
        """
        with broker_errors(), self.client.pipeline(transaction=False) as pipe:
            self._script_of(operation)(keys=self._keys, args=[operation, *args], client=pipe)
            pipe.waitaof(1, 0, int(timeout_seconds * 1000))
            return on_disk(pipe.execute(raise_on_error=False))

    def command(self, operation: str, *args: Any) -> tuple[Any, ...]:
        """Return an operation as the words of a Redis command, for a connection of somebody else's.

        The server must have been told of the script by ``load``, or it answers NOSCRIPT.
        """
        return ("EVALSHA", self._settling.sha, len(self._keys), *self._keys, operation, *args)

    def load(self) -> None:
        """Tell the server of the script behind ``command``."""
        with broker_errors():
            self.client.script_load(self._settling.script)

    def queues(self) -> list[str]:
        """Return every queue that jobs may lie on, those of other versions among them."""
        return self.texts("queues")

    def text(self, operation: str, *args: Any) -> str:
        """Run an operation that answers one text."""
        return bytes(self.run(operation, *args)).decode()

    def texts(self, operation: str, *args: Any) -> list[str]:
        """Run an operation that answers a list of texts."""
        return [text.decode() for text in self.run(operation, *args)]

    def members(self, index: str) -> list[str]:
        """Return the members of an index in order."""
        with broker_errors():
            members = self.client.zrange(f"{self.prefix}{index}", 0, -1)
        return [member.decode() for member in cast("list[bytes]", members)]

    def job_ids(self) -> list[str]:
        """Return the id of every record, in no order; scans all keys."""
        prefix = f"{self.prefix}job:"
        with broker_errors():
            keys = [
                cast("bytes", key).decode() for key in self.client.scan_iter(match=f"{prefix}*", count=1_000)
            ]
        return [key.removeprefix(prefix) for key in keys]

    def _script_of(self, operation: str) -> Script:
        return self._accepting if operation in _BRINGING_IN else self._settling
