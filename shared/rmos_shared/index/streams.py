"""The queries of a page. Each reads one index downwards from the cursor, and so far as told, no farther.

A stream is all runs that have one value in one field, newest first. One field of the filter drives the page:
its streams are read, and the other fields are looked at in each run. That is the field whose runs lie
farthest apart below the cursor, which a look into the index of each field tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    func,
    literal,
    select,
    tuple_,
    union_all,
)

from rmos_shared.index.pages import Span
from rmos_shared.index.row import EQUALITIES, IndexRow
from rmos_shared.index.tables import CORRUPT, RUN
from rmos_shared.index.writer import read_row
from rmos_shared.runs.model import ExplanationStatus
from rmos_shared.runs.query import RunFilter

#: Tools of a prefix that are read as a stream each; of more the prefix is looked at in each run.
MOST_TOOLS = 32
_LAST_CHARACTER = 0x10FFFF
#: Surrogates are no characters of any text.
_SURROGATES = range(0xD800, 0xE000)
_PLACE: Column[str] = RUN.c.place
#: What a run must meet, asked of the columns of whatever it was read from.
Condition = Callable[[Any], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Driver:
    """The streams of one field of the filter: the runs that have one of some values there."""

    column: Column[Any]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """What a page read: runs that pass, and down to which place all were looked at; None: all there are."""

    rows: list[IndexRow]
    rest: str | None


def drivers_of(
    connection: Connection, choice: RunFilter, explanations: Sequence[ExplanationStatus] | None
) -> list[Driver]:
    """Return what may drive the page; none: the filter has no field that an index is on.

    ``explanations`` are the stored states that the filter's may be drawn from; None: it asks for none.
    """
    drivers = [
        Driver(RUN.c[name], (int(value) if isinstance(value, bool) else str(value),))
        for name in EQUALITIES
        if (value := getattr(choice, name)) is not None
    ]
    if explanations is not None:
        drivers.append(Driver(RUN.c.explanation, tuple(state.value for state in explanations)))
    if choice.tool_id_prefix is not None and choice.tool_id is None:
        tools = tools_of(connection, choice.tool_id_prefix)
        if len(tools) <= MOST_TOOLS:
            drivers.append(Driver(RUN.c.tool_id, tuple(tools)))
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
    by_prefix = choice.tool_id_prefix is not None and all(
        driver.column is not RUN.c.tool_id for driver in drivers
    )
    if len(drivers) > 1 or by_prefix:
        driver, rest = _farthest(connection, drivers, span, examined)
        each = _each(driver, examined)
    else:
        # Each run of the stream passes.
        driver, rest, each = next(iter(drivers), None), None, rows
    conditions = [_has(other) for other in drivers if other is not driver]
    if by_prefix:
        conditions.append(_begins_with(choice.tool_id_prefix or ""))
    low = max((bound for bound in (span.low, rest) if bound is not None), default=None)
    found = _fetch(connection, driver, Span(low, span.high), each=each, conditions=conditions, rows=rows)
    # What was not read any more may hold others.
    return Window(found, found[-1].place if len(found) == rows else rest)


def read_corrupt(connection: Connection, span: Span, *, rows: int) -> list[str]:
    """Return the places in ``span`` of up to ``rows`` files that cannot be read."""
    statement = select(CORRUPT.c.place).where(*_within(CORRUPT.c.place, span))
    return list(connection.execute(statement.order_by(CORRUPT.c.place.desc()).limit(rows)).scalars())


def tools_of(connection: Connection, prefix: str) -> list[str]:
    """Return the tools that begin with ``prefix``, in order: all, or one more than ``MOST_TOOLS`` of them.

    Costs one look into the index for each tool, however many runs have it.
    """
    tool = RUN.c.tool_id
    first = select(func.min(tool).label("tool")).where(_begins(tool, prefix)).cte("tools", recursive=True)
    after = select(func.min(tool)).where(tool > first.c.tool, _begins(tool, prefix)).scalar_subquery()
    tools = first.union_all(select(after).where(first.c.tool.is_not(None)))
    statement = select(tools.c.tool).where(tools.c.tool.is_not(None)).limit(MOST_TOOLS + 1)
    return list(connection.execute(statement).scalars())


# -- one stream -----------------------------------------------------------------------------------


def _stream(
    columns: Sequence[Column[Any]], driver: Driver | None, value: Any, span: Span, most: int
) -> Select[Any]:
    """Read one value of a driver, or all runs, downwards.

    The bounds are pairs and the order is of pairs, though the first of them is always ``value``: only the
    index on both serves that, so no planner takes another for cheaper and reads runs of all values.
    """
    if driver is None:
        return select(*columns).where(*_within(_PLACE, span)).order_by(_PLACE.desc()).limit(most)
    column = driver.column
    pair = tuple_(column, _PLACE)
    bound = literal(value, column.type)
    bounds: list[ColumnElement[bool]] = [
        column >= bound if span.low is None else pair >= tuple_(bound, literal(span.low)),
        column <= bound if span.high is None else pair < tuple_(bound, literal(span.high)),
    ]
    return select(*columns).where(*bounds).order_by(column.desc(), _PLACE.desc()).limit(most)


def _streams(
    columns: Sequence[Column[Any]], driver: Driver | None, span: Span, most: int
) -> Iterator[Select[Any]]:
    for value in (None,) if driver is None else driver.values:
        # One select more, for an order and a limit stand in no part of a union.
        part = _stream(columns, driver, value, span, most).subquery()
        yield select(*part.c)


def _fetch(
    connection: Connection,
    driver: Driver | None,
    span: Span,
    *,
    each: int,
    conditions: Sequence[Condition],
    rows: int,
) -> list[IndexRow]:
    """Return the runs of a driver in order, of each stream the first ``each``, that meet the conditions."""
    parts = list(_streams(list(RUN.columns), driver, span, each))
    source = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
    statement = select(*source.c)
    for condition in conditions:
        statement = statement.where(condition(source.c))
    found = connection.execute(statement.order_by(source.c.place.desc()).limit(rows))
    return [read_row(row) for row in found]


def _farthest(
    connection: Connection, drivers: Sequence[Driver], span: Span, examined: int
) -> tuple[Driver | None, str | None]:
    """Return the driver that gets farthest down by looking at so many runs, and down to where.

    None for where: to the end of the span.
    """
    candidates: Sequence[Driver | None] = drivers or [None]
    marks = []
    for number, driver in enumerate(candidates):
        each = _each(driver, examined)
        for value in (None,) if driver is None else driver.values:
            # The last of those that are looked at; when there are fewer, none.
            last = _stream([_PLACE], driver, value, span, 1).offset(each - 1).subquery()
            marks.append(select(literal(number).label("number"), last.c.place))
    ends: dict[int, str] = {}
    for number, place in connection.execute(union_all(*marks)):
        # Where one stream was cut, the others were not looked at below either.
        ends[number] = max(place, ends.get(number, ""))
    whole = [number for number in range(len(candidates)) if number not in ends]
    best = whole[0] if whole else min(ends, key=lambda number: ends[number])
    return candidates[best], ends.get(best)


def _each(driver: Driver | None, examined: int) -> int:
    return examined if driver is None else max(1, examined // len(driver.values))


# -- conditions -----------------------------------------------------------------------------------


def _has(driver: Driver) -> Condition:
    name, values = driver.column.name, driver.values
    return lambda columns: columns[name].in_(values)


def _begins_with(prefix: str) -> Condition:
    return lambda columns: _begins(columns[RUN.c.tool_id.name], prefix)


def _begins(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    end = _after_all(prefix)
    return column >= prefix if end is None else (column >= prefix) & (column < end)


def _within(column: Column[str], span: Span) -> Iterator[ColumnElement[bool]]:
    if span.low is not None:
        yield column >= span.low
    if span.high is not None:
        yield column < span.high


def _after_all(prefix: str) -> str | None:
    """Return the first text after all that begin with ``prefix``; None when none comes after them."""
    kept = prefix.rstrip(chr(_LAST_CHARACTER))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
