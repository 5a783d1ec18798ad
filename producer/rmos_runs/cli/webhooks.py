"""``rmos webhooks``: the endpoints that are told how jobs end."""

from __future__ import annotations

from typing import Annotated

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    client_of,
    ledger_of,
    out,
    print_json,
    print_rows,
)
from rmos_runs.cli.jobs import ENDED_DEAD
from rmos_runs.cli.table import Row
from rmos_shared.jobs.model import JobState
from rmos_shared.jobs.webhooks import EndpointState
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)

EndpointArgument = Annotated[str, typer.Argument(help="The endpoint, as `rmos webhooks list` shows it.")]


@app.command("list")
def list_endpoints(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """List the endpoints that the worker found in its settings. The list says which of them are disabled."""
    with ledger_of(home) as ledger:
        print_rows(map(_row, ledger.webhooks.endpoints()), as_json=as_json, title="webhook endpoints")


def _row(state: EndpointState) -> Row:
    since = state.disabled_at_utc
    return {
        "endpoint": state.endpoint,
        "enabled": state.enabled,
        "events": " ".join(state.events),
        "reason": state.reason,
        "disabled_at_utc": None if since is None else format_utc(since),
    }


@app.command("test")
def send_test(
    endpoint: EndpointArgument,
    *,
    timeout: Annotated[float, typer.Option(min=0.1, max=3_600, help="Longest wait, in seconds.")] = 30.0,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Send a message of the type webhook.test, and wait for its end. It is signed as all are."""
    with ledger_of(home) as ledger, client_of(home) as client:
        job = ledger.webhooks.test_job(endpoint)
        ledger.accept([job])
        record = client.wait(job.job_id, timeout)
    if as_json:
        print_json(record.dump())
    elif record.state is JobState.DONE:
        out.print(f"delivered: {endpoint} took message {job.job_id}", markup=False)
    else:
        reason = "no failure is recorded" if record.failure is None else record.failure.message
        out.print(f"not delivered: {reason}; see rmos dlq show {job.job_id}", markup=False)
    if record.state is not JobState.DONE:
        raise typer.Exit(ENDED_DEAD)


@app.command()
def enable(endpoint: EndpointArgument, *, home: HomeOption = DEFAULT_HOME) -> None:
    """Take up an endpoint that its receiver's answer 410 disabled.

    What was on its way to it then is among the dead letters, reason endpoint_disabled; replay that with
    rmos dlq replay.
    """
    with ledger_of(home) as ledger:
        ledger.webhooks.enable(endpoint)
    out.print(f"enabled: {endpoint}", markup=False)
