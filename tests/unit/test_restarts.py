"""The pauses of what ends again and again, and the logs that it writes meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rmos_runs.local.log_file import KEPT, open_log, turn_over
from rmos_runs.local.restarts import STABLE_SECONDS, pause_seconds, short_lives_after


@pytest.mark.parametrize(
    ("short_lives", "seconds"),
    [(0, 0), (1, 0), (3, 0), (4, 1), (5, 2), (6, 4), (9, 32), (10, 60), (1_000_000, 60)],
)
def test_a_pause_grows_up_to_a_minute(short_lives: int, seconds: float) -> None:
    assert pause_seconds(short_lives) == seconds


def test_one_long_life_makes_up_for_all_short_ones() -> None:
    assert short_lives_after(7, STABLE_SECONDS - 0.1) == 8
    assert short_lives_after(7, STABLE_SECONDS) == 0


def test_a_log_is_turned_over_above_its_size_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    writer = open_log(log)
    for number in range(KEPT + 3):
        os.write(writer, b"%d" % number * 100)
        assert turn_over(log, max_bytes=99)
        assert not turn_over(log, max_bytes=99)
    os.write(writer, b"last")
    os.close(writer)
    assert log.read_bytes() == b"last", "its writer appends, so it begins anew"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "worker.log",
        *(f"worker.log.{n}" for n in range(1, KEPT + 1)),
    ]
    assert [(tmp_path / f"worker.log.{n}").read_bytes()[:1] for n in (1, 2, 3)] == [b"5", b"4", b"3"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_no_log_yet_is_no_error(tmp_path: Path) -> None:
    assert not turn_over(tmp_path / "none.log")
