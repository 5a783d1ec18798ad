"""How the pipeline fares meanwhile: jobs done over time, read past the proxy."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import redis

from chaos.system import System
from rmos_shared.errors import RmosError

_BEAT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading."""

    at: float
    done: int
    pending: int
    invariant: bool


class Pulse:
    """Reads the ledger's figures ten times a second, in a thread of its own."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._samples: list[Sample] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[Sample]:
        self._stopping.set()
        self._thread.join(timeout=30)
        return self._samples

    def _run(self) -> None:
        while not self._stopping.wait(_BEAT_SECONDS):
            try:
                stats = self._system.stats()
            except (RmosError, redis.RedisError, OSError):
                continue
            self._samples.append(Sample(time.monotonic(), stats.done, stats.pending, stats.invariant))


def recovery_seconds(samples: list[Sample], fault_at: float) -> float | None:
    """Return the time from a fault to the next finished job; None when none was left to be finished."""
    before = [sample.done for sample in samples if sample.at <= fault_at]
    done = before[-1] if before else 0
    after = [sample for sample in samples if sample.at > fault_at]
    moved = next((sample.at for sample in after if sample.done > done), None)
    return None if moved is None else moved - fault_at


def longest_stall(samples: list[Sample]) -> float:
    """Return the longest time in which jobs were pending and none was finished."""
    longest, since, done = 0.0, None, -1
    for sample in samples:
        if not sample.pending or sample.done != done:
            since, done = sample.at, sample.done
        elif since is not None:
            longest = max(longest, sample.at - since)
    return longest
