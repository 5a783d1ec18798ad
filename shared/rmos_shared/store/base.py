"""What every artifact store guarantees (contract section 4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable

from rmos_shared.errors import CallerError

#: A key is relative, with ``/`` between parts. A part fits a file name and begins with no dot, so none is
#: ``.`` or ``..``. Only the last part, the file, may hold dots: so a directory is never taken for a file. The
#: one exception is the directory of partial tiles of the audit log, ``067.p``, whose name is not ours to
#: choose.
_DIRECTORY = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}"
_PARTIAL = r"[0-9]{3}\.p"
_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}"
KEY = re.compile(
    rf"(?:(?:{_DIRECTORY}/){{0,6}}|(?:{_DIRECTORY}/){{0,5}}{_PARTIAL}/){_FILE}",
    re.ASCII,
)
#: Says whether a directory may have a dot in its name.
PARTIAL = re.compile(_PARTIAL, re.ASCII)
#: The most bytes of one piece of a file that is read in pieces.
PIECE_BYTES = 1 << 20


class Outcome(Enum):
    """How a ``create`` ended; every one of them means that the key is published and durable."""

    #: We published it.
    CREATED = "created"
    #: The very same bytes were there already: a repeat, and a success.
    ALREADY_SAME = "already_same"
    #: Other bytes are there, and they stay.
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a published key without reading it."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Space:
    """The room of the file system that a store lies on."""

    #: For us; some of the rest may be kept for the administrator.
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a directory looked like from outside: another token says that names may have come since.

    The same token says nothing about names that came within the file system's clock tick of ``changed_at``.
    """

    token: str
    changed_at: datetime


class KeyInvalid(CallerError):
    """A key that could leave the store's root, or that no store could hold."""

    code = "KEY_INVALID"


def check_key(key: str) -> str:
    """Return ``key`` unchanged.

    Raises:
        KeyInvalid: it is not relative, holds ``..`` or another character that may not touch a path.
    """
    if not KEY.fullmatch(key):
        # The key itself is left out: it may come from outside and hold anything.
        raise KeyInvalid("store key is not a plain relative path of letters, digits, '_', '-' and '.'")
    return key


class Draft(Protocol):
    """A file on its way into the store: seen by no reader.

    It is used up by being published and by any failure; begin another to try again.
    """

    def write(self, data: bytes) -> None:
        """Add ``data`` at the end.

        Raises:
            StoreUnavailable: it could not be written (disk full, read-only, gone).
        """
        ...

    def publish(self, key: str) -> Outcome:
        """Publish what was written, as ``ArtifactStore.create`` does, and raise as that."""
        ...


@runtime_checkable
class ArtifactStore(Protocol):
    """Create once, read for ever. There is no verb that changes or deletes."""

    def create(self, key: str, data: bytes) -> Outcome:
        """Publish ``data`` under ``key``, atomically and durably, never over anything.

        Raises:
            KeyInvalid: see ``check_key``.
            StoreUnavailable: nothing was published (disk full, read-only, gone).
            DurabilityUnknown: published, but the directory could not be synced.
        """
        ...

    def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        """As ``create`` for each item, with shared syncs; one outcome per item, in order.

        Each item is published or not by itself; an exception means that some may be published, and
        repeating the same call is safe.
        """
        ...

    def draft(self) -> AbstractContextManager[Draft]:
        """Begin a file whose key may be known only when it is written; what is not published leaves nothing.

        Raises:
            StoreUnavailable: no file can be begun.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """Return the bytes, whole, or None when nothing is published under ``key``.

        Raises:
            StoreUnavailable: the store could not be read, which is not the same as missing.
        """
        ...

    def pieces(self, key: str) -> AbstractContextManager[Iterator[bytes] | None]:
        """Open what ``get`` returns, to be read in pieces of at most ``PIECE_BYTES`` inside the context.

        What is iterated raises as ``get`` does.
        """
        ...

    def head(self, key: str) -> Head | None:
        """Return size and time, or None when nothing is published under ``key``."""
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the published keys that begin with ``prefix`` and sort after ``after``, in order.

        Staging files never appear. Memory use does not grow with the number of partitions.
        """
        ...


@runtime_checkable
class StampedStore(ArtifactStore, Protocol):
    """A store that can tell without listing a directory whether its names are those of before."""

    def stamp(self, directory: str) -> Stamp | None:
        """Return the stamp of a directory's own names, not of those below them; None when there is none.

        Raises:
            KeyInvalid: see ``check_key``.
            StoreUnavailable: the root could not be read.
            CorruptArtifact: the directory could not be.
        """
        ...
