"""The worker process of the fixtures, as far as tests use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Worker(Protocol):
    """One worker, whatever its pool."""

    pid: int
    alive: bool
    log: Path

    def children(self) -> list[int]: ...
    def wait_until_ready(self) -> None: ...
    def kill(self) -> None: ...
    def stop(self, timeout: float = 60) -> int: ...


StartWorker = Callable[..., Worker]
