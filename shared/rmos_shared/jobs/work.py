"""What a worker may do with jobs: claim them, settle them, and say that it lives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rmos_shared.jobs.arguments import CODE_VERSION, job_args, milliseconds, publication_args
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.scope import Scope, valid_traceparent

#: Claims of one job, over all its tries, after which losing it again counts as a crash loop.
MAX_CLAIMS = 50


class Settlement(StrEnum):
    """The state of a job after a step that was to settle it."""

    ACCEPTED = "accepted"
    #: Another worker, or another claim, holds it.
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    #: Done by another claim.
    DONE_ELSEWHERE = "done_elsewhere"
    DEAD = "dead"
    DISCARDED = "discarded"
    #: No such record, or one of a task that this version does not know.
    UNKNOWN = "unknown"
    #: Its key holds something else than a record.
    DAMAGED = "damaged"
    #: The record has expired, or was never there.
    GONE = ""


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
    #: Where in a trace it belongs (W3C Trace Context), if anybody said.
    traceparent: str | None = None

    @property
    def scope(self) -> Scope:
        """What whoever works on it is busy with."""
        return Scope(self.job_id, self.run_id, self.request_id, self.traceparent)


@dataclass(frozen=True, slots=True)
class Lease:
    """Proof that a worker holds a job: the worker instance and the claim it made."""

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
    """One job that is done, what it came to, and what happens in the same step."""

    job_id: str
    result: dict[str, Any]
    #: The jobs to accept.
    following: tuple[Job, ...] = ()
    #: What it published, for the audit log.
    published: tuple[Publication, ...] = ()


class JobWork:
    """The worker's side of the ledger; atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def claim(self, job_ids: Sequence[str], lease: Lease, *, lease_seconds: float) -> Claims:
        """Take for this worker the jobs that are free; the others are named with their state."""
        answers = self._script.run(
            "claim", lease.worker, lease.token, milliseconds(lease_seconds), len(job_ids), *job_ids
        )
        claimed, refused = [], {}
        for job_id, answer in zip(job_ids, answers, strict=True):
            if answer[0] != b"claimed":
                refused[job_id] = answer[0].decode()
                continue
            task, payload, run_id, request_id, retry_count, crash_count, waiting_ms, traceparent = answer[1:]
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
                    traceparent=valid_traceparent(traceparent.decode()),
                )
            )
        return Claims(lease, tuple(claimed), refused)

    def finish(self, finishes: Sequence[Finish], lease: Lease, *, ttl_seconds: int) -> dict[str, Settlement]:
        """Mark the jobs done, accept their follow-up jobs, and tell what they published, in one step.

        Returns the state of each job afterwards: ``done``, or what forbids it (the lease has passed on;
        the new holder will finish it, and effects are idempotent, so there is nothing to repair).
        """
        args: list[Any] = [lease.worker, lease.token, ttl_seconds, len(finishes)]
        for finish in finishes:
            told = publication_args(finish.published)
            args += [finish.job_id, json.dumps(finish.result), *told, len(finish.following)]
            for job in finish.following:
                args += job_args(job)
        answers = self._script.run("finish", *args)
        return {
            finish.job_id: Settlement(answer.decode())
            for finish, answer in zip(finishes, answers, strict=True)
        }

    def reschedule(
        self,
        job_id: str,
        lease: Lease,
        *,
        delay_seconds: float,
        spends_retry: bool,
        failure: Failure,
        held: bool = False,
    ) -> Settlement:
        """Put the job off; it is in line again when due. Returns its state afterwards.

        ``held`` says that it waits for the advisory store; ``bring_forward`` is for such jobs.
        """
        state = self._script.text(
            "reschedule",
            lease.worker,
            lease.token,
            job_id,
            milliseconds(delay_seconds),
            int(spends_retry),
            failure.to_bytes(),
            int(held),
        )
        return Settlement(state)

    def bring_forward(self, *, most: int, put_off_by_ms: int | None = None) -> int:
        """Make up to ``most`` jobs due now that wait for the advisory store, the longest first.

        ``put_off_by_ms``, a time of the server's clock, leaves alone what was put off later. Returns how
        many.
        """
        return int(
            self._script.run("bring_forward", most, "+inf" if put_off_by_ms is None else put_off_by_ms)
        )

    def bury(
        self, job_id: str, lease: Lease, *, failure: Failure, published: Sequence[Publication] = ()
    ) -> Settlement:
        """Put the job among the dead letters, and tell what it published. Returns its state afterwards."""
        told = publication_args(published)
        state = self._script.text(
            "bury", lease.worker, lease.token, job_id, failure.to_bytes(), CODE_VERSION, *told
        )
        return Settlement(state)

    def give_back(self, job_id: str, lease: Lease, *, max_crashes: int) -> Settlement:
        """Give up a job because this process is asked to end; the start counts, as a crash's does.

        Returns its state afterwards: ``accepted``, or ``dead`` when that was the last start.
        """
        state = self._script.text("give_back", lease.worker, lease.token, job_id, max_crashes, CODE_VERSION)
        return Settlement(state)

    def beat(self, worker: str, working: Sequence[str], *, lease_seconds: float, stale_seconds: float) -> int:
        """Say that ``worker`` lives and which jobs it is working on.

        Gives back the jobs leased to it that it does not know of (an answer was lost); returns how many.
        """
        answer = self._script.run(
            "beat",
            worker,
            milliseconds(lease_seconds),
            milliseconds(stale_seconds),
            MAX_CLAIMS,
            CODE_VERSION,
            len(working),
            *working,
        )
        return int(answer)

    def live_under_way(self) -> bool:
        """Say whether a worker is at a job that batches give way to: not theirs, a webhook or a seal."""
        return bool(self._script.run("live_under_way"))

    def retire(self, worker: str, *, max_crashes: int) -> int:
        """End the leases of ``worker`` at once, so that its jobs run elsewhere. Returns how many it had."""
        return int(self._script.run("retire", worker, max_crashes, CODE_VERSION))
