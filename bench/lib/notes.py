"""What people say beside the figures (``notes.md``), read so that no note can end up in another's place."""

from __future__ import annotations

import re
from collections.abc import Collection

_TITLE = "# Notes on the figures"
_HEADING = re.compile(r"## (\S+)")
#: On every page: what the figures come to.
SUMMARY = "summary"


class NotesUnreadable(ValueError):
    """The notes cannot be set beside the figures as they stand; the text names the lines or keys."""


def read(text: str) -> dict[str, str]:
    """Return the note below each ``## key`` heading; what stands before the first is for its writers.

    Raises:
        NotesUnreadable: a line begins like a heading and is none, a key comes twice, or says nothing.
    """
    notes: dict[str, list[str]] = {}
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("#"):
            lines.append(line)
        elif heading := _HEADING.fullmatch(line):
            if heading[1] in notes:
                raise NotesUnreadable(f"line {number}: the heading {heading[1]!r} is there twice")
            lines = notes[heading[1]] = []
        elif number > 1 or line != _TITLE:
            raise NotesUnreadable(f"line {number}: a heading is '## key' and nothing else, not {line[:60]!r}")
    said = {key: "\n".join(lines).strip() for key, lines in notes.items()}
    if silent := [key for key, note in said.items() if not note]:
        raise NotesUnreadable(f"nothing stands below the heading of {', '.join(silent)}")
    return said


def check(said: Collection[str], *, known: Collection[str], needed: Collection[str]) -> None:
    """Hold the keys that notes are about against what is on the page.

    Raises:
        NotesUnreadable: a note is about nothing there, or one that must be there is missing.
    """
    if strange := sorted(set(said) - set(known)):
        raise NotesUnreadable(f"notes on what is not on the page: {', '.join(strange)}")
    if missing := sorted(set(needed) - set(said)):
        raise NotesUnreadable(f"notes that are missing: {', '.join(missing)}")
