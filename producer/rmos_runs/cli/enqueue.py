"""``rmos enqueue``, ``suggest`` and ``attach``: put jobs in."""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    client_of,
    err,
    print_json,
    print_rows,
)
from rmos_runs.cli.requests import LineIds, read_jobs
from rmos_runs.client import RunsClient
from rmos_runs.jobs import Explain
from rmos_runs.receipt import Prepared, Receipt
from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.errors import InvalidRequest, JobConflict, RmosError
from rmos_shared.models.base import UtcTime, format_utc
from rmos_shared.tasks.table import CREATE, CREATE_MANY

DetailOption = Annotated[DetailLevel, typer.Option(help="Detail of the explanations.")]
RequestIdOption = Annotated[str | None, typer.Option(help="Correlation id to carry through.")]
_BULK = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: TypeAdapter[datetime] = TypeAdapter(UtcTime)


def enqueue(
    file: Annotated[Path, typer.Argument(help="Requests, one JSON object a line; - for standard input.")],
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Explain each run once it is stored.")] = False,
    detail: DetailOption = "summary",
    bulk: Annotated[
        int,
        typer.Option(
            min=1, max=1_000, help="Jobs accepted in one step; 1: each by itself, as a service would."
        ),
    ] = _BULK,
    ids_from: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|FILE",
            help="Time in the ids of runs that bring none: RFC 3339, or a file's last change. "
            "FILE's if left out.",
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Create a run for each line of FILE.

    Wrong lines are reported with their number; the rest goes in. The same file again makes no second run.

    Runs that bring no id get one of their content and their time, which is created_at_utc or the file's last
    change. So the same command goes on after any stop: accepted runs are recognised.
    """
    wanted: Explain = detail if explain else False
    with client_of(home, accept_batch_jobs=bulk) as client, _open(file) as lines:
        ids = LineIds(_moment(lines, ids_from))
        intake = _Intake(client, ids, one_by_one=bulk == 1)
        try:
            for number, receipt in intake.receipts(lines, wanted):
                if as_json:
                    print_json({"line": number, **_row(receipt)})
        finally:
            # However it ends: a broken line, the broker, a full disk behind the pipe, Ctrl-C.
            intake.tell()
    if intake.exit_code:
        raise typer.Exit(intake.exit_code)


class _Intake:
    """Puts the lines of a file in, and counts what became of them."""

    def __init__(self, client: RunsClient, ids: LineIds, *, one_by_one: bool) -> None:
        self._client = client
        self._ids = ids
        self._spec = CREATE if one_by_one else CREATE_MANY
        self._accepted = self._repeated = self._refused = 0
        #: Numbers of lines that are read, and sent or about to be, and of which no answer is known.
        self._unsure: deque[int] = deque()
        self._last = 0
        self._ended = False
        self.exit_code = 0

    def receipts(self, file: IO[bytes], explain: Explain) -> Iterator[tuple[int, Receipt]]:
        """Yield the number and the receipt of each line that is accepted, now or before."""
        for prepared, acceptance in self._client.accept_each(self._jobs(file, explain)):
            number = self._unsure.popleft()
            self._last = number
            try:
                receipt = prepared.receipt_of(acceptance)
            except JobConflict as error:
                self._refuse(number, error)
                continue
            if receipt.repeat:
                self._repeated += 1
            else:
                self._accepted += 1
            yield number, receipt
        self._ended = True

    def tell(self) -> None:
        """Say how far it came and, unless it is all done, how to go on."""
        parts = [f"{self._accepted} jobs accepted"]
        if self._repeated:
            parts.append(f"{self._repeated} accepted before")
        parts.append(f"{self._refused} lines refused")
        if not self._ended:
            parts.append(f"stopped; the last line known to be in is {self._last}")
        err.print(", ".join(parts))
        if self._unsure:
            err.print(f"lines {self._unsure[0]} to {self._unsure[-1]} may be accepted or not")
        if self._ids.random:
            err.print(
                f"{self._ids.random} runs got ids of their own: the same input again would record them again;"
                " --ids-from gives ids that stay"
            )
        elif not self._ended or self._refused:
            since = "" if self._ids.moment is None else f" --ids-from {format_utc(self._ids.moment)}"
            err.print(
                "To go on, give the whole input again, repaired where it must be, with the same options"
                f"{since}: accepted lines are recognised"
            )

    def _jobs(self, file: IO[bytes], explain: Explain) -> Iterator[Prepared]:
        try:
            for number, prepared in read_jobs(
                file,
                self._spec,
                explain=explain,
                most_bytes=self._client.max_payload_bytes,
                ids=self._ids,
                refuse=self._refuse,
            ):
                self._unsure.append(number)
                yield prepared
        except OSError as error:
            raise _unreadable(error) from None

    def _refuse(self, number: int, error: RmosError) -> None:
        self._refused += 1
        err.print(f"line {number}: {error}", markup=False, style="red")
        # A wrong line outweighs a conflict in the ledger.
        self.exit_code = InvalidRequest.exit_code if self.exit_code else error.exit_code


def suggest(
    run_ids: Annotated[list[str], typer.Argument(help="Runs to explain.")],
    *,
    detail: DetailOption = "summary",
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Explain runs and link the explanations.

    Prints the jobs that will do it.
    """
    with client_of(home) as client:
        receipts = [
            client.suggest_and_attach(run_id, detail=detail, request_id=request_id) for run_id in run_ids
        ]
    print_rows([_row(receipt) for receipt in receipts], as_json=as_json, title="accepted")


def attach(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    advisory_id: Annotated[str, typer.Argument(help="An advisory that the advisory store holds.")],
    *,
    kind: Annotated[AdvisoryKind, typer.Option(help="What the advisory is to the run.")] = "advisory",
    request_id: RequestIdOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Link an existing advisory to a run.

    Prints the job that will do it.
    """
    with client_of(home) as client:
        receipt = client.attach_advisory(run_id, advisory_id, kind=kind, request_id=request_id)
    print_rows([_row(receipt)], as_json=as_json, title="accepted")


@contextmanager
def _open(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        handle = file.open("rb")
    except OSError as error:
        raise _unreadable(error) from None
    with handle:
        yield handle


def _unreadable(error: OSError) -> typer.BadParameter:
    return typer.BadParameter(f"cannot read it: {error.strerror}", param_hint="FILE")


def _moment(file: IO[bytes], ids_from: str | None) -> datetime | None:
    """Return the time that the ids of a file's runs bear; None when nothing tells one that stays."""
    if ids_from is None:
        status = os.fstat(file.fileno())
        return _changed(status) if stat.S_ISREG(status.st_mode) else None
    try:
        return _TIME.validate_python(ids_from)
    except ValidationError:
        pass
    try:
        return _changed(Path(ids_from).stat())
    except OSError:
        raise typer.BadParameter(
            "neither a time such as 2026-11-24T06:00:00Z nor a file", param_hint="--ids-from"
        ) from None


def _changed(status: os.stat_result) -> datetime:
    # To the millisecond, which is what an id holds.
    milliseconds = max(0, status.st_mtime_ns // 1_000_000)
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise typer.BadParameter(
            "the file's time is after the year 9999; use --ids-from", param_hint="FILE"
        ) from None


def _row(receipt: Receipt) -> dict[str, Any]:
    return {
        "run_id": receipt.run_id,
        "job_id": receipt.job_id,
        "explain_job_id": receipt.explain_job_id,
        "missing": list(receipt.missing),
        "repeat": receipt.repeat,
    }
