"""A store that tells of what is published in it, for who publishes where no job is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rmos_shared.runs.attachment_key import attachment_sha256
from rmos_shared.store.base import ArtifactStore, Draft, Head, Outcome
from rmos_shared.store.publication import Publication

Tell = Callable[[Sequence[Publication]], object]


class ToldStore:
    """A store as any, that calls ``tell`` once something is durable. It raises what that raises.

    It tells of all as of what was there already, so that the audit log looks before it adds an entry: no
    lease bounds the time between the two, and meanwhile the log may have found the file by itself.
    """

    def __init__(self, store: ArtifactStore, tell: Tell) -> None:
        """Publish in ``store``."""
        self._store = store
        self._tell = tell

    def create(self, key: str, data: bytes) -> Outcome:
        """As the store does."""
        return self.create_many([(key, data)])[0]

    def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        """As the store does; all that is published is told of at once."""
        outcomes = self._store.create_many(items)
        published = [
            Publication.of(key, data, Outcome.ALREADY_SAME)
            for (key, data), outcome in zip(items, outcomes, strict=True)
            if outcome is not Outcome.CONFLICT
        ]
        if published:
            self._tell(published)
        return outcomes

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """As the store does, for attachments: their keys hold the hash that was counted on the way."""
        with self._store.draft() as draft:
            yield _ToldDraft(draft, self._tell)

    def get(self, key: str) -> bytes | None:
        """As the store does."""
        return self._store.get(key)

    def pieces(self, key: str) -> AbstractContextManager[Iterator[bytes] | None]:
        """As the store does."""
        return self._store.pieces(key)

    def head(self, key: str) -> Head | None:
        """As the store does."""
        return self._store.head(key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """As the store does."""
        return self._store.list(prefix, after)


class _ToldDraft:
    def __init__(self, draft: Draft, tell: Tell) -> None:
        self._draft = draft
        self._tell = tell
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        self._draft.write(data)
        self._size_bytes += len(data)

    def publish(self, key: str) -> Outcome:
        outcome = self._draft.publish(key)
        sha256 = attachment_sha256(key)
        # What else is published so, nobody has counted: the audit log finds it.
        if sha256 is not None and outcome is not Outcome.CONFLICT:
            self._tell([Publication(key, sha256, self._size_bytes, created=False)])
        return outcome
