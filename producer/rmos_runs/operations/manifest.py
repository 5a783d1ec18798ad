"""``MANIFEST.sha256``: what ``sha256sum -c`` checks an unpacked archive against."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

from rmos_runs.operations.zip_stream import SPOOL_BYTES, Entry, spooled

MANIFEST = "MANIFEST.sha256"


class Manifest:
    """One line a file, in the order of the archive; waits in a temporary file, so close it."""

    def __init__(self) -> None:
        """Start empty."""
        self._lines = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        """Return the manifest."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the temporary file."""
        self._lines.close()

    def add(self, entry: Entry) -> None:
        """Name a file."""
        self._lines.write(f"{entry.sha256}  {entry.name}\n".encode())

    def entry(self) -> Entry:
        """Return the manifest as a file; it does not name itself."""
        return Entry.measured(MANIFEST, self._pieces)

    def _pieces(self) -> Iterator[bytes]:
        return spooled(self._lines)
