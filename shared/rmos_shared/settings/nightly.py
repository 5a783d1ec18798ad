"""When the runs without explanation are looked for."""

from __future__ import annotations

from datetime import datetime, time, timedelta

from pydantic import Field

from rmos_shared.settings.base import Settings

#: The entry of the schedule; ``JobBatches.last_due`` knows by it which night was served last.
NIGHTLY = "explain-missing-nightly"


class NightlySettings(Settings):
    """The nightly batch, which explains the runs that nobody has explained; beat opens it."""

    nightly_enabled: bool = Field(True, description="Whether there is a nightly batch.")
    nightly_time: str = Field(
        "02:00",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="When the nightly batch begins, as HH:MM in UTC. One that is missed is made up for once.",
    )
    nightly_span_days: int = Field(
        7,
        ge=0,
        le=3_660,
        description="How many days before its own the nightly batch looks at; after missed nights, as many "
        "more as were missed.",
    )

    def next_due(self, now: datetime) -> datetime | None:
        """Return when the next night begins after ``now``, which is in UTC; None when there is none."""
        if not self.nightly_enabled:
            return None
        today = datetime.combine(now.date(), time.fromisoformat(self.nightly_time), now.tzinfo)
        return today if today > now else today + timedelta(days=1)
