"""The pace of an act: never faster than asked, and in steps that Ctrl-C can end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rmos_runs.operations.acts import paced

IDS = [str(number) for number in range(250)]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


def test_without_a_rate_it_goes_in_steps_and_waits_for_nothing() -> None:
    clock = Clock()
    assert [len(page) for page in paced(IDS, None, clock)] == [100, 100, 50]
    assert clock.passed == 0


@pytest.mark.parametrize("rate", [0.5, 1, 7, 40, 1_000])
def test_never_more_than_the_rate_and_half_a_seconds_worth_at_once(rate: float) -> None:
    clock = Clock()
    done: list[str] = []
    for page in paced(IDS, rate, clock):
        assert len(page) <= max(1, rate / 2)
        # All that was done before this step fits into the time since the first.
        assert len(done) <= clock.passed * rate + 1e-6
        done += page
    assert done == IDS
    assert clock.passed == pytest.approx((len(IDS) - len(page)) / rate)
