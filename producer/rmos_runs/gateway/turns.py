"""How many of a kind are under way at one time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rmos_runs.gateway.errors import GatewayBusy


class Turns:
    """Lets so many at once; whoever comes above that is told to come again, and waits for nothing here."""

    def __init__(self, most: int) -> None:
        """Start with none under way."""
        self._left = most

    def check(self) -> None:
        """Raise ``GatewayBusy`` if no turn is left."""
        if self._left <= 0:
            raise GatewayBusy("the gateway has as many of these requests under way as it may; come again")

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a turn for a block.

        Raises:
            GatewayBusy: none is left.
        """
        self.check()
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1
