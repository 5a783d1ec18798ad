"""The keys of a log's newest entries, in memory: most that is searched for was sealed a moment ago."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from rmos_shared.auditlog.entry import EntryInvalid, SealEntry, key_of, parse_entry

#: Keys that are held; some 30 MiB. Beyond them a third is let go.
MOST_KEYS = 150_000


class Tail:
    """Holds the keys of the entries from ``start`` to before ``end``: all sealed at ``since`` or later.

    A key that has several entries has the first of these.
    """

    def __init__(self, start: int, since: datetime) -> None:
        """Begin, empty, with the entry ``start``."""
        self.start = self.end = start
        self.since = since
        self._keys: dict[str, int] = {}
        #: Where seals end, and when they were made: the tail is cut there.
        self._ends: list[tuple[int, datetime]] = []

    def find(self, key: str) -> int | None:
        """Return the index of the entry of ``key``, if it is held."""
        return self._keys.get(key)

    def add(self, lines: Iterable[bytes]) -> None:
        """Go on with the entries that follow."""
        for line in lines:
            key = key_of(line)
            if key is not None:
                self._keys.setdefault(key, self.end)
            self.end += 1
            if key is None:
                self._ends += _ended(line, self.end)
        self._cut()

    def join(self, later: Tail) -> None:
        """Go on with what ``later`` holds, which begins where this one ends."""
        if later.start != self.end:
            raise ValueError(f"the tail ends before entry {self.end}, not {later.start}")
        for key, index in later._keys.items():
            self._keys.setdefault(key, index)
        self._ends += later._ends
        self.end = later.end
        self._cut()

    def _cut(self) -> None:
        """Let go of the oldest third, up to the end of a seal, if there are too many keys."""
        if len(self._keys) <= MOST_KEYS:
            return
        surplus = len(self._keys) - MOST_KEYS * 2 // 3
        first = sorted(self._keys.values())[surplus - 1]
        place = next((number for number, (end, _) in enumerate(self._ends) if end > first), None)
        if place is None:
            return  # the seal is not whole yet
        self.start, at = self._ends[place]
        # Seals of the same time may come before that one.
        self.since = at + timedelta(milliseconds=1)
        self._keys = {key: index for key, index in self._keys.items() if index >= self.start}
        del self._ends[: place + 1]


def _ended(line: bytes, end: int) -> Iterator[tuple[int, datetime]]:
    # What is no entry is for the verifier to report.
    with suppress(EntryInvalid):
        entry = parse_entry(line)
        if isinstance(entry, SealEntry):
            yield end, entry.at
