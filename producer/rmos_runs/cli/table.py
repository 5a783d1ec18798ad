"""Rows as lines of text: for programs separated by tabs, for people in columns that fit their terminal.

The columns of a row stand in the order of their importance. Nothing is ever cut: a column that does not fit
is left out, the last first, and named; only sentences are broken over lines.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

Row = dict[str, Any]

_GAP = "  "
#: A sentence is not squeezed into less than this.
_SENTENCE_WIDTH = 24
#: Longer words in a sentence may be broken; the longest id has this many characters.
_LONGEST_WORD = 40


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    width: int
    wraps: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit, and the names of those that do not."""

    columns: tuple[_Column, ...]
    hidden: tuple[str, ...]

    @classmethod
    def fitting(cls, rows: Sequence[Row], width: int) -> Layout:
        """Lay out ``rows`` (at least one) for a terminal of ``width``; the first column always stays."""
        cells_by_name = {name: [name, *(shown(row[name]) for row in rows)] for name in rows[0]}
        widest = {name: max(map(cell_len, cells)) for name, cells in cells_by_name.items()}
        least = {name: _least(cells) for name, cells in cells_by_name.items()}
        kept = list(cells_by_name)
        while len(kept) > 1 and _total(least[name] for name in kept) > width:
            kept.pop()
        room = width - _total(least[name] for name in kept)
        columns = []
        for name in kept:
            given = max(0, min(room, widest[name] - least[name]))
            room -= given
            columns.append(
                _Column(name, least[name] + given, wraps=any(" " in cell for cell in cells_by_name[name]))
            )
        return cls(tuple(columns), tuple(name for name in cells_by_name if name not in kept))

    def header(self) -> Iterator[str]:
        """Yield the lines of the header."""
        yield self._line([column.name for column in self.columns])
        yield self._line(["─" * column.width for column in self.columns])

    def lines(self, row: Row) -> Iterator[str]:
        """Yield the lines of one row; a cell wider than its column overflows, whole."""
        cells = [_folded(shown(row[column.name]), column) for column in self.columns]
        for number in range(max(map(len, cells))):
            yield self._line([cell[number] if number < len(cell) else "" for cell in cells])

    def _line(self, cells: Sequence[str]) -> str:
        padded = (
            cell + " " * (column.width - cell_len(cell))
            for cell, column in zip(cells, self.columns, strict=True)
        )
        return _GAP.join(padded).rstrip()


def tabbed(rows: Iterable[Row]) -> Iterator[str]:
    """Yield one line of names and one a row, their cells separated by tabs, whole and of any width."""
    for number, row in enumerate(rows):
        if number == 0:
            yield "\t".join(row)
        yield "\t".join(map(shown, row.values()))


def shown(value: object) -> str:
    """Return a value as it is printed: on one line, with nothing that would steer a terminal."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _least(cells: Sequence[str]) -> int:
    widest = max(map(cell_len, cells))
    if not any(" " in cell for cell in cells):
        return widest
    longest = max(cell_len(word) for cell in cells for word in (cell.split() or [""]))
    return min(widest, max(_SENTENCE_WIDTH, min(longest, _LONGEST_WORD)))


def _total(widths: Iterable[int]) -> int:
    listed = list(widths)
    return sum(listed) + len(_GAP) * (len(listed) - 1)


def _folded(cell: str, column: _Column) -> list[str]:
    if not column.wraps or cell_len(cell) <= column.width:
        return [cell]
    return textwrap.wrap(cell, column.width, break_on_hyphens=False) or [""]
