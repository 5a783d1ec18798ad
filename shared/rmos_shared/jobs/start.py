"""The record that a process began, and with which settings."""

from __future__ import annotations

import threading

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.acts import ActKind, ActOutcome, JobActs
from rmos_shared.jobs.arguments import CODE_VERSION
from rmos_shared.settings.base import Settings
from rmos_shared.telemetry.events import StartUnrecorded
from rmos_shared.telemetry.log import emit

_PAUSE_SECONDS = 5.0


class StartRecord:
    """Writes it once, and again until that has worked: a broker that is away keeps nobody from starting."""

    def __init__(self, acts: JobActs, settings: Settings, process: str) -> None:
        """Prepare; ``start`` begins. ``process`` is its name, such as ``worker-create``."""
        self._acts = acts
        self._process = process
        self._about = {"process": process, "version": CODE_VERSION, **settings.told()}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="start-record", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        last, act_id = "", ""
        while not self._stopping.is_set():
            try:
                act_id = act_id or self._acts.begin(
                    ActKind.START,
                    by=f"system:{self._process}",
                    why="",
                    about=self._about,
                    found=0,
                    caller=self._process,
                )
                self._acts.end(act_id, ActOutcome.COMPLETE, refused=0)
            except (BrokerUnavailable, BrokerDamaged) as error:
                if str(error) != last:
                    last = str(error)
                    emit(StartUnrecorded(error=last))
                self._stopping.wait(_PAUSE_SECONDS)
            else:
                return
