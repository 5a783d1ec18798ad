"""From a caller's request to the job that does it: the same for every client, without IO."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from rmos_runs.receipt import Prepared, Receipt
from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.errors import FieldProblem, InvalidRequest, JobNotFound
from rmos_shared.ids import create_job_id, explain_job_id, new_uuid7, uuid7_time
from rmos_shared.jobs.model import Job, JobRecord, JobState
from rmos_shared.models.base import Frozen
from rmos_shared.runs.model import RunRequest
from rmos_shared.tasks.payloads import AttachAdvisory, CreateRun, SuggestAndAttach
from rmos_shared.tasks.table import ATTACH, SUGGEST, TaskSpec
from rmos_shared.telemetry.scope import current_traceparent

#: A request as callers hold it: decoded JSON, or the model.
AnyRequest = RunRequest | Mapping[str, Any]
#: Whether and how fully to explain a run; True means ``summary``.
Explain = bool | DetailLevel

#: Payloads of one step, so that neither side holds a hundred of the largest at once.
_STEP_BYTES = 16 << 20
_PAUSE_FIRST_SECONDS = 0.01
_PAUSE_CAP_SECONDS = 0.5


def prepare_run(
    request: AnyRequest, spec: TaskSpec, *, explain: Explain, most_bytes: int, derived: bool = False
) -> Prepared:
    """Return the job that stores a run.

    With ``derived`` its id follows from the payload, so that the very same job is accepted once, however
    often it is brought; without, each call makes a job.

    Raises:
        InvalidRequest: naming each wrong field; or the payload is larger than ``most_bytes``.
    """
    if isinstance(request, RunRequest):
        run = request
    else:
        # Mappings of any kind are taken; what else there is, the model refuses by itself.
        plain = isinstance(request, dict) or not isinstance(request, Mapping)
        run = RunRequest.read(request if plain else dict(request), what="request")
    payload = CreateRun.read({"run": run, "explain": _detail(explain)}, what="request")
    job = _job(spec, payload, run.run_id, run.request_id, most_bytes, derived=derived)
    explain_id = explain_job_id(job.job_id) if payload.explain is not None else None
    return Prepared(job, Receipt(run.run_id, job.job_id, explain_id, missing=run.missing()))


def prepare_runs(
    requests: Iterable[tuple[int, AnyRequest]], spec: TaskSpec, *, explain: Explain, most_bytes: int
) -> Iterator[Prepared]:
    """Yield ``prepare_run`` of each; an ``InvalidRequest`` names the request by its number."""
    for number, request in requests:
        try:
            yield prepare_run(request, spec, explain=explain, most_bytes=most_bytes)
        except InvalidRequest as error:
            raise InvalidRequest(error.problems, what=f"request {number}") from None


def prepare_suggestion(
    run_id: str, detail: DetailLevel, request_id: str | None, *, most_bytes: int
) -> Prepared:
    """Return the job that explains a run; raises as ``prepare_run``."""
    payload = SuggestAndAttach.read({"run_id": run_id, "request_id": request_id, "detail": detail})
    return _alone(_job(SUGGEST, payload, run_id, request_id, most_bytes))


def prepare_attachment(
    run_id: str, advisory_id: str, kind: AdvisoryKind, request_id: str | None, *, most_bytes: int
) -> Prepared:
    """Return the job that links an advisory; raises as ``prepare_run``."""
    payload = AttachAdvisory.read(
        {"run_id": run_id, "advisory_id": advisory_id, "kind": kind, "request_id": request_id}
    )
    return _alone(_job(ATTACH, payload, run_id, request_id, most_bytes))


class Batch(list[Prepared]):
    """Jobs to accept in one step: at most so many, and of a size that both sides can hold."""

    def __init__(self, most_jobs: int) -> None:
        """Start empty."""
        super().__init__()
        self._jobs_left = most_jobs
        self._bytes_left = _STEP_BYTES

    def put(self, prepared: Prepared) -> bool:
        """Add a job, and say whether the batch is full now."""
        self.append(prepared)
        self._jobs_left -= 1
        self._bytes_left -= len(prepared.job.payload)
        return self._jobs_left <= 0 or self._bytes_left <= 0

    @property
    def jobs(self) -> list[Job]:
        """The jobs, in order."""
        return [prepared.job for prepared in self]


def batches(source: Iterable[Prepared], most_jobs: int) -> Iterator[Batch]:
    """Yield what comes in batches; an error of the source takes the batch that it interrupts with it."""
    batch = Batch(most_jobs)
    for prepared in source:
        if batch.put(prepared):
            yield batch
            batch = Batch(most_jobs)
    if batch:
        yield batch


def look(job_id: str) -> Generator[str, JobRecord | None, JobRecord | None]:
    """Ask for records by their ids, and return the one that ends the wait for a job; None while it goes on.

    A job that follows another is waited for through that one, whose end in failure is the answer.

    Raises:
        JobNotFound: nothing of that id was accepted or will be.
    """
    record = yield job_id
    if record is None:
        parent_id = create_job_id(job_id)
        if parent_id is None:
            raise JobNotFound(job_id)
        record = yield parent_id
        if record is None:
            raise JobNotFound(parent_id)
        if record.state is JobState.DONE:
            # Accepted in the step that ended its parent, so a second look finds it, if it was asked for.
            record = yield job_id
            if record is None:
                raise JobNotFound(job_id)
    return None if record.state.pending else record


def awaited(job: str | Receipt) -> str:
    """Return the id of the job to wait for."""
    return job.last_job_id if isinstance(job, Receipt) else job


def pauses() -> Iterator[float]:
    """Yield the seconds between two looks at a job."""
    pause = _PAUSE_FIRST_SECONDS
    while True:
        yield pause
        pause = min(pause * 2, _PAUSE_CAP_SECONDS)


def _alone(job: Job) -> Prepared:
    return Prepared(job, Receipt(job.run_id, job.job_id))


def _job(
    spec: TaskSpec,
    payload: Frozen,
    run_id: str,
    request_id: str | None,
    most_bytes: int,
    *,
    derived: bool = False,
) -> Job:
    text = payload.to_json()
    data = text.encode()
    if len(data) > most_bytes:
        problem = FieldProblem("request", f"is {len(data)} bytes; RMOS_MAX_PAYLOAD_BYTES allows {most_bytes}")
        raise InvalidRequest((problem,))
    job_id = new_uuid7(uuid7_time(run_id), noise=_noise(data)) if derived else new_uuid7()
    return Job(
        job_id=job_id,
        task=spec.name,
        run_id=run_id,
        request_id=request_id,
        payload=text,
        traceparent=current_traceparent(),
    )


def _noise(payload: bytes) -> bytes:
    return hashlib.sha256(b"job " + payload).digest()[:10]


def _detail(explain: Explain) -> DetailLevel | None:
    if isinstance(explain, bool):
        return "summary" if explain else None
    return explain
