"""A ZIP archive for a sink that cannot seek: the same bytes for the same entries, whatever writes them.

Nothing is compressed, for compressors differ between versions. Times and modes are fixed. Size and checksum
of an entry are known before it is written, so every reader can read the archive while it arrives. Memory
holds one piece of one entry; the directory at the end waits in a temporary file.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

from rmos_shared.errors import CorruptArtifact

#: Of a temporary file that stays in memory.
SPOOL_BYTES = 1 << 20
#: Pieces of this size are read from temporary files, and small ones are joined to it.
PIECE_BYTES = 64 << 10

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_VERSION, _VERSION64 = 20, 45
_UNIX = 3 << 8
#: 1980-01-01, the first day that the form can tell.
_DATE = 1 << 5 | 1
#: A file that everybody may read, and nobody write.
_ATTRIBUTES = 0o100444 << 16
_LIMIT_32, _LIMIT_16 = 0xFFFF_FFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to put in: measured, and read again when it is written."""

    name: str
    size_bytes: int
    crc32: int
    sha256: str
    pieces: Callable[[], Iterable[bytes]]

    @classmethod
    def of(cls, name: str, data: bytes) -> Entry:
        """Return the entry of bytes that are at hand."""
        return cls.measured(name, lambda: (data,))

    @classmethod
    def measured(cls, name: str, pieces: Callable[[], Iterable[bytes]]) -> Entry:
        """Return the entry of what ``pieces`` yields, which is read once for that; raises what it raises."""
        size, crc, digest = 0, 0, hashlib.sha256()
        for piece in pieces():
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            digest.update(piece)
        return cls(name, size, crc, digest.hexdigest(), pieces)


class ZipStream:
    """Makes the archive piece by piece; to be closed, for it holds a temporary file."""

    def __init__(self, *, limit_32: int = _LIMIT_32, limit_16: int = _LIMIT_16) -> None:
        """Begin an archive. From these limits on, sizes and numbers go into the fields of ZIP64."""
        self._limit_32 = limit_32
        self._limit_16 = limit_16
        self._directory = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed by __exit__
        self._offset = 0
        self._entries = 0

    def __enter__(self) -> Self:
        """Return the archive."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the temporary file."""
        self._directory.close()

    def add(self, entry: Entry) -> Iterator[bytes]:
        """Yield the bytes of one entry.

        Raises:
            CorruptArtifact: it has other content than when it was measured. The archive is cut short then.
        """
        name = entry.name.encode("ascii")
        large = entry.size_bytes >= self._limit_32
        size = _LIMIT_32 if large else entry.size_bytes
        extra = struct.pack("<HHQQ", 1, 16, entry.size_bytes, entry.size_bytes) if large else b""
        header = (
            _LOCAL.pack(
                0x04034B50,
                _VERSION64 if large else _VERSION,
                0,
                0,
                0,
                _DATE,
                entry.crc32,
                size,
                size,
                len(name),
                len(extra),
            )
            + name
            + extra
        )
        self._directory.write(self._central(entry, name))
        yield header
        yield from _checked(entry)
        self._offset += len(header) + entry.size_bytes
        self._entries += 1

    def end(self) -> Iterator[bytes]:
        """Yield the directory; nothing can be added after it."""
        size = self._directory.tell()
        yield from spooled(self._directory)
        start = self._offset
        if max(start, size) >= self._limit_32 or self._entries >= self._limit_16:
            yield _END64.pack(
                0x06064B50,
                44,
                _UNIX | _VERSION64,
                _VERSION64,
                0,
                0,
                self._entries,
                self._entries,
                size,
                start,
            )
            yield _LOCATOR64.pack(0x07064B50, 0, start + size, 1)
            yield _END.pack(0x06054B50, 0, 0, _LIMIT_16, _LIMIT_16, _LIMIT_32, _LIMIT_32, 0)
        else:
            yield _END.pack(0x06054B50, 0, 0, self._entries, self._entries, size, start, 0)

    def _central(self, entry: Entry, name: bytes) -> bytes:
        large, far = entry.size_bytes >= self._limit_32, self._offset >= self._limit_32
        size = _LIMIT_32 if large else entry.size_bytes
        longs = [entry.size_bytes] * 2 * large + [self._offset] * far
        extra = struct.pack(f"<HH{len(longs)}Q", 1, 8 * len(longs), *longs) if longs else b""
        version = _VERSION64 if longs else _VERSION
        fields = (entry.crc32, size, size, len(name), len(extra), 0, 0, 0, _ATTRIBUTES)
        offset = _LIMIT_32 if far else self._offset
        return (
            _CENTRAL.pack(0x02014B50, _UNIX | version, version, 0, 0, 0, _DATE, *fields, offset)
            + name
            + extra
        )


def spooled(file: SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    """Yield what a temporary file holds, from its start."""
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of at least ``PIECE_BYTES``, save the last: headers are small."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _checked(entry: Entry) -> Iterator[bytes]:
    size, crc = 0, 0
    for piece in entry.pieces():
        size += len(piece)
        crc = zlib.crc32(piece, crc)
        if size > entry.size_bytes:
            break
        yield piece
    if (size, crc) != (entry.size_bytes, entry.crc32):
        raise CorruptArtifact(entry.name, "it changed while it was read")
