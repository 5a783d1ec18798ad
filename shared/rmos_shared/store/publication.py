"""A publication: one file that came to lie in the store, as the audit log is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rmos_shared.canonical import sha256_hex
from rmos_shared.store.base import Outcome


@dataclass(frozen=True, slots=True)
class Publication:
    """A key that is published, and the bytes under it."""

    key: str
    #: Of the bytes that lie there, 64 lower-case hex digits.
    sha256: str
    size_bytes: int
    #: False: the same bytes lay there already, so the log may hold it by now.
    created: bool

    @classmethod
    def of(cls, key: str, data: bytes, outcome: Outcome) -> Self:
        """Return the publication of ``data``, which ended in ``outcome``; one in conflict is none."""
        return cls(key, sha256_hex(data), len(data), created=outcome is Outcome.CREATED)
