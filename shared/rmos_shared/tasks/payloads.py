"""The arguments of each task; nothing else is in a job's payload."""

from __future__ import annotations

from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.models.base import Frozen, IsoDate, SafeId, SingleLine
from rmos_shared.runs.model import RunRequest


class CreateRun(Frozen):
    """Payload of ``runs.create`` and ``runs.create_many``: store this run, then explain it if asked."""

    run: RunRequest
    explain: DetailLevel | None = None


class SuggestAndAttach(Frozen):
    """Payload of ``runs.suggest_and_attach``."""

    run_id: SafeId
    request_id: SingleLine | None = None
    detail: DetailLevel = "summary"


class AttachAdvisory(Frozen):
    """Payload of ``runs.attach_advisory``: link an advisory that the advisory store already holds."""

    run_id: SafeId
    advisory_id: SafeId
    kind: AdvisoryKind = "advisory"
    request_id: SingleLine | None = None


class ExplainMissing(Frozen):
    """Payload of ``runs.explain_missing``: have every run of these days explained that has no explanation."""

    #: UTC dates, ``YYYY-MM-DD``, both inclusive.
    date_from: IsoDate
    date_to: IsoDate
    detail: DetailLevel = "summary"
    request_id: SingleLine | None = None
    #: Where an earlier job of the same batch stopped: the last run that it looked at.
    after_run_id: SafeId | None = None
