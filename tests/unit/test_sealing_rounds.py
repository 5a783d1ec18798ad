"""When a seal job is due, and which one it is: a pure decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rmos_shared.ids import JOB_ID, seal_job_id
from rmos_shared.jobs.unsealed import SealingState
from rmos_shared.settings.audit import AuditSettings
from rmos_worker.engine.sealing import next_seal
from support.sealing import sealing

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SETTINGS = AuditSettings.load()
SECOND = timedelta(seconds=1)
END = datetime.max.replace(tzinfo=UTC)


def state(**changes: Any) -> SealingState:
    """Return that of a log which was sealed a moment ago, with nothing since."""
    values: dict[str, Any] = {
        "now": NOW,
        "unsealed": 0,
        "oldest_at": None,
        "number": 7,
        "since": NOW - timedelta(days=9),
        "sealed_at": NOW - SECOND,
        "next_at": NOW + timedelta(minutes=59),
        "size": 12,
        "root": "00",
        "signed_by": "",
        "checkpoint": None,
        "seals": 3,
        "late": 0,
        "unintroduced": 0,
        "reconciled_at": NOW - SECOND,
        "whole_at": NOW - SECOND,
    }
    return SealingState(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, False),
        ({"unsealed": 999, "oldest_at": NOW - 59 * SECOND}, False),
        ({"unsealed": 1, "oldest_at": NOW - 60 * SECOND}, True),
        ({"unsealed": 1_000, "oldest_at": NOW}, True),
        ({"next_at": NOW + SECOND}, False),
        ({"next_at": NOW}, True),
        ({"next_at": None, "sealed_at": None}, True),
        (
            {"next_at": None, "sealed_at": None, "since": NOW - timedelta(minutes=59), "reconciled_at": NOW},
            False,
        ),
        ({"reconciled_at": NOW - timedelta(seconds=599)}, False),
        ({"reconciled_at": NOW - timedelta(seconds=600)}, True),
        ({"reconciled_at": None}, True),
        ({"reconciled_at": None, "since": NOW - SECOND}, False),
        # The ledger's clock was set back: what lies ahead of it is not waited for.
        ({"unsealed": 1, "oldest_at": NOW + SECOND}, True),
        ({"unsealed": 1, "oldest_at": END}, True),
        ({"reconciled_at": NOW + SECOND}, True),
        ({"reconciled_at": END}, True),
        ({"reconciled_at": None, "since": NOW + SECOND}, True),
        ({"next_at": None, "sealed_at": None, "since": NOW + SECOND, "reconciled_at": NOW}, True),
        ({"next_at": NOW + timedelta(days=1)}, False),
        ({"next_at": NOW + timedelta(days=1, seconds=1)}, True),
        ({"next_at": END}, True),
        # A promise of the clock before stands: the sealer, asked each second, would make no seal.
        ({"next_at": NOW + timedelta(hours=49), "sealed_at": NOW + timedelta(hours=48)}, False),
        ({"next_at": END, "sealed_at": END - timedelta(hours=1)}, False),
    ],
)
def test_a_seal_is_due_by_amount_age_promise_or_reconciliation(changes: dict[str, Any], *, due: bool) -> None:
    assert (next_seal(state(**changes), SETTINGS) is not None) == due


def test_the_job_is_the_same_until_one_has_ended() -> None:
    due = {"unsealed": 5, "oldest_at": NOW - 90 * SECOND}
    first = next_seal(state(**due), SETTINGS)
    again = next_seal(state(**due | {"unsealed": 6, "now": NOW + SECOND}), SETTINGS)
    after = next_seal(state(**due, number=8), SETTINGS)
    assert first is not None
    assert after is not None
    assert first == again
    assert first.job_id == seal_job_id(7) != after.job_id
    assert JOB_ID.fullmatch(first.job_id)


@pytest.mark.parametrize(
    ("changes", "stopped"),
    [
        ({}, False),
        ({"oldest_unsealed_seconds": 299.0}, False),
        ({"oldest_unsealed_seconds": 301.0}, True),
        ({"overdue_seconds": 59.0}, False),
        ({"overdue_seconds": 61.0}, True),
        ({"dead_job": seal_job_id(7)}, True),
    ],
)
def test_sealing_has_stopped_when_it_is_late_or_its_job_dead(
    changes: dict[str, Any], *, stopped: bool
) -> None:
    assert sealing(**changes).has_stopped == stopped
