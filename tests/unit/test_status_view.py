"""How a status is laid out: nothing is cut without a mark."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from rmos_runs.cli.status_view import UNLIMITED, Line, Section, fitted, sections, size, span
from rmos_runs.operations.status import (
    IndexStatus,
    NightlyStatus,
    ReviewsStatus,
    StorageStatus,
    SystemStatus,
    Unreachable,
)
from rmos_shared.ids import new_uuid7, seal_job_id
from rmos_shared.jobs.figures.model import (
    BreakerFigures,
    DeadLetterGroup,
    HeldJob,
    LedgerFigures,
    QueueFigures,
    TaskFlow,
    TaskJobs,
    WaitingJobs,
    WorkerFigures,
)
from rmos_shared.jobs.model import LedgerStats
from rmos_shared.jobs.pauses import Pause
from rmos_shared.tasks.table import QUEUES, TASKS
from support.sealing import sealing

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NIGHT = timedelta(hours=8)


def figures(**changes: Any) -> LedgerFigures:
    """Return those of a system in which everything goes on at once."""
    values: dict[str, Any] = {
        "at_utc": NOW,
        "queues": [QueueFigures(queue=queue, ready=600_000, oldest_ready_seconds=7_300) for queue in QUEUES],
        "tasks": [TaskJobs(task=task, accepted=600_000, running=100, dead=100_000) for task in TASKS],
        "waiting": [
            WaitingJobs(reason=reason, jobs=9, first_due_utc=NOW, last_due_utc=NOW + NIGHT)
            for reason in ("advisory_misconfigured", "breaker_open", "webhook_unavailable")
        ],
        "dead_letters": [
            DeadLetterGroup(reason=reason, letters=100_000, first_seen_utc=NOW - NIGHT, last_seen_utc=NOW)
            for reason in ("retries_exhausted", "crash_loop", "malformed_message", "advisory_refused")
        ],
        "flow": [
            TaskFlow(
                task=task,
                accepted_per_second_1m=12_345.6,
                accepted_per_second_5m=1.25,
                done_per_second_1m=12_345.6,
                done_per_second_5m=0,
                dead_per_second_1m=0.0123,
                dead_per_second_5m=0,
                measured=500,
                accepted_to_done_seconds_p50=0.0123,
                accepted_to_done_seconds_p99=12_345.6,
                started_to_done_seconds_p50=0.001,
                started_to_done_seconds_p99=None,
            )
            for task in TASKS
        ],
        "flow_seconds": 300.0,
        "breaker": BreakerFigures(
            state="open",
            why="ADVISORY_UNAVAILABLE",
            since_utc=NOW - NIGHT,
            until_utc=NOW + timedelta(seconds=40),
        ),
        "workers": [
            WorkerFigures(
                worker=f"cnc-shop-1:{number}:0123abcd",
                heartbeat_seconds=1.25 * number,
                silent=number == 9,
                running=number % 2 * 25,
                jobs=[
                    HeldJob(job_id=f"{new_uuid7(NOW)}.explain", task="runs.suggest_and_attach", since_utc=NOW)
                    for _ in range(number % 2 * 20)
                ],
            )
            for number in range(12)
        ],
        "more_workers": False,
        "most_examined": 10_000,
        "capped": ["accepted", "dead"],
    }
    return LedgerFigures(**(values | changes))


def status(**changes: Any) -> SystemStatus:
    counts = {
        "done": 10**7,
        "dead": 600_000,
        "discarded": 0,
        "waiting": 27,
        "running": 150,
        "ready": 2_400_000,
    }
    values: dict[str, Any] = {
        "at_utc": NOW,
        "ledger": LedgerStats(accepted=sum(counts.values()), raw=4, queues={}, **counts),
        "pending": 2_400_177,
        "invariant": True,
        "figures": figures(),
        "storage": StorageStatus(
            store_id=new_uuid7(NOW), created_at_utc=NOW, free_bytes=10**12, total_bytes=2 * 10**12
        ),
        "index": IndexStatus(built_at_utc=NOW, complete_until_utc=NOW, behind_seconds=0.4),
        "reviews": ReviewsStatus(runs=1_000, more=True),
        "unreachable": [],
    }
    return SystemStatus(**(values | changes))


def text_of(*listed: Section) -> str:
    return "\n".join(line.text for section in listed for line in section.lines)


@pytest.mark.parametrize("brief", [False, True])
@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_the_terminal_and_no_id_is_cut(width: int, *, brief: bool) -> None:
    found = status()
    listed = sections(found, width, brief=brief)
    for section in listed:
        for line in section.lines:
            assert cell_len(line.text) <= width, line.text
    text = text_of(*listed)
    assert found.figures
    for job in (job for worker in found.figures.workers for job in worker.jobs):
        assert job.job_id in text
    assert "…" in text, "jobs of a worker that are not listed are counted"
    if not brief:
        assert found.storage
        assert found.storage.store_id in text


def test_at_eighty_columns_no_column_is_missing() -> None:
    for brief in (False, True):
        assert "columns hidden" not in text_of(*sections(status(), 80, brief=brief))
    assert "columns hidden" in text_of(*sections(status(), 40))


@pytest.mark.parametrize("height", [*range(1, 30), 100, 1_000])
def test_a_small_screen_gets_what_fits_and_is_told_of_the_rest(height: int) -> None:
    listed = sections(status(), 80, brief=True)
    lines = [line.text for line in fitted(listed, height)]
    whole = [line.text for section in listed for line in section.lines]
    assert len(lines) <= height
    kept = [line for line in lines if not line.startswith("…")]
    rest = iter(whole)
    assert all(line in rest for line in kept), "in their order"
    # Whatever is not there is counted.
    counted = sum(int(line.split()[1]) for line in lines if line.endswith("see rmos status"))
    shown = sum(not line.startswith("…") for line in lines)
    if "sections more" not in lines[-1]:
        assert counted + shown == len(whole)
    if len(whole) <= height:
        assert lines == whole


def test_a_screen_of_24_lines_shows_something_of_everything() -> None:
    lines = [line.text for line in fitted(sections(status(), 80, brief=True), 23)]
    for begin in (
        "jobs:",
        "queue ",
        "task ",
        "waiting for ",
        "dead letters ",
        "advisory store:",
        "workers:",
        "store:",
    ):
        assert [line for line in lines if line.startswith(begin)], begin


def test_what_was_not_looked_at_to_its_end_is_marked() -> None:
    text = text_of(*sections(status(), UNLIMITED))
    assert "accepted: of the first 10000 of each line alone; there are 2400000" in text
    assert "dead: of the latest 10000 alone; there are 600000" in text
    assert "1000 or more runs wait for a person" in text
    assert "events of five minutes are not kept" not in text
    short = text_of(*sections(status(figures=figures(flow_seconds=12.0)), UNLIMITED))
    assert "a second (last 12 s)" in short
    assert "events of five minutes are not kept or not looked at" in short


def test_each_part_that_is_away_says_why_and_the_others_are_shown() -> None:
    def away(part: Any) -> Unreachable:
        return Unreachable(part=part, code="X", message=f"\x1b[31mgone {part}", exit_code=6)

    text = text_of(*sections(status(ledger=None, figures=None, unreachable=[away("ledger")]), 80))
    assert "ledger: not reachable: \\x1b[31mgone ledger" in text
    assert "store:" in text
    text = text_of(*sections(status(storage=None, unreachable=[away("storage")]), 80))
    assert "storage: not reachable: \\x1b[31mgone storage" in text
    assert "runs.create" in text
    assert " free" not in text


def test_the_nightly_batch_is_told_once_somebody_tells_of_it() -> None:
    assert "nightly" not in text_of(*sections(status(), 80))
    nightly = NightlyStatus(last_due_utc=None, next_due_utc=NOW)
    text = text_of(*sections(status(nightly=nightly), 80))
    assert "nightly batch: last due never, next due 2026-11-28T12:00:00Z" in text


def test_a_broken_invariant_stands_out() -> None:
    ledger = status().ledger
    assert ledger is not None
    broken = ledger.model_copy(update={"accepted": 1})
    lines = [line for section in sections(status(ledger=broken), 80) for line in section.lines]
    assert Line("the invariant is broken; see rmos doctor", "red") in lines


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 s"),
        (0.26, "0.3 s"),
        (12, "12 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_300, "2 h"),
        (2e5, "2 d"),
    ],
)
def test_a_length_of_time_is_said_in_one_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (10**12, "931 GiB"), (2**60, "1024 PiB")],
)
def test_bytes_are_said_in_one_unit(number: int, said: str) -> None:
    assert size(number) == said


def test_what_is_paused_is_told_before_what_waits_for_it() -> None:
    held = Pause(subject="queue:runs.advise", by="anna@shop", why="the store moves", at_utc=NOW)
    text = text_of(*sections(status(pauses=(held,)), 120))
    line = "paused: queue runs.advise since 2026-11-28T12:00:00Z, by anna@shop: the store moves"
    assert line in text
    assert text.index(line) < text.index("ready")
    assert "paused" not in text_of(*sections(status(), 120))


def test_status_says_how_far_the_log_is() -> None:
    text = text_of(*sections(status(audit=sealing()), 200))
    assert (
        "audit log: 12 entries, sealed 12 s ago, signed by 0123abcd; 3 not sealed, the oldest for 4.0 s"
        in text
    )
    text = text_of(*sections(status(audit=sealing(signed_by=None, dead_job=seal_job_id(7))), 200))
    assert "unsigned" in text
    assert f"rmos dlq show {seal_job_id(7)}" in text
    assert "audit log" not in text_of(*sections(status(audit=sealing()), 80, brief=True))
    assert "audit log" in text_of(*sections(status(audit=sealing(overdue_seconds=99.0)), 80, brief=True))
