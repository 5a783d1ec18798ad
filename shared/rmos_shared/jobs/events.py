"""An event of the stream that the ledger writes, and how its entries are read: pure decoding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.models.base import Frozen, UtcTime, Utf8Text

_ID = re.compile(r"(\d{1,20})-(\d{1,20})(?:\.(\d{1,9}))?", re.ASCII)
_MOST = 2**64 - 1
#: Above the events that any entry holds.
_WHOLE = 2**31
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The last millisecond that a datetime holds.
_LAST_MS = 253_402_300_799_999
_FIELDS = 4


class EventState(StrEnum):
    """What an event tells of."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    DEAD = "dead"
    DISCARDED = "discarded"
    #: Without a job: an advisory was linked to the run, or a person reviewed one.
    ATTACHED = "attached"
    REVIEWED = "reviewed"
    #: Events were missed: they are no longer kept, or the stream was made anew.
    GAP = "gap"


class JobEvent(Frozen):
    """A job came to a state, or something happened to a run without a job. It holds no payload."""

    #: Where to go on from: the next read is ``after`` this.
    event_id: str
    #: Empty for what happened without a job, and for a gap.
    job_id: Utf8Text
    task: Utf8Text
    run_id: Utf8Text
    request_id: Utf8Text | None
    state: EventState
    at_utc: UtcTime

    @property
    def is_gap(self) -> bool:
        """Whether events were missed before the next one."""
        return self.state is EventState.GAP


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the stream: just after one event. Text: ``ms-seq``, or ``ms-seq.index`` inside an entry."""

    ms: int
    seq: int
    #: Of the last event that was read of the entry.
    index: int = _WHOLE

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that an ``event_id`` names.

        Raises:
            InvalidRequest: it is no such id.
        """
        match = _ID.fullmatch(text)
        numbers = [int(part) for part in match.groups() if part] if match else []
        if not numbers or max(numbers) > _MOST:
            problem = FieldProblem("event_id", "is no id of an event: two numbers with '-' between them")
            raise InvalidRequest((problem,), what="event id")
        return cls(*numbers)

    def __str__(self) -> str:
        """Return the text that ``parse`` takes."""
        return self.entry_id if self.index == _WHOLE else f"{self.entry_id}.{self.index}"

    @property
    def entry_id(self) -> str:
        """The id of the entry."""
        return f"{self.ms}-{self.seq}"

    @property
    def read_after(self) -> str:
        """The id after which a read finds all that is left, with the rest of the entry itself."""
        if self.index == _WHOLE:
            return self.entry_id
        if self.seq:
            return f"{self.ms}-{self.seq - 1}"
        return f"{self.ms - 1}-{_MOST}" if self.ms else "0-0"


#: Before everything that is kept.
BEGINNING = Position(0, 0)
Placed = tuple[Position, JobEvent]


def gap() -> JobEvent:
    """Return the event that tells of missed ones."""
    return JobEvent(
        event_id=str(BEGINNING),
        job_id="",
        task="",
        run_id="",
        request_id=None,
        state=EventState.GAP,
        at_utc=datetime.now(UTC),
    )


def entries_of(answer: Any) -> list[Any]:
    """Return the entries that an answer to XREAD of one stream holds, whichever protocol it came by."""
    if not answer:
        return []
    if isinstance(answer, Mapping):  # RESP3, where they are wrapped once more
        return [entry for wrapped in answer.values() for entries in wrapped for entry in entries]
    return [entry for _, entries in answer for entry in entries]


def all_kept(info: Any) -> bool:
    """Say whether a stream of which XINFO tells this still holds all that was ever added to it."""
    pairs = pairs_of(info)
    return int(pairs[b"entries-added"]) == int(pairs[b"length"])


def pairs_of(info: Any) -> Mapping[bytes, Any]:
    """Return what an answer of names and values tells, whichever protocol it came by."""
    return info if isinstance(info, Mapping) else dict(zip(info[::2], info[1::2], strict=True))


def placed(entries: Iterable[Any], after: Position) -> Iterator[Placed]:
    """Yield the events of entries that come after a position; what another program added is passed over."""
    for entry_id, fields in entries:
        match = _ID.fullmatch(entry_id.decode())
        state = _state(fields)
        if match is None or state is None:
            continue
        ms, seq = int(match[1]), int(match[2])
        lines = fields.get(b"jobs", b"").decode("utf-8", "replace").split("\n")
        for index, line in enumerate(lines):
            position = Position(ms, seq, index if index < len(lines) - 1 else _WHOLE)
            values = line.split("\t")
            if position > after and len(values) == _FIELDS:
                yield position, _event(position, state, values)


def _state(fields: Mapping[bytes, bytes] | None) -> EventState | None:
    try:
        state = EventState((fields or {}).get(b"state", b"").decode())
    except ValueError:
        return None  # of another version
    return None if state is EventState.GAP else state


def _event(position: Position, state: EventState, values: Sequence[str]) -> JobEvent:
    job_id, task, run_id, request_id = values
    return JobEvent(
        event_id=str(position),
        job_id=job_id,
        task=task,
        run_id=run_id,
        request_id=request_id or None,
        state=state,
        at_utc=_EPOCH + timedelta(milliseconds=min(position.ms, _LAST_MS)),
    )
