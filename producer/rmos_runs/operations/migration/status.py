"""How far a migration is, by ids alone: quick, and no proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rmos_runs.operations.migration.decoding import Unreadable, decode
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import DirectorySource, RawRecord, Source
from rmos_runs.operations.migration.target import Target


def status(source: Source, target: Target, scratch: Scratch) -> dict[str, Any]:
    """Return what the source and the store hold, and how many ids of the source the store knows."""
    scratch.add_stored(target.runs())
    stored = 0
    for name in _names(source):
        stored += scratch.stored_key(name) is not None
    return {
        "source_kind": source.kind.value,
        "source": asdict(source.contents()),
        "store": {"runs": scratch.stored_count(), "links": target.links()},
        "source_ids_in_store": stored,
    }


def _names(source: Source) -> Iterator[str]:
    if isinstance(source, DirectorySource):
        yield from source.run_names()
        return
    for raw in source.records():
        if isinstance(raw, RawRecord):
            yield raw.named or _inside(raw)


def _inside(raw: RawRecord) -> str:
    try:
        return str(decode(raw.data or b"").fields.get("run_id"))
    except Unreadable:
        return ""
