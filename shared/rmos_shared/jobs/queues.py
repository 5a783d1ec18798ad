"""The queues: how ready jobs get to workers, and come back when nobody claims them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rmos_shared.jobs.arguments import CODE_VERSION, milliseconds
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.tasks.table import DEAD_LETTER_QUEUE, QUEUES

_WAKE = "wake:"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of the reconciler came to."""

    #: Jobs that are ready again.
    ready: int
    #: Keys of the ledger that are of a wrong type.
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueLength:
    """How long one queue is; None for a key of the ledger that is of a wrong type."""

    queue: str
    #: Items of the list of its name: one for each job, and what other programs pushed.
    messages: int | None
    #: Jobs in line; of the queue of dead letters, the letters.
    jobs: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """One message taken off a queue."""

    queue: str
    #: The notification, as Celery takes it; None when others had pushed it and it is a raw letter now.
    notification: bytes | None
    #: The id of the raw letter.
    raw_id: str = ""

    @classmethod
    def read(cls, answer: list[list[bytes]]) -> list[Taken]:
        """Return what an answer to ``take`` tells; nothing when the queues are empty."""
        return [
            cls(queue.decode(), item or None, *(text.decode() for text in raw_id))
            for queue, item, *raw_id in answer
        ]


class JobQueues:
    """The transport's and the reconciler's side of the ledger; atomic and repeatable as ``JobLedger``."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def load(self) -> None:
        """Tell the server of the script behind ``take_command``."""
        self._script.load()

    def take(self, *queues: str) -> Taken | None:
        """Take one message as ``take_command`` does; None when all queues are empty.

        What others had pushed comes first. A notification taken beside it comes back after the grace.
        """
        return next(iter(Taken.read(self._script.run("take", 1, *queues))), None)

    def take_command(self, *queues: str, most: int) -> tuple[Any, ...]:
        """Return, as the words of a Redis command, the taking of up to ``most`` notifications.

        One is for as many jobs in line as their task allows (``ids_per_notification``), so that a backlog is
        worked off in groups. Foreign messages on the queues become raw letters in the same step. The
        answer is for ``Taken.read``.
        """
        return self._script.command("take", most, *queues)

    def have_work(self, *queues: str) -> bool:
        """Say whether a job is in line on one of these queues that a worker may take now.

        A paused queue has none, and so has a queue on which the first hundred jobs are all of paused tasks.
        It changes nothing.
        """
        return bool(self._script.run("have_work", *queues))

    def put_back(self, job_ids: Sequence[str]) -> None:
        """Put jobs in line again that were taken and will not be claimed.

        Those that moved on are left alone.
        """
        self._script.run("put_back", *job_ids)

    def wait_command(self, *queues: str, seconds: float) -> tuple[Any, ...]:
        """Return, as the words of a Redis command, the wait for one of these queues to be worth a look.

        Its answer is for ``queue_of_token``. A foreign message wakes nobody; it is found by the look after
        the wait.
        """
        return ("BRPOP", *(f"{self._script.prefix}{_WAKE}{queue}" for queue in queues), seconds)

    @staticmethod
    def queue_of_token(answer: list[bytes] | None) -> str | None:
        """Return the queue whose token ended a wait; None when the time was up."""
        return answer[0].decode().partition(_WAKE)[2] if answer else None

    def reconcile(self, *, batch: int, grace_seconds: float, max_crashes: int) -> Round:
        """Put every job that nobody would come for in line again.

        Those are the jobs of silent workers, the jobs that are due, and the jobs that were taken longer ago
        than the grace and not claimed; at most ``batch`` of each kind a call. A damaged key of the ledger
        keeps waiting only the jobs that need it.
        """
        ready, *damaged = self._script.run(
            "reconcile", batch, milliseconds(grace_seconds), max_crashes, CODE_VERSION
        )
        return Round(int(ready), tuple(key.decode() for key in damaged))

    def lengths(self) -> list[QueueLength]:
        """Return how long each queue is, and last the mirror of the dead letters, all of one moment."""
        prefix = self._script.prefix
        lines = {queue: [f"{prefix}ready:{queue}"] for queue in QUEUES}
        lines[DEAD_LETTER_QUEUE] = [f"{prefix}dead", f"{prefix}raw"]
        with broker_errors(), self._script.client.pipeline() as pipeline:
            for queue, indexes in lines.items():
                pipeline.llen(queue)
                for index in indexes:
                    pipeline.zcard(index)
            answers = iter(pipeline.execute(raise_on_error=False))
        return [
            QueueLength(queue, _total(islice(answers, 1)), _total(islice(answers, len(indexes))))
            for queue, indexes in lines.items()
        ]

    def try_lock(self, name: str, holder: str, *, seconds: float) -> bool:
        """Take or renew a named lock; only one holder has it until it lapses."""
        key = f"{self._script.prefix}lock:{name}"
        with broker_errors():
            if self._script.client.set(key, holder, nx=True, px=milliseconds(seconds)):
                return True
            if self._script.client.get(key) != holder.encode():
                return False
            # Renewing what may just have lapsed can at worst let two holders in: every step is atomic anyway.
            return bool(self._script.client.pexpire(key, milliseconds(seconds)))

    def unlock(self, name: str, holder: str) -> None:
        """Give a named lock back, unless it has lapsed and is another's."""
        key = f"{self._script.prefix}lock:{name}"
        with broker_errors():
            if self._script.client.get(key) == holder.encode():
                # What may just have lapsed can at worst be another's: every step is atomic anyway.
                self._script.client.delete(key)


def _total(answers: Iterable[object]) -> int | None:
    """Return the sum of what the server answered; None when it answered an error."""
    counted = [*answers]
    numbers = [answer for answer in counted if isinstance(answer, int)]
    return sum(numbers) if len(numbers) == len(counted) else None
