"""What is noticed while an old record is converted: violations, notes, and what had no place."""

from __future__ import annotations

from typing import Any

from rmos_runs.operations.migration.decoding import shown
from rmos_shared.canonical import check_json
from rmos_shared.errors import FieldProblem, InvalidRequest

_MISSING = "is missing"


class Findings:
    """Grows while one record is converted."""

    def __init__(self) -> None:
        """Begin with nothing noticed."""
        self.violations: list[FieldProblem] = []
        self.notes: list[str] = []
        #: What was not carried over as it was, by its old name.
        self.kept: dict[str, Any] = {}
        #: Whether something is in the original bytes alone.
        self.inexact = False

    def lacks(self, field: str) -> None:
        """Note that a required field is missing."""
        self.violations.append(FieldProblem(field, _MISSING))

    def wrong(self, field: str, reason: str) -> None:
        """Note a value that the contract does not hold."""
        self.violations.append(FieldProblem(shown(field), shown(reason)))

    def note(self, text: str) -> None:
        """Note a rule that was applied, and that breaks nothing."""
        self.notes.append(text)

    def keep(self, name: str, value: object) -> None:
        """Keep a value under its old name; one that JSON cannot carry is left to the original bytes."""
        if not exact({"legacy": {"fields": {name: value}}}):
            self.inexact = True
            self.kept.pop(name, None)
            self.note(f"{shown(name)}: only in the original, for JSON cannot carry it exactly")
        else:
            self.kept[name] = value

    def block_reason(self, own: str | None) -> str:
        """Return what names every violation, and the record's own reason after them."""
        missing = [problem.field for problem in self.violations if problem.reason == _MISSING]
        wrong = [str(problem) for problem in self.violations if problem.reason != _MISSING]
        parts = [f"the migrated record lacks {', '.join(missing)}"] if missing else []
        if wrong:
            parts.append(f"wrong in the migrated record: {'; '.join(wrong)}")
        if own is not None:
            parts.append(f"its own reason: {own}")
        return "; ".join(parts)


def exact(value: object) -> bool:
    """Say whether JSON can carry a value exactly."""
    try:
        check_json(value)
    except InvalidRequest:
        return False
    return True
