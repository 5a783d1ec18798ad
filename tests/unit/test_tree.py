"""Runs by session, batch and parent."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rmos_runs.operations.family import Relatives
from rmos_runs.operations.tree import WORST_RISK, ParentPlace, RunTree, TreeItem, TreeRun, tree, worst
from rmos_shared.errors import CorruptArtifact
from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.runs.model import RiskLevel, RunArtifact, Status
from rmos_shared.runs.query import RunFilter
from rmos_shared.store.memory import MemoryStore
from support.records import NOON, make_run
from support.runs import Runs


def item(run_id: str, parent: str | None = None, *, age: int = 0, **fields: Any) -> TreeItem:
    values: dict[str, Any] = {
        "run_id": run_id,
        "created_at_utc": NOON + timedelta(seconds=age),
        "status": Status(fields.pop("status", "OK")),
        "risk_level": RiskLevel(fields.pop("risk_level", "GREEN")),
        "event_type": "toolpaths",
        "session_id": "s",
        "batch_label": "b",
        "parent_run_id": parent,
        "parent_kind": None,
    }
    return TreeItem(**(values | fields))


def shape(found: RunTree) -> list[tuple[str, int]]:
    return [(run.run_id, run.depth) for run in every(found)]


def every(found: RunTree) -> list[TreeRun]:
    return [run for session in found.sessions for batch in session.batches for run in batch.runs]


def test_children_stand_below_their_parent_the_oldest_first() -> None:
    found = tree(
        [
            item("b", age=2),
            item("b2", "b", age=4),
            item("a", age=1),
            item("b1", "b", age=3),
            item("b11", "b1"),
        ]
    )
    assert shape(found) == [("a", 0), ("b", 0), ("b1", 1), ("b11", 2), ("b2", 1)]


def test_sessions_and_batches_are_apart_and_each_has_its_figures() -> None:
    found = tree(
        [
            item("a", session_id="s2", risk_level="YELLOW"),
            item("b", session_id="s1", batch_label=None, status="BLOCKED", risk_level="RED"),
            item("c", session_id="s1", risk_level="UNKNOWN"),
            item("d", session_id=None, status="ERROR", risk_level="ERROR"),
        ]
    )
    assert [
        (session.session_id, [(batch.batch_label, batch.total.worst_risk) for batch in session.batches])
        for session in found.sessions
    ] == [(None, [("b", "ERROR")]), ("s1", [(None, "RED"), ("b", "UNKNOWN")]), ("s2", [("b", "YELLOW")])]
    assert found.sessions[1].total.worst_risk is RiskLevel.RED
    assert (found.total.runs, found.total.worst_risk, found.total.worst_status) == (4, "RED", "BLOCKED")
    assert found.total.risks == {"RED": 1, "ERROR": 1, "UNKNOWN": 1, "YELLOW": 1}
    assert found.total.statuses == {"BLOCKED": 1, "ERROR": 1, "OK": 2}


def test_what_nobody_judged_is_worse_than_what_needs_care() -> None:
    assert WORST_RISK == ("RED", "ERROR", "UNKNOWN", "YELLOW", "GREEN")
    assert worst([RiskLevel.YELLOW, RiskLevel.UNKNOWN], WORST_RISK) is RiskLevel.UNKNOWN
    assert worst([], WORST_RISK) is None


def test_a_run_is_as_bad_as_the_worst_below_it() -> None:
    found = tree(
        [item("a"), item("b", "a", age=1), item("c", "b", age=2, risk_level="RED"), item("d", "a", age=3)]
    )
    assert {run.run_id: run.worst_risk for run in every(found)} == {
        "a": "RED",
        "b": "RED",
        "c": "RED",
        "d": "GREEN",
    }


def test_a_parent_that_is_not_there_is_named() -> None:
    found = tree([item("a", "gone"), item("b", "a", batch_label="b2")])
    places = {run.run_id: run.parent_place for run in every(found)}
    assert places == {"a": ParentPlace.ABSENT, "b": ParentPlace.OTHER_BATCH}
    assert found.absent_parents == ["gone"]


def test_circles_are_cut_at_their_oldest_run_and_named() -> None:
    found = tree(
        [
            item("x", "z", age=2),
            item("y", "x", age=1),
            item("z", "y", age=3),
            item("below", "z"),
            item("me", "me"),
        ]
    )
    assert found.cycles == [["me"], ["y", "x", "z"]]
    assert shape(found) == [("me", 0), ("y", 0), ("z", 1), ("below", 2), ("x", 2)]
    assert [run.run_id for run in every(found) if run.parent_place is ParentPlace.CYCLE] == ["me", "y"]


def test_no_chain_is_too_long() -> None:
    chain = [item("r0"), *(item(f"r{number}", f"r{number - 1}") for number in range(1, 20_000))]
    found = tree(chain)
    assert every(found)[-1].depth == 19_999
    assert found.model_dump_json()


def test_nothing_is_a_tree_too() -> None:
    found = tree([])
    assert (found.total.runs, found.total.worst_risk, found.sessions) == (0, None, [])


NAMES = [f"r{number}" for number in range(8)]
ITEMS = st.lists(
    st.builds(
        item,
        st.sampled_from(NAMES),
        st.none() | st.sampled_from([*NAMES, "gone"]),
        age=st.integers(0, 3),
        risk_level=st.sampled_from(["GREEN", "YELLOW", "RED", "UNKNOWN", "ERROR"]),
        session_id=st.sampled_from(["s1", "s2", None]),
        batch_label=st.sampled_from(["b1", None]),
    ),
    max_size=12,
    unique_by=lambda one: one.run_id,
)


@given(items=ITEMS, seed=st.randoms())
def test_every_run_stands_in_the_tree_once_whatever_the_order(
    items: list[TreeItem], seed: random.Random
) -> None:
    found = tree(items)
    shuffled = [*items, *items]
    seed.shuffle(shuffled)
    assert tree(shuffled) == found
    runs = every(found)
    assert sorted(run.run_id for run in runs) == sorted(one.run_id for one in items)
    assert found.total.runs == sum(session.total.runs for session in found.sessions) == len(items)
    by_id = {one.run_id: one for one in items}
    for batch in (batch for session in found.sessions for batch in session.batches):
        path: list[TreeRun] = []
        for run in batch.runs:
            del path[run.depth :]
            assert run.depth == len(path)
            if path:
                assert run.parent_run_id == path[-1].run_id
                assert run.parent_place is ParentPlace.ABOVE
            path.append(run)
            for above in path:
                assert WORST_RISK.index(above.worst_risk) <= WORST_RISK.index(run.risk_level)
    for cycle in found.cycles:
        for one, parent in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert by_id[one].parent_run_id == parent


# -- which runs -------------------------------------------------------------------------------------------


class Shop:
    """A store of runs, and what asks it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.runs = Runs(self.store)
        self.damage: list[CorruptArtifact] = []
        catalog = StoreCatalog(self.runs.reader, self.store)
        self.relatives = Relatives(catalog, self.runs.reader, self.damage.append)

    def put(self, parent: RunArtifact | None = None, **meta: Any) -> RunArtifact:
        words = {} if parent is None else {"parent_run_id": parent.run_id, "parent_kind": "run"}
        run = make_run(meta=words | meta)
        self.runs.writer.put_run(run)
        return run


def test_a_family_is_all_that_a_run_came_from_and_all_that_came_from_it() -> None:
    shop = Shop()
    first = shop.put(session_id="s1")
    second = shop.put(first, session_id="s2")
    third, fourth = shop.put(second), shop.put(second)
    fifth = shop.put(fourth)
    shop.put()
    shop.put(first)  # a brother of the second: neither above nor below it
    items, more = shop.relatives.family(second.run_id, most_runs=100)
    assert {one.run_id for one in items} == {run.run_id for run in (first, second, third, fourth, fifth)}
    assert not more
    assert len(shop.relatives.family(second.run_id, most_runs=3)[0]) == 3
    assert shop.relatives.family(second.run_id, most_runs=3)[1]


def test_a_family_that_goes_in_a_circle_ends() -> None:
    shop = Shop()
    run = make_run()
    other = make_run(meta={"parent_run_id": run.run_id})
    run = run.model_copy(update={"meta": {"parent_run_id": other.run_id}})
    shop.runs.writer.put_runs([run, other])
    items, more = shop.relatives.family(run.run_id, most_runs=100)
    assert len(items) == 2
    assert not more
    assert len(tree(items).cycles) == 1


def test_a_session_is_found_by_either_name_and_its_damage_is_told_once() -> None:
    shop = Shop()
    runs = [shop.put(session_id="s1", batch_label="b"), shop.put(workflow_session_id="s1")]
    shop.store.create("2026-08-01/broken.json", b"{")
    items, more = shop.relatives.chosen(RunFilter(session_id="s1"), most_runs=10)
    assert {one.run_id for one in items} == {run.run_id for run in runs}
    assert not more
    assert shop.relatives.chosen(RunFilter(session_id="s1"), most_runs=1)[1]
    assert [error.key for error in shop.damage] == ["2026-08-01/broken.json"]
