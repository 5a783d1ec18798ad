"""``rmos reviews``: what waits for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from rmos_runs.cli.acting import AllOption, AsOption, DryRunOption, NumberOption, confirm
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    DayOption,
    HomeOption,
    JsonOption,
    LimitOption,
    err,
    ledger_if_set,
    out,
    print_json,
    print_rows,
    runs_of,
    say_unrecorded,
    store_of,
    told,
    utc_day,
)
from rmos_runs.cli.review_page import page_lines
from rmos_runs.cli.table import Row, shown
from rmos_runs.cli.verdict import run_lines, said
from rmos_runs.local.home import Home
from rmos_runs.operations.advisory_words import AdvisoryWords
from rmos_runs.operations.identity import current_identity
from rmos_runs.operations.on_record import Doing, on_record
from rmos_runs.operations.review_page import ReviewPage
from rmos_runs.operations.reviews import (
    MOST_HOURS,
    BulkVerdict,
    Opinion,
    Recorded,
    ReviewFilter,
    Reviews,
    WaitingReview,
    check_bulk,
)
from rmos_shared.advisories.model import APPROVING, REJECTING, ReviewReason
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.acts import ActKind
from rmos_shared.models.base import format_utc
from rmos_shared.runs.model import RiskLevel
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter

app = typer.Typer(no_args_is_help=True)
#: The most that one command judges; the next one takes the rest.
_MOST_AT_ONCE = 10_000
#: Shown before many are judged.
_SAMPLE = 5

RiskOption = Annotated[
    RiskLevel | None, typer.Option("--risk", case_sensitive=False, help="Only of runs of this risk.")
]
ToolOption = Annotated[
    str | None, typer.Option("--tool-prefix", help="Only of runs whose tool begins with this.")
]
AgeOption = Annotated[
    float | None,
    typer.Option("--age", min=0, max=MOST_HOURS, help="Only what has waited at least this many hours."),
]


def _reasons(fitting: Iterable[ReviewReason]) -> str:
    return ", ".join(reason.value for reason in ReviewReason if reason in fitting)


RunArgument = Annotated[str, typer.Argument(help="The run.")]
RunOfOne = Annotated[
    str | None, typer.Argument(help="The run; left out, the filters choose among all that waits.")
]
AdvisoryOfOne = Annotated[
    str | None, typer.Argument(help="The advisory, as `rmos reviews list` and `show` name it.")
]
ReasonToApprove = Annotated[
    ReviewReason | None, typer.Option("--reason", help=f"Why: {_reasons(APPROVING)}.")
]
ReasonToReject = Annotated[ReviewReason | None, typer.Option("--reason", help=f"Why: {_reasons(REJECTING)}.")]
NoteOption = Annotated[str | None, typer.Option(help="Why, in words; kept with the verdict.")]


@app.command("list")
def list_reviews(
    *,
    risk: RiskOption = None,
    tool_prefix: ToolOption = None,
    date_from: DayOption = None,
    date_to: DayOption = None,
    age: AgeOption = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the advisories that wait for a review. The policy left them to a person; nobody has reviewed them.

    A damaged file that may hide one is named, and makes the exit code 7.

    --json prints a list of objects: run_id, advisory_id, risk, summary, waits_since_utc, tool, kind; risk
    and tool are null where the run cannot be read.
    """
    choice = ReviewFilter(risk, tool_prefix, utc_day(date_from), utc_day(date_to), age)
    damage = Damage()
    with _reviews(home) as reviews:
        print_rows(
            _rows(reviews.waiting(choice), damage),
            as_json=as_json,
            title="waiting for a person",
            limit=limit,
            more=lambda _: "raise --limit, or choose by --risk, --tool-prefix, --age or the days",
        )
    damage.exit()


@app.command()
def show(
    run_id: RunArgument,
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show all that a reviewer of a run's advisories needs.

    That is the run, the whole words, and all verdicts so far. The words are asked of the advisory store, and
    proven by the hash in their link. Without it the summary stands alone, and the page says so.

    --json prints one object: run_id, created_at_utc, request_id, mode, tool_id, place, run_verdict, hashes,
    explanation_status, explanation_summary, and advisories: each with link, needs_review, words,
    words_missing and reviews.
    """
    with runs_of(home) as runs:
        page = ReviewPage.of(runs.read(run_id), AdvisoryWords.of(Home(home)))
    if as_json:
        print_json(page.dump())
        return
    for line in page_lines(page, datetime.now(UTC)):
        out.print(line, markup=False)


@app.command()
def history(
    run_id: RunArgument,
    *,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List every person's verdict on the advisories of a run. The oldest comes first; none is ever lost.

    --json prints a list of objects: at_utc, verdict, reviewed_by, reason, note, counts (whether it is the
    last on its advisory), advisory_id, review_id, act_id.
    """
    with _reviews(home) as reviews:
        judged = reviews.history(run_id)
    last = {review.advisory_id: review.review_id for review in judged}
    rows: Iterator[Row] = (
        {
            "at_utc": format_utc(review.created_at_utc),
            "verdict": "approved" if review.approved else "rejected",
            "reviewed_by": review.reviewed_by,
            "reason": review.reason,
            "note": review.note,
            "counts": last[review.advisory_id] == review.review_id,
            "advisory_id": review.advisory_id,
            "review_id": review.review_id,
            "act_id": review.act_id,
        }
        for review in judged
    )
    print_rows(rows, as_json=as_json, title="verdicts on explanations, not on cuts")


@app.command()
def approve(
    run_id: RunOfOne = None,
    advisory_id: AdvisoryOfOne = None,
    *,
    reason: ReasonToApprove = None,
    note: NoteOption = None,
    alias: AsOption = None,
    risk: RiskOption = None,
    tool_prefix: ToolOption = None,
    date_from: DayOption = None,
    date_to: DayOption = None,
    age: AgeOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    yes_number: NumberOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Approve an advisory, or many by filter: their words, not the cut. Verdicts are new records.

    With filters in the place of RUN_ID it says how many advisories wait there, asks for that number, and
    passes over what somebody else judges meanwhile. Other verdicts on an advisory are told; the last counts.

    --json prints the review (review_id, run_id, advisory_id, created_at_utc, approved, reviewed_by, note,
    reason, act_id) with judged, run_verdict, counts and others; of many: act_id, found, recorded,
    judged_meanwhile, also_judged, damaged, dry_run.
    """
    choice = ReviewFilter(risk, tool_prefix, utc_day(date_from), utc_day(date_to), age)
    opinion = Opinion(approved=True, reviewed_by=str(current_identity(alias)), reason=reason, note=note)
    _judge(home, opinion, (run_id, advisory_id), choice, _Bulk(every, dry_run, yes_number), as_json=as_json)


@app.command()
def reject(
    run_id: RunOfOne = None,
    advisory_id: AdvisoryOfOne = None,
    *,
    reason: ReasonToReject = None,
    note: NoteOption = None,
    alias: AsOption = None,
    risk: RiskOption = None,
    tool_prefix: ToolOption = None,
    date_from: DayOption = None,
    date_to: DayOption = None,
    age: AgeOption = None,
    every: AllOption = False,
    dry_run: DryRunOption = False,
    yes_number: NumberOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Reject an advisory, or many by filter: their words, not the cut. Verdicts are new records.

    As `rmos reviews approve`, --json too.
    """
    choice = ReviewFilter(risk, tool_prefix, utc_day(date_from), utc_day(date_to), age)
    opinion = Opinion(approved=False, reviewed_by=str(current_identity(alias)), reason=reason, note=note)
    _judge(home, opinion, (run_id, advisory_id), choice, _Bulk(every, dry_run, yes_number), as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Bulk:
    """How many are judged at once."""

    every: bool = False
    dry_run: bool = False
    number: int | None = None


@contextmanager
def _reviews(home: Path) -> Iterator[Reviews]:
    """Yield the verdicts; a broker that is away is not missed."""
    store = store_of(home)
    with ledger_if_set(home) as ledger:
        yield Reviews(RunReader(store), RunWriter(told(store, ledger)), ledger)


def _judge(
    home: Path,
    opinion: Opinion,
    names: tuple[str | None, str | None],
    choice: ReviewFilter,
    bulk: _Bulk,
    *,
    as_json: bool,
) -> None:
    run_id, advisory_id = names
    if run_id is None:
        if choice == ReviewFilter() and not bulk.every:
            raise typer.BadParameter(
                "name a run and an advisory, or choose by --risk, --tool-prefix, --age, the days or --all"
            )
        check_bulk(opinion)
        _judge_many(home, opinion, choice, bulk, as_json=as_json)
        return
    if advisory_id is None:
        raise typer.BadParameter("name the advisory too; `rmos reviews show` names those of a run")
    if (choice, bulk) != (ReviewFilter(), _Bulk()):
        raise typer.BadParameter("filters choose among all that waits; with RUN_ID leave them out")
    with _reviews(home) as reviews:
        recorded = reviews.record(opinion, run_id, advisory_id)
    _tell(recorded, as_json=as_json)


def _tell(recorded: Recorded, *, as_json: bool) -> None:
    review = recorded.review
    damage = Damage()
    if recorded.damage is not None:
        damage.tell(recorded.damage)
    if as_json:
        print_json(verdict_json(recorded))
        damage.exit()
        return
    out.print(f"{said(review)}: advisory {review.advisory_id}", markup=False)
    out.print("The run itself stays as the server judged it:")
    for line in run_lines(recorded.run):
        out.print(line, markup=False)
    for other in recorded.others:
        out.print(f"also judged, {format_utc(other.created_at_utc)}: {said(other)}", markup=False)
    if recorded.others:
        counting = (
            "yours is the last and counts" if recorded.counts else "another one is dated later and counts"
        )
        out.print(f"All are kept; {counting}.")
    damage.exit()


def _judge_many(home: Path, opinion: Opinion, choice: ReviewFilter, bulk: _Bulk, *, as_json: bool) -> None:
    damage = Damage()
    act = BulkVerdict()
    what = "approved" if opinion.approved else "rejected"
    with _reviews(home) as reviews:
        found = list(islice(_readable(reviews.waiting(choice), damage), _MOST_AT_ONCE))
        sample = [_row(one) for one in found[:_SAMPLE]]
        if not as_json:
            _say_what_is_meant(sample, len(found), what)
        if not bulk.dry_run:
            confirm(len(found), bulk.number, what="advisories", spoken=what)
        if found and not bulk.dry_run:
            chosen = ((one.link.run_id, one.link.advisory_id) for one in found)
            steps = reviews.record_many(opinion, chosen, act)
            about = {"verdict": what, "filter": choice.told()}
            doing = Doing(
                ActKind.REVIEW, opinion.reviewed_by, about, opinion.note or "", len(found), act_id=act.act_id
            )
            with on_record(reviews.ledger, doing, unrecorded=say_unrecorded) as progress:
                try:
                    for _ in track(
                        steps, total=len(found), description=what, console=err, disable=not err.is_terminal
                    ):
                        pass
                finally:
                    # Also of an act that was broken off: what it recorded stays.
                    progress.done, progress.refused = act.recorded, act.judged_meanwhile
                    _report(act, len(found), what, as_json=as_json)
        elif as_json:
            print_json(_bulk_json(act, len(found), dry_run=bulk.dry_run) | {"sample": sample})
    for error in act.damage:
        damage.tell(error)
    damage.exit()


def _say_what_is_meant(sample: list[Row], found: int, what: str) -> None:
    bound = f" (one command judges no more than {_MOST_AT_ONCE})" if found == _MOST_AT_ONCE else ""
    err.print(f"would be {what}: {found}{bound}")
    for row in sample:
        told = f"  {row['run_id']}  {row['advisory_id']}  {row['risk'] or '?'}  {shown(row['summary'])}"
        err.print(told, markup=False)
    if found > len(sample):
        err.print(f"  and {found - len(sample)} more; `rmos reviews list` takes the same filters")


def _report(act: BulkVerdict, found: int, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_bulk_json(act, found, dry_run=False))
        return
    out.print(f"{what}: {act.recorded} of {found}, act {act.act_id}")
    if act.judged_meanwhile:
        out.print(f"judged by others meanwhile, and left so: {act.judged_meanwhile}")
    for recorded in act.also_judged:
        for other in recorded.others:
            out.print(f"also judged: advisory {other.advisory_id}: {said(other)}", markup=False)


def _bulk_json(act: BulkVerdict, found: int, *, dry_run: bool) -> Row:
    return {
        "act_id": act.act_id,
        "found": found,
        "recorded": act.recorded,
        "judged_meanwhile": act.judged_meanwhile,
        "also_judged": [verdict_json(recorded) for recorded in act.also_judged],
        "damaged": [error.key for error in act.damage],
        "dry_run": dry_run,
    }


def verdict_json(recorded: Recorded) -> Row:
    """Return a review as programs read it, with what it judges and what it leaves as it is."""
    decision = recorded.run.decision
    return recorded.review.dump() | {
        "judged": "advisory",
        "run_verdict": {
            "status": recorded.run.status,
            "risk_level": decision.risk_level,
            "block_reason": decision.block_reason,
        },
        "counts": recorded.counts,
        "others": [other.dump() for other in recorded.others],
    }


def _readable(found: Iterable[WaitingReview | CorruptArtifact], damage: Damage) -> Iterator[WaitingReview]:
    for one in found:
        if isinstance(one, CorruptArtifact):
            damage.tell(one)
        else:
            yield one


def _rows(found: Iterable[WaitingReview | CorruptArtifact], damage: Damage) -> Iterator[Row]:
    return map(_row, _readable(found, damage))


def _row(waiting: WaitingReview) -> Row:
    link, run = waiting.link, waiting.run
    return {
        "run_id": link.run_id,
        "advisory_id": link.advisory_id,
        "risk": None if run is None else run.decision.risk_level.value,
        "summary": link.summary,
        "waits_since_utc": format_utc(link.created_at_utc),
        "tool": None if run is None else run.tool_id,
        "kind": link.kind,
    }
