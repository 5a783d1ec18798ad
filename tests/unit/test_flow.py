"""How events become rates and times: pure counting."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest

from rmos_shared.jobs.figures.flow import FlowCount
from rmos_shared.jobs.figures.model import OTHERS, TaskFlow

NOW = 1_800_000_000_000.0
Entry = tuple[bytes, dict[bytes, bytes]]


def entry(
    seconds_ago: float, state: str, jobs: Iterable[str], *, again: bool = False, task: str = "t"
) -> Entry:
    lines = "\n".join(f"{job}\t{task}\trun\trequest" for job in jobs)
    fields = {b"state": state.encode(), b"jobs": lines.encode()}
    return f"{int(NOW - seconds_ago * 1000)}-0".encode(), fields | ({b"again": b"1"} if again else {})


def counted(*entries: Entry) -> FlowCount:
    count = FlowCount(NOW)
    for one in sorted(entries, key=lambda item: item[0], reverse=True):
        count.add(one)
    return count


def flow(count: FlowCount, seconds: float = 300, **accepted_seconds_ago: float) -> TaskFlow:
    accepted = {job: NOW - ago * 1000 for job, ago in accepted_seconds_ago.items()}
    (one,) = count.flows(seconds, accepted)
    return one


def test_rates_are_of_the_last_minute_and_of_the_last_five() -> None:
    count = counted(
        entry(200, "accepted", ["a", "b", "c"]),
        entry(30, "accepted", ["d", "e", "f"]),
        entry(20, "done", ["d"]),
        entry(100, "dead", ["a"]),
    )
    one = flow(count)
    assert (one.accepted_per_second_1m, one.accepted_per_second_5m) == (3 / 60, 6 / 300)
    assert (one.done_per_second_1m, one.done_per_second_5m) == (1 / 60, 1 / 300)
    assert (one.dead_per_second_1m, one.dead_per_second_5m) == (0, 1 / 300)


def test_a_look_that_does_not_reach_back_five_minutes_divides_by_what_it_saw() -> None:
    one = flow(counted(entry(2, "accepted", ["a", "b"])), seconds=4)
    assert (one.accepted_per_second_1m, one.accepted_per_second_5m) == (0.5, 0.5)


def test_a_job_that_is_in_line_once_more_is_not_accepted_once_more() -> None:
    count = counted(entry(5, "accepted", ["a"]), entry(3, "accepted", ["a"], again=True))
    assert flow(count).accepted_per_second_5m == 1 / 300


def test_times_are_from_the_acceptance_and_from_the_last_start() -> None:
    count = counted(
        entry(90, "running", ["a"]),  # failed, and was put off
        entry(12, "running", ["a", "b"]),
        entry(10, "done", ["a"]),
        entry(9, "done", ["b"]),
        entry(8, "done", ["c"]),  # its record is gone, and its start was not looked at
    )
    assert {job for job, _ in count.measured()["t"]} == {"a", "b", "c"}
    one = flow(count, a=100, b=13)
    assert (one.measured, one.accepted_to_done_seconds_p50, one.accepted_to_done_seconds_p99) == (2, 4, 90)
    assert (one.started_to_done_seconds_p50, one.started_to_done_seconds_p99) == (2, 3)


def test_of_a_hundred_times_the_p99_is_the_second_longest() -> None:
    jobs = [f"j{number}" for number in range(100)]
    one = flow(
        counted(entry(0, "done", jobs)), seconds=300, **{job: number + 1 for number, job in enumerate(jobs)}
    )
    assert (one.accepted_to_done_seconds_p50, one.accepted_to_done_seconds_p99) == (50, 99)


def test_nothing_measured_is_no_time_of_nought() -> None:
    one = flow(counted(entry(1, "done", ["a"])))
    assert (one.measured, one.accepted_to_done_seconds_p99, one.started_to_done_seconds_p50) == (
        0,
        None,
        None,
    )


def test_of_many_jobs_some_are_measured_evenly() -> None:
    count = counted(*(entry(300 - number / 10, "done", [f"j{number}"]) for number in range(2_500)))
    measured = count.measured()["t"]
    assert len(measured) == 500
    ages = [NOW - at for _, at in measured]
    assert ages[0] < 51_000 + 1
    assert ages[-1] > 299_000
    assert {round(later - earlier) for earlier, later in pairwise(ages)} == {500}


@pytest.mark.parametrize(
    "spoilt",
    [
        (b"0-0", {}),
        (b"garbage", {b"state": b"done", b"jobs": b"a\tt\tr\tq"}),
        (b"1-1", None),
        (b"1-1", {b"state": b"\xff", b"jobs": b"a\tt\tr\tq"}),
        (b"1-1", {b"state": b"reviewed", b"jobs": b"\t\trun\t"}),
        (b"1-1", {b"state": b"done", b"jobs": b"\xff"}),
    ],
)
def test_what_another_program_wrote_stops_no_count(spoilt: Entry) -> None:
    count = counted(entry(1, "accepted", ["a"]), spoilt)
    flows = {one.task: one for one in count.flows(300, {})}
    assert flows["t"].accepted_per_second_5m == 1 / 300


def test_tasks_without_number_are_counted_together() -> None:
    count = counted(*(entry(1, "accepted", ["a"], task=f"task{number}") for number in range(300)))
    flows = {one.task: one for one in count.flows(300, {})}
    assert len(flows) == 101
    assert flows[OTHERS].accepted_per_second_5m == 200 / 300
