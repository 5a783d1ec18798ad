"""The watch over a worker: looks at it again and again, in a thread beside the loop that it looks at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.queues import JobQueues
from rmos_shared.telemetry.events import WatchFailed, WorkerAliveAgain, WorkerStalled
from rmos_shared.telemetry.log import emit
from rmos_worker.monitoring.liveness import Liveness, Seen, State

_LOOK_EVERY_SECONDS = 1.0
#: Looks within the time that a worker has to take a job, at least.
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Pool:
    """How many tasks a worker has begun, is doing, and can do at one time."""

    taken: int
    busy: int
    slots: int
    stopping: bool


class LivenessWatch:
    """Knows whether a worker takes the jobs of the queues that it was started for.

    Of those queues, and not of those that it consumes at the moment: one that it was told to leave, or has
    lost, is still what it is there for.
    """

    def __init__(
        self,
        queues: JobQueues,
        names: Sequence[str],
        pool: Callable[[], Pool],
        *,
        patience_seconds: float,
        broker_seconds: float,
    ) -> None:
        """Prepare; ``pool`` looks at the worker; the broker answers within ``broker_seconds`` or never."""
        self.names = tuple(names)
        self._queues = queues
        self._pool = pool
        self._patience_seconds = patience_seconds
        # A command is tried on a connection that may be dead, and then on a new one.
        self._look_seconds = 3 * broker_seconds
        self._every_seconds = min(_LOOK_EVERY_SECONDS, patience_seconds / _LOOKS)
        self._loop_at = time.monotonic()
        #: Not before ``start``: only then there is a pool to be looked at.
        self._liveness: Liveness
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def start(self) -> None:
        """Begin to look, until the process ends."""
        self._liveness = Liveness.first(self._seen(work=False))
        self._thread.start()

    def turned(self) -> None:
        """Note that the worker's loop turns; it calls this itself, again and again."""
        self._loop_at = time.monotonic()

    def liveness(self) -> Liveness:
        """Return what is known."""
        return self._liveness

    def state(self) -> State:
        """Return what the worker is doing."""
        return self.liveness().state(
            time.monotonic(), patience_seconds=self._patience_seconds, look_seconds=self._look_seconds
        )

    def _seen(self, *, work: bool | None) -> Seen:
        pool = self._pool()
        return Seen(
            at=time.monotonic(),
            taken=pool.taken,
            busy=pool.busy,
            slots=pool.slots,
            loop_at=self._loop_at,
            stopping=pool.stopping,
            work=work,
        )

    def _work(self) -> bool | None:
        try:
            return self._queues.have_work(*self.names)
        except (BrokerUnavailable, BrokerDamaged):
            return None

    def _run(self) -> None:
        was = State.IDLE
        while True:
            time.sleep(self._every_seconds)
            try:
                seen = self._seen(work=self._work())
                self._liveness = self._liveness.after(seen, patience_seconds=self._patience_seconds)
                state = self.state()
            except Exception:  # noqa: BLE001 - one that looked no more would be found, and cost a restart
                emit(WatchFailed(), traceback=True)
                continue
            if was.alive and not state.alive:
                emit(WorkerStalled(state=state.value, queues=self.names))
            elif state.alive and not was.alive:
                emit(WorkerAliveAgain())
            was = state
