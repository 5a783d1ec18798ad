"""Beat killed around the hour of the nightly batch, or away for nights: none is lost, none comes twice."""

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

from rmos_shared.ids import scheduled_batch_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.nightly import NIGHTLY

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
                [*program, "--pidfile="],
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
    """Start beat, at a moment of its clock."""
    with ExitStack() as running:

        def start(moment: datetime) -> Beat:
            beat = Beat(tmp_path, broker_url, moment)
            running.callback(beat.kill)
            # It has looked once by then.
            eventually(lambda: beat.says("beat: Waking up in"), 90)
            return beat

        yield start


def test_each_night_has_its_one_batch_whatever_beat_was_away_for(
    start_beat: Callable[[datetime], Beat],
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    two = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0) + timedelta(days=1)
    day = timedelta(days=1)

    def nights() -> list[str]:
        return sorted(batch.batch_id for batch in ledger.batches.newest_first())

    def of(*due: datetime) -> list[str]:
        return [scheduled_batch_id(NIGHTLY, moment) for moment in due]

    # A new system has missed nothing; killed in good time before the hour, and away when it strikes.
    start_beat(two - timedelta(minutes=5)).kill()
    assert nights() == []
    beat = start_beat(two + timedelta(minutes=5))
    assert nights() == of(two)

    # A second one beside it, and one on its feet when the next hour strikes, killed at that very moment.
    second = start_beat(two + day - timedelta(seconds=1.5))
    eventually(lambda: len(nights()) > 1, told=lambda: second.log.read_text()[-2_000:])
    second.kill()
    beat.kill()
    beat = start_beat(two + day + timedelta(seconds=30))
    assert nights() == of(two, two + day)
    beat.kill()
    assert ledger.stats().accepted == 0
