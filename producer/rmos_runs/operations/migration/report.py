"""What a migration says of each record, and the figures of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from rmos_runs.operations.migration.sources import Source

EntryKind = Literal["run", "link", "review"]


class Fate(StrEnum):
    """What became of a record, or will."""

    #: It is not in the store yet, and would be written.
    NEW = "new"
    CREATED = "created"
    #: The very same is in the store.
    ALREADY_SAME = "already_same"
    #: The very same record came before in the source.
    REPEATED = "repeated"
    #: It should be in the store, and is not.
    MISSING = "missing"
    #: The store holds something else under its name, and that stays.
    CONFLICT = "conflict"
    #: Another record of the same id came before in the source; the first one counts.
    DUPLICATE = "duplicate"
    #: Nothing can be made of it.
    UNREADABLE = "unreadable"
    #: Its run is not in the source, or did not get into the store.
    ORPHAN = "orphan"


#: A record of such a fate is not in the store, or not as it is in the source.
FAULTS = frozenset({Fate.MISSING, Fate.CONFLICT, Fate.DUPLICATE, Fate.UNREADABLE, Fate.ORPHAN})


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the source."""

    kind: EntryKind
    #: Where it lies below the source.
    place: str
    fate: Fate
    run_id: str | None = None
    #: Why, where the fate is a fault.
    reason: str | None = None
    #: Why the run is BLOCKED; empty when it is complete.
    violations: tuple[str, ...] = ()

    @property
    def fault(self) -> bool:
        """Whether something of the source is not in the store."""
        return self.fate in FAULTS

    def dump(self) -> dict[str, Any]:
        """Return it as JSON-ready types."""
        return {
            "kind": self.kind,
            "place": self.place,
            "run_id": self.run_id,
            "outcome": self.fate.value,
            "blocked": bool(self.violations),
            "violations": list(self.violations),
            "reason": self.reason,
        }


@dataclass(slots=True)
class Tally:
    """The figures of all entries so far."""

    counts: Counter[tuple[EntryKind, Fate]] = field(default_factory=Counter)
    blocked: int = 0
    faults: int = 0

    def add(self, entry: Entry) -> None:
        """Count one."""
        self.counts[entry.kind, entry.fate] += 1
        self.blocked += bool(entry.violations) and not entry.fault
        self.faults += entry.fault

    @property
    def runs(self) -> int:
        """How many runs were looked at."""
        return sum(count for (kind, _), count in self.counts.items() if kind == "run")

    def dump(self, source: Source) -> dict[str, Any]:
        """Return the figures as JSON-ready types, with those of the source's names."""
        figures: dict[str, Any] = {}
        for (kind, fate), count in sorted(self.counts.items()):
            figures.setdefault(f"{kind}s", {})[fate.value] = count
        return {"source_kind": source.kind.value, **figures, "blocked": self.blocked, "faults": self.faults}
