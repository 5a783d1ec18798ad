"""Beat killed around the hour of the nightly batch: each night has its one batch, not none and not two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.tasks.table import EXPLAIN_MISSING

SUPPORT = Path(__file__).parents[1] / "support"
Eventually = Callable[..., None]


class Beat:
    """``celery beat`` whose clock shows ``moment`` when it starts."""

    def __init__(self, directory: Path, broker_url: str, moment: datetime) -> None:
        self.log = directory / f"beat-{time.monotonic_ns()}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
        shift = (moment - datetime.now(UTC)).total_seconds()
        program = [sys.executable, "-m", "celery", "-A", "rmos_worker.celery_app.main", "beat", "-l", "DEBUG"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*program, "-s", str(directory / "schedule"), "--pidfile="],
                env={
                    **clean,
                    "RMOS_BROKER_URL": broker_url,
                    "PYTHONPATH": str(SUPPORT),
                    "SHIFT_CLOCK_SECONDS": str(shift),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def says(self, what: str) -> bool:
        assert self._process.poll() is None, self.log.read_text()[-2_000:]
        return what in self.log.read_text()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=15)


@pytest.fixture
def start_beat(tmp_path: Path, broker_url: str, eventually: Eventually) -> Iterator[Callable[..., Beat]]:
    """Start beat, at a moment of its clock, on the schedule file that the ones before it left."""
    with ExitStack() as running:

        def start(moment: datetime) -> Beat:
            beat = Beat(tmp_path, broker_url, moment)
            running.callback(beat.kill)
            eventually(lambda: beat.says("beat: Ticking"))
            return beat

        yield start


def test_beat_killed_before_and_after_its_hour_has_one_batch_a_night(
    start_beat: Callable[[datetime], Beat], ledger: JobLedger, eventually: Eventually
) -> None:
    two = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0) + timedelta(days=1)

    def nights() -> list[str]:
        assert {job.task for job in ledger.jobs()} <= {EXPLAIN_MISSING.name}
        return sorted(job.request_id or "" for job in ledger.jobs())

    def name_of(night: datetime) -> str:
        return f"explain-missing-nightly-{night.date().isoformat()}T02:00Z"

    # Killed in good time before the hour, and away when it strikes: not lost.
    start_beat(two - timedelta(minutes=5)).kill()
    assert nights() == []
    beat = start_beat(two + timedelta(minutes=5))
    eventually(lambda: nights() == [name_of(two)], told=lambda: beat.log.read_text()[-2_000:])

    # Killed right after it, before it has written down that it was on time: not twice. Nor by a second beat.
    beat.kill()
    for minutes in (6, 7):
        beat = start_beat(two + timedelta(minutes=minutes))
        eventually(lambda beat=beat: beat.says("Waking up in"))
        time.sleep(0.5)
        assert nights() == [name_of(two)]
        beat.kill()

    # On its feet when the hour strikes, and killed at that very moment.
    following = two + timedelta(days=1)
    beat = start_beat(following - timedelta(seconds=1.5))
    eventually(lambda: beat.says("Sending due task") or len(nights()) > 1)
    beat.kill()
    start_beat(following + timedelta(seconds=30))
    eventually(lambda: nights() == [name_of(two), name_of(following)])
    time.sleep(0.5)
    assert nights() == [name_of(two), name_of(following)]
    assert ledger.stats().accepted == 2
    assert ledger.stats().invariant
