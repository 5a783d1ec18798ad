"""Lists of runs: the store itself, SQLite and PostgreSQL answer alike, page by page, under any filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmos_runs.client import RunsClient
from rmos_shared.errors import InvalidRequest
from rmos_shared.index import pages, streams
from rmos_shared.index.catalog import IndexCatalog
from rmos_shared.index.choice import chosen_database
from rmos_shared.index.rebuild import rebuild
from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, JobRecord, JobState
from rmos_shared.jobs.work import Lease
from rmos_shared.runs.layout import run_key
from rmos_shared.runs.query import MAX_LIMIT, RunCatalog, RunFilter, RunPage
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.memory import MemoryStore
from support.records import make_attempt, make_link, make_review, make_run

KINDS = ("store", "sqlite", "postgres")
FIRST = datetime(2026, 8, 1, 12, tzinfo=UTC)


class Jobs:
    """A ledger that knows the states of some explanation jobs."""

    def __init__(self, states: Mapping[str, JobState]) -> None:
        self.states = states

    def explanation_job(self, run_id: str) -> JobRecord | None:
        return self.explanation_jobs([run_id]).get(run_id)

    def explanation_jobs(self, run_ids: Sequence[str]) -> Mapping[str, JobRecord]:
        return {
            run_id: JobRecord.read(
                {
                    "job_id": "j",
                    "task": "runs.suggest_and_attach",
                    "queue": "runs.advise",
                    "state": self.states[run_id],
                    "run_id": run_id,
                    "request_id": None,
                    "payload_sha256": "0",
                    "accepted_at_utc": FIRST,
                    "changed_at_utc": FIRST,
                    "crash_count": 0,
                    "retry_count": 0,
                }
            )
            for run_id in run_ids
            if run_id in self.states
        }


@dataclass(frozen=True)
class Spec:
    """A run of a test: what it is stored with, and what a list is to say of it."""

    day: int
    fields: dict[str, Any]
    meta: dict[str, Any]
    links: tuple[str, ...] = ()
    attempts: int = 0
    job: JobState | None = None
    corrupt: bool = False

    @property
    def explanation(self) -> str:
        if {"explained", "waits"} & {*self.links}:
            return "READY"
        if self.job is JobState.DEAD:
            return "ERROR"
        if self.job is not None:
            return "PENDING"
        return "ERROR" if self.attempts else "NONE"

    @property
    def needs_review(self) -> bool:
        return "waits" in self.links or "note" in self.links

    def passes(self, choice: RunFilter) -> bool:
        day = f"{FIRST + timedelta(days=self.day):%Y-%m-%d}"
        if not (choice.date_from or "0") <= day <= (choice.date_to or "9"):
            return False
        if self.corrupt:
            return True
        told: dict[str, Any] = {**self.fields, **self.meta}
        told |= {"explanation_status": self.explanation, "needs_review": self.needs_review}
        prefix = choice.tool_id_prefix
        return (prefix is None or self.fields["tool_id"].startswith(prefix)) and all(
            told.get(name) == value
            for name, value in choice.dump().items()
            if value is not None and name not in {"date_from", "date_to", "tool_id_prefix"}
        )


@dataclass
class Shelf:
    """A store of specs, in the order of a list, and the ledger beside it."""

    store: MemoryStore = field(default_factory=MemoryStore)
    specs: list[tuple[str, Spec]] = field(default_factory=list)
    states: dict[str, JobState] = field(default_factory=dict)
    ledger: JobLedger | None = None

    def put(self, spec: Spec) -> None:
        at = FIRST + timedelta(days=spec.day, milliseconds=len(self.specs))
        run = make_run(
            at,
            **{name: value for name, value in spec.fields.items() if name != "risk_level"},
            decision={"risk_level": spec.fields["risk_level"], "score": len(self.specs) % 100},
            meta=spec.meta,
        )
        key = run_key(run.date, run.run_id)
        self.specs.append((key, spec))
        self.specs.sort(key=lambda entry: entry[0].removesuffix(".json"), reverse=True)
        if spec.corrupt:
            self.store.create(key, b"{}")
            return
        writer = RunWriter(self.store)
        writer.put_run(run)
        for link in spec.links:
            kind = "note" if link == "note" else "explanation"
            approved = link == "explained"
            made = make_link(run, link, kind=kind, approved=approved, reviewed_by="x" if approved else None)
            writer.attach(made)
            if link == "judged":
                writer.add_review(make_review(made))
        for _ in range(spec.attempts):
            writer.add_attempt(make_attempt(run))
        if spec.job is not None:
            self.states[run.run_id] = spec.job

    def listed(self, choice: RunFilter) -> list[str]:
        return [key for key, spec in self.specs if spec.passes(choice)]


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Shelf], Any]:
    """Open a catalog of each kind on a shelf."""
    numbers = count()
    postgres = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""

    @contextmanager
    def open_(shelf: Shelf) -> Iterator[RunCatalog]:
        reader = RunReader(shelf.store, shelf.ledger or Jobs(shelf.states))
        if request.param == "store":
            yield StoreCatalog(reader, shelf.store)
            return
        url = postgres or f"sqlite:///{tmp_path}/{next(numbers)}.db"
        database = chosen_database(IndexSettings.load(index_url=url))
        rebuild(database, shelf.store, store_id=None)
        yield IndexCatalog(database, reader, store_id=lambda: None)
        database.close()

    return open_


def walk(catalog: RunCatalog, choice: RunFilter, limit: int) -> list[str]:
    """Return the files of all pages, and hold each page to what a page promises."""
    found: list[str] = []
    cursor, seen = None, set()
    while True:
        page = catalog.page(choice, limit=limit, cursor=cursor)
        assert len(page.items) + len(page.corrupt) <= limit
        assert page.complete_until_utc is not None
        found += files_of(page)
        cursor = page.next_cursor
        if cursor is None:
            return found
        assert cursor not in seen
        seen.add(cursor)


def files_of(page: RunPage) -> list[str]:
    files = [*(item.artifact_path for item in page.items), *page.corrupt]
    return sorted(files, key=lambda file: file.removesuffix(".json"), reverse=True)


TEXTS = st.sampled_from(["a", "ab", "abc", "b", "ü\U0010ffff", "ü"])
SPECS = st.builds(
    Spec,
    day=st.integers(0, 3),
    fields=st.fixed_dictionaries(
        {
            "status": st.sampled_from(["OK", "BLOCKED"]),
            "mode": TEXTS.filter(str.isprintable),
            "tool_id": TEXTS.filter(str.isprintable),
            "risk_level": st.sampled_from(["GREEN", "RED"]),
            "event_type": st.sampled_from([None, "toolpaths"]),
            "request_id": st.sampled_from([None, "r1", "r2"]),
        }
    ),
    meta=st.dictionaries(
        st.sampled_from(["session_id", "batch_label", "parent_run_id", "machine_id", "material_id"]),
        st.sampled_from(["s1", "s2"]),
    ),
    links=st.lists(st.sampled_from(["explained", "waits", "note"]), unique=True, max_size=2).map(tuple),
    attempts=st.integers(0, 2),
    job=st.sampled_from([None, None, JobState.ACCEPTED, JobState.DEAD]),
    corrupt=st.sampled_from([False] * 6 + [True]),
)
DAYS = st.sampled_from([None, None, "2026-08-01", "2026-08-02", "2026-08-03"])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["OK", "BLOCKED"]),
        "mode": st.sampled_from(["a", "ab"]),
        "tool_id": st.sampled_from(["a", "b"]),
        "tool_id_prefix": st.sampled_from(["a", "ab", "ü", "z"]),
        "risk_level": st.sampled_from(["GREEN", "RED"]),
        "event_type": st.just("toolpaths"),
        "request_id": st.just("r1"),
        "date_from": DAYS,
        "date_to": DAYS,
        **{
            name: st.sampled_from(["s1", "s3"])
            for name in ("session_id", "batch_label", "parent_run_id", "machine_id", "material_id")
        },
        "explanation_status": st.sampled_from(["READY", "ERROR", "PENDING", "NONE"]),
        "needs_review": st.booleans(),
    },
).map(RunFilter.read)
#: Most have few fields, or no run would pass.
SOME_FILTERS = FILTERS.filter(lambda choice: len(choice.model_fields_set) <= 3)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    specs=st.lists(SPECS, max_size=14),
    choices=st.lists(SOME_FILTERS, min_size=1, max_size=4),
    limit=st.integers(1, 5),
    examined=st.sampled_from([2, 5, 1_000]),
    tools=st.sampled_from([1, 32]),
)
def test_the_pages_together_are_the_list(
    *,
    opened: Callable[[Shelf], Any],
    specs: list[Spec],
    choices: list[RunFilter],
    limit: int,
    examined: int,
    tools: int,
) -> None:
    shelf = Shelf()
    for spec in specs:
        shelf.put(spec)
    with (
        pytest.MonkeyPatch.context() as patch,
        opened(shelf) as catalog,
    ):
        # Small, so that pages end early.
        patch.setattr(pages, "_LEAST_EXAMINED", examined)
        patch.setattr(pages, "_EXAMINED_PER_ROW", 1)
        patch.setattr(streams, "MOST_TOOLS", tools)
        for choice in (RunFilter(), *choices):
            assert walk(catalog, choice, limit) == shelf.listed(choice)


def test_the_real_ledger_says_what_is_pending_and_what_is_dead(
    opened: Callable[[Shelf], Any], runs_client: RunsClient
) -> None:
    shelf = Shelf()
    fields = {"status": "OK", "mode": "a", "tool_id": "a", "risk_level": "GREEN", "event_type": None}
    for _ in range(5):
        shelf.put(Spec(0, {**fields, "request_id": None}, {}))
    pending, dead = (key.partition("/")[2].removesuffix(".json") for key, _ in shelf.specs[:2])
    runs_client.suggest_and_attach(pending)
    receipt = runs_client.suggest_and_attach(dead)
    lease = Lease("test", "1")
    runs_client.ledger.work.claim([receipt.job_id], lease, lease_seconds=60)
    failure = Failure(reason="crash_loop", error_type="X", message="gone")
    runs_client.ledger.work.bury(receipt.job_id, lease, failure=failure)
    assert set(runs_client.ledger.explanation_jobs([pending, dead, "nobody"])) == {pending, dead}
    assert runs_client.ledger.explanation_jobs([]) == {}
    shelf.ledger = runs_client.ledger
    with opened(shelf) as catalog:
        for status, numbers in {"PENDING": [0], "ERROR": [1], "NONE": [2, 3, 4], "READY": []}.items():
            choice = RunFilter.read({"explanation_status": status})
            assert walk(catalog, choice, 2) == [shelf.specs[number][0] for number in numbers]


def test_a_limit_that_no_page_has_is_refused(opened: Callable[[Shelf], Any]) -> None:
    with opened(Shelf()) as catalog:
        for limit in (0, -1, MAX_LIMIT + 1):
            with pytest.raises(InvalidRequest, match="limit"):
                catalog.page(RunFilter(), limit=limit)
        assert catalog.page(RunFilter(), limit=MAX_LIMIT).next_cursor is None


def test_few_that_pass_make_short_pages_not_dear_ones(opened: Callable[[Shelf], Any]) -> None:
    shelf = Shelf()
    fields = {"tool_id": "a", "risk_level": "GREEN", "event_type": None, "request_id": None}
    for number in range(1_300):
        status, mode = ("OK", "a") if number % 2 else ("BLOCKED", "b")
        shelf.put(Spec(0, {**fields, "status": status, "mode": mode}, {}))
    with opened(shelf) as catalog:
        page = catalog.page(RunFilter.read({"status": "OK", "mode": "b"}), limit=50)
        assert page.items == []
        assert page.next_cursor is not None
        assert walk(catalog, RunFilter.read({"status": "OK", "mode": "b"}), 50) == []
