"""Batches of re-explanations in the ledger: opened once, steered by operators, counted by their jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from rmos_shared.batches.record import BatchCounts, BatchRecord, BatchSpec, BatchState
from rmos_shared.errors import BatchNotFound, BrokerDamaged, InvalidRequest, TransitionRefused
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.telemetry.events import BatchUnreadable
from rmos_shared.telemetry.log import emit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Ids that are read in one go.
_PAGE = 100


class Opening(StrEnum):
    """How the opening of a batch ended."""

    NEW = "new"
    #: The same batch was opened before: a success.
    REPEAT = "repeat"
    #: Its id is taken by a batch with another task, which stays.
    CONFLICT = "conflict"


class Step(StrEnum):
    """What an operator may do with a batch."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class JobBatches:
    """Each method is an atomic step and may be repeated, as those of ``JobLedger``; it raises as they do."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def open(self, batch_id: str, spec: BatchSpec) -> Opening:
        """Begin a batch, which the workers' reconcilers then carry on; the same again is a repeat.

        That its entry of the schedule was due at that time is written down in the same step.
        """
        due = spec.due_at_utc
        answer = self._script.text(
            "open_batch",
            batch_id,
            spec.to_bytes(),
            spec.entry or "",
            0 if due is None else _milliseconds(due),
        )
        return Opening(answer)

    def steer(self, batch_id: str, step: Step, *, by: str, why: str) -> BatchState:
        """Pause, resume or cancel a batch, and return its state; who did it and why stays in its history.

        From then on a batch that is paused or cancelled gets no further jobs in line. Those that are in line
        come to their ends all the same.

        Raises:
            BatchNotFound: there is no such batch.
            TransitionRefused: its state does not allow it.
        """
        answer, allowed = self._script.run("steer_batch", batch_id, step.value, by, why)
        state = bytes(answer).decode()
        if state == "unknown":
            raise BatchNotFound(batch_id)
        if not allowed:
            raise TransitionRefused(f"batch {batch_id} is {state}; it cannot be {_PAST[step]} any more")
        return BatchState(state)

    def find(self, batch_id: str) -> BatchRecord | None:
        """Return a batch, or None.

        Raises:
            BrokerDamaged: what the ledger has of it cannot be read.
        """
        with broker_errors():
            fields = self._script.client.hgetall(f"{self._script.prefix}batch:{batch_id}")
        return _record(batch_id, cast("dict[bytes, bytes]", fields)) if fields else None

    def get(self, batch_id: str) -> BatchRecord:
        """Return a batch.

        Raises:
            BatchNotFound: there is no such batch.
        """
        batch = self.find(batch_id)
        if batch is None:
            raise BatchNotFound(batch_id)
        return batch

    def newest_first(self) -> Iterator[BatchRecord]:
        """Yield every batch, the one opened last first; one that cannot be read is reported and left out."""
        first = 0
        while True:
            with broker_errors():
                ids = self._script.client.zrevrange(f"{self._script.prefix}batches", first, first + _PAGE - 1)
            for batch_id in cast("list[bytes]", ids):
                batch = self._readable(batch_id.decode())
                if batch is not None:
                    yield batch
            if len(cast("list[bytes]", ids)) < _PAGE:
                return
            first += _PAGE

    def under_way(self) -> tuple[datetime, list[BatchRecord]]:
        """Return the batches that have not ended, and the server's time."""
        with broker_errors():
            ids = self._script.client.smembers(f"{self._script.prefix}batches_open")
            seconds, micros = self._script.client.time()
        found = [self._readable(batch_id.decode()) for batch_id in sorted(cast("set[bytes]", ids))]
        now = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)
        return now, [batch for batch in found if batch is not None]

    def last_due(self, entry: str) -> datetime | None:
        """Return when an entry of the schedule was due whose batch was opened last; None: of a new system."""
        with broker_errors():
            answer = cast("bytes | None", self._script.client.hget(f"{self._script.prefix}scheduled", entry))
        try:
            return None if answer is None else _moment(answer.decode())
        except ValueError:
            raise BrokerDamaged(f"the ledger's key {self._script.prefix}scheduled cannot be read") from None

    def begin_schedule(self, entry: str, due: datetime) -> None:
        """Write down, of a new system, that nothing was missed of an entry up to ``due``."""
        with broker_errors():
            self._script.client.hsetnx(f"{self._script.prefix}scheduled", entry, str(_milliseconds(due)))

    def schedule_is_paused(self) -> bool:
        """Say whether an operator has paused the schedule."""
        with broker_errors():
            return bool(self._script.client.hexists(f"{self._script.prefix}pauses", "schedule"))

    def _readable(self, batch_id: str) -> BatchRecord | None:
        try:
            return self.find(batch_id)
        except BrokerDamaged as error:
            emit(BatchUnreadable(batch_id=batch_id, error=str(error)))
            return None


_PAST = {Step.PAUSE: "paused", Step.RESUME: "resumed", Step.CANCEL: "cancelled"}


def _record(batch_id: str, fields: Mapping[bytes, bytes]) -> BatchRecord:
    try:
        return _read(batch_id, {key.decode(): value.decode() for key, value in fields.items()})
    except (KeyError, ValueError, TypeError, OverflowError, InvalidRequest) as error:
        raise BrokerDamaged(
            f"what the ledger has of batch {batch_id} cannot be read ({type(error).__name__})"
        ) from None


def _read(batch_id: str, fields: Mapping[str, str]) -> BatchRecord:
    times: dict[str, Any] = {
        f"{name}_utc": _moment(fields[field])
        for name, field in (
            ("created_at", "created_at"),
            ("changed_at", "changed_at"),
            ("ended_at", "ended_at"),
            ("next_page_at", "next_at"),
        )
        if field in fields
    }
    texts = {
        name: fields.get(name) or None
        for name in ("place", "engine_id", "engine_version", "report_key", "report_sha256")
    }
    return BatchRecord.read(
        {
            "batch_id": batch_id,
            "state": fields["state"],
            "spec": json.loads(fields["spec"]),
            "counts": {name: int(fields.get(name, 0)) for name in BatchCounts.model_fields},
            "planned": fields.get("planned") == "1",
            "pages": int(fields.get("pages", 0)),
            "history": json.loads(fields.get("history", "[]")),
            **times,
            **texts,
        }
    )


def _moment(milliseconds: str) -> datetime:
    # Lua writes large numbers as it likes.
    return _EPOCH + timedelta(milliseconds=int(float(milliseconds)))


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
