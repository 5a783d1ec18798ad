"""The Python client: put jobs in, ask how they fare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import FieldProblem, InvalidRequest, JobNotFound, WaitTimeout
from rmos_shared.ids import create_job_id, explain_job_id, new_uuid7
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.models.advisory import Detail, Kind
from rmos_shared.models.base import Frozen
from rmos_shared.models.job import AttachAdvisory, CreateRun, Job, JobRecord, JobState, SuggestAndAttach
from rmos_shared.models.run import RunRequest
from rmos_shared.settings import ProducerSettings
from rmos_shared.tasks import ATTACH, CREATE, CREATE_MANY, SUGGEST, TaskSpec

#: A request as callers hold it: decoded JSON, or the model.
AnyRequest = RunRequest | Mapping[str, Any]
#: Whether and how fully to explain a run; True means ``summary``.
Explain = bool | Detail

_POLL_FIRST_SECONDS = 0.01
_POLL_CAP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a job is accepted: from now on it ends done, dead and visible, or discarded by a person."""

    run_id: str
    job_id: str
    #: The job that explains the run; it is accepted in the very step that marks ``job_id`` done.
    explain_job_id: str | None = None
    #: Required fields that the request lacks: the run will be stored as BLOCKED (contract section 1).
    missing: tuple[str, ...] = ()


#: Jobs that are accepted in one step, and their receipts.
_Batch = tuple[list[Job], list[Receipt]]


class RunsClient:
    """Enqueues jobs for the workers. Thread safe; close it, or use it as a context manager.

    Every method raises ``InvalidRequest`` before anything is enqueued when an argument breaks the
    contract, and ``BrokerUnavailable`` within ``broker_timeout_seconds`` when Redis is out of reach. After
    the latter the job may or may not be accepted: calling again with the same run id is safe.
    """

    def __init__(self, ledger: JobLedger, settings: ProducerSettings, *, clock: Clock | None = None) -> None:
        """Use the given parts; ``connect`` makes them."""
        self._ledger = ledger
        self._settings = settings
        self._clock = clock or SystemClock()

    @classmethod
    def connect(cls, settings: ProducerSettings | None = None, *, broker_url: str | None = None) -> Self:
        """Return a client for ``RMOS_BROKER_URL``, or ``broker_url``; connects when first used.

        Raises:
            SettingsInvalid: naming the variable that is wrong.
        """
        if settings is None:
            settings = ProducerSettings.load(**({} if broker_url is None else {"broker_url": broker_url}))
        return cls(JobLedger.connect(settings), settings)

    @property
    def ledger(self) -> JobLedger:
        """The ledger behind it, for reading."""
        return self._ledger

    def close(self) -> None:
        """Close the connections."""
        self._ledger.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # -- putting jobs in --------------------------------------------------------------------------

    def create_run(self, request: AnyRequest, *, explain: Explain = False) -> Receipt:
        """Have a run stored and, with ``explain``, explained once it is.

        The run id is minted here unless the request brings one. A request that lacks a required field is
        accepted and recorded as BLOCKED; ``Receipt.missing`` says so. A wrong value is refused.
        """
        job, receipt = self._create_job(request, explain, CREATE)
        return self._accept([job], [receipt])[0]

    def create_runs(self, requests: Iterable[AnyRequest], *, explain: Explain = False) -> Iterator[Receipt]:
        """Have many runs stored: yields a receipt each, in order, as their batches are accepted.

        ``requests`` may be of any length; it is read one batch ahead of the receipts, so that the next batch
        is checked while the server writes the last. Each run is a job of its own; only the doorbell is
        shared. Consume the iterator: what is not asked for is not enqueued.

        Raises:
            InvalidRequest: naming the index of the wrong request. Its batch is not enqueued; the receipts
                yielded before tell what is.
        """
        batches = self._batches(enumerate(requests), explain)
        batch = next(batches, None)
        while batch is not None:
            jobs, receipts = batch
            fault = None
            with self._ledger.accepting(jobs, disk_seconds=self._disk_seconds) as accepted:
                try:
                    batch = next(batches, None)
                except Exception as error:  # noqa: BLE001 - raised below: what was sent has its receipts first
                    fault = error
                accepted()
            yield from receipts
            if fault is not None:
                raise fault

    @property
    def batch_jobs(self) -> int:
        """How many runs ``create_runs`` takes at a time."""
        return self._settings.accept_batch_jobs

    def create_batch(
        self, batch: Iterable[tuple[int, AnyRequest]], *, explain: Explain = False
    ) -> list[Receipt]:
        """Have runs stored, all accepted in one step or none of them; one receipt each, in order.

        Each request comes with the index by which an ``InvalidRequest`` names it.
        """
        return self._accept(*self._read_batch(batch, explain))

    def suggest_and_attach(
        self, run_id: str, *, detail: Detail = "summary", request_id: str | None = None
    ) -> Receipt:
        """Have a run explained and the explanation linked; the run may still be on its way."""
        payload = SuggestAndAttach.read({"run_id": run_id, "request_id": request_id, "detail": detail})
        return self._accept_one(SUGGEST, payload, run_id, request_id)

    def attach_advisory(
        self, run_id: str, advisory_id: str, *, kind: Kind = "advisory", request_id: str | None = None
    ) -> Receipt:
        """Have an advisory linked that the advisory store already holds."""
        payload = AttachAdvisory.read(
            {"run_id": run_id, "advisory_id": advisory_id, "kind": kind, "request_id": request_id}
        )
        return self._accept_one(ATTACH, payload, run_id, request_id)

    # -- asking -----------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobRecord:
        """Return the ledger's record of a job.

        Raises:
            JobNotFound: it was never accepted, or it is done and its record has expired.
        """
        return self._ledger.get(job_id)

    def wait(self, job_id: str, timeout: float) -> JobRecord:
        """Return the record of a job once it is done, dead or discarded; look at its ``state``.

        For ``Receipt.explain_job_id`` this waits for the run's creation first; should that end dead, its
        record is returned instead, for no explanation will come.

        Raises:
            WaitTimeout: not within ``timeout`` seconds; the job goes on.
            JobNotFound: no such job.
        """
        deadline = self._clock.monotonic() + timeout
        pause = _POLL_FIRST_SECONDS
        while True:
            record = self._ended(job_id)
            if record is not None:
                return record
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"job {job_id} did not end within {timeout:g} s; it goes on, ask again later"
                )
            self._clock.sleep(min(pause, left))
            pause = min(pause * 2, _POLL_CAP_SECONDS)

    def _ended(self, job_id: str) -> JobRecord | None:
        record = self._ledger.find(job_id)
        if record is None:
            parent = create_job_id(job_id)
            if parent is None:
                raise JobNotFound(job_id)
            record = self._ledger.get(parent)
            if record.state is JobState.DONE:
                # Accepted in the step that ended its parent, so a second look finds it, if it was asked for.
                record = self._ledger.get(job_id)
        return None if record.state.pending else record

    # -- inside -----------------------------------------------------------------------------------

    def _batches(self, source: Iterator[tuple[int, AnyRequest]], explain: Explain) -> Iterator[_Batch]:
        while batch := list(islice(source, self.batch_jobs)):
            yield self._read_batch(batch, explain)

    def _read_batch(self, batch: Iterable[tuple[int, AnyRequest]], explain: Explain) -> _Batch:
        jobs, receipts = [], []
        for index, request in batch:
            try:
                job, receipt = self._create_job(request, explain, CREATE_MANY)
            except InvalidRequest as error:
                raise InvalidRequest(error.problems, what=f"request {index}") from None
            jobs.append(job)
            receipts.append(receipt)
        return jobs, receipts

    def _create_job(self, request: AnyRequest, explain: Explain, spec: TaskSpec) -> tuple[Job, Receipt]:
        if isinstance(request, RunRequest):
            run = request
        else:
            # Mappings of any kind are taken; what else there is, the model refuses by itself.
            plain = isinstance(request, dict) or not isinstance(request, Mapping)
            run = RunRequest.read(request if plain else dict(request), what="request")
        payload = CreateRun.read({"run": run, "explain": _detail(explain)}, what="request")
        job = self._job(spec, payload, run.run_id, run.request_id)
        explain_id = explain_job_id(job.job_id) if payload.explain is not None else None
        return job, Receipt(run.run_id, job.job_id, explain_id, missing=run.missing())

    def _accept_one(self, spec: TaskSpec, payload: Frozen, run_id: str, request_id: str | None) -> Receipt:
        job = self._job(spec, payload, run_id, request_id)
        return self._accept([job], [Receipt(run_id, job.job_id)])[0]

    def _job(self, spec: TaskSpec, payload: Frozen, run_id: str, request_id: str | None) -> Job:
        data = payload.to_json()
        size = len(data.encode())
        if size > self._settings.max_payload_bytes:
            problem = FieldProblem(
                "request",
                f"is {size} bytes; RMOS_MAX_PAYLOAD_BYTES allows {self._settings.max_payload_bytes}",
            )
            raise InvalidRequest((problem,))
        return Job(job_id=new_uuid7(), task=spec.name, run_id=run_id, request_id=request_id, payload=data)

    def _accept(self, jobs: list[Job], receipts: list[Receipt]) -> list[Receipt]:
        # Fresh ids: a repeat can only be redis-py's own second try.
        self._ledger.accept(jobs, disk_seconds=self._disk_seconds)
        return receipts

    @property
    def _disk_seconds(self) -> float | None:
        """How long to wait for the server's disk; None when it is not to be asked."""
        return self._settings.broker_timeout_seconds / 2 if self._settings.accept_waits_for_aof else None


def _detail(explain: Explain) -> Detail | None:
    if isinstance(explain, bool):
        return "summary" if explain else None
    return explain
