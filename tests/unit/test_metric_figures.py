"""A status as metrics: what is away is left out and said, and words of other programs become no series."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from rmos_runs.gateway.figures import families
from rmos_runs.operations.status import StorageStatus, SystemStatus, Unreachable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.figures.model import (
    BreakerFigures,
    DeadLetterGroup,
    LedgerFigures,
    QueueFigures,
    WorkerFigures,
)
from rmos_shared.telemetry.prometheus import exposition

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def exported(status: SystemStatus | None) -> dict[tuple[str, ...], float]:
    text = exposition(families(status, read_seconds=0.5))[0].decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def letters(reason: str, count: int) -> DeadLetterGroup:
    return DeadLetterGroup(reason=reason, letters=count, first_seen_utc=NOW, last_seen_utc=NOW)


def worker(name: str, heartbeat_seconds: float | None, *, silent: bool) -> WorkerFigures:
    return WorkerFigures(worker=name, heartbeat_seconds=heartbeat_seconds, silent=silent, running=0, jobs=[])


def status(figures: LedgerFigures | None, *away: Unreachable) -> SystemStatus:
    storage = StorageStatus(store_id=new_uuid7(), created_at_utc=NOW, free_bytes=5, total_bytes=10)
    return SystemStatus(
        at_utc=NOW,
        ledger=None,
        pending=None,
        invariant=None,
        figures=figures,
        storage=storage,
        index=None,
        reviews=None,
        unreachable=[*away],
    )


def test_what_is_away_is_left_out_and_said() -> None:
    away = Unreachable(part="ledger", code="BROKER_UNAVAILABLE", message="away", exit_code=6)
    found = exported(status(None, away))
    assert {part: found["rmos_part_up", part] for part in ("ledger", "storage", "index", "reviews")} == {
        "ledger": 0,
        "storage": 1,
        "index": 1,
        "reviews": 1,
    }
    assert (found["rmos_storage_free_bytes",], found["rmos_storage_size_bytes",]) == (5, 10)
    assert not [name for name, *_ in found if name.startswith(("rmos_jobs", "rmos_queue", "rmos_index"))]


def test_without_any_status_every_part_is_away() -> None:
    found = exported(None)
    assert {value for (name, *_), value in found.items() if name == "rmos_part_up"} == {0}


def test_words_of_other_programs_become_one_series() -> None:
    queues = [
        QueueFigures(queue="runs.create", ready=3, oldest_ready_seconds=7.0),
        QueueFigures(queue="made-up", ready=4, oldest_ready_seconds=8.0),
        QueueFigures(queue="made-up-too", ready=5, oldest_ready_seconds=9.0),
    ]
    figures = LedgerFigures(
        at_utc=NOW,
        queues=queues,
        tasks=[],
        waiting=[],
        dead_letters=[letters("conflict", 2), letters("made up", 3), letters("made up too", 4)],
        flow=[],
        flow_seconds=300.0,
        breaker=BreakerFigures(state="half_open", why="X", since_utc=NOW - timedelta(seconds=90)),
        workers=[
            worker("a", 1.5, silent=False),
            worker("b", None, silent=False),
            worker("c", 99, silent=True),
        ],
        more_workers=False,
        most_examined=10,
        capped=[],
    )
    found = exported(status(figures))
    assert (found["rmos_queue_ready_jobs", "runs.create"], found["rmos_queue_ready_jobs", "other"]) == (3, 9)
    ages = [
        found["rmos_queue_oldest_ready_age_seconds", name] for name in ("runs.create", "other", "runs.advise")
    ]
    assert ages == [7, 9, 0]
    # Each reason that there can be has a series, or the first letter of it would be no increase.
    reasons = [found["rmos_dead_letters", reason] for reason in ("conflict", "other", "crash_loop")]
    assert reasons == [2, 7, 0]
    assert not [key for key in found if any("made" in word for word in key)]
    states = {state: found["rmos_breaker_state", state] for state in ("closed", "open", "half_open")}
    assert states == {"closed": 0, "open": 0, "half_open": 1}
    assert found["rmos_advisory_outage_seconds",] == 90
    assert (found["rmos_worker_processes", "beating"], found["rmos_worker_processes", "silent"]) == (2, 1)
    assert found["rmos_worker_heartbeat_age_seconds",] == 1.5
