"""What a witness remembers: the last checkpoint that it cosigned, in one file that is replaced whole."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rmos_shared.errors import Conflict, StoreUnavailable

#: The cosigned checkpoint: a signed note, as anybody can read and hand on.
MEMORY = "checkpoint"
_LOCK = "lock"
_DRAFT = "checkpoint.new"


class WitnessState:
    """A directory for one witness of one log."""

    def __init__(self, directory: Path) -> None:
        """Use ``directory``; it is made when it is first held."""
        self._directory = directory

    @property
    def file(self) -> Path:
        """Where the memory lies."""
        return self._directory / MEMORY

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other witness off this memory: two that share it could sign two histories.

        Raises:
            Conflict: another one runs on it.
            StoreUnavailable: the directory cannot be made or written.
        """
        with _told(self._directory):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"another witness runs on {self._directory}; stop it, or give this one a state of its own"
                ) from None
            yield
        finally:
            os.close(lock)

    def recall(self) -> bytes | None:
        """Return the cosigned checkpoint; None before the first.

        Raises:
            StoreUnavailable: it cannot be read. It is not begun anew: a witness that forgets would sign
                another history.
        """
        with _told(self._directory), suppress(FileNotFoundError):
            return self.file.read_bytes()
        return None

    def remember(self, note: bytes) -> None:
        """Replace the memory: durable when this returns, and at any moment either the old or the new one.

        Raises:
            StoreUnavailable: it could not be written; the old one stands.
        """
        draft = self._directory / _DRAFT
        with _told(self._directory):
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                with open(file, "wb", closefd=False) as stream:
                    stream.write(note)
                os.fsync(file)
            finally:
                os.close(file)
            draft.replace(self.file)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"the witness's state {directory} cannot be used: {error.strerror}; repair that, and start again"
        ) from error
