"""Cursors: opaque, bound to their filter, and refused when anything in them is not as it was given."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.errors import InvalidRequest
from rmos_shared.index.cursor import cursor_at, read_cursor
from rmos_shared.runs.query import RunFilter

PLACE = "2026-08-01/019fbaa6f6007000800000000000000a"
ALL = RunFilter()
OK = RunFilter.read({"status": "OK"})
CURSOR = cursor_at(PLACE, OK)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200))
def test_a_cursor_holds_its_place(name: str) -> None:
    place = f"2026-08-01/{name}"
    cursor = cursor_at(place, OK)
    assert read_cursor(cursor, OK) == place
    assert cursor.isascii()
    assert not {*"/+=&? "} & {*cursor}


def test_the_day_of_a_partition_that_cannot_be_read_is_a_place() -> None:
    assert read_cursor(cursor_at("2026-08-01", ALL), ALL) == "2026-08-01"


@pytest.mark.parametrize(
    "other",
    [ALL, RunFilter.read({"status": "BLOCKED"}), RunFilter.read({"status": "OK", "mode": "saw"})],
)
def test_a_cursor_of_another_filter_is_refused(other: RunFilter) -> None:
    with pytest.raises(InvalidRequest, match="other filters"):
        read_cursor(CURSOR, other)


@pytest.mark.parametrize("index", range(len(CURSOR)))
def test_each_character_counts(index: int) -> None:
    for character in "Az0-_":
        changed = CURSOR[:index] + character + CURSOR[index + 1 :]
        if changed != CURSOR:
            with pytest.raises(InvalidRequest, match="cursor"):
                read_cursor(changed, OK)


@given(st.text(max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        read_cursor(text, ALL)


@pytest.mark.parametrize("place", ["", "..", "_reviews/x", "2026-08-01/a\0b", "2026-08-01/" + "a" * 9_000])
def test_what_no_list_gives_is_refused_though_its_proof_holds(place: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        read_cursor(cursor_at(place, ALL), ALL)


def test_another_version_is_told_apart() -> None:
    raw = base64.urlsafe_b64decode(CURSOR + "=" * (-len(CURSOR) % 4))
    other = base64.urlsafe_b64encode(b"2" + raw[1:]).decode().rstrip("=")
    with pytest.raises(InvalidRequest, match="another version"):
        read_cursor(other, OK)
    for end in ("=", "A", "\n", " "):
        with pytest.raises(InvalidRequest):
            read_cursor(CURSOR + end, OK)
