"""Dead letters grouped by what went wrong and where: many letters are seldom many causes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from rmos_runs.operations.dead_letters import died_at, id_of, kind_of
from rmos_shared.jobs.model import JobRecord, RawLetter

#: The last line of a traceback that is code of this project is the one that says most.
_OWN_LINE = re.compile(
    r'File "[^"\n]*?(rmos_(?:shared|runs|worker|advisory_store)/[^"\n]+)", line (\d+), in (\S+)'
)


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Letters of one reason, error and place."""

    reason: str
    #: The class of the error; empty of a message.
    error_type: str
    #: The task, or the queue of a message.
    kind: str
    #: Our last line of the traceback, such as ``rmos_worker/handlers/suggest.py:61 in _save``; may be empty.
    place: str
    count: int
    first_seen: datetime
    last_seen: datetime
    #: The letter that died last.
    example: str


def grouped(letters: Iterable[JobRecord | RawLetter]) -> list[LetterGroup]:
    """Return the groups, the largest first; memory holds the groups alone."""
    groups: dict[tuple[str, str, str, str], LetterGroup] = {}
    for letter in letters:
        one = _of_one(letter)
        key = (one.reason, one.error_type, one.kind, one.place)
        groups[key] = _joined(groups[key], one) if key in groups else one
    return sorted(groups.values(), key=lambda group: (-group.count, group.first_seen))


def place_of(traceback: str) -> str:
    """Return the last line of our own code in a traceback; empty when there is none."""
    found = _OWN_LINE.findall(traceback)
    if not found:
        return ""
    file, line, function = found[-1]
    return f"{file}:{line} in {function}"


def _of_one(letter: JobRecord | RawLetter) -> LetterGroup:
    last = died_at(letter)
    if isinstance(letter, RawLetter):
        return LetterGroup(letter.reason, "", kind_of(letter), "", 1, last, last, id_of(letter))
    failure = letter.failure
    return LetterGroup(
        reason="unknown" if failure is None else failure.reason,
        error_type="" if failure is None else failure.error_type,
        kind=kind_of(letter),
        place="" if failure is None else place_of(failure.traceback),
        count=1,
        first_seen=letter.first_failed_at_utc or last,
        last_seen=letter.last_failed_at_utc or last,
        example=id_of(letter),
    )


def _joined(group: LetterGroup, one: LetterGroup) -> LetterGroup:
    later = one if one.last_seen >= group.last_seen else group
    return replace(
        group,
        count=group.count + 1,
        first_seen=min(group.first_seen, one.first_seen),
        last_seen=later.last_seen,
        example=later.example,
    )
