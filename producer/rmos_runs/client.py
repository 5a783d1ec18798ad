"""The Python client: put jobs in, ask how they fare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from rmos_runs.jobs import (
    AnyRequest,
    Explain,
    awaited,
    batches,
    look,
    pauses,
    prepare_attachment,
    prepare_run,
    prepare_runs,
    prepare_suggestion,
)
from rmos_runs.receipt import Prepared, Receipt
from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import WaitTimeout
from rmos_shared.jobs.ledger import Acceptance, JobLedger
from rmos_shared.jobs.model import JobRecord
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.tasks.table import CREATE, CREATE_MANY

__all__ = ["AnyRequest", "Explain", "Receipt", "RunsClient"]


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
        return self._accept(
            prepare_run(request, CREATE, explain=explain, most_bytes=self._settings.max_payload_bytes)
        )

    def create_runs(self, requests: Iterable[AnyRequest], *, explain: Explain = False) -> Iterator[Receipt]:
        """Have many runs stored: yields a receipt each, in order, as their batches are accepted.

        ``requests`` may be of any length; it is read one batch ahead of the receipts, so that the next batch
        is checked while the server writes the last. Each run is a job of its own; only the notification is
        shared. Consume the iterator: a run whose receipt is not asked for is not
        enqueued.

        Raises:
            InvalidRequest: naming the index of the wrong request. Its batch is not enqueued; the receipts
                yielded before name the runs that are.
        """
        prepared = prepare_runs(
            enumerate(requests),
            CREATE_MANY,
            explain=explain,
            most_bytes=self._settings.max_payload_bytes,
        )
        for one, acceptance in self.accept_each(prepared):
            yield one.receipt_of(acceptance)

    def accept_each(self, prepared: Iterable[Prepared]) -> Iterator[tuple[Prepared, Acceptance]]:
        """Accept jobs of any number: yields how it went with each, in order; read ahead as ``create_runs``.

        An error of ``prepared`` is raised after the outcomes of all jobs that were sent before.
        """
        source = batches(prepared, self._settings.accept_batch_jobs)
        batch = next(source, None)
        while batch is not None:
            sent, source_error = batch, None
            with self._ledger.accepting(sent.jobs, disk_seconds=disk_seconds(self._settings)) as accepted:
                try:
                    batch = next(source, None)
                except Exception as error:  # noqa: BLE001 - raised below, after the outcomes
                    source_error = error
                outcomes = accepted()
            yield from zip(sent, outcomes, strict=True)
            if source_error is not None:
                raise source_error

    @property
    def max_payload_bytes(self) -> int:
        """How large a job may be."""
        return self._settings.max_payload_bytes

    def suggest_and_attach(
        self, run_id: str, *, detail: DetailLevel = "summary", request_id: str | None = None
    ) -> Receipt:
        """Have a run explained and the explanation linked; the run may still be on its way."""
        return self._accept(
            prepare_suggestion(run_id, detail, request_id, most_bytes=self._settings.max_payload_bytes)
        )

    def attach_advisory(
        self, run_id: str, advisory_id: str, *, kind: AdvisoryKind = "advisory", request_id: str | None = None
    ) -> Receipt:
        """Have an advisory linked that the advisory store already holds."""
        return self._accept(
            prepare_attachment(
                run_id, advisory_id, kind, request_id, most_bytes=self._settings.max_payload_bytes
            )
        )

    # -- asking -----------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobRecord:
        """Return the ledger's record of a job.

        Raises:
            JobNotFound: it was never accepted, or it is done and its record has expired.
        """
        return self._ledger.get(job_id)

    def wait(self, job: str | Receipt, timeout: float) -> JobRecord:
        """Return the record of a job once it is done, dead or discarded; look at its ``state``.

        Of a receipt the job that ends last is meant. An explanation is waited for through the run's creation;
        should that end dead, its record is returned instead, for no explanation will come.

        Raises:
            WaitTimeout: not within ``timeout`` seconds; the job goes on.
            JobNotFound: no such job.
        """
        job_id = awaited(job)
        deadline = self._clock.monotonic() + timeout
        for pause in pauses():
            record = self._ended(job_id)
            if record is not None:
                return record
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            self._clock.sleep(min(pause, left))
        raise late(job_id, timeout)

    # -- inside -----------------------------------------------------------------------------------

    def _ended(self, job_id: str) -> JobRecord | None:
        looking = look(job_id)
        asked = next(looking)
        while True:
            try:
                asked = looking.send(self._ledger.find(asked))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what ``look`` returns

    def _accept(self, prepared: Prepared) -> Receipt:
        (acceptance,) = self._ledger.accept([prepared.job], disk_seconds=disk_seconds(self._settings))
        return prepared.receipt_of(acceptance)


def disk_seconds(settings: ProducerSettings) -> float | None:
    """Return how long to wait for the server's disk; None when it is not to be asked."""
    return settings.broker_timeout_seconds / 2 if settings.accept_waits_for_aof else None


def late(job_id: str, timeout: float) -> WaitTimeout:
    """Return the error of a wait that is over."""
    return WaitTimeout(f"job {job_id} did not end within {timeout:g} s; it goes on, ask again later")
