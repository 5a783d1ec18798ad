"""The indexer as a process: killed, doubled, told and untold, it loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
import redis

from rmos_shared.errors import BrokerUnavailable, IndexDamaged, IndexUnavailable, StoreUnavailable
from rmos_shared.index.indexer import LOCK, LOCK_SECONDS, Indexer
from rmos_shared.index.notices import NoNotices, Notice
from rmos_shared.index.rebuild import Progress, rebuild
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.query import RunFilter
from rmos_shared.runs.writer import RunWriter
from rmos_shared.telemetry.events import IndexerFailed, IndexerWaiting, IndexRebuilding, IndexRebuilt
from support import spawn
from support.catalogs import Indexed, listed
from support.events import events_in
from support.records import HOUR, NOON, make_link, make_review, make_run

ALL = RunFilter()
Eventually = Callable[..., None]
StartIndexer = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def indexed(runs_dir: Path, tmp_path: Path) -> Iterator[Indexed]:
    made = Indexed(runs_dir, f"sqlite:///{tmp_path}/index.db")
    yield made
    made.close()


@pytest.fixture
def start(broker_url: str, runs_dir: Path, tmp_path: Path) -> Iterator[StartIndexer]:
    """Start the process that the Procfile names."""
    with ExitStack() as stack:

        def start_(url: str = f"sqlite:///{tmp_path}/index.db") -> subprocess.Popen[bytes]:
            with (tmp_path / "indexer.log").open("ab") as log:
                process = spawn.Popen[bytes](
                    [sys.executable, "-m", "rmos_shared.index"],
                    env={
                        **{name: value for name, value in os.environ.items() if not name.startswith("RMOS_")},
                        "RMOS_BROKER_URL": broker_url,
                        "RMOS_RUNS_DIR": str(runs_dir),
                        "RMOS_INDEX_URL": url,
                        "RMOS_INDEX_RECONCILE_SECONDS": "0.2",
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

            def end() -> None:
                process.kill()
                process.wait()

            stack.callback(end)
            return process

        yield start_


def found(indexed: Indexed) -> int:
    """Return how many runs the index lists, 0 while there is none."""
    try:
        return len(listed(indexed.by_index))
    except (IndexDamaged, IndexUnavailable):
        return 0


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "indexer.log").read_text()


# -- as a process ---------------------------------------------------------------------------------


def test_killed_again_and_again_it_loses_nothing(
    indexed: Indexed, start: StartIndexer, redis_client: redis.Redis, eventually: Eventually
) -> None:
    writer, made = RunWriter(indexed.store), 0
    for turn in range(4):
        process = start()
        before = found(indexed)
        for _ in range(30):
            run = make_run(NOON + timedelta(days=turn % 2))
            writer.put_run(run)
            writer.attach(make_link(run))
            made += 1
        # In the middle of its work, as soon as it has begun.
        eventually(lambda before=before: found(indexed) > before, 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # Its lock lapses by itself, as if that time had passed.
        assert 0 < redis_client.pttl(f"rmos:lock:{LOCK}") <= LOCK_SECONDS * 1_000
        redis_client.pexpire(f"rmos:lock:{LOCK}", 1)
    start()
    eventually(lambda: found(indexed) == made, 60)
    eventually(lambda: len(listed(indexed.by_index, explanation_status="READY")) == made, 60)
    assert len(indexed.agree()) == made


def test_a_second_one_waits_and_takes_over(
    indexed: Indexed, start: StartIndexer, ledger: JobLedger, eventually: Eventually, tmp_path: Path
) -> None:
    first = start()
    eventually(lambda: indexed.by_index.page(ALL, limit=1) if indexed.database.exists() else None, 60)
    assert not ledger.queues.try_lock(LOCK, "another", seconds=1)
    second = start(f"sqlite:///{tmp_path}/second.db")
    RunWriter(indexed.store).put_run(make_run(NOON))
    eventually(lambda: found(indexed) == 1, 60)
    assert not (tmp_path / "second.db").exists()
    assert second.poll() is None
    first.terminate()
    assert first.wait(timeout=30) == 0
    # The lock lapses; here an operator is in a hurry.
    eventually(lambda: (ledger._client.delete(f"rmos:lock:{LOCK}"), (tmp_path / "second.db").exists())[1], 60)
    assert "Traceback" not in log_of(tmp_path)


def test_without_an_index_in_its_settings_it_says_so(broker_url: str, runs_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rmos_shared.index"],
        env={"PATH": os.environ["PATH"], "RMOS_BROKER_URL": broker_url, "RMOS_RUNS_DIR": str(runs_dir)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "RMOS_INDEX_URL" in done.stderr
    assert "Traceback" not in done.stderr


# -- step by step ---------------------------------------------------------------------------------


class Told:
    """Notices that a test gives."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.error: Exception | None = None

    def wait(self, seconds: float) -> Sequence[Notice]:
        assert seconds > 0
        if self.error is not None:
            raise self.error
        told, self.notices = self.notices, []
        return told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def indexer(indexed: Indexed, told: Told) -> Indexer:
    def again() -> Progress:
        return rebuild(indexed.database, indexed.store, store_id=indexed.store_id)

    return Indexer(
        indexed.database,
        indexed.store,
        told,
        rebuild=again,
        store_id=indexed.store_id,
        reconcile_seconds=3_600,
    )


def store_run(indexed: Indexed) -> RunArtifact:
    run = make_run(NOON)
    RunWriter(indexed.store).put_run(run)
    return run


def test_a_notice_brings_a_run_at_once_and_what_lies_beside_it_soon(
    indexed: Indexed, indexer: Indexer, told: Told, eventually: Eventually
) -> None:
    indexer.step()
    run = store_run(indexed)
    told.notices = [Notice(run.run_id, new=True), Notice(run.run_id, new=True)]
    indexer.step()
    assert len(listed(indexed.by_index, explanation_status="NONE")) == 1

    writer = RunWriter(indexed.store)
    link = make_link(run, approved=False, reviewed_by=None)
    writer.attach(link)
    told.notices = [Notice(run.run_id, new=False)]

    def after_a_step(**fields: object) -> int:
        indexer.step()
        return len(listed(indexed.by_index, **fields))

    eventually(lambda: after_a_step(explanation_status="READY") == 1)
    assert len(listed(indexed.by_index, needs_review=True)) == 1
    writer.add_review(make_review(link))
    told.notices = [Notice(run.run_id, new=False)]
    eventually(lambda: after_a_step(needs_review=True) == 0)


def test_a_notice_of_nothing_or_of_damage_does_no_harm(
    indexed: Indexed, indexer: Indexer, told: Told, runs_dir: Path
) -> None:
    run = store_run(indexed)
    path = runs_dir / run.date / f"{run.run_id}.json"
    path.chmod(0o600)
    path.write_bytes(b"{}")
    indexer.step()
    told.notices = [
        Notice(make_run(NOON + HOUR).run_id, new=True),
        Notice("run_legacy", new=True),
        Notice("../../etc/passwd", new=True),
        Notice(run.run_id, new=True),
    ]
    indexer.step()
    assert listed(indexed.by_index) == [f"{run.date}/{run.run_id}.json"]


def test_a_damaged_index_is_made_anew(
    indexed: Indexed, indexer: Indexer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", logger="rmos")
    indexer.step()
    store_run(indexed)
    (tmp_path / "index.db").write_bytes(b"garbage" * 9_000)
    indexed.database.close()
    indexer._next_round = 0
    with pytest.raises(IndexDamaged):
        indexer.step()
    indexer._checked = False
    indexer.step()
    assert found(indexed) == 1
    kinds = [type(event) for event in events_in(caplog)]
    assert kinds == [IndexRebuilding, IndexRebuilt] * 2


@pytest.mark.parametrize(
    "error", [StoreUnavailable("gone"), IndexUnavailable("gone"), IndexDamaged("gone"), ValueError("a bug")]
)
def test_nothing_ends_it_but_being_told_to(
    indexer: Indexer,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("rmos_shared.index.indexer._FIRST_PAUSE_SECONDS", 0.01)
    stopping, steps = Event(), []

    def step() -> None:
        steps.append(1)
        if len(steps) == 3:
            stopping.set()
            return
        raise error

    monkeypatch.setattr(indexer, "step", step)
    indexer.run(stopping)
    assert len(steps) == 3
    expected = IndexerFailed if isinstance(error, ValueError) else IndexerWaiting
    assert {type(event) for event in events_in(caplog)} <= {expected}


def test_while_the_broker_is_away_it_goes_on_by_looking(
    indexed: Indexed, indexer: Indexer, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.error = BrokerUnavailable("gone")
    store_run(indexed)
    indexer.step()
    assert found(indexed) == 1
    store_run(indexed)
    indexer._next_round = 0
    indexer.step()
    assert found(indexed) == 2
    assert [type(event) for event in events_in(caplog) if type(event) is IndexerWaiting] == [IndexerWaiting]


def test_another_ones_turn_is_waited_for(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmos_shared.index.indexer._WAIT_SECONDS", 0.01)
    stopping, asked = Event(), []

    def lock() -> bool:
        asked.append(1)
        if len(asked) == 3:
            stopping.set()
        if len(asked) == 2:
            raise BrokerUnavailable("gone")
        return False

    def again() -> Progress:
        return rebuild(indexed.database, indexed.store, store_id=indexed.store_id)

    Indexer(
        indexed.database,
        indexed.store,
        NoNotices(stopping),
        rebuild=again,
        store_id=indexed.store_id,
        lock=lock,
    ).run(stopping)
    assert len(asked) == 3
    # Only while nobody could say whose turn it was did it work.
    assert indexed.database.exists()
    page = indexed.by_index.page(ALL, limit=1)
    assert page.complete_until_utc is not None
    assert page.complete_until_utc <= datetime.now(UTC)
