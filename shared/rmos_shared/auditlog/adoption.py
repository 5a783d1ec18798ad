"""What lay in the store before it had a log: its first entries, in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from rmos_shared.auditlog.layout import LOG, is_ours
from rmos_shared.auditlog.receipt import Receipt, receipt_of
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore

#: Bytes that are read for one seal, at least one file.
_MOST_BYTES = 1 << 28


def adopt(
    store: ArtifactStore, after: str, at: datetime, most: int, *, before: datetime
) -> Iterator[Receipt]:
    """Yield the receipts of up to ``most`` files of ours whose keys sort after ``after``.

    Only what is older than ``before``, when the log began: keys are sorted by time, so beside jobs under way
    adoption would have no end. Fewer where they are large; none only where there are no more. A file that
    cannot be read is passed by, and told by every later reconciliation.

    Raises:
        StoreUnavailable: the store is away.
    """
    left, budget = most, _MOST_BYTES
    for key in _keys(store, after):
        if left <= 0 or budget <= 0:
            return
        with suppress(CorruptArtifact):
            head = store.head(key)
            if head is None or head.modified_at >= before:
                continue
            receipt = receipt_of(store, key, at, "adopted")
            left, budget = left - 1, budget - receipt.size
            yield receipt


def _keys(store: ArtifactStore, after: str) -> Iterator[str]:
    # The log itself is passed by as a whole: "0" sorts just after "/".
    behind = f"{LOG[:-1]}0"
    if after < LOG:
        for key in store.list("", after):
            if key >= LOG:
                break
            if is_ours(key):
                yield key
    yield from filter(is_ours, store.list("", max(after, behind)))
