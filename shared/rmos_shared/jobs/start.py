"""The record that a process began, and with which settings."""

from __future__ import annotations

from rmos_shared.jobs.acts import ActKind, ActOutcome, JobActs
from rmos_shared.jobs.arguments import CODE_VERSION
from rmos_shared.jobs.until_done import UntilDone
from rmos_shared.settings.base import Settings
from rmos_shared.telemetry.events import StartUnrecorded
from rmos_shared.telemetry.log import emit

_PAUSE_SECONDS = 5.0


class StartRecord(UntilDone):
    """Writes it, an act that has begun and ended."""

    def __init__(self, acts: JobActs, settings: Settings, process: str) -> None:
        """Prepare; ``start`` begins. ``process`` is its name, such as ``worker-create``."""
        super().__init__(
            "start-record",
            self._record,
            lambda error: emit(StartUnrecorded(error=error)),
            pause_seconds=_PAUSE_SECONDS,
        )
        self._acts = acts
        self._process = process
        self._about = {"process": process, "version": CODE_VERSION, **settings.told()}
        self._act_id = ""

    def _record(self) -> None:
        self._act_id = self._act_id or self._acts.begin(
            ActKind.START,
            by=f"system:{self._process}",
            why="",
            about=self._about,
            found=0,
            caller=self._process,
        )
        self._acts.end(self._act_id, ActOutcome.COMPLETE, refused=0)
