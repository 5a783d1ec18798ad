"""The statements of a page, each built once for its shape: building one costs more than running it.

Every stream has both bounds and an order that are pairs, (field, place), though the field is always the one
value: only the index on both serves that. So no planner takes another index for cheaper, and reads runs of
all values in search of those few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    Text,
    bindparam,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)

from rmos_shared.index.row import LISTED
from rmos_shared.index.tables import CORRUPT, RUN

#: Above every place: those begin with a digit.
HIGHEST = "~"
#: Shapes that are kept; in use are some dozens.
_SHAPES = 512


@dataclass(frozen=True, slots=True)
class Condition:
    """A run has one of so many values in a column: parameters ``<column>_<number>``."""

    column: str
    values: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """The shape of a fetch: what drives it, and what its runs must meet besides."""

    #: None: all runs.
    column: str | None
    values: int
    conditions: tuple[Condition, ...]
    #: Whether the tool must begin with a prefix.
    prefix: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """The streams of a field whose ends are asked for."""

    column: str | None
    values: int


@lru_cache(maxsize=_SHAPES)
def fetch(shape: Fetch) -> Select[Any]:
    """Return the statement: of each stream the first ``each`` runs, of those that pass the first ``rows``.

    Parameters: ``low``, ``high``, ``each``, ``rows``, ``value_<number>`` of the streams, those of the
    conditions, and ``prefix`` and ``after_prefix``.
    """
    asked = [each.column for each in shape.conditions] + (["tool_id"] if shape.prefix else [])
    # One stream comes in the order that is asked for; where there are more, or all runs, only places do.
    ordered = [shape.column] if shape.column is not None and shape.values == 1 else []
    names = [*LISTED, *asked, *ordered]
    parts = [
        # One select more, for an order and a limit stand in no part of a union.
        select(
            *_stream(dict.fromkeys(names), shape.column, f"value_{number}")
            .limit(_number("each"))
            .subquery()
            .c
        )
        for number in range(shape.values)
    ]
    source = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
    statement = select(*(source.c[name] for name in LISTED))
    for condition in shape.conditions:
        column = source.c[condition.column]
        parameters = [
            bindparam(f"{condition.column}_{number}", type_=column.type) for number in range(condition.values)
        ]
        statement = statement.where(
            column == parameters[0] if len(parameters) == 1 else column.in_(parameters)
        )
    if shape.prefix:
        statement = statement.where(_begins(source.c.tool_id))
    order = [source.c[name].desc() for name in (*ordered, "place")]
    return statement.order_by(*order).limit(_number("rows"))


@lru_cache(maxsize=_SHAPES)
def ends_of(marks: tuple[Mark, ...]) -> CompoundSelect[Any] | Select[Any]:
    """Return the statement: number of a mark, and the place of its run after ``skip_<number>``.

    One row for each stream that has so many runs. Parameters besides: ``low``, ``high``, and of the streams
    ``value_<number>_<index>``.
    """
    parts = []
    for number, mark in enumerate(marks):
        for index in range(mark.values):
            stream = _stream(["place"], mark.column, f"value_{number}_{index}")
            last = stream.limit(1).offset(_number(f"skip_{number}")).subquery()
            parts.append(select(literal_column(str(number), Integer).label("number"), last.c.place))
    return parts[0] if len(parts) == 1 else union_all(*parts)


def _stream(names: Iterable[str], column: str | None, value: str) -> Select[Any]:
    """Read one value of a column, or all runs, downwards."""
    place = RUN.c.place
    low, high = bindparam("low", type_=Text()), bindparam("high", type_=Text())
    columns = [RUN.c[name] for name in names]
    if column is None:
        return select(*columns).where(place >= low, place < high).order_by(place.desc())
    field = RUN.c[column]
    pair, wanted = tuple_(field, place), bindparam(value, type_=field.type)
    # In words of its own: from a comparison of pairs no planner concludes that the index has all such runs.
    there = [field.is_not(None)] if field.nullable else []
    return (
        select(*columns)
        .where(*there, pair >= tuple_(wanted, low), pair < tuple_(wanted, high))
        .order_by(field.desc(), place.desc())
    )


def _begins(column: ColumnElement[str]) -> ColumnElement[bool]:
    return (column >= bindparam("prefix", type_=Text())) & (column < bindparam("after_prefix", type_=Text()))


def _number(name: str) -> Any:
    return bindparam(name, type_=Integer())


def _tools() -> Select[Any]:
    tool = RUN.c.tool_id
    first = select(func.min(tool).label("tool")).where(_begins(tool)).cte("tools", recursive=True)
    after = select(func.min(tool)).where(tool > first.c.tool, _begins(tool)).scalar_subquery()
    tools = first.union_all(select(after).where(first.c.tool.is_not(None)))
    return select(tools.c.tool).where(tools.c.tool.is_not(None)).limit(_number("most"))


#: The tools that begin with ``prefix``, up to ``most``: a look into the index for each.
TOOLS = _tools()
#: The places of corrupt files from ``high`` down to ``low``, up to ``rows``.
CORRUPT_BELOW = (
    select(CORRUPT.c.place)
    .where(
        CORRUPT.c.place >= bindparam("low", type_=Text()), CORRUPT.c.place < bindparam("high", type_=Text())
    )
    .order_by(CORRUPT.c.place.desc())
    .limit(_number("rows"))
)
