"""Which runs a batch is to explain again, as an operator asks for it."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from rmos_shared.models.base import Frozen, IsoDate, SingleLine
from rmos_shared.runs.model import RiskField, RunRecord, StatusField


class RunChoice(Frozen):
    """The runs of some days; a field that is None leaves all of them in.

    With none of the last three it means every run that the engine in use has not explained yet.
    """

    #: UTC dates, both inclusive.
    date_from: IsoDate
    date_to: IsoDate
    status: StatusField | None = None
    risk_level: RiskField | None = None
    tool_id_prefix: SingleLine | None = None
    #: Only runs that have no explanation and never had one that failed.
    missing_only: bool = False
    #: Only runs whose last explanation failed for good.
    failed_only: bool = False
    #: Only runs whose newest explanation by the engine in use is of an older version than this.
    engine_older_than: SingleLine | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.date_from > self.date_to:
            raise ValueError("date_from is after date_to")
        only = (self.missing_only, self.failed_only, self.engine_older_than is not None)
        if sum(only) > 1:
            raise ValueError("missing_only, failed_only and engine_older_than exclude one another")
        return self

    def takes(self, run: RunRecord) -> bool:
        """Say whether status, risk and tool of a run are meant; how it was explained is another matter."""
        return (
            self.status in {None, run.status}
            and self.risk_level in {None, run.decision.risk_level}
            and run.tool_id.startswith(self.tool_id_prefix or "")
        )
