"""What an operator does to jobs, letters and pauses: in steps of many, each of them atomic and counted."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from rmos_shared.errors import BrokerDamaged, JobNotFound, RmosError, TransitionRefused
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.script import LedgerScript

#: What the script says of a job whose task this version does not know.
OTHER_VERSION = "of another version"
#: What the script answers for a job with which all went well.
DONE_WORDS = {
    ActKind.REPLAY: "replayed",
    ActKind.DISCARD: "discarded",
    ActKind.CANCEL: "cancelled",
    ActKind.RUN_NOW: "due",
    ActKind.PAUSE: "paused",
    ActKind.RESUME: "resumed",
}
#: The same as a person reads it.
SPOKEN = DONE_WORDS | {ActKind.RUN_NOW: "made due"}
#: By act and state of the job, what to do instead.
_INSTEAD = {
    (ActKind.CANCEL, "running"): "is running, and is not killed; it ends by itself",
    (ActKind.CANCEL, "dead"): "is dead; discard it with rmos dlq discard",
    (ActKind.RUN_NOW, "accepted"): "is in line already",
    (ActKind.RUN_NOW, "running"): "is running already",
    (ActKind.RUN_NOW, "dead"): "is dead; replay it with rmos dlq replay",
}
_NEEDED = {
    ActKind.REPLAY: "not dead; only dead letters can be replayed",
    ActKind.DISCARD: "not dead; only dead letters can be discarded",
    ActKind.CANCEL: "neither accepted nor waiting; only such jobs can be cancelled",
    ActKind.RUN_NOW: "not waiting; only jobs that were put off can be run now",
}


class JobSteering:
    """An operator's hand on the ledger; atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def apply(
        self, kind: ActKind, ids: Sequence[str], *, by: str, why: str, act_id: str | None = None
    ) -> dict[str, RmosError]:
        """Do one step of an act: to these jobs, letters or subjects of pauses, in one atomic step.

        ``act_id`` is that of an act that was begun, whose count grows in the same step; a step that is
        repeated under it is known as a repeat. Returns those that were refused, with the error that says why:
        ``JobNotFound``, ``TransitionRefused`` or ``BrokerDamaged``. All others are done.
        """
        answers = self._script.texts(kind.value, act_id or secrets.token_hex(8), by, why, *ids)
        return {
            one: _refusal(kind, one, answer)
            for one, answer in zip(ids, answers, strict=True)
            if answer != DONE_WORDS[kind]
        }


def _refusal(kind: ActKind, one: str, answer: str) -> RmosError:
    if answer == "unknown":
        return JobNotFound(one)
    if answer == "damaged":
        return BrokerDamaged(f"the record of {one} cannot be read; rmos doctor says why")
    if answer == "raw":
        return TransitionRefused(
            f"raw letter {one} is no job of the ledger's; enqueue its job anew, and discard it"
        )
    if answer == OTHER_VERSION:
        verb = kind.value.replace("_", " ")
        return TransitionRefused(
            f"job {one} is of a task that only another version knows; {verb} it with that version"
        )
    instead = _INSTEAD.get((kind, answer))
    name = one if kind is ActKind.DISCARD else f"job {one}"
    return TransitionRefused(f"{name} {instead or f'is {answer}, {_NEEDED[kind]}'}")
