"""Who popped which malformed message, as seen on the line: the evidence for one that is missing later."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256

#: An answer to BRPOP: the queue, then the size of the item.
_POPPED = re.compile(rb"\*2\r\n\$\d+\r\n(runs\.[a-z_.]+)\r\n\$(\d+)\r\n")
_HEADER_BYTES = 64


@dataclass(frozen=True, slots=True)
class Pop:
    """One item that left the server for one connection."""

    connection: int
    at: float
    delivered: bool


class PopWatch:
    """The witness of the broker's proxy. Remembers pops of any item, by its hash."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._half: dict[int, bytes] = {}
        self._pops: dict[str, list[Pop]] = defaultdict(list)
        #: Answers cut in the middle: the item's size, as much of it as was seen, and where.
        self._torn: list[tuple[int, bytes, Pop]] = []
        self._ends: dict[int, tuple[float, str]] = {}

    def saw(self, connection: int, data: bytes, *, delivered: bool) -> None:
        with self._lock:
            data = self._half.pop(connection, b"") + data
            position = 0
            while found := _POPPED.search(data, position):
                end = found.end() + int(found[2])
                if len(data) < end:
                    if delivered:
                        self._half[connection] = data[found.start() :]
                    else:
                        self._tear(connection, data[found.start() :])
                    return
                digest = sha256(data[found.end() : end]).hexdigest()
                self._pops[digest].append(Pop(connection, time.monotonic(), delivered))
                position = end
            tail = data[max(position, len(data) - _HEADER_BYTES) :]
            if b"*2\r\n" in tail and delivered:
                self._half[connection] = tail[tail.rindex(b"*2\r\n") :]

    def ended(self, connection: int, how: str) -> None:
        with self._lock:
            self._tear(connection, self._half.pop(connection, b""))
            self._ends[connection] = (time.monotonic(), how)

    def pops(self, item: bytes) -> list[Pop]:
        """Return the pops of an item, those included of which only its beginning got through."""
        with self._lock:
            torn = [pop for size, part, pop in self._torn if size == len(item) and item.startswith(part)]
            return [*self._pops[sha256(item).hexdigest()], *torn]

    def end_of(self, connection: int) -> tuple[float, str] | None:
        """Return when and by whom a connection was ended; None while it stands."""
        with self._lock:
            return self._ends.get(connection)

    def _tear(self, connection: int, data: bytes) -> None:
        if found := _POPPED.match(data):
            pop = Pop(connection, time.monotonic(), delivered=False)
            self._torn.append((int(found[2]), data[found.end() :], pop))
