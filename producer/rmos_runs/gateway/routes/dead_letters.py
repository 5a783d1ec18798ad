"""Dead letters: what could not be done, for operators. Payloads are never shown here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from rmos_runs.gateway.access import needs, reads
from rmos_runs.gateway.answers import body_of_type, described, json_answer
from rmos_runs.gateway.body import read_json
from rmos_runs.gateway.context import Given
from rmos_runs.gateway.exchange import caller_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import Letter, LetterDone, LettersBody, LimitQuery, ReasonBody
from rmos_runs.operations.dead_letters import LetterFilter, chosen, every_letter
from rmos_runs.operations.on_record import GATEWAY, Doing, on_record
from rmos_shared.errors import JobNotFound
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import DeadReason, JobRecord, JobState, RawLetter
from rmos_shared.models.base import SingleLine, format_utc

router = APIRouter(prefix="/dead-letters", tags=["operators"])

#: A job's id, or that of a raw letter.
LetterId = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$", description="A dead letter's id, as listed.")
]


class LettersQuery(LimitQuery):
    """Which letters are listed."""

    model_config = ConfigDict(strict=False)

    reason: DeadReason | None = None
    task: SingleLine | None = Field(None, description="A task's name, such as `runs.create`.")


@router.get("", dependencies=[reads(Role.OPERATE)], responses=described(LettersBody))
async def list_letters(services: Given, query: Annotated[LettersQuery, Query()]) -> Response:
    """List dead letters, oldest first, without their payloads."""
    choice = LetterFilter(query.reason, query.task)
    found = await services.threads.run(_letters, services.jobs, choice, query.clamped + 1)
    return json_answer(LettersBody(items=found[: query.clamped], more=len(found) > query.clamped))


@router.get("/{letter_id}", dependencies=[reads(Role.OPERATE)], responses=described(JobRecord, 404))
async def get_letter(services: Given, letter_id: LetterId) -> Response:
    """Return what went wrong, where, how often, and what was done about it; never the payload."""
    letter = await services.threads.run(_letter, services.jobs, letter_id)
    return json_answer(letter)


@router.post(
    "/{letter_id}/replay",
    dependencies=[needs(Role.OPERATE)],
    responses=described(LetterDone, 404, 408, 409, 413),
    openapi_extra=body_of_type("ReasonBody"),
)
async def replay_letter(request: Request, services: Given, letter_id: LetterId) -> Response:
    """Give a dead job a fresh start; who did it and why stays in its history."""
    by, why = caller_of(request).name, (await _reason(request, services)).why
    await services.threads.run(_act, services.jobs, ActKind.REPLAY, letter_id, by, why)
    return json_answer(LetterDone(id=letter_id, state=JobState.ACCEPTED, by=by))


@router.post(
    "/{letter_id}/discard",
    dependencies=[needs(Role.OPERATE)],
    responses=described(LetterDone, 404, 408, 409, 413),
    openapi_extra=body_of_type("ReasonBody"),
)
async def discard_letter(request: Request, services: Given, letter_id: LetterId) -> Response:
    """Give a dead letter up for good; its record stays, with who did it and why."""
    by, why = caller_of(request).name, (await _reason(request, services)).why
    await services.threads.run(_act, services.jobs, ActKind.DISCARD, letter_id, by, why)
    return json_answer(LetterDone(id=letter_id, state=JobState.DISCARDED, by=by))


def _act(jobs: JobLedger, kind: ActKind, letter_id: str, by: str, why: str) -> None:
    doing = Doing(kind, by, {"ids": [letter_id], "more": 0}, why, caller=GATEWAY)
    with on_record(jobs, doing) as progress:
        refusals = jobs.steering.apply(kind, [letter_id], by=by, why=why, act_id=progress.act_id)
        progress.refused = len(refusals)
        for refused in refusals.values():
            raise refused


async def _reason(request: Request, services: Given) -> ReasonBody:
    data = await read_json(request, services.bodies, most_bytes=services.settings.max_body_bytes)
    return ReasonBody.read(data, what="request")


def _letters(jobs: JobLedger, choice: LetterFilter, most: int) -> list[Letter]:
    letters: Iterator[JobRecord | RawLetter] = chosen(every_letter(jobs.dead_letters), choice)
    return [_row(letter) for letter in islice(letters, most)]


def _letter(jobs: JobLedger, letter_id: str) -> JobRecord | RawLetter:
    letter = jobs.find(letter_id) or jobs.dead_letters.find_raw(letter_id)
    if letter is None:
        raise JobNotFound(letter_id)
    return letter


def _row(letter: JobRecord | RawLetter) -> Letter:
    if isinstance(letter, RawLetter):
        return Letter(
            id=letter.raw_id,
            reason=letter.reason,
            message=letter.detail,
            kind=f"message on {letter.queue}",
            run_id=None,
            died_at_utc=format_utc(letter.kept_at_utc),
        )
    return Letter(
        id=letter.job_id,
        reason=None if letter.failure is None else letter.failure.reason,
        message=None if letter.failure is None else letter.failure.message,
        kind=letter.task,
        run_id=letter.run_id,
        died_at_utc=format_utc(letter.changed_at_utc),
    )
