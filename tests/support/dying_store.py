"""A store whose process dies at one of its writes, before or after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmos_shared.store.base import ArtifactStore, Outcome


class Died(BaseException):
    """Nobody catches that, as nobody catches SIGKILL."""


class DyingStore:
    """Does what the store below it does, up to write number ``at`` (from 0), counting each file by itself."""

    def __init__(self, store: ArtifactStore, at: int | None = None, *, after: bool = False) -> None:
        self._store = store
        self._at = at
        self._after = after
        self.writes = 0

    def create(self, key: str, data: bytes) -> Outcome:
        dies = self.writes == self._at
        self.writes += 1
        if dies and not self._after:
            raise Died
        outcome = self._store.create(key, data)
        if dies:
            raise Died
        return outcome

    def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        return [self.create(*item) for item in items]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
