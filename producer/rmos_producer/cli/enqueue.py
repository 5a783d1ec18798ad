"""``rmos enqueue``, ``suggest`` and ``attach``: put jobs in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from rmos_producer.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    client_of,
    err,
    print_json,
    print_rows,
)
from rmos_producer.cli.requests import read_requests
from rmos_producer.client import Receipt, RunsClient
from rmos_shared.errors import InvalidRequest
from rmos_shared.models.run import RunRequest

_BULK = 100


def enqueue(
    file: Annotated[Path, typer.Argument(help="Requests, one JSON object a line; - for standard input.")],
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Explain each run once it is stored.")] = False,
    detail: Annotated[str, typer.Option(help="Detail of the explanations: summary or full.")] = "summary",
    bulk: Annotated[
        int,
        typer.Option(
            min=1, max=1_000, help="Jobs accepted in one step; 1: each by itself, as a service would."
        ),
    ] = _BULK,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Wrong lines are reported with their number; the rest goes in."""
    if detail not in {"summary", "full"}:
        raise typer.BadParameter("must be summary or full", param_hint="--detail")
    wrong: list[dict[str, Any]] = []
    accepted = 0
    with client_of(home, accept_batch_jobs=bulk) as client, _open(file) as lines:
        requests = read_requests(lines, wrong)
        for receipt in _receipts(client, requests, bulk=bulk, explain=detail if explain else False):
            accepted += 1
            if as_json:
                print_json(_told(receipt))
    for line in wrong:
        err.print(f"line {line['line']}: {line['error']}", markup=False, style="red")
    err.print(f"{accepted} jobs accepted, {len(wrong)} lines refused")
    if wrong:
        raise typer.Exit(InvalidRequest.exit_code)


def suggest(
    run_ids: Annotated[list[str], typer.Argument(help="Runs to explain.")],
    *,
    detail: Annotated[str, typer.Option(help="summary or full")] = "summary",
    request_id: Annotated[str | None, typer.Option(help="Correlation id to carry through.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Prints the jobs that will do it."""
    if detail not in {"summary", "full"}:
        raise typer.BadParameter("must be summary or full", param_hint="--detail")
    with client_of(home) as client:
        receipts = [
            client.suggest_and_attach(run_id, detail=detail, request_id=request_id)  # type: ignore[arg-type]
            for run_id in run_ids
        ]
    print_rows([_told(receipt) for receipt in receipts], as_json=as_json, title="accepted")


def attach(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    advisory_id: Annotated[str, typer.Argument(help="An advisory that the advisory store holds.")],
    *,
    kind: Annotated[str, typer.Option(help="explanation, advisory, note or unknown")] = "advisory",
    request_id: Annotated[str | None, typer.Option(help="Correlation id to carry through.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Prints the job that will do it."""
    with client_of(home) as client:
        receipt = client.attach_advisory(run_id, advisory_id, kind=kind, request_id=request_id)  # type: ignore[arg-type]
    print_rows([_told(receipt)], as_json=as_json, title="accepted")


def _receipts(
    client: RunsClient, requests: Iterator[RunRequest], *, bulk: int, explain: Any
) -> Iterator[Receipt]:
    if bulk == 1:
        return (client.create_run(request, explain=explain) for request in requests)
    return client.create_runs(requests, explain=explain)


@contextmanager
def _open(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        handle = file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"cannot read it: {error.strerror}", param_hint="FILE") from None
    with handle:
        yield handle


def _told(receipt: Receipt) -> dict[str, Any]:
    return {
        "run_id": receipt.run_id,
        "job_id": receipt.job_id,
        "explain_job_id": receipt.explain_job_id,
        "missing": list(receipt.missing),
    }
