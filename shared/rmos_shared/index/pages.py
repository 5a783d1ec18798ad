"""From what was found to a page: how much of it, and where the list goes on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.index.cursor import cursor_at
from rmos_shared.index.row import file_at
from rmos_shared.runs.query import MAX_LIMIT, RunFilter, RunItem, RunPage

#: Runs that one page looks at for each that it may hold, and at least so many: past that it ends early, so
#: that no filter, however few runs pass it, makes a page dear.
_EXAMINED_PER_ROW = 10
_LEAST_EXAMINED = 500

#: One thing found: its place, and the run or, when it cannot be read, None.
Found = tuple[str, RunItem | None]


@dataclass(frozen=True, slots=True)
class Span:
    """The places that a page may show, from ``low`` up to ``high``, which is left out; None is no bound."""

    low: str | None
    high: str | None


def span_of(choice: RunFilter, after: str | None) -> Span:
    """Return the span of the filter's days, below the place ``after``."""
    # "0" sorts just after "/", so this is above all of the last day.
    high = None if choice.date_to is None else f"{choice.date_to}0"
    bounds = [bound for bound in (high, after) if bound is not None]
    return Span(choice.date_from, min(bounds, default=None))


def days_of(choice: RunFilter) -> tuple[date | None, date | None]:
    """Return the first and the last day of a filter."""
    first, last = (
        None if day is None else date.fromisoformat(day) for day in (choice.date_from, choice.date_to)
    )
    return first, last


def examined_at_most(limit: int) -> int:
    """Return how many runs a page of ``limit`` looks at before it ends early."""
    return max(_LEAST_EXAMINED, _EXAMINED_PER_ROW * limit)


def check_limit(limit: int) -> None:
    """Refuse a limit that no page has.

    Raises:
        InvalidRequest: it is not from 1 to ``MAX_LIMIT``.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest((FieldProblem("limit", f"must be from 1 to {MAX_LIMIT}"),), what="list")


def page_of(
    found: Sequence[Found],
    choice: RunFilter,
    *,
    limit: int,
    rest: str | None,
    complete_until: datetime | None,
) -> RunPage:
    """Return the page of what was found, in order: corrupt files count as runs do.

    ``rest`` is the place down to which was looked, when that was not all.
    """
    shown = found[:limit]
    last = shown[-1][0] if len(found) > limit else rest
    return RunPage(
        items=[item for _, item in shown if item is not None],
        next_cursor=None if last is None else cursor_at(last, choice),
        complete_until_utc=complete_until,
        corrupt=[file_at(place) for place, item in shown if item is None],
    )


def merged(items: Iterable[Found], corrupt: Iterable[Found]) -> list[Found]:
    """Return both in the order of a list."""
    return sorted([*items, *corrupt], key=lambda found: found[0], reverse=True)
