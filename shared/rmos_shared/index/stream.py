"""Notices from the ledger's stream of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rmos_shared.index.notices import Notice
from rmos_shared.tasks.table import ATTACH, CREATE, CREATE_MANY, REEXPLAIN, SUGGEST

_STORES = frozenset({CREATE.name, CREATE_MANY.name})
_EXPLAINS = frozenset({SUGGEST.name, ATTACH.name, REEXPLAIN.name})
#: States that leave a file beside a run: a link, an attempt, or a review.
_BESIDE = frozenset({"attached", "reviewed"})
_MOST = 1_000


class RunEvent(Protocol):
    """What the indexer needs of an event."""

    @property
    def event_id(self) -> str: ...  # noqa: D102 - as in the ledger's own
    @property
    def task(self) -> str: ...  # noqa: D102
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102


class RunEvents(Protocol):
    """The stream, read by one thread."""

    def position(self) -> str:
        """Return the id after which all is new."""
        ...

    def read(self, after: str, *, block_seconds: float = 0.0, most: int = 1_000) -> Sequence[RunEvent]:
        """Return events after one, waiting while there are none."""
        ...


class StreamNotices:
    """``Notices`` of what happened since the indexer began; of before, and of gaps, the reconciler knows."""

    def __init__(self, events: RunEvents) -> None:
        """Read ``events``; connects when first used."""
        self._events = events
        self._after: str | None = None

    def wait(self, seconds: float) -> Sequence[Notice]:
        """Return what has happened since the last call; see ``Notices``."""
        if self._after is None:
            self._after = self._events.position()
        events = self._events.read(self._after, block_seconds=seconds, most=_MOST)
        if events:
            self._after = events[-1].event_id
        return [notice for event in events if (notice := notice_of(event)) is not None]


def notice_of(event: RunEvent) -> Notice | None:
    """Return what an event means for the index, if anything."""
    if event.state == "done" and event.task in _STORES:
        return Notice(event.run_id, new=True)
    beside = event.state in _BESIDE or (event.state in {"done", "dead"} and event.task in _EXPLAINS)
    return Notice(event.run_id, new=False) if beside and event.run_id else None
