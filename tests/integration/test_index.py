"""The index beside its store: whatever becomes of either, lists are right or say that they are not."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from rmos_shared.errors import IndexDamaged, IndexUnavailable
from rmos_shared.index.database import read_state
from rmos_shared.index.rebuild import rebuild
from rmos_shared.index.reconciler import Reconciler
from rmos_shared.index.row import EQUALITIES, Facts
from rmos_shared.index.statements import Condition, Fetch, fetch
from rmos_shared.index.writer import IndexWriter
from rmos_shared.runs.layout import review_prefix, run_key
from rmos_shared.runs.model import ExplanationStatus, RunArtifact
from rmos_shared.runs.query import RunFilter
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.identity import init_store
from rmos_shared.telemetry.events import IndexInUse, IndexUnused
from support.catalogs import Indexed, Later, listed
from support.events import events_in
from support.postgres import PostgresServer
from support.records import HOUR, NOON, make_attempt, make_link, make_review, make_run

DAY = timedelta(days=1)
ALL = RunFilter()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/index/index.db"
    made: str = request.getfixturevalue("postgres_url")
    return made


@pytest.fixture
def indexed(runs_dir: Path, url: str) -> Iterator[Indexed]:
    made = Indexed(runs_dir, url)
    yield made
    made.close()


@pytest.fixture
def runs(indexed: Indexed) -> list[RunArtifact]:
    """Six runs of three days, in an index."""
    made = [make_run(NOON + number // 2 * DAY + number * HOUR) for number in range(6)]
    RunWriter(indexed.store).put_runs(made)
    indexed.rebuild()
    return made


def reconcile(indexed: Indexed) -> int:
    return Reconciler(indexed.store, clock=Later()).round(indexed.database.current())


def path_of(runs_dir: Path, run: RunArtifact) -> Path:
    return runs_dir / run_key(run.date, run.run_id)


# -- pages ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("column", [*EQUALITIES, "explanation"])
def test_each_field_is_read_by_its_own_index_whatever_the_statistics(
    indexed: Indexed, column: str, url: str
) -> None:
    statement = fetch(Fetch(column, 1, (Condition("tool_id", 1),), prefix=False))
    values = {"value_0": 1 if column == "needs_review" else "x", "tool_id_0": "x"}
    values |= {"low": "2026", "high": "~", "each": 500, "rows": 51}
    with indexed.database.current().read() as connection:
        words = "EXPLAIN QUERY PLAN" if url.startswith("sqlite") else "EXPLAIN"
        literal = statement.params(values).compile(connection, compile_kwargs={"literal_binds": True})
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(f"{words} {literal}"))
    used = re.findall(r"(?:USING (?:COVERING )?INDEX|Scan Backward using|Scan using) (\w+)", plan)
    assert used == [f"run_by_{column}"], plan
    assert "Sort" not in plan


# -- what no notice told of -----------------------------------------------------------------------


def test_what_is_stored_later_is_missed_openly_and_found_by_a_round(
    indexed: Indexed, runs: list[RunArtifact]
) -> None:
    before = datetime.now(UTC)
    late = [make_run(NOON), make_run(NOON - 400 * DAY), make_run(NOON + 9 * DAY)]
    page = indexed.by_index.page(ALL, limit=10)
    RunWriter(indexed.store).put_runs(late)
    assert len(page.items) == len(runs)
    assert page.complete_until_utc is not None
    # The rebuild's clock was ten seconds ahead.
    assert page.complete_until_utc - timedelta(seconds=10) < before

    assert reconcile(indexed) == 3
    assert len(indexed.agree()) == 9
    told = indexed.by_index.page(ALL, limit=1).complete_until_utc
    assert told is not None
    assert told > page.complete_until_utc
    assert reconcile(indexed) == 0


def test_a_round_finds_what_was_laid_beside_a_run(indexed: Indexed, runs: list[RunArtifact]) -> None:
    writer = RunWriter(indexed.store)
    waits = make_link(runs[0], approved=False, reviewed_by=None)
    for link in (waits, make_link(runs[1])):
        writer.attach(link)
    writer.add_attempt(make_attempt(runs[2]))
    assert len(indexed.by_index.page(RunFilter.read({"explanation_status": "NONE"}), limit=9).items) == 6

    assert reconcile(indexed) == 3
    assert len(indexed.agree(explanation_status="READY")) == 2
    assert len(indexed.agree(explanation_status="ERROR")) == 1
    assert len(indexed.agree(explanation_status="NONE")) == 3
    assert len(indexed.agree(needs_review=True)) == 1
    # None of them is anywhere near when the review comes.
    assert reconcile(indexed) == 0
    writer.add_review(make_review(waits))
    assert reconcile(indexed) == 1
    assert indexed.agree(needs_review=True) == []
    # A later review, or attempt, changes no list.
    writer.add_review(make_review(waits, "rev2", approved=False))
    writer.add_attempt(make_attempt(runs[2], failed_at_utc=NOON + HOUR))
    reconcile(indexed)
    assert indexed.agree(needs_review=True) == []
    assert len(indexed.agree(explanation_status="ERROR")) == 1


def test_the_last_of_several_reviews_is_found_though_it_changes_no_stamp(
    indexed: Indexed, runs: list[RunArtifact]
) -> None:
    writer = RunWriter(indexed.store)
    links = [make_link(runs[3], f"adv{number}", approved=False, reviewed_by=None) for number in range(3)]
    for number, link in enumerate(links):
        writer.attach(link)
        reconcile(indexed)
        assert len(indexed.agree(needs_review=True)) == 1
        writer.add_review(make_review(link, f"rev{number}"))
        reconcile(indexed)
        assert indexed.agree(needs_review=True) == []
    more = [make_link(runs[4], f"adv{number}", approved=False, reviewed_by=None) for number in range(2)]
    for link in more:
        writer.attach(link)
    writer.add_review(make_review(more[0], "one"))
    assert reconcile(indexed) == 1
    assert len(indexed.agree(needs_review=True)) == 1
    assert reconcile(indexed) == 0
    directory = f"_reviews/{runs[4].date}"
    before = indexed.store.stamp(directory)
    writer.add_review(make_review(more[1], "two"))
    assert indexed.store.stamp(directory) == before
    assert reconcile(indexed) == 1
    assert indexed.agree(needs_review=True) == []


def test_days_in_which_nothing_changed_are_not_listed(
    indexed: Indexed, runs: list[RunArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile(indexed)
    read: list[str] = []
    names = indexed.store._names

    def counted(branch: str) -> object:
        read.append(branch)
        return names(branch)

    reconciler = Reconciler(indexed.store, clock=Later())
    days = [*reconciler.days()]
    monkeypatch.setattr(reconciler, "days", lambda: iter(days))
    monkeypatch.setattr(indexed.store, "_names", counted)
    assert reconciler.round(indexed.database.current()) == 0
    assert read == []
    RunWriter(indexed.store).put_run(make_run(NOON + DAY))
    assert reconciler.round(indexed.database.current()) == 1
    assert {branch.split("/")[-2] for branch in read} == {runs[2].date}


def test_a_stamp_of_just_now_is_not_trusted(indexed: Indexed) -> None:
    run = make_run(NOON)
    RunWriter(indexed.store).put_run(run)
    rebuild(indexed.database, indexed.store, store_id=indexed.store_id)
    # As if the second name came within the same tick: the stamp that is stored would be that of both.
    RunWriter(indexed.store).put_run(make_run(NOON + HOUR))
    assert Reconciler(indexed.store).round(indexed.database.current()) == 1
    assert len(indexed.agree()) == 2


# -- damage in the store --------------------------------------------------------------------------


def test_a_corrupt_artifact_is_named_and_read_again_once_it_is_another(
    indexed: Indexed, runs: list[RunArtifact], runs_dir: Path
) -> None:
    path = path_of(runs_dir, runs[2])
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(good[:-5])
    indexed.rebuild()
    key = run_key(runs[2].date, runs[2].run_id)
    assert indexed.agree()[3] == key
    # Which filter it would pass nobody knows.
    assert indexed.agree(status="BLOCKED") == [key]
    assert indexed.agree(date_to="2026-08-01", status="BLOCKED") == []

    path.with_name("zz_foreign.json").write_bytes(b"")
    assert reconcile(indexed) == 1
    assert len([entry for entry in indexed.agree() if isinstance(entry, str)]) == 2
    path.unlink()
    path.write_bytes(good)
    assert reconcile(indexed) == 1
    assert len([entry for entry in indexed.agree() if isinstance(entry, str)]) == 1
    path.with_name("zz_foreign.json").unlink()
    assert reconcile(indexed) == 1
    assert all(not isinstance(entry, str) for entry in indexed.agree())


def test_a_partition_that_cannot_be_read_is_named_until_it_can(
    indexed: Indexed, runs: list[RunArtifact], runs_dir: Path
) -> None:
    day = runs_dir / runs[2].date
    aside = runs_dir / "aside"
    day.rename(aside)
    day.symlink_to(aside)
    indexed.rebuild()
    assert [entry for entry in indexed.agree() if isinstance(entry, str)] == [runs[2].date]
    assert len(indexed.agree()) == 5
    day.unlink()
    aside.rename(day)
    reconcile(indexed)
    assert len(indexed.agree()) == 6


def test_a_store_put_back_from_an_older_backup_takes_out_what_it_lacks(
    indexed: Indexed, runs: list[RunArtifact], runs_dir: Path
) -> None:
    RunWriter(indexed.store).attach(make_link(runs[5]))
    reconcile(indexed)
    next(runs_dir.glob("2*/*_advisory_*")).unlink()
    path_of(runs_dir, runs[0]).unlink()
    for run in runs[2:4]:
        path_of(runs_dir, run).unlink()
    (runs_dir / runs[2].date).rmdir()
    assert reconcile(indexed) == 4
    assert len(indexed.agree()) == 3
    assert indexed.agree(explanation_status="READY") == []
    assert reconcile(indexed) == 0


def test_what_was_read_earlier_never_replaces_what_was_read_later(
    indexed: Indexed, runs: list[RunArtifact]
) -> None:
    place = f"{runs[0].date}/{runs[0].run_id}"
    newer = Facts(ExplanationStatus.READY, needs_review=True, links=2)
    older = Facts(ExplanationStatus.NONE, needs_review=False)
    for facts in (newer, older):
        with indexed.database.current().write() as connection:
            IndexWriter(connection).put_facts({place: facts})
    assert len(listed(indexed.by_index, explanation_status="READY", needs_review=True)) == 1
    indexed.rebuild()
    assert listed(indexed.by_index, explanation_status="READY") == []


def test_a_link_that_cannot_be_read_makes_its_run_wait(
    indexed: Indexed, runs: list[RunArtifact], runs_dir: Path
) -> None:
    writer = RunWriter(indexed.store)
    writer.attach(make_link(runs[0]))
    link = make_link(runs[1], approved=False, reviewed_by=None)
    writer.attach(link)
    writer.add_review(make_review(link))
    spoilt = next(runs_dir.glob("2*/*_advisory_*"))
    spoilt.chmod(0o600)
    spoilt.write_bytes(b"{}")
    review = next((runs_dir / review_prefix(runs[1].date, runs[1].run_id)).iterdir())
    review.chmod(0o600)
    review.write_bytes(b"{}")
    reconcile(indexed)
    # A verdict that nobody can read is none.
    assert len(indexed.agree(needs_review=True)) == (2 if runs[0].run_id in spoilt.name else 1)


# -- damage to the index --------------------------------------------------------------------------


def spoil_sqlite(indexed: Indexed, how: str) -> None:
    path = Path(indexed.settings.index_url.get_secret_value().removeprefix("sqlite:///"))  # type: ignore[union-attr]
    indexed.database.close()
    match how:
        case "deleted":
            path.resolve().unlink()
        case "truncated":
            data = path.resolve().read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "garbage":
            path.write_bytes(b"\x07garbage" * 9_000)
        case "empty":
            path.write_bytes(b"")
        case "pages":
            data = path.read_bytes()
            path.write_bytes(data[:4_096] + b"\xa5" * (len(data) - 4_096))
        case _:
            with sqlite3.connect(path) as connection:
                connection.execute(how)


def spoil_postgres(indexed: Indexed, how: str) -> None:
    with indexed.database.current().write() as connection:
        connection.execute(text(how))


STATEMENTS = {
    "another version": "UPDATE state SET value = 'other' WHERE name = 'fingerprint'",
    "another store": "UPDATE state SET value = 'other' WHERE name = 'store_id'",
    "a wrong time": "UPDATE state SET value = 'noon' WHERE name = 'complete_until_utc'",
    "no table": "DROP TABLE run",
    "no column": "ALTER TABLE corrupt RENAME COLUMN place TO other",
    "a row of nothing": "UPDATE run SET status = 'FINE'",
}
FILES = ("deleted", "truncated", "garbage", "empty", "pages")


@pytest.mark.parametrize("how", [*FILES, *STATEMENTS])
def test_a_damaged_index_is_reported_once_and_the_store_answers(
    indexed: Indexed,
    runs: list[RunArtifact],
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert indexed.settings.index_url is not None
    is_file = indexed.settings.index_url.get_secret_value().startswith("sqlite")
    if not is_file and how in FILES:
        pytest.skip("PostgreSQL looks after its own files")
    first = indexed.by_index.page(ALL, limit=2)
    (spoil_sqlite if is_file else spoil_postgres)(indexed, STATEMENTS.get(how, how))
    with pytest.raises(IndexDamaged):
        indexed.by_index.page(ALL, limit=2)
    caplog.clear()
    catalog = indexed.chosen()
    # In the middle of a list, too: cursors hold.
    rest = catalog.page(ALL, limit=200, cursor=first.next_cursor)
    assert [item.run_id for item in (*first.items, *rest.items)] == [
        run.run_id for run in sorted(runs, key=lambda run: run.created_at_utc, reverse=True)
    ]
    catalog.page(ALL, limit=200)
    assert [type(event) for event in events_in(caplog)] == [IndexUnused]
    indexed.rebuild()
    assert len(indexed.agree()) == 6
    again = indexed.chosen()
    assert again.page(ALL, limit=200).items == rest_of(indexed)


def rest_of(indexed: Indexed) -> list[object]:
    return [entry for entry in listed(indexed.by_store) if not isinstance(entry, str)]


def test_without_an_index_the_store_answers_and_nothing_is_reported(
    indexed: Indexed, caplog: pytest.LogCaptureFixture
) -> None:
    RunWriter(indexed.store).put_run(make_run(NOON))
    catalog = indexed.chosen()
    caplog.set_level("INFO", logger="rmos")
    assert len(catalog.page(ALL, limit=9).items) == 1
    assert events_in(caplog) == []
    with pytest.raises(IndexDamaged, match="rmos index rebuild"):
        indexed.by_index.page(ALL, limit=9)


@pytest.mark.usefixtures("runs")
def test_an_index_that_comes_back_is_used_again(
    indexed: Indexed,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rmos_shared.index.fallback._REST_SECONDS", 0.0)
    caplog.set_level("INFO", logger="rmos")
    catalog = indexed.chosen()
    with indexed.database.current().write() as connection:
        connection.execute(text(STATEMENTS["another version"]))
    assert len(catalog.page(ALL, limit=9).items) == 6
    indexed.rebuild()
    assert len(catalog.page(ALL, limit=9).items) == 6
    assert len(catalog.page(ALL, limit=9).items) == 6
    assert [type(event) for event in events_in(caplog)] == [IndexUnused, IndexInUse]


def test_a_postgresql_that_is_away_is_waited_for_once(
    runs_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PostgresServer() as server:
        indexed = Indexed(runs_dir, server.new_database())
        RunWriter(indexed.store).put_run(make_run(NOON))
        indexed.rebuild()
        catalog = indexed.chosen()
        assert len(catalog.page(ALL, limit=9).items) == 1
        server.kill()
        with pytest.raises(IndexUnavailable):
            indexed.by_index.page(ALL, limit=9)
        assert len(catalog.page(ALL, limit=9).items) == 1
        assert [type(event) for event in events_in(caplog)] == [IndexUnused]
        server.start()
        assert len(indexed.agree()) == 1
        indexed.close()


# -- rebuilding -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("runs")
def test_a_rebuild_that_fails_leaves_the_old_index_in_use(indexed: Indexed, url: str, tmp_path: Path) -> None:
    RunWriter(indexed.store).put_run(make_run(NOON))

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            rebuild(indexed.database, indexed.store, store_id=indexed.store_id, tell=fail)
    assert len(listed(indexed.by_index)) == 6
    indexed.rebuild()
    assert len(indexed.agree()) == 7
    if url.startswith("sqlite"):
        left = sorted(path.name for path in (tmp_path / "index").iterdir())
        assert len([name for name in left if not name.endswith(("-wal", "-shm"))]) == 3, left
    else:
        with indexed.database.current().read() as connection:
            names = connection.execute(text("SELECT nspname FROM pg_namespace")).scalars().all()
        assert [name for name in names if name.startswith("rmos")] == ["rmos_index"]


@pytest.mark.usefixtures("runs")
def test_two_rebuilds_at_once_are_one(indexed: Indexed, runs_dir: Path, url: str) -> None:
    other = Indexed(runs_dir, url)

    def second(_: object) -> None:
        with pytest.raises(IndexUnavailable, match="another process"):
            other.rebuild()

    rebuild(indexed.database, indexed.store, store_id=indexed.store_id, tell=second)
    other.rebuild()
    assert len(other.agree()) == 6
    other.close()


@pytest.mark.usefixtures("runs")
def test_readers_see_the_old_index_or_the_new_one(indexed: Indexed) -> None:
    RunWriter(indexed.store).put_run(make_run(NOON))
    seen = set()

    def look(_: object) -> None:
        seen.add(len(listed(indexed.by_index)))

    rebuild(indexed.database, indexed.store, store_id=indexed.store_id, tell=look)
    look(None)
    assert seen == {6, 7}


def test_several_processes_read_what_one_does(
    indexed: Indexed, runs: list[RunArtifact], runs_dir: Path
) -> None:
    path_of(runs_dir, runs[1]).chmod(0o600)
    path_of(runs_dir, runs[1]).write_bytes(b"{")
    indexed.rebuild()
    one = listed(indexed.by_index)
    indexed.rebuild(processes=2)
    assert listed(indexed.by_index) == one
    assert len(indexed.agree()) == 6


@pytest.mark.usefixtures("runs")
def test_what_comes_during_a_rebuild_is_found_after_it(indexed: Indexed) -> None:
    made: list[RunArtifact] = []

    def more(_: object) -> None:
        if len(made) < 3:
            made.append(make_run(NOON + len(made) * DAY))
            RunWriter(indexed.store).put_run(made[-1])

    rebuild(indexed.database, indexed.store, store_id=indexed.store_id, tell=more)
    with indexed.database.current().read() as connection:
        assert read_state(connection, indexed.store_id).complete_until_utc < datetime.now(UTC)
    reconcile(indexed)
    assert len(indexed.agree()) == 9


@pytest.mark.usefixtures("runs")
def test_an_index_is_of_one_store(tmp_path: Path, url: str) -> None:
    init_store(tmp_path / "other")
    other = Indexed(tmp_path / "other", url)
    with pytest.raises(IndexDamaged, match="another store"):
        other.by_index.page(ALL, limit=1)
    assert other.chosen().page(ALL, limit=1).items == []
    other.close()
