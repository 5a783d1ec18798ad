"""The job ledger: accepts jobs and reads their records; the rest is apart, by who may do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import Self, cast

import redis

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable, JobNotFound
from rmos_shared.ids import create_job_id, explain_job_id
from rmos_shared.jobs.acts import JobActs
from rmos_shared.jobs.arguments import accept_args, accept_once_args
from rmos_shared.jobs.batches import JobBatches
from rmos_shared.jobs.connection import connect_broker
from rmos_shared.jobs.consistency import LedgerConsistency
from rmos_shared.jobs.dead_letters import DeadLetters
from rmos_shared.jobs.events import EventState
from rmos_shared.jobs.figures.reader import JobFigures
from rmos_shared.jobs.model import Job, JobRecord, JobState, LedgerStats, OnceJob
from rmos_shared.jobs.pauses import JobPauses
from rmos_shared.jobs.queues import JobQueues
from rmos_shared.jobs.records import job_record
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import MAY_EXCEED_MEMORY, LedgerScript
from rmos_shared.jobs.steering import JobSteering
from rmos_shared.jobs.unsealed import Unsealed
from rmos_shared.jobs.webhooks import JobWebhooks
from rmos_shared.jobs.work import JobWork
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import DEAD_LETTER_QUEUE, QUEUES, TASKS, TaskSpec
from rmos_shared.telemetry.events import RecordUnreadable
from rmos_shared.telemetry.log import emit

#: Records that are read in one round trip.
_PAGE = 200


class Acceptance(StrEnum):
    """How the acceptance of one job ended."""

    NEW = "new"
    #: The same job was accepted before: a success.
    REPEAT = "repeat"
    #: Its id is taken by a job with another payload.
    CONFLICT = "conflict"
    #: Its caller's key is taken by another request; only of ``accept_once``.
    MISMATCH = "mismatch"


class JobLedger:
    """The truth about every job.

    Each method is one atomic step on the server and may be repeated safely, so a step whose answer was
    lost is simply made again. The calls of a worker, of the transport and of an operator are apart, each in
    an object that can be handed to them alone. All methods raise ``BrokerUnavailable`` when the server cannot
    be reached within its time-out. Thread safe, as the redis client is.
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
        #: What a worker may do.
        self.work = JobWork(self._script)
        #: What the transport and the reconciler may do.
        self.queues = JobQueues(self._script)
        #: What an operator may do to jobs, in steps of many.
        self.steering = JobSteering(self._script)
        #: What is paused.
        self.pauses = JobPauses(self._script)
        #: The record of what operators did.
        self.acts = JobActs(self._script)
        #: What an operator may do with dead letters.
        self.dead_letters = DeadLetters(self._script, self, self.steering)
        #: Whether each job is where its state says, and putting it there.
        self.consistency = LedgerConsistency(self._script)
        #: What a status shows beside the counts.
        self.figures = JobFigures(self._script)
        #: Batches of re-explanations.
        self.batches = JobBatches(self._script)
        #: What the audit log does not hold yet.
        self.unsealed = Unsealed(self._script)
        #: Who hears of the ends of jobs.
        self.webhooks = JobWebhooks(self._script)

    @classmethod
    def connect(cls, settings: BrokerSettings) -> Self:
        """Return a ledger on the broker; connects when first used."""
        return cls(connect_broker(settings))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

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

    def accept_once(self, items: Sequence[OnceJob], *, ttl_seconds: int) -> list[tuple[Acceptance, str]]:
        """Write down each job whose caller's key is not known yet, all in one step.

        Returns how it went with each, and the receipt that stands: of a known key the first one. A key is
        known for ``ttl_seconds`` from its first use; of concurrent calls with one key, one brings its job in.
        """
        return once_acceptances(self._script.run("accept_once", *accept_once_args(items, ttl_seconds)))

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

    def announce(self, what: EventState, run_id: str, *, request_id: str | None = None) -> bool:
        """Add an event of what happened to a run without a job, and return if that worked.

        At best effort, for who need not fail without it: the file that it is about is what counts.
        """
        try:
            self._script.run("announce", what.value, run_id, request_id or "")
        except (BrokerUnavailable, BrokerDamaged):
            return False
        return True

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

    def explanation_job(self, run_id: str) -> JobRecord | None:
        """Return the latest explanation job of a run that is not done or discarded, or None."""
        return self.job_about("explain", run_id)

    def explanation_jobs(self, run_ids: Sequence[str]) -> dict[str, JobRecord]:
        """Return, as ``explanation_job`` does for one, those of many runs; runs without one are left out.

        A damaged record is reported and left out.
        """
        if not run_ids:
            return {}
        with broker_errors():
            subjects = [f"explain:{run_id}" for run_id in run_ids]
            answer = cast("list[bytes | None]", self._client.hmget(f"{self._prefix}subjects", subjects))
        found = {
            run_id: self.readable(job_id.decode())
            for run_id, job_id in zip(run_ids, answer, strict=True)
            if job_id is not None
        }
        return {run_id: record for run_id, record in found.items() if record is not None}

    def job_about(self, topic: str, run_id: str) -> JobRecord | None:
        """Return the latest job on ``topic`` (see ``TaskSpec``) and run that is not done, or None."""
        with broker_errors():
            job_id = self._client.hget(f"{self._prefix}subjects", f"{topic}:{run_id}")
        return None if job_id is None else self.find(cast("bytes", job_id).decode())

    def jobs_of_run(self, run_id: str, also: Iterable[str] = ()) -> list[JobRecord]:
        """Return the jobs about one run, oldest first: of each topic the last, and the last that ended.

        ``also`` are ids of jobs that may be of this run. A done job leaves when its record expires.
        """
        subjects = [f"{topic}:{run_id}" for topic in dict.fromkeys(spec.topic for spec in TASKS.values())]
        with broker_errors():
            unfinished = self._client.hmget(f"{self._prefix}subjects", subjects)
            ended = self._client.mget([f"{self._prefix}ended:{subject}" for subject in subjects])
        answers = cast("list[bytes | None]", [*unfinished, *ended])
        known = {*also, *(answer.decode() for answer in answers if answer is not None)}
        # A run's creation and the explanation that follows it tell each other's id.
        fellows = {create_job_id(job_id) or explain_job_id(job_id) for job_id in known}
        records = (self.find(job_id) for job_id in known | fellows)
        return sorted(
            (record for record in records if record is not None and record.run_id == run_id),
            key=lambda record: (record.accepted_at_utc, record.job_id),
        )

    def jobs(self, state: JobState | None = None) -> Iterator[JobRecord]:
        """Yield jobs, newest first, of one state or any; done ones till their record expires.

        Every id in question is held in memory, and for done jobs every key of the ledger is scanned.
        """
        for record in self.records(sorted(self._ids_in(state), reverse=True)):
            if state in {None, record.state}:
                yield record

    def records(self, job_ids: Iterable[str]) -> Iterator[JobRecord]:
        """Yield the records of jobs in this order, a page in memory at a time.

        Those without a record are left out, and so are damaged ones, which are reported.
        """
        ids = iter(job_ids)
        while page := list(islice(ids, _PAGE)):
            with broker_errors(), self._client.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hgetall(f"{self._prefix}job:{job_id}")
                answers = pipe.execute(raise_on_error=False)
            for job_id, answer in zip(page, answers, strict=True):
                try:
                    with broker_errors():
                        if isinstance(answer, Exception):
                            raise answer
                    if answer:
                        yield job_record(job_id, answer)
                except BrokerDamaged as error:
                    emit(RecordUnreadable(job_id=job_id, error=str(error)))

    def readable(self, job_id: str) -> JobRecord | None:
        """Return a job's record for a list, which one damaged record must not end."""
        try:
            return self.find(job_id)
        except BrokerDamaged as error:
            emit(RecordUnreadable(job_id=job_id, error=str(error)))
            return None

    def _ids_in(self, state: JobState | None) -> list[str]:
        match state:
            case JobState.WAITING | JobState.DEAD | JobState.DISCARDED:
                indexes = [state.value]
            case JobState.ACCEPTED:
                indexes = ["taken", *(f"ready:{queue}" for queue in QUEUES)]
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
            ready=answer[6],
            raw=answer[7],
            queues=dict(zip((DEAD_LETTER_QUEUE, *QUEUES), answer[8:], strict=True)),
        )


def once_acceptances(answer: Sequence[bytes]) -> list[tuple[Acceptance, str]]:
    """Return what the operation ``accept_once`` answered, one for each job."""
    words = [word.decode() for word in answer]
    return [(Acceptance(outcome), receipt) for outcome, receipt in zip(words[::2], words[1::2], strict=True)]


def acceptances(answer: Sequence[bytes]) -> list[Acceptance]:
    """Return what the operation ``accept`` answered, one for each job."""
    return [Acceptance(outcome.decode()) for outcome in answer]
