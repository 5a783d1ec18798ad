"""The artifact store in memory: for tests, and itself tested against the suite of the real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rmos_shared.store.base import PIECE_BYTES, Head, Outcome, Stamp, check_key


class MemoryStore:
    """Keeps everything in a dictionary; safe for threads. Durable only as long as the process lives."""

    def __init__(self) -> None:
        """Begin empty."""
        self._files: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def create(self, key: str, data: bytes) -> Outcome:
        """Publish ``data`` under ``key``, never over anything.

        Raises:
            KeyInvalid: see ``check_key``.
        """
        return self.create_many([(key, data)])[0]

    def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        """As ``create`` for each item; a key that is refused means that nothing was published."""
        for key, _ in items:
            check_key(key)
        with self._lock:
            return [self._create(key, bytes(data)) for key, data in items]

    @contextmanager
    def draft(self) -> Iterator[MemoryDraft]:
        """Begin a file whose key may be known only when it is written."""
        yield MemoryDraft(self)

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None when nothing is published under ``key``."""
        file = self._files.get(check_key(key))
        return None if file is None else file[0]

    @contextmanager
    def pieces(self, key: str) -> Iterator[Iterator[bytes] | None]:
        """Yield the pieces of what ``get`` returns, or None."""
        data = self.get(key)
        yield None if data is None else _pieces(data)

    def head(self, key: str) -> Head | None:
        """Return size and time, or None when nothing is published under ``key``."""
        file = self._files.get(check_key(key))
        return None if file is None else Head(key, len(file[0]), file[1])

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` and sort after ``after``, in order.

        Raises:
            KeyInvalid: the directory part of ``prefix``; see ``check_key``.
        """
        branch = prefix[: prefix.rfind("/") + 1]
        if branch:
            check_key(f"{branch}x")
        with self._lock:
            keys = sorted(key for key in self._files if key.startswith(prefix) and key > after)
        yield from keys

    def stamp(self, directory: str) -> Stamp | None:
        """Return the stamp of a directory; None when it holds nothing.

        Raises:
            KeyInvalid: see ``check_key``.
        """
        branch = check_key(f"{directory}/x")[:-1]
        with self._lock:
            below = {
                key.removeprefix(branch).partition("/")[0]: file[1]
                for key, file in reversed(self._files.items())
                if key.startswith(branch)
            }
        return Stamp(str(len(below)), max(below.values())) if below else None

    def _create(self, key: str, data: bytes) -> Outcome:
        if key not in self._files:
            self._files[key] = (data, datetime.now(UTC))
            return Outcome.CREATED
        return Outcome.ALREADY_SAME if self._files[key][0] == data else Outcome.CONFLICT


class MemoryDraft:
    """A file on its way into a ``MemoryStore``."""

    def __init__(self, store: MemoryStore) -> None:
        """Begin an empty file."""
        self._store = store
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        """Add ``data`` at the end. What was published before stays as it was."""
        self._data += data

    def publish(self, key: str) -> Outcome:
        """Publish what was written; raises as ``MemoryStore.create``."""
        return self._store.create(key, bytes(self._data))


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
