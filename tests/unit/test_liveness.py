"""When a worker counts as alive: a table of what was seen, without a worker and without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rmos_runs.local.liveness import Health, Probes
from rmos_worker.monitoring.liveness import Liveness, Seen, State

PATIENCE = 60.0


def after(looks: Sequence[dict[str, Any]], *, every: float = 1.0, later: float = 0.0) -> State:
    """Return the state after these looks; what one does not tell is as in the one before."""
    told: dict[str, Any] = {"taken": 0, "busy": 0, "slots": 2, "stopping": False, "work": False}
    liveness = Liveness.first(Seen(at=0.0, loop_at=0.0, **told))
    now = 0.0
    for look in looks:
        now += every
        told |= look
        loop_at = told.get("loop_at", now)
        seen = Seen(**{**told, "at": now, "loop_at": loop_at})
        liveness = liveness.after(seen, patience_seconds=PATIENCE)
    return liveness.state(now + later, patience_seconds=PATIENCE, look_seconds=15)


def looks(seconds: int, **fields: Any) -> list[dict[str, Any]]:
    return [fields] * seconds


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (looks(300), State.IDLE),
        (looks(59, work=True), State.WORKING),
        (looks(61, work=True), State.STALLED),
        # All slots on long jobs, and jobs in line: it could not take one.
        (looks(300, work=True, busy=2), State.BUSY),
        # One slot is free all the time.
        (looks(61, work=True, busy=1), State.STALLED),
        # It has just become free.
        ([*looks(300, work=True, busy=2), *looks(59, busy=1)], State.WORKING),
        ([*looks(300, work=True, busy=2), *looks(61, busy=1)], State.STALLED),
        # It takes one now and then.
        ([*looks(50, work=True), *looks(50, taken=1), *looks(50, taken=2)], State.WORKING),
        # Others emptied the line, or it was paused, for a moment.
        ([*looks(50, work=True), *looks(1, work=False), *looks(50, work=True)], State.WORKING),
        # It goes on, and is well again.
        ([*looks(90, work=True), *looks(1, taken=1)], State.WORKING),
        # The broker was away, and Celery has not come back to it yet.
        (looks(600, work=None, loop_at=1.0), State.BROKER_AWAY),
        ([*looks(600, work=None, loop_at=1.0), *looks(50, work=True)], State.WORKING),
        ([*looks(600, work=None, loop_at=1.0), *looks(61, work=True)], State.LOOP_HANGS),
        # The loop stands still: with nothing in line, and with slots that seem busy for that.
        (looks(62, loop_at=1.0), State.LOOP_HANGS),
        (looks(62, loop_at=1.0, work=True, busy=2), State.LOOP_HANGS),
        # Whoever stops lets the tasks under way end; its loop turns no more.
        (looks(90, work=True, stopping=True, loop_at=1.0), State.STOPPING),
        # A pool that was shrunk to nothing takes nothing.
        (looks(61, work=True, slots=0), State.STALLED),
    ],
)
def test_what_is_seen_of_a_worker_says_if_it_is_alive(seen: list[dict[str, Any]], state: State) -> None:
    assert after(seen) is state


def test_a_process_that_was_stopped_for_a_while_is_not_taken_for_stalled() -> None:
    assert after([*looks(50, work=True, loop_at=50.0), {"loop_at": 50.0}], every=31) is State.WORKING


def test_nobody_knows_of_a_worker_that_nobody_looks_at() -> None:
    assert after(looks(5), later=74) is State.IDLE
    assert after(looks(5), later=76) is State.UNWATCHED
    assert not State.UNWATCHED.alive


def test_only_what_a_restart_mends_counts_as_dead() -> None:
    assert {state for state in State if not state.alive} == {State.STALLED, State.LOOP_HANGS, State.UNWATCHED}


# What rmos up does about it

ALIVE = Health(alive=True, state="idle", fields={})
STALLED = Health(alive=False, state="stalled", fields={})
SILENT = Health(alive=False, state="silent", fields={})


def ended(answers: Sequence[Health], *, running: bool = True) -> list[int]:
    """Return after which of these answers the process is to be started anew."""
    now, given = 0.0, iter(answers)
    probes = Probes({"worker": "http://x"}, ask=lambda _: next(given), now=lambda: now)
    found = []
    for number in range(len(answers)):
        now += 10.0
        if probes.next({"worker": 1} if running else {}) is not None:
            found.append(number)
        assert probes.next({"worker": 1}) is None, "asked again before its time"
    return found


@pytest.mark.parametrize(
    ("answers", "numbers"),
    [
        ([ALIVE] * 20, []),
        ([STALLED, STALLED, ALIVE], [1]),
        ([STALLED, ALIVE] * 5, []),
        # One that starts slowly, or on a machine that is overloaded.
        ([*[SILENT] * 11, ALIVE, *[SILENT] * 11], []),
        ([SILENT] * 12, [11]),
        # The next one has its time again.
        ([STALLED, STALLED, *[SILENT] * 11, ALIVE], [1]),
    ],
)
def test_a_process_is_started_anew_when_it_says_so_or_says_nothing(
    answers: list[Health], numbers: list[int]
) -> None:
    assert ended(answers) == numbers


def test_a_process_that_does_not_run_is_not_asked() -> None:
    assert ended([STALLED] * 5, running=False) == []
