"""What operators have paused: queues, tasks, the schedule."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.models.base import Frozen, UtcTime, Utf8Text, format_utc
from rmos_shared.tasks.table import QUEUES, TASKS

#: The subject of a pause of beat's schedule; of the others see ``queue_subject`` and ``task_subject``.
SCHEDULE = "schedule"


class Pause(Frozen):
    """Something that is paused, by whom and why."""

    #: ``queue:<name>``, ``task:<name>`` or ``schedule``.
    subject: Utf8Text
    by: Utf8Text
    why: Utf8Text
    #: None where another program wrote it.
    at_utc: UtcTime | None

    @property
    def words(self) -> str:
        """The subject as an operator writes it: ``queue runs.advise``."""
        return self.subject.replace(":", " ", 1)

    @property
    def sentence(self) -> str:
        """The pause in a line: what, since when, by whom and why."""
        since = "" if self.at_utc is None else f" since {format_utc(self.at_utc)}"
        return f"{self.words}{since}, by {self.by}: {self.why}"


class JobPauses:
    """What is paused now; ``JobSteering`` changes it. Raises as ``JobLedger`` does."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def all(self) -> list[Pause]:
        """Return every pause, by subject."""
        with broker_errors():
            answer = self._script.client.hgetall(self._key)
        return sorted(
            (_pause(*item) for item in cast("dict[bytes, bytes]", answer).items()),
            key=lambda pause: pause.subject,
        )

    def is_paused(self, subject: str) -> bool:
        """Say whether a subject is paused; a task whose queue is, is not itself."""
        with broker_errors():
            return bool(self._script.client.hexists(self._key, subject))

    @property
    def _key(self) -> str:
        return f"{self._script.prefix}pauses"


def queue_subject(name: str) -> str:
    """Return the subject of a pause of a queue.

    Raises:
        InvalidRequest: there is no queue of this name.
    """
    return f"queue:{_known('queue', name, QUEUES)}"


def task_subject(name: str) -> str:
    """Return the subject of a pause of a task.

    Raises:
        InvalidRequest: there is no task of this name.
    """
    return f"task:{_known('task', name, tuple(TASKS))}"


def _known(kind: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise InvalidRequest((FieldProblem(kind, f"must be one of {', '.join(names)}"),), what="pause")
    return name


def _pause(subject: bytes, told: bytes) -> Pause:
    by, why, at = "unknown", "", None
    try:
        fields: dict[str, Any] = json.loads(told)
        by, why = str(fields["by"]), str(fields["why"])
        at = datetime.fromtimestamp(int(fields["at"]) / 1000, tz=UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        pass  # it pauses all the same
    return Pause(subject=subject.decode("utf-8", "replace"), by=by, why=why, at_utc=at)
