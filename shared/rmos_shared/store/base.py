"""What every artifact store guarantees (contract section 4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable

from rmos_shared.errors import CallerError

#: A key is relative, with ``/`` between parts. A part fits a file name and begins with no dot, so none is
#: ``.`` or ``..``. Only the last part, the file, may hold dots: so a directory is never taken for a file.
_DIRECTORY = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}"
_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}"
KEY = re.compile(rf"({_DIRECTORY}/){{0,5}}{_FILE}", re.ASCII)


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

    def get(self, key: str) -> bytes | None:
        """Return the bytes, whole, or None when nothing is published under ``key``.

        Raises:
            StoreUnavailable: the store could not be read, which is not the same as missing.
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
