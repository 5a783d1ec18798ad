"""From a prepared job to its answer: accepted once, waited for if the caller prefers, told."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header, Request
from starlette.responses import Response

from rmos_runs.gateway.answers import json_answer
from rmos_runs.gateway.caller import Caller
from rmos_runs.gateway.errors import IdempotencyMismatch, JobDead
from rmos_runs.gateway.exchange import Exchange, caller_of, exchange_of
from rmos_runs.gateway.models import Accepted, RunBody
from rmos_runs.gateway.paths import job_url, run_url
from rmos_runs.gateway.prefer import wait_seconds
from rmos_runs.gateway.problems import RETRY_SECONDS
from rmos_runs.gateway.services import Services
from rmos_runs.receipt import Prepared
from rmos_shared.canonical import canonical_sha256, sha256_hex
from rmos_shared.errors import RunNotFound, TryLater
from rmos_shared.jobs.ledger import Acceptance
from rmos_shared.jobs.model import JobState, OnceJob

#: Contract section 6.
KEPT_SECONDS = 7 * 24 * 3600

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Makes repeating the call safe: the same key and body are the same job, for 7 days.",
        examples=["order-4711"],
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        description="`wait=N`: answer once the job is done, if that is within N seconds.", examples=["wait=5"]
    ),
]


@dataclass(frozen=True, slots=True)
class Intake:
    """What brings jobs in for one request."""

    services: Services
    exchange: Exchange
    caller: Caller
    key: str | None

    @classmethod
    def of(cls, services: Services, request: Request, key: str | None) -> Intake:
        """Return that of a request, which may bear an Idempotency-Key."""
        return cls(services, exchange_of(request), caller_of(request), key)

    async def accept(self, prepared: Prepared, asked: Any) -> Accepted:
        """Have a job accepted; under a key at most once, whatever else happens.

        ``asked`` is what the caller sent, decoded: another one under the same key is refused.

        Raises:
            IdempotencyMismatch: the key was used with another request.
            JobConflict: as ``Prepared.receipt_of``.
            BrokerUnavailable: the job may or may not be accepted; with a key, calling again is safe.
        """
        if self.key is None:
            (acceptance,) = await self.services.ledger.accept(
                [prepared.job], disk_seconds=self.services.disk_seconds
            )
            return told(prepared, acceptance)
        (outcome,) = await self.accept_each([(self.key, prepared, asked)])
        if isinstance(outcome, IdempotencyMismatch):
            raise outcome
        return outcome

    async def accept_each(
        self, items: list[tuple[str, Prepared, Any]]
    ) -> list[Accepted | IdempotencyMismatch]:
        """Have jobs accepted, each under a key of its own, in one step; one outcome each."""
        jobs = [self._once(key, prepared, asked) for key, prepared, asked in items]
        outcomes = await self.services.ledger.accept_once(
            jobs, ttl_seconds=KEPT_SECONDS, disk_seconds=self.services.disk_seconds
        )
        return [
            _told_once(acceptance, receipt, prepared)
            for (acceptance, receipt), (_, prepared, _) in zip(outcomes, items, strict=True)
        ]

    def _once(self, key: str, prepared: Prepared, asked: Any) -> OnceJob:
        receipt = told(prepared, Acceptance.NEW).model_dump_json()
        digest = sha256_hex(f"{self.caller.name}\0{key}".encode())
        return OnceJob(prepared.job, digest, canonical_sha256(asked), receipt)


def told(prepared: Prepared, acceptance: Acceptance) -> Accepted:
    """Return what the caller of an accepted job is told; raises as ``Prepared.receipt_of``."""
    receipt = prepared.receipt_of(acceptance)
    return Accepted(
        run_id=receipt.run_id,
        job_id=receipt.job_id,
        status_url=job_url(receipt.job_id),
        explain_job_id=receipt.explain_job_id,
        missing=[*receipt.missing],
        repeat=receipt.repeat,
    )


def _told_once(acceptance: Acceptance, receipt: str, prepared: Prepared) -> Accepted | IdempotencyMismatch:
    match acceptance:
        case Acceptance.MISMATCH:
            return IdempotencyMismatch("the Idempotency-Key was used before with another request")
        case Acceptance.REPEAT:
            return Accepted.read_json(receipt).model_copy(update={"repeat": True})
        case _:
            return told(prepared, acceptance)


async def answer_of_job(services: Services, request: Request, accepted: Accepted) -> Response:
    """Return 202; or 201 and the run, if the caller prefers to wait and the job is done in time.

    Raises:
        JobDead: the job ended among the dead letters while the caller waited.
    """
    seconds = wait_seconds(request.headers.get("prefer"), services.settings.max_wait_seconds)
    applied = {} if seconds is None else {"Preference-Applied": f"wait={seconds:g}"}
    run: RunBody | None = None
    if seconds is not None:
        exchange_of(request).limit.allow(seconds + services.settings.request_timeout_seconds)
        state = await services.watch.wait(accepted.job_id, seconds)
        # What is away now takes nothing back: the job is accepted, and that is the answer.
        with suppress(TryLater):
            run = await _run_of(services, accepted, state)
        if run is not None:
            location = {"Location": run_url(accepted.run_id)}
            return json_answer(run, HTTPStatus.CREATED, location | applied)
    later = {"Location": accepted.status_url, "Retry-After": str(RETRY_SECONDS)}
    return json_answer(accepted, HTTPStatus.ACCEPTED, later | applied)


async def _run_of(services: Services, accepted: Accepted, state: JobState | None) -> RunBody | None:
    if state in {JobState.DEAD, JobState.DISCARDED}:
        raise JobDead(await services.ledger.get(accepted.job_id))
    # Of a repeat the job may be done for so long that its record has expired.
    expired = state is None and accepted.repeat and await services.ledger.find(accepted.job_id) is None
    if not expired and state is not JobState.DONE:
        return None
    try:
        return RunBody.of(await services.threads.run(services.reader.read, accepted.run_id))
    except RunNotFound:
        return None
