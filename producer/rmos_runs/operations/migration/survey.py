"""A source held against the store, writing nothing: what a migration would do, whether one is complete."""

from __future__ import annotations

from collections.abc import Iterator

from rmos_runs.operations.migration.preparation import prepared
from rmos_runs.operations.migration.report import Entry, Fate
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import Source
from rmos_runs.operations.migration.target import Target


def plan(source: Source, target: Target, scratch: Scratch) -> Iterator[Entry]:
    """Yield what a migration would do with each record: the same entries, ``new`` for ``created``."""
    return _survey(source, target, scratch, Fate.NEW)


def verify(source: Source, target: Target, scratch: Scratch) -> Iterator[Entry]:
    """Yield each record of the source with how it compares with the store.

    Compared are the bytes that a migration would write, so every hash is; what is not there is ``missing``.
    """
    return _survey(source, target, scratch, Fate.MISSING)


def _survey(source: Source, target: Target, scratch: Scratch, absent: Fate) -> Iterator[Entry]:
    target.learn()
    for item in prepared(source, scratch):
        if isinstance(item, Entry):
            yield item
        else:
            yield from target.look(item, absent)
