"""Tables: what a terminal shows of rows, and that nothing in them is ever cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rmos_runs.cli.table import Layout, shown, tabbed

ID = "01a2082c67a57eb2a6e4f41bc8fc3937"
ROW: dict[str, Any] = {
    "id": ID,
    "state": "dead",
    "message": f"the run {ID} is already published with different content; it stays as it is",
    "path": f"2026-11-23/{ID}.json",
    "retry_count": 3,
}


def printed(rows: list[dict[str, Any]], width: int) -> tuple[list[str], tuple[str, ...]]:
    layout = Layout.fitting(rows, width)
    return [line for row in rows for line in layout.lines(row)], layout.hidden


@pytest.mark.parametrize(
    ("width", "hidden"),
    [
        (1, ("state", "message", "path", "retry_count")),
        (40, ("message", "path", "retry_count")),
        (75, ("path", "retry_count")),
        (125, ("retry_count",)),
        (160, ()),
    ],
)
def test_the_last_columns_go_first(width: int, hidden: tuple[str, ...]) -> None:
    lines, told = printed([ROW], width)
    assert told == hidden
    assert max(map(cell_len, lines)) <= max(width, len(ID))
    text = " ".join(" ".join(lines).split())
    # A sentence is broken between words, so an id in one stays whole.
    assert text.count(ID) == 1 + ("message" not in hidden) + ("path" not in hidden)


WORDS = st.text("aé€字\U0001f3b8-_.", max_size=60)
CELLS = WORDS | st.lists(WORDS, max_size=8).map(" ".join) | st.none() | st.integers(0, 10**9)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4).map(
    lambda rows: [dict(zip(("one", "two", "three"), row, strict=True)) for row in rows]
)


@given(ROWS, st.integers(1, 200))
def test_whatever_is_shown_is_there_to_its_last_character(rows: list[dict[str, Any]], width: int) -> None:
    layout = Layout.fitting(rows, width)
    for row in rows:
        text = "".join("".join(layout.lines(row)).split())
        for column in layout.columns:
            for part in shown(row[column.name]).split():
                # Broken over lines or not, each character stands in its order.
                rest = iter(text)
                assert all(char in rest for char in part)
    assert [column.name for column in layout.columns] + list(layout.hidden) == ["one", "two", "three"]


@given(ROWS)
def test_without_a_terminal_each_row_is_one_line_of_whole_cells(rows: list[dict[str, Any]]) -> None:
    header, *lines = tabbed(rows)
    assert header == "one\ttwo\tthree"
    assert [line.split("\t") for line in lines] == [[shown(cell) for cell in row.values()] for row in rows]


def test_later_rows_may_be_wider_than_what_was_laid_out_for() -> None:
    layout = Layout.fitting([{"id": "a", "state": "ok"}], 80)
    assert list(layout.lines({"id": ID, "state": "waiting"})) == [f"{ID}  waiting"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, ""),
        ("½ turn", "½ turn"),
        ("[red]no markup[/red]", "[red]no markup[/red]"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\x1b[2J\u202e\x07", r"\x1b[2J\u202e\x07"),
        ("\udcff", r"\udcff"),
    ],
)
def test_no_cell_steers_a_terminal(value: object, told: str) -> None:
    assert shown(value) == told
