"""The queries of a page. Each reads one index downwards from the cursor, and so far as told, no farther.

A stream is all runs that have one value in one field, newest first. One field of the filter drives the page:
its streams are read, and the other fields are looked at in each run. That is the field whose runs lie
farthest apart below the cursor, which a look into the index of each field tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from rmos_shared.index.pages import Span
from rmos_shared.index.row import EQUALITIES, Listed
from rmos_shared.index.statements import (
    CORRUPT_BELOW,
    HIGHEST,
    TOOLS,
    Condition,
    Fetch,
    Mark,
    ends_of,
    fetch,
)
from rmos_shared.runs.model import ExplanationStatus
from rmos_shared.runs.query import RunFilter

#: Tools of a prefix that are read as a stream each; of more the prefix is looked at in each run.
MOST_TOOLS = 32
_LAST_CHARACTER = 0x10FFFF
#: Surrogates are no characters of any text.
_SURROGATES = range(0xD800, 0xE000)
_TOOL = "tool_id"


@dataclass(frozen=True, slots=True)
class Driver:
    """The streams of one field of the filter: the runs that have one of some values there."""

    column: str
    values: tuple[str | int, ...]

    @property
    def condition(self) -> Condition:
        """The same asked of a run that another field drove there."""
        return Condition(self.column, len(self.values))


@dataclass(frozen=True, slots=True)
class Window:
    """What a page read: runs that pass, and down to which place all were looked at; None: all there are."""

    rows: list[Listed]
    rest: str | None


def drivers_of(
    connection: Connection, choice: RunFilter, explanations: Sequence[ExplanationStatus] | None
) -> list[Driver]:
    """Return what may drive the page; none: the filter has no field that an index is on.

    ``explanations`` are the stored states that the filter's may be drawn from; None: it asks for none.
    """
    drivers = [
        Driver(name, (int(value) if isinstance(value, bool) else str(value),))
        for name in EQUALITIES
        if (value := getattr(choice, name)) is not None
    ]
    if explanations is not None:
        drivers.append(Driver("explanation", tuple(state.value for state in explanations)))
    if choice.tool_id_prefix is not None and choice.tool_id is None:
        tools = tools_of(connection, choice.tool_id_prefix)
        if len(tools) <= MOST_TOOLS:
            drivers.append(Driver(_TOOL, tuple(tools)))
    return drivers


def read_window(
    connection: Connection,
    choice: RunFilter,
    drivers: Sequence[Driver],
    span: Span,
    *,
    rows: int,
    examined: int,
) -> Window:
    """Return up to ``rows`` runs of the filter in ``span``, newest first, looking at ``examined`` at most."""
    if any(not driver.values for driver in drivers):
        return Window([], None)
    by_prefix = choice.tool_id_prefix is not None and all(driver.column != _TOOL for driver in drivers)
    # With a tool besides, that tool drives or is looked for, and the prefix is a condition on it.
    by_prefix = by_prefix or (choice.tool_id_prefix is not None and choice.tool_id is not None)
    if len(drivers) > 1 or by_prefix:
        driver, rest = _farthest(connection, drivers, span, examined)
        each = _each(driver, examined)
    else:
        # Each run of the stream passes.
        driver, rest, each = next(iter(drivers), None), None, rows
    others = [other for other in drivers if other is not driver]
    low = max((bound for bound in (span.low, rest) if bound is not None), default="")
    shape = Fetch(
        column=None if driver is None else driver.column,
        values=1 if driver is None else len(driver.values),
        conditions=tuple(other.condition for other in others),
        prefix=by_prefix,
    )
    parameters = _bounds(Span(low, span.high)) | {"each": each, "rows": rows}
    for name, values in [("value", () if driver is None else driver.values)] + [
        (other.column, other.values) for other in others
    ]:
        parameters |= {f"{name}_{number}": value for number, value in enumerate(values)}
    if by_prefix:
        prefix = choice.tool_id_prefix or ""
        parameters |= {"prefix": prefix, "after_prefix": _after_all(prefix)}
    found = [Listed(*row) for row in connection.execute(fetch(shape), parameters)]
    # What was not read any more may hold others.
    return Window(found, found[-1].place if len(found) == rows else rest)


def read_corrupt(connection: Connection, span: Span, *, rows: int) -> list[str]:
    """Return the places in ``span`` of up to ``rows`` files that cannot be read."""
    return list(connection.execute(CORRUPT_BELOW, _bounds(span) | {"rows": rows}).scalars())


def tools_of(connection: Connection, prefix: str) -> list[str]:
    """Return the tools that begin with ``prefix``, in order: all, or one more than ``MOST_TOOLS`` of them.

    Costs one look into the index for each tool, however many runs have it.
    """
    bounds = {"prefix": prefix, "after_prefix": _after_all(prefix), "most": MOST_TOOLS + 1}
    return list(connection.execute(TOOLS, bounds).scalars())


def _farthest(
    connection: Connection, drivers: Sequence[Driver], span: Span, examined: int
) -> tuple[Driver | None, str | None]:
    """Return the driver that gets farthest down by looking at so many runs, and down to where.

    None for where: to the end of the span.
    """
    candidates: Sequence[Driver | None] = drivers or [None]
    marks, parameters = [], _bounds(span)
    for number, driver in enumerate(candidates):
        marks.append(Mark(None, 1) if driver is None else Mark(driver.column, len(driver.values)))
        # The last of those that are looked at; when there are fewer, none.
        parameters[f"skip_{number}"] = _each(driver, examined) - 1
        for index, value in enumerate(() if driver is None else driver.values):
            parameters[f"value_{number}_{index}"] = value
    ends: dict[int, str] = {}
    for number, place in connection.execute(ends_of(tuple(marks)), parameters):
        # Where one stream was cut, the others were not looked at below either.
        ends[number] = max(place, ends.get(number, ""))
    whole = [number for number in range(len(candidates)) if number not in ends]
    best = whole[0] if whole else min(ends, key=lambda number: ends[number])
    return candidates[best], ends.get(best)


def _bounds(span: Span) -> dict[str, Any]:
    return {"low": span.low or "", "high": HIGHEST if span.high is None else span.high}


def _each(driver: Driver | None, examined: int) -> int:
    return examined if driver is None else max(1, examined // len(driver.values))


def _after_all(prefix: str) -> str:
    """Return the first text after all that begin with ``prefix``."""
    kept = prefix.rstrip(chr(_LAST_CHARACTER))
    if not kept:
        # None can come after them; no text has so many of the last character.
        return chr(_LAST_CHARACTER) * 1_000
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
