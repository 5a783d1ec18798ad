"""Breakers for tests of what stands behind one."""

from __future__ import annotations

from rmos_worker.advisories.breaker import Outage


class NoBreaker:
    """Lets every call pass, and keeps nothing."""

    def check(self) -> None:
        pass

    def record_success(self) -> float | None:
        return None

    def record_failure(self, why: str) -> Outage:  # noqa: ARG002 - it keeps nothing
        return Outage.NONE
