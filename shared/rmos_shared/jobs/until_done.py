"""Something that the ledger is told once, however long it is away."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable


class UntilDone:
    """Does it, and again until that has worked: a broker that is away keeps nobody from starting."""

    def __init__(
        self, name: str, do: Callable[[], object], tell: Callable[[str], object], *, pause_seconds: float
    ) -> None:
        """Prepare; ``start`` begins. ``tell`` hears of each new reason why it has not worked yet."""
        self._do = do
        self._tell = tell
        self._pause_seconds = pause_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        last = ""
        while not self._stopping.is_set():
            try:
                self._do()
            except (BrokerUnavailable, BrokerDamaged) as error:
                if str(error) != last:
                    last = str(error)
                    self._tell(last)
                self._stopping.wait(self._pause_seconds)
            else:
                return
