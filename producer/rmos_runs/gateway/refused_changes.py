"""Who asks to change or delete a run is refused, and is on record: once an hour, caller and method."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from rmos_runs.gateway.paths import PREFIX
from rmos_runs.operations.on_record import GATEWAY, Doing, on_record
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.telemetry.events import ActUnrecorded
from rmos_shared.telemetry.log import emit

_CHANGING = frozenset({"PUT", "PATCH", "DELETE"})
#: Of a path that is told, for it comes from outside.
_MOST_CHARACTERS = 200


class RefusedChanges:
    """Records refusals. Bounded: the act's id derives from hour, caller and method, so more are repeats.

    The first of the hour tells which path it was about.
    """

    def __init__(self, ledger: JobLedger) -> None:
        """Record in ``ledger``."""
        self._ledger = ledger
        self._hour: datetime | None = None
        self._told: set[tuple[str, str]] = set()

    def concern(self, method: str, path: str) -> bool:
        """Say whether a refused request is one that would change a run."""
        return method in _CHANGING and path.startswith(f"{PREFIX}/")

    def record(self, method: str, path: str, caller: str, now: datetime | None = None) -> None:
        """Write it down, unless that was done this hour; a broker that is away is not missed."""
        hour = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._hour, self._told = hour, set()
        if (caller, method) in self._told:
            return
        noise = sha256(f"refused_change\n{caller}\n{method}".encode()).digest()[:10]
        told = path.encode("ascii", "backslashreplace").decode()[:_MOST_CHARACTERS]
        doing = Doing(
            ActKind.REFUSED_CHANGE,
            caller,
            {"method": method, "path": told},
            caller=GATEWAY,
            act_id=new_uuid7(hour, noise=noise),
        )
        with on_record(
            self._ledger, doing, unrecorded=lambda: emit(ActUnrecorded(kind=doing.kind.value))
        ) as progress:
            progress.done, progress.refused = 0, 1
        if progress.act_id is not None:
            self._told.add((caller, method))
