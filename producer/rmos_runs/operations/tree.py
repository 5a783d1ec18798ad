"""Runs by session, batch and parent, and what is the worst of them: pure.

Runs stand in a flat list, each after its parent and one deeper, so that no chain of parents is too long.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from rmos_shared.models.base import Frozen, SafeId, SingleLine, UtcTime, Utf8Text
from rmos_shared.runs.model import RiskField, RiskLevel, RunRecord, Status, StatusField
from rmos_shared.runs.vocabulary import meta_text

#: From bad to good. RED is known to be dangerous; of ERROR and UNKNOWN nothing is known, so they come before
#: YELLOW, which a person judged to be cut with care.
WORST_RISK = (RiskLevel.RED, RiskLevel.ERROR, RiskLevel.UNKNOWN, RiskLevel.YELLOW, RiskLevel.GREEN)
#: A refusal is known; an error may hide one.
WORST_STATUS = (Status.BLOCKED, Status.ERROR, Status.OK)

Level = TypeVar("Level", bound=StrEnum)


class ParentPlace(StrEnum):
    """Where the parent of a run is, seen from the tree."""

    #: The run names none.
    NONE = "none"
    #: The run stands below it.
    ABOVE = "above"
    #: It is in the tree, in another session or batch.
    OTHER_BATCH = "other_batch"
    #: It is not in the tree: not among the runs that were asked for, or not stored here.
    ABSENT = "absent"
    #: It comes from this very run. The circle is cut here, at its oldest run.
    CYCLE = "cycle"


@dataclass(frozen=True, slots=True)
class TreeItem:
    """What a tree needs to know of a run; small, for an export holds one for each."""

    run_id: str
    created_at_utc: datetime
    status: Status
    risk_level: RiskLevel
    event_type: str | None
    session_id: str | None
    batch_label: str | None
    parent_run_id: str | None
    parent_kind: str | None

    @classmethod
    def of(cls, run: RunRecord) -> TreeItem:
        """Return the item of a run; the names are looked for as readers of older runs do."""
        return cls(
            run_id=run.run_id,
            created_at_utc=run.created_at_utc,
            status=run.status,
            risk_level=run.decision.risk_level,
            event_type=run.event_type,
            session_id=meta_text(run.meta, "session_id"),
            batch_label=meta_text(run.meta, "batch_label"),
            parent_run_id=meta_text(run.meta, "parent_run_id"),
            parent_kind=meta_text(run.meta, "parent_kind"),
        )


class RollUp(Frozen):
    """Many runs in a few figures."""

    runs: int
    worst_risk: RiskLevel | None
    worst_status: Status | None
    risks: dict[str, int]
    statuses: dict[str, int]


class TreeRun(Frozen):
    """A run in its place."""

    run_id: SafeId
    #: 0 for a run that stands below no other.
    depth: int
    created_at_utc: UtcTime
    status: StatusField
    risk_level: RiskField
    event_type: SingleLine | None
    parent_run_id: Utf8Text | None
    parent_kind: Utf8Text | None
    parent_place: ParentPlace
    #: The worst of the run and all below it.
    worst_risk: RiskLevel


class TreeBatch(Frozen):
    """The runs of one batch: each after its parent, else the oldest first."""

    batch_label: Utf8Text | None
    total: RollUp
    runs: list[TreeRun]


class TreeSession(Frozen):
    """The batches of one session, by label; runs without one come first."""

    session_id: Utf8Text | None
    total: RollUp
    batches: list[TreeBatch]


class RunTree(Frozen):
    """Sessions by id; runs without one come first."""

    total: RollUp
    sessions: list[TreeSession]
    #: Circles of parents, each from its oldest run towards that run's parents.
    cycles: list[list[SafeId]]
    #: Parents that are named and not in the tree.
    absent_parents: list[Utf8Text]


def tree(items: Iterable[TreeItem]) -> RunTree:
    """Return the tree of these runs; their order does not count, and a run given twice counts once."""
    growth = Growth(items)
    return RunTree(
        total=growth.total,
        sessions=[*growth.sessions()],
        cycles=growth.cycles,
        absent_parents=growth.absent_parents,
    )


class Growth:
    """A tree that is made session by session, for who need not hold all of it."""

    def __init__(self, items: Iterable[TreeItem]) -> None:
        """Take the runs as ``tree`` does."""
        self._by_id: dict[str, TreeItem] = {}
        for item in sorted(items, key=_age):
            self._by_id.setdefault(item.run_id, item)
        self.cycles = _cycles(self._by_id)
        self._cut = {cycle[0] for cycle in self.cycles}

    @property
    def total(self) -> RollUp:
        """The figures of all runs."""
        return roll_up(self._by_id.values())

    @property
    def absent_parents(self) -> list[str]:
        """See ``RunTree``."""
        parents = {item.parent_run_id for item in self._by_id.values() if item.parent_run_id is not None}
        return sorted(parents - self._by_id.keys())

    def sessions(self) -> Iterator[TreeSession]:
        """Yield the sessions in order; may be asked again, and answers the same."""
        places: dict[str | None, dict[str | None, list[TreeItem]]] = defaultdict(lambda: defaultdict(list))
        for item in self._by_id.values():
            places[item.session_id][item.batch_label].append(item)
        for session, batches in sorted(places.items(), key=lambda pair: _named(pair[0])):
            yield TreeSession(
                session_id=session,
                total=roll_up(item for batch in batches.values() for item in batch),
                batches=[
                    TreeBatch(
                        batch_label=label,
                        total=roll_up(batch),
                        runs=_placed(batch, self._by_id, self._cut),
                    )
                    for label, batch in sorted(batches.items(), key=lambda pair: _named(pair[0]))
                ],
            )


def roll_up(items: Iterable[TreeItem]) -> RollUp:
    """Return the figures of these runs."""
    risks: Counter[RiskLevel] = Counter()
    statuses: Counter[Status] = Counter()
    for item in items:
        risks[item.risk_level] += 1
        statuses[item.status] += 1
    return RollUp(
        runs=risks.total(),
        worst_risk=worst(risks, WORST_RISK),
        worst_status=worst(statuses, WORST_STATUS),
        risks={risk.value: risks[risk] for risk in WORST_RISK if risks[risk]},
        statuses={status.value: statuses[status] for status in WORST_STATUS if statuses[status]},
    )


def worst(present: Iterable[Level], order: Sequence[Level]) -> Level | None:
    """Return what stands first in ``order`` of what is present; None of nothing."""
    levels = set(present)
    return next((level for level in order if level in levels), None)


def _age(item: TreeItem) -> tuple[object, ...]:
    return (item.created_at_utc, item.run_id)


def _named(name: str | None) -> tuple[bool, str]:
    return (name is not None, name or "")


def _cycles(by_id: dict[str, TreeItem]) -> list[list[str]]:
    """Return every circle of parents. Each run has one parent at the most, so no two circles share a run."""
    walked: dict[str, int] = {}
    cycles = []
    for number, start in enumerate(by_id):
        path = []
        here: str | None = start
        while here in by_id and here not in walked:
            walked[here] = number
            path.append(here)
            here = by_id[here].parent_run_id
        if here in walked and walked[here] == number:
            circle = path[path.index(here) :]
            oldest = min(range(len(circle)), key=lambda place: _age(by_id[circle[place]]))
            cycles.append(circle[oldest:] + circle[:oldest])
    return sorted(cycles)


def _placed(batch: Sequence[TreeItem], by_id: dict[str, TreeItem], cut: set[str]) -> list[TreeRun]:
    """Return the runs of one batch, depth first, the oldest first. No recursion: chains may be long."""
    here = {item.run_id for item in batch}
    places = {item.run_id: _place(item, here, by_id, cut) for item in batch}
    below: dict[str | None, list[TreeItem]] = defaultdict(list)
    for item in batch:  # oldest first already
        below[item.parent_run_id if places[item.run_id] is ParentPlace.ABOVE else None].append(item)
    order: list[tuple[TreeItem, int]] = []
    stack = [(item, 0) for item in reversed(below[None])]
    while stack:
        item, depth = stack.pop()
        order.append((item, depth))
        stack += [(child, depth + 1) for child in reversed(below[item.run_id])]
    risks = _worst_below(order)
    return [_run(item, depth, places[item.run_id], risks[item.run_id]) for item, depth in order]


def _place(item: TreeItem, here: set[str], by_id: dict[str, TreeItem], cut: set[str]) -> ParentPlace:
    if item.parent_run_id is None:
        return ParentPlace.NONE
    if item.run_id in cut:
        return ParentPlace.CYCLE
    if item.parent_run_id in here:
        return ParentPlace.ABOVE
    return ParentPlace.OTHER_BATCH if item.parent_run_id in by_id else ParentPlace.ABSENT


def _worst_below(order: Sequence[tuple[TreeItem, int]]) -> dict[str, RiskLevel]:
    """Return for each run the worst of itself and all below it: the last first, so children come before."""
    worst_at: list[RiskLevel | None] = []
    worst_of = {}
    for item, depth in reversed(order):
        del worst_at[depth + 2 :]
        worst_at += [None] * (depth + 2 - len(worst_at))
        below = worst_at[depth + 1]
        worst_at[depth + 1] = None
        mine = _worse(item.risk_level, below)
        worst_at[depth] = _worse(mine, worst_at[depth])
        worst_of[item.run_id] = mine
    return worst_of


def _worse(one: RiskLevel, other: RiskLevel | None) -> RiskLevel:
    return one if other is None else min(one, other, key=WORST_RISK.index)


def _run(item: TreeItem, depth: int, place: ParentPlace, worst_risk: RiskLevel) -> TreeRun:
    return TreeRun(
        run_id=item.run_id,
        depth=depth,
        created_at_utc=item.created_at_utc,
        status=item.status,
        risk_level=item.risk_level,
        event_type=item.event_type,
        parent_run_id=item.parent_run_id,
        parent_kind=item.parent_kind,
        parent_place=place,
        worst_risk=worst_risk,
    )
