"""The job ledger's operations in Python; what each does is written in ``lua/``."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any, Literal, Self, cast

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import BrokerDamaged, JobNotFound, TransitionRefused
from rmos_shared.jobs.model import Failure, Job, JobRecord, JobState, LedgerStats, RawLetter
from rmos_shared.jobs.records import RAW_FIELDS, job_record, raw_letter
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import MAY_EXCEED_MEMORY, LedgerScript
from rmos_shared.settings import BrokerSettings
from rmos_shared.tasks import DEAD_LETTER_QUEUE, QUEUES, TASKS, TaskSpec

logger = logging.getLogger(__name__)

_WAKE = "wake:"
#: What the script says of a job whose task this version does not know.
OTHER_VERSION = "of another version"
CODE_VERSION = metadata.version("rmos-runs")
#: Claims of one job, over all its tries, after which losing it again counts as a crash loop.
MAX_CLAIMS = 50


#: Only a cut or refused connection is tried again: that is known at once, and costs no time.
CUTS_TRIED_AGAIN = (ConstantBackoff(0.05), 1)


def connection_options(settings: BrokerSettings) -> dict[str, Any]:
    """Return the options of a connection to the broker, blocking or not."""
    # Connecting and one answer share the time-out, so that a caller has its own within it.
    seconds = settings.broker_timeout_seconds / 2
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "health_check_interval": 25}


class Acceptance(StrEnum):
    """How the acceptance of one job ended."""

    NEW = "new"
    #: The same job was accepted before: a success.
    REPEAT = "repeat"
    #: Its id is taken by a job with another payload.
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Claim:
    """One job that this worker now holds."""

    job_id: str
    task: str
    payload: bytes
    run_id: str
    request_id: str | None
    #: Times it was put off at its own cost before.
    retry_count: int
    #: Claims in a row that ended in no settlement; this one counts until it is settled.
    crash_count: int
    #: Seconds since it was first put off (since its last replay), by the server's clock.
    waiting_seconds: float


@dataclass(frozen=True, slots=True)
class Lease:
    """What proves that a worker holds a job: the worker instance and the claim it made."""

    worker: str
    token: str


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to one claim."""

    lease: Lease
    claimed: tuple[Claim, ...]
    #: Ids that were not claimed, with the state that forbids it (``unknown``: no such record).
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class Finish:
    """One job that is done, what it came to, and the jobs to accept in the same step."""

    job_id: str
    result: dict[str, Any]
    following: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of the reconciler came to."""

    #: Jobs notified again.
    notified: int
    #: Keys of the ledger that are of a wrong type.
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """One message taken off a queue."""

    queue: str
    #: The notification, as Celery takes it; None when the message is none and is among the dead letters now.
    notification: bytes | None
    #: Why it is there, and the id it has there.
    reason: str = ""
    raw_id: str = ""

    @classmethod
    def read(cls, answer: list[list[bytes]]) -> list[Taken]:
        """Return what an answer to ``take`` tells; nothing when the queues are empty."""
        return [
            cls(queue.decode(), item or None, *(word.decode() for word in why))
            for queue, item, *why in answer
        ]


class JobLedger:
    """The truth about every job.

    Each method is one atomic step on the server and may be repeated safely, so a step whose answer was
    lost is simply made again. All of them raise ``BrokerUnavailable`` when the server cannot be reached
    within its time-out. Thread safe, as the redis client is.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str = "rmos:",
        script_header: str = MAY_EXCEED_MEMORY,
        tasks: Iterable[TaskSpec] = TASKS.values(),
    ) -> None:
        """Use ``client``, which must not decode responses; ``tasks`` are all that this version knows.

        ``script_header`` is empty for a server that knows no script flags (fakeredis).
        """
        self._client = client
        self._prefix = prefix
        self._script = LedgerScript(client, prefix=prefix, header=script_header, tasks=tasks)

    @classmethod
    def connect(cls, settings: BrokerSettings) -> Self:
        """Return a ledger on the broker; connects when first used."""
        client = redis.Redis.from_url(
            settings.broker_url.get_secret_value(),
            retry=Retry(*CUTS_TRIED_AGAIN, supported_errors=(redis.ConnectionError,)),
            **connection_options(settings),
        )
        return cls(client)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def script(self) -> LedgerScript:
        """The script behind it, for the audit."""
        return self._script

    @property
    def client(self) -> redis.Redis:
        """The connection, for those who keep their own keys beside the ledger's."""
        return self._client

    # -- accepting --------------------------------------------------------------------------------

    def accept(self, jobs: Sequence[Job], *, disk_seconds: float | None = None) -> list[Acceptance]:
        """Write the jobs down, all in one step; from then on none of them can be lost.

        A job accepted before with the same payload is a repeat, not a second job. With ``disk_seconds`` it
        returns only once the server says that its append-only file holds them.

        Raises:
            BrokerUnavailable: also when that does not happen within ``disk_seconds``.
        """
        if disk_seconds is None:
            answer = self._script.run("accept", *accept_args(jobs))
        else:
            answer = self._script.run_to_disk("accept", *accept_args(jobs), timeout_seconds=disk_seconds)
        return acceptances(answer)

    @contextmanager
    def accepting(
        self, jobs: Sequence[Job], *, disk_seconds: float | None = None
    ) -> Iterator[Callable[[], list[Acceptance]]]:
        """As ``accept``, in two halves: sends the jobs, and lets the block do other things until it calls.

        The call returns and raises what ``accept`` does; a block that does not make it does not know whether
        the jobs are accepted. With ``disk_seconds`` both halves are in the call.
        """
        if disk_seconds is not None:
            yield lambda: self.accept(jobs, disk_seconds=disk_seconds)
            return
        with self._script.begun("accept", *accept_args(jobs)) as answer:
            yield lambda: acceptances(answer())

    # -- working ----------------------------------------------------------------------------------

    def claim(self, job_ids: Sequence[str], lease: Lease, *, lease_seconds: float) -> Claims:
        """Take the jobs for this worker, those that are free; the others are named with their state."""
        answers = self._script.run(
            "claim", lease.worker, lease.token, _ms(lease_seconds), len(job_ids), *job_ids
        )
        claimed, refused = [], {}
        for job_id, answer in zip(job_ids, answers, strict=True):
            if answer[0] != b"claimed":
                refused[job_id] = answer[0].decode()
                continue
            task, payload, run_id, request_id, retry_count, crash_count, waiting_ms = answer[1:]
            claimed.append(
                Claim(
                    job_id=job_id,
                    task=task.decode(),
                    payload=payload,
                    run_id=run_id.decode(),
                    request_id=request_id.decode() or None,
                    retry_count=int(retry_count),
                    crash_count=int(crash_count),
                    waiting_seconds=int(waiting_ms) / 1000,
                )
            )
        return Claims(lease, tuple(claimed), refused)

    def finish(self, finishes: Sequence[Finish], lease: Lease, *, ttl_seconds: int) -> dict[str, str]:
        """Mark the jobs done and accept those that follow, in one step.

        Returns the state of each job afterwards: ``done``, or what forbids it (the lease has passed on;
        the new holder will finish it, and effects are idempotent, so there is nothing to repair).
        """
        args: list[Any] = [lease.worker, lease.token, ttl_seconds, len(finishes)]
        for finish in finishes:
            args += [finish.job_id, json.dumps(finish.result), len(finish.following)]
            for job in finish.following:
                args += _job_args(job)
        answers = self._script.run("finish", *args)
        return {finish.job_id: answer.decode() for finish, answer in zip(finishes, answers, strict=True)}

    def reschedule(
        self,
        job_id: str,
        lease: Lease,
        *,
        delay_seconds: float,
        spends_retry: bool,
        failure: Failure,
        held: bool = False,
    ) -> str:
        """Put the job off; it is notified again when due. Returns its state afterwards.

        ``held`` says that it waits for the advisory store; ``bring_forward`` is for such jobs.
        """
        answer = self._script.run(
            "reschedule",
            lease.worker,
            lease.token,
            job_id,
            _ms(delay_seconds),
            int(spends_retry),
            failure.to_bytes(),
            int(held),
        )
        return cast("bytes", answer).decode()

    def bring_forward(self, *, most: int, put_off_by_ms: int | None = None) -> int:
        """Make up to ``most`` jobs due now that wait for the advisory store, the longest first.

        ``put_off_by_ms``, a time of the server's clock, leaves alone what was put off later. Returns how
        many.
        """
        return int(
            self._script.run("bring_forward", most, "+inf" if put_off_by_ms is None else put_off_by_ms)
        )

    def bury(self, job_id: str, lease: Lease, *, failure: Failure) -> str:
        """Put the job among the dead letters. Returns its state afterwards."""
        answer = self._script.run("bury", lease.worker, lease.token, job_id, failure.to_bytes(), CODE_VERSION)
        return cast("bytes", answer).decode()

    def give_back(self, job_id: str, lease: Lease, *, max_crashes: int) -> str:
        """Give up a job because this process is asked to end; the start counts, as a crash's does.

        Returns its state afterwards: ``accepted``, or ``dead`` when that was the last start.
        """
        answer = self._script.run("give_back", lease.worker, lease.token, job_id, max_crashes, CODE_VERSION)
        return cast("bytes", answer).decode()

    def beat(self, worker: str, working: Sequence[str], *, lease_seconds: float, stale_seconds: float) -> int:
        """Say that ``worker`` lives and which jobs it is working on.

        Gives back the jobs leased to it that it does not know of (an answer was lost); returns how many.
        """
        answer = self._script.run(
            "beat",
            worker,
            _ms(lease_seconds),
            _ms(stale_seconds),
            MAX_CLAIMS,
            CODE_VERSION,
            len(working),
            *working,
        )
        return int(answer)

    def retire(self, worker: str, *, max_crashes: int) -> int:
        """End the leases of ``worker`` at once, so that its jobs run elsewhere. Returns how many it had."""
        return int(self._script.run("retire", worker, max_crashes, CODE_VERSION))

    def reconcile(self, *, batch: int, grace_seconds: float, max_crashes: int) -> Round:
        """Bring every job that nobody would come for back to a queue.

        Those are the jobs of silent workers, the ones due, and those whose notification was lost; at most
        ``batch`` of each kind a call. What is damaged in the ledger keeps only those waiting that need it.
        """
        notified, *damaged = self._script.run(
            "reconcile", batch, _ms(grace_seconds), max_crashes, CODE_VERSION
        )
        return Round(int(notified), tuple(key.decode() for key in damaged))

    def notify_again(self, job_ids: Sequence[str]) -> None:
        """Notify again for jobs whose notification was taken and will not be acknowledged.

        Jobs that moved on are left alone.
        """
        self._script.run("notify", *job_ids)

    def take(self, *queues: str) -> Taken | None:
        """Take the next message off the first of the queues that has one; None when all are empty.

        What is no notification for jobs that the ledger knows goes to the dead letters in the same step.
        """
        return next(iter(Taken.read(self._script.run("take", 1, 0, *queues))), None)

    def take_command(self, *queues: str, most: int) -> tuple[Any, ...]:
        """Return ``take``, of up to ``most`` messages, as the words of a Redis command.

        Notifications of one task that wait in line are joined, up to its ``ids_per_notification``, so that a
        backlog is worked off in groups. The answer is for ``Taken.read``.
        """
        return self._script.command("take", most, 1, *queues)

    def wait_command(self, *queues: str, seconds: float) -> tuple[Any, ...]:
        """Return, as the words of a Redis command, the wait for one of these queues to be worth a look.

        Its answer is for ``queue_of_token``. What is pushed by others than the ledger wakes nobody; it is
        found by the look after the wait.
        """
        return ("BRPOP", *(f"{self._prefix}{_WAKE}{queue}" for queue in queues), seconds)

    @staticmethod
    def queue_of_token(answer: list[bytes] | None) -> str | None:
        """Return the queue whose token ended a wait; None when the time was up."""
        return answer[0].decode().partition(_WAKE)[2] if answer else None

    def try_lock(self, name: str, holder: str, *, seconds: float) -> bool:
        """Take or renew a named lock; only one holder has it until it lapses."""
        key = f"{self._prefix}lock:{name}"
        with broker_errors():
            if self._client.set(key, holder, nx=True, px=_ms(seconds)):
                return True
            if self._client.get(key) != holder.encode():
                return False
            # Renewing what may just have lapsed can at worst let two holders in: every step is atomic anyway.
            return bool(self._client.pexpire(key, _ms(seconds)))

    # -- dead letters -----------------------------------------------------------------------------

    def replay(self, letter_id: str, *, by: str, why: str) -> None:
        """Give a dead job a fresh start, or put a raw message back on its queue, verbatim.

        Raises:
            JobNotFound: neither a job nor a raw letter has this id.
            TransitionRefused: it is not dead.
        """
        state = cast("bytes", self._script.run("replay", letter_id, by, why, secrets.token_hex(8))).decode()
        if state == "unknown":
            self._settle_raw(letter_id, "replayed", by, why)
        elif state == OTHER_VERSION:
            raise TransitionRefused(
                f"job {letter_id} is of a task that only another version knows; replay it with that version"
            )
        elif state != "replayed":
            raise TransitionRefused(
                f"job {letter_id} is {state}, not dead; only dead letters can be replayed"
            )

    def discard(self, letter_id: str, *, by: str, why: str) -> None:
        """Give a dead letter up for good; its record stays, with who did it and why.

        Raises:
            JobNotFound: neither a job nor a raw letter has this id.
            TransitionRefused: it is not dead.
        """
        state = cast("bytes", self._script.run("discard", letter_id, by, why)).decode()
        if state == "unknown":
            self._settle_raw(letter_id, "discarded", by, why)
        elif state != "discarded":
            raise TransitionRefused(
                f"job {letter_id} is {state}, not dead; only dead letters can be discarded"
            )

    def _settle_raw(self, raw_id: str, what: Literal["replayed", "discarded"], by: str, why: str) -> None:
        answer = self._script.run("settle_raw", raw_id, what, by, why, secrets.token_hex(8))
        state = cast("bytes", answer).decode()
        if state == "unknown":
            raise JobNotFound(raw_id)
        if state != what:
            raise TransitionRefused(f"raw letter {raw_id} is {state} already")

    def dead(self) -> Iterator[JobRecord]:
        """Yield the dead jobs, oldest first; their ids alone are held in memory."""
        for job_id in self._script.members("dead"):
            record = self._readable(job_id)
            if record is not None:
                yield record

    def raw_letters(self) -> Iterator[RawLetter]:
        """Yield the raw letters, oldest first, without their bytes; their ids alone are held in memory."""
        for raw_id in self._script.members("raw"):
            letter = self.find_raw(raw_id)
            if letter is not None:
                yield letter

    # -- reading ----------------------------------------------------------------------------------

    def get(self, job_id: str) -> JobRecord:
        """Return a job's record.

        Raises:
            JobNotFound: no job of this id was accepted, or it is done and its record has expired.
        """
        record = self.find(job_id)
        if record is None:
            raise JobNotFound(job_id)
        return record

    def find(self, job_id: str) -> JobRecord | None:
        """Return a job's record, or None."""
        with broker_errors():
            answer = self._client.hgetall(f"{self._prefix}job:{job_id}")
        return job_record(job_id, cast("dict[bytes, bytes]", answer)) if answer else None

    def payload(self, job_id: str) -> bytes | None:
        """Return the payload of a job that is not done, for an operator's eyes only."""
        with broker_errors():
            return cast("bytes | None", self._client.get(f"{self._prefix}payload:{job_id}"))

    def find_raw(self, raw_id: str) -> RawLetter | None:
        """Return a raw letter without its bytes, or None."""
        with broker_errors():
            answer = self._client.hmget(f"{self._prefix}raw:{raw_id}", RAW_FIELDS)
        return raw_letter(raw_id, cast("list[bytes | None]", answer))

    def raw_item(self, raw_id: str) -> bytes | None:
        """Return the bytes of a raw letter, verbatim, or None."""
        with broker_errors():
            return cast("bytes | None", self._client.hget(f"{self._prefix}raw:{raw_id}", "item"))

    def explanation_job(self, run_id: str) -> JobRecord | None:
        """Return the latest explanation job of a run that is not done or discarded, or None."""
        return self.job_about("explain", run_id)

    def job_about(self, topic: str, run_id: str) -> JobRecord | None:
        """Return the latest job on ``topic`` (see ``TaskSpec``) and run that is not done, or None."""
        with broker_errors():
            job_id = self._client.hget(f"{self._prefix}subjects", f"{topic}:{run_id}")
        return None if job_id is None else self.find(cast("bytes", job_id).decode())

    def jobs(self, state: JobState | None = None) -> Iterator[JobRecord]:
        """Yield jobs, newest first, of one state or any; done ones till their record expires.

        Every id in question is held in memory, and for done jobs every key of the ledger is scanned.
        """
        for job_id in sorted(self._ids_in(state), reverse=True):
            record = self._readable(job_id)
            if record is not None and state in {None, record.state}:
                yield record

    def _readable(self, job_id: str) -> JobRecord | None:
        """Return a job's record for a list, which one damaged record must not end."""
        try:
            return self.find(job_id)
        except BrokerDamaged as error:
            logger.error("%s", error)  # noqa: TRY400 - the text says all
            return None

    def _ids_in(self, state: JobState | None) -> list[str]:
        match state:
            case JobState.WAITING | JobState.DEAD | JobState.DISCARDED:
                indexes = [state.value]
            case JobState.ACCEPTED:
                indexes = [f"notified:{queue}" for queue in QUEUES]
            case JobState.RUNNING:
                indexes = [f"leases:{worker}" for worker in self._script.members("workers")]
            case _:
                return self._script.job_ids()
        return [job_id for index in indexes for job_id in self._script.members(index)]

    def stats(self) -> LedgerStats:
        """Return the ledger's figures, all of one moment."""
        answer = [int(value) for value in self._script.run("stats")]
        return LedgerStats(
            accepted=answer[0],
            done=answer[1],
            dead=answer[2],
            discarded=answer[3],
            waiting=answer[4],
            running=answer[5],
            notified=answer[6],
            raw=answer[7],
            queues=dict(zip((DEAD_LETTER_QUEUE, *QUEUES), answer[8:], strict=True)),
        )


def accept_args(jobs: Sequence[Job]) -> list[Any]:
    """Return the arguments of the operation ``accept``."""
    args: list[Any] = [len(jobs)]
    for job in jobs:
        args += _job_args(job)
    return args


def _job_args(job: Job) -> tuple[str | bytes, ...]:
    payload = job.payload.encode()
    return job.job_id, job.task, payload, sha256_hex(payload), job.run_id, job.request_id or ""


def acceptances(answer: Sequence[bytes]) -> list[Acceptance]:
    """Return what the operation ``accept`` answered, one for each job."""
    return [Acceptance(outcome.decode()) for outcome in answer]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
