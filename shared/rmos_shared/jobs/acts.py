"""Acts: who did what beside the normal way of jobs, why, from where, and how far it got. Never removed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from rmos_shared.errors import ActNotFound, BrokerDamaged, InvalidRequest
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.models.base import Frozen, UtcTime, Utf8Text
from rmos_shared.telemetry.events import RecordUnreadable
from rmos_shared.telemetry.log import emit

_PAGE = 200


class ActKind(StrEnum):
    """What is done. Of the first six it is also the name of the script's operation that does it."""

    REPLAY = "replay"
    DISCARD = "discard"
    CANCEL = "cancel"
    RUN_NOW = "run_now"
    PAUSE = "pause"
    RESUME = "resume"
    #: Jobs put back where their state says, or the audit log's feed begun anew.
    REPAIR = "repair"
    #: Records of an older system stored.
    MIGRATION = "migration"
    #: Records taken away: a pack or an export.
    EXPORT = "export"
    #: A batch paused, resumed or cancelled.
    BATCH = "batch"
    #: One verdict on many advisories.
    REVIEW = "review"
    #: The audit log is signed by a new key from here on.
    KEY_ROTATION = "key_rotation"
    #: The store was restored from a backup, and the audit log goes on from what it holds.
    AUDIT_RESTORED = "audit_restored"
    #: Somebody asked the gateway to change or delete a run, which it never does.
    REFUSED_CHANGE = "refused_change"
    #: A process began, with these settings.
    START = "start"


class ActOutcome(StrEnum):
    """How an act ended."""

    #: Every job that was meant was looked at.
    COMPLETE = "complete"
    #: By the operator (Ctrl-C); the rest of the jobs is as it was.
    STOPPED = "stopped"
    #: By an error, such as a broker that went away.
    FAILED = "failed"


class Act(Frozen):
    """One act, on one job or on many."""

    act_id: Utf8Text
    kind: Utf8Text
    by: Utf8Text
    why: Utf8Text
    #: Where it came from: ``machine`` and ``caller`` (``cli``, ``gateway``, the name of a process).
    origin: dict[str, Any]
    #: The filter, the ids that were named, or the subject of a pause.
    about: dict[str, Any]
    #: Jobs that it was meant for.
    found: int
    #: Jobs that it changed: written in the very step that changed them.
    done: int
    #: Jobs whose state forbade it; known once it has ended.
    refused: int | None
    begun_at_utc: UtcTime
    #: When it last changed something.
    step_at_utc: UtcTime | None
    ended_at_utc: UtcTime | None
    #: None while it is under way, and for ever if it was killed: ``done`` says how far it got.
    outcome: Utf8Text | None


class JobActs:
    """The record of acts; atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def begin(
        self,
        kind: ActKind,
        *,
        by: str,
        why: str,
        about: Mapping[str, Any],
        found: int,
        caller: str = "cli",
        act_id: str | None = None,
    ) -> str:
        """Write down what is about to be done, tell the audit log of it, and return the id of the act.

        ``caller`` is what it came through on this machine. An act of an id that is known stays as it is.
        """
        act_id = act_id or new_uuid7()
        origin = {"machine": socket.gethostname(), "caller": caller}
        self._script.run("begin_act", act_id, kind.value, by, why, _told(origin), _told(about), found)
        return act_id

    def end(self, act_id: str, outcome: ActOutcome, *, refused: int, done: int | None = None) -> None:
        """Write down how it ended, and tell the audit log; the first end stands.

        ``done`` is for acts that no step of the ledger counts.
        """
        self._script.run("end_act", act_id, outcome.value, refused, "" if done is None else done)

    def get(self, act_id: str) -> Act:
        """Return an act.

        Raises:
            ActNotFound: there is none of this id.
            BrokerDamaged: it is no act that the ledger wrote.
        """
        with broker_errors():
            answer = self._script.client.hgetall(f"{self._script.prefix}act:{act_id}")
        if not answer:
            raise ActNotFound(act_id)
        return _act(act_id, cast("dict[bytes, bytes]", answer))

    def newest_first(self) -> Iterator[Act]:
        """Yield all acts that there are now, a page of their ids in memory at a time.

        A damaged one is reported and left out.
        """
        key = f"{self._script.prefix}acts"
        with broker_errors():
            rest = self._script.client.zcard(key)
        while rest > 0:
            # Ranks from the oldest on: those do not change when acts are added.
            first = max(rest - _PAGE, 0)
            with broker_errors():
                page = cast("list[bytes]", self._script.client.zrange(key, first, rest - 1))
            for act_id in reversed(page):
                # One that another program damaged must not end the list.
                try:
                    yield self.get(act_id.decode())
                except (ActNotFound, BrokerDamaged) as error:
                    emit(RecordUnreadable(job_id=act_id.decode(), error=str(error)))
            rest = first


def _act(act_id: str, fields: dict[bytes, bytes]) -> Act:
    try:
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        times = {
            f"{name}_utc": _time(texts[name]) if name in texts else None
            for name in ("begun_at", "step_at", "ended_at")
        }
        return Act.read(
            {
                "act_id": act_id,
                **{name: texts[name] for name in ("kind", "by", "why")},
                "origin": json.loads(texts.get("origin", "{}")),
                "about": json.loads(texts["about"]),
                "found": int(texts["found"]),
                "done": int(texts["done"]),
                "refused": int(texts["refused"]) if "refused" in texts else None,
                "outcome": texts.get("outcome"),
                **times,
            }
        )
    except (KeyError, ValueError, OverflowError, OSError, InvalidRequest) as error:
        raise BrokerDamaged(
            f"the record of act {act_id} cannot be read ({type(error).__name__}); another program wrote it"
        ) from None


def _told(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _time(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, tz=UTC)
