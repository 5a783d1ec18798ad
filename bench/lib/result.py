"""What a section found: rows, tables and curves, as plain data that can be kept and shown again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.ratio import Row


@dataclass(frozen=True, slots=True)
class Curve:
    """One picture: a few lines over the same axis."""

    name: str
    title: str
    x: str
    y: str
    #: Points by line; each line's x and y.
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Figures beside the rows."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Flames:
    """One profile as a picture: samples by stack, its frames joined by ``;``, outermost first."""

    name: str
    title: str
    stacks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Section:
    """All that one part of the suite found."""

    rows: Sequence[Row] = ()
    tables: Sequence[Table] = ()
    curves: Sequence[Curve] = ()
    #: Sentences on how it was measured this time, and on what could not be.
    remarks: Sequence[str] = ()
    flames: Sequence[Flames] = field(default=(), kw_only=True)
    #: When, UTC, and on what.
    measured: str = field(default="", kw_only=True)

    @property
    def drawn(self) -> list[Curve]:
        """The curves that are any: a quick run has some of a single point."""
        return [curve for curve in self.curves if max(map(len, curve.lines.values())) > 1]


def save(sections: Mapping[str, Section], facts: Mapping[str, str], file: Path) -> None:
    """Keep results."""
    data = {"facts": facts, "sections": {name: asdict(section) for name, section in sections.items()}}
    file.write_text(json.dumps(data, indent=1) + "\n")


def load(file: Path) -> tuple[dict[str, Section], dict[str, str]]:
    """Return what ``save`` kept; nothing when there is nothing."""
    if not file.exists():
        return {}, {}
    data = json.loads(file.read_text())
    return {name: _section(section) for name, section in data["sections"].items()}, data["facts"]


def _section(data: dict[str, Any]) -> Section:
    return Section(
        rows=[Row(**row) for row in data["rows"]],
        tables=[Table(**table) for table in data["tables"]],
        curves=[Curve(**curve) for curve in data["curves"]],
        flames=[Flames(**flames) for flames in data["flames"]],
        remarks=data["remarks"],
        measured=data["measured"],
    )
