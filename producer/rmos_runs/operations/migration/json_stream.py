"""One JSON document of any size, cut into the values at its top level; none of them is parsed here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_CHUNK_BYTES = 65_536
_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"[ \t\r\n]*")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_END_OF_SCALAR = re.compile(rb"[,\]} \t\r\n]")
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING, _CLOSING = b"{[", b"}]"


@dataclass(frozen=True, slots=True)
class Span:
    """One value at the top level, as it stands in the document; or why there is none."""

    #: Its key, where the document is an object; None also for a key that is no text.
    key: str | None
    #: Counted from 1.
    number: int
    data: bytes | None
    reason: str | None


class _Broken(Exception):
    """The document cannot be followed any further."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class JsonStream:
    """Cuts a document, whose memory is that of its largest value, up to ``most_bytes``.

    A value that is damaged inside costs only itself. Where the document itself is damaged the last span says
    so, and where.
    """

    def __init__(self, read: Callable[[int], bytes], *, most_bytes: int) -> None:
        """Take bytes from ``read``, which returns none at the end; larger values are passed over."""
        self._read = read
        self._most_bytes = most_bytes
        self._buffer = b""
        #: Where in the buffer the next byte is, and how many bytes have left the buffer.
        self._at = 0
        self._behind = 0

    @property
    def offset(self) -> int:
        """Bytes of the document that were looked at."""
        return self._behind + self._at

    def spans(self) -> Iterator[Span]:
        """Yield each value of the object or list that the document is."""
        number = 0
        try:
            for number, (key, data) in enumerate(self._values(), start=1):
                reason = f"larger than {self._most_bytes} bytes" if data is None else None
                yield Span(key, number, data, reason)
        except _Broken as broken:
            yield Span(None, number + 1, None, f"{broken.reason}, at byte {self.offset}")

    def _values(self) -> Iterator[tuple[str | None, bytes | None]]:
        self._pass_bom()
        closing = {ord("{"): ord("}"), ord("["): ord("]")}.get(self._peek())
        if closing is None:
            raise _Broken("the file is neither a JSON object nor a list")
        self._at += 1
        if self._peek() != closing:
            yield self._item(closing)
            while self._peek() == ord(","):
                self._at += 1
                yield self._item(closing)
        self._expect(closing)
        if self._more_than_blanks():
            raise _Broken("the file goes on after its JSON")

    def _item(self, closing: int) -> tuple[str | None, bytes | None]:
        key = None
        if closing == ord("}"):
            if self._peek() != _QUOTE:
                raise _Broken("the file is not JSON: a key should stand here")
            key = _text(self._value())
            self._expect(ord(":"))
        self._peek()
        return key, self._value()

    def _value(self) -> bytes | None:
        """Return the value that begins here; None when it is too large."""
        first = self._buffer[self._at]
        # What stands before the value is of no use any more.
        self._drop(self._at)
        if first not in _OPENING and first != _QUOTE:
            return self._scalar()
        depth, end, whole = 0, 0, True
        while True:
            end, depth, inside = self._walk(end, depth)
            if end and not depth and not inside:
                data = self._buffer[:end] if whole else None
                self._at = end
                return data
            if len(self._buffer) > self._most_bytes:
                whole = False
            end = self._go_on(end, inside=inside, whole=whole)

    def _walk(self, at: int, depth: int) -> tuple[int, int, bool]:
        """Follow the value as far as the buffer holds it.

        Return how far, how deep, and whether that is inside a string, which then begins at that place.
        """
        buffer = self._buffer
        while True:
            found = _STRUCTURE.search(buffer, at)
            if found is None:
                return len(buffer), depth, False
            byte = buffer[found.start()]
            if byte == _QUOTE:
                end = _string_end(buffer, found.end())
                if end is None:
                    return found.start(), depth, True
                at = end
            else:
                depth += 1 if byte in _OPENING else -1
                at = found.end()
            if not depth:
                return at, depth, False

    def _go_on(self, end: int, *, inside: bool, whole: bool) -> int:
        """Read on; return where in the buffer to go on."""
        if not whole:
            # Only where we are counts: of an unfinished string, its quote and whether a backslash is open.
            open_end = b'"\\' if _backslashes(self._buffer) % 2 else b'"'
            self._behind += len(self._buffer)
            self._buffer = open_end if inside else b""
            self._behind -= len(self._buffer)
            end = 0
        # As much again as is there, so that a long string is looked at a few times, not once a chunk.
        if not self._fill(max(_CHUNK_BYTES, len(self._buffer))):
            self._at = len(self._buffer)
            raise _Broken("the file ends inside a value")
        return end

    def _scalar(self) -> bytes:
        while (found := _END_OF_SCALAR.search(self._buffer)) is None:
            if len(self._buffer) > _CHUNK_BYTES:
                raise _Broken("the file is not JSON")
            if not self._fill(_CHUNK_BYTES):
                raise _Broken("the file ends inside a value")
        if found.start() == 0:
            raise _Broken("the file is not JSON: a value should stand here")
        self._at = found.start()
        return self._buffer[: self._at]

    # -- the buffer -----------------------------------------------------------------------------------

    def _peek(self) -> int:
        """Return the next byte that is no blank."""
        if not self._more_than_blanks():
            raise _Broken("the file ends before its JSON does")
        return self._buffer[self._at]

    def _more_than_blanks(self) -> bool:
        while True:
            match = _BLANK.match(self._buffer, self._at)
            self._at = len(self._buffer) if match is None else match.end()
            if self._at < len(self._buffer):
                return True
            self._drop(self._at)
            if not self._fill(_CHUNK_BYTES):
                return False

    def _expect(self, byte: int) -> None:
        if self._peek() != byte:
            raise _Broken(f"the file is not JSON: a {chr(byte)} should stand here")
        self._at += 1

    def _pass_bom(self) -> None:
        while len(self._buffer) < len(_BOM) and self._fill(_CHUNK_BYTES):
            pass
        if self._buffer.startswith(_BOM):
            self._at = len(_BOM)

    def _drop(self, end: int) -> None:
        self._behind += end
        self._buffer = self._buffer[end:]
        self._at = 0

    def _fill(self, size: int) -> bool:
        chunk = self._read(size)
        self._buffer += chunk
        return bool(chunk)


def _string_end(buffer: bytes, start: int) -> int | None:
    """Return the place after the quote that ends the string whose inside begins at ``start``."""
    at = start
    while (quote := buffer.find(b'"', at)) >= 0:
        if not _backslashes(buffer, quote, start) % 2:
            return quote + 1
        at = quote + 1
    return None


def _backslashes(buffer: bytes, end: int | None = None, floor: int = 0) -> int:
    """Return how many backslashes stand right before ``end``."""
    end = len(buffer) if end is None else end
    at = end
    while at > floor and buffer[at - 1] == _BACKSLASH:
        at -= 1
    return end - at


def _text(data: bytes | None) -> str | None:
    try:
        text = json.loads(data or b"")
        text.encode()
    except (ValueError, AttributeError):
        return None
    return str(text)
