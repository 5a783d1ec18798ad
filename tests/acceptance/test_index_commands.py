"""``rmos index`` and ``rmos runs list`` as an operator uses them."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rmos_runs.cli.main import app
from rmos_runs.local.home import Home
from rmos_shared.runs.model import RunArtifact
from support.command import piped
from support.records import NOON, make_attempt, make_link, make_run
from support.runs import Runs
from support.stores import local_store

#: Where nobody answers: lists of the store need no broker.
NO_BROKER = {"RMOS_BROKER_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Home(tmp_path / "home").init_store()
    return tmp_path / "home"


@pytest.fixture
def log(home: Path) -> Runs:
    return Runs(local_store(home / "runs"))


@pytest.fixture
def runs(log: Runs) -> list[RunArtifact]:
    """Four runs, newest first, each unlike the others."""
    made = [
        make_run(
            NOON - timedelta(days=number),
            mode=f"mode-{number}",
            tool_id=f"tool-{number}",
            status=("OK", "BLOCKED", "BLOCKED", "OK")[number],
            decision={"risk_level": ("GREEN", "RED", "YELLOW", "UNKNOWN")[number]},
            event_type=f"event-{number}",
            request_id=f"request-{number}",
            meta={
                "session_id": f"session-{number}",
                "batch_label": f"batch-{number}",
                "parent_run_id": f"parent-{number}",
                "machine_id": f"machine-{number}",
                "lineage": {"material_id": f"material-{number}"},
            },
        )
        for number in range(4)
    ]
    log.writer.put_runs(made)
    log.writer.attach(make_link(made[0]))
    log.writer.attach(make_link(made[1], approved=False, reviewed_by=None))
    log.writer.add_attempt(make_attempt(made[2]))
    return made


def rows(home: Path, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Return what a list says; in this process, for there are many."""
    done = CliRunner().invoke(app, ["runs", "list", "--json", *words, "--home", str(home)], env=NO_BROKER)
    assert done.exit_code == code, done.output
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


#: Options, and the numbers of the runs that pass.
FILTERS: dict[tuple[str, ...], list[int]] = {
    ("--status", "ok"): [0, 3],
    ("--mode", "mode-1"): [1],
    ("--tool-id", "tool-2"): [2],
    ("--tool-id-prefix", "tool"): [0, 1, 2, 3],
    ("--tool-id-prefix", "tool-3"): [3],
    ("--risk", "RED"): [1],
    ("--event-type", "event-0"): [0],
    ("--request-id", "request-2"): [2],
    ("--session", "session-1"): [1],
    ("--batch", "batch-1"): [1],
    ("--parent", "parent-3"): [3],
    ("--machine", "machine-0"): [0],
    ("--material", "material-2"): [2],
    ("--explanation", "ready"): [0, 1],
    ("--explanation", "ERROR"): [2],
    ("--explanation", "PENDING"): [],
    ("--needs-review",): [1],
    ("--needs-no-review", "--status", "OK"): [0, 3],
    ("--date-from", "2026-07-30", "--date-to", "2026-07-31"): [1, 2],
}


def test_every_filter_lists_the_same_with_and_without_an_index(home: Path, runs: list[RunArtifact]) -> None:
    told = {words: [row["run_id"] for row in rows(home, *words)] for words in FILTERS}
    assert "complete up to" not in piped("runs", "list", home=home, **NO_BROKER).stderr
    assert told == {words: [runs[number].run_id for number in passing] for words, passing in FILTERS.items()}

    done = piped("index", "rebuild", "--json", "--processes", "1", home=home, **NO_BROKER)
    assert json.loads(done.stdout) == {"days": 4, "runs": 4, "corrupt": 0}
    # Proof that the index answers: this run is in no other place.
    with sqlite3.connect(home / "index.db") as connection:
        connection.execute("UPDATE run SET mode = 'mode-1', tool_id = 'only-here' WHERE mode = 'mode-1'")
    assert [row["tool"] for row in rows(home, "--mode", "mode-1")] == ["only-here"]
    with sqlite3.connect(home / "index.db") as connection:
        connection.execute("UPDATE run SET tool_id = 'tool-1' WHERE tool_id = 'only-here'")
    assert {words: [row["run_id"] for row in rows(home, *words)] for words in FILTERS} == told


@pytest.mark.usefixtures("runs")
def test_wrong_filters_are_refused_by_name(home: Path) -> None:
    for words, said in {
        ("--mode", " "): "mode",
        ("--parent", "../x"): "parent_run_id",
        ("--cursor", "nonsense"): "cursor",
    }.items():
        done = piped("runs", "list", *words, home=home, **NO_BROKER)
        assert (done.returncode, said in done.stderr) == (3, True), done.stderr
    done = piped("runs", "list", "--cursor", "x", "--after", "y", home=home, **NO_BROKER)
    assert done.returncode == 2


def test_a_list_goes_on_under_its_filters(home: Path, runs: list[RunArtifact]) -> None:
    done = piped("runs", "list", "--tool-id-prefix", "tool", "--limit", "3", home=home, **NO_BROKER)
    assert f"--after 2026-07-30/{runs[2].run_id}.json" in done.stderr
    after = ("--after", runs[2].run_id, "--tool-id-prefix", "tool")
    assert [row["run_id"] for row in rows(home, *after)] == [runs[3].run_id]


def test_the_index_tells_how_far_it_is(home: Path, log: Runs, runs: list[RunArtifact]) -> None:
    done = piped("index", "status", home=home, **NO_BROKER)
    assert done.returncode == 7
    assert "rmos index rebuild" in done.stderr
    assert len(rows(home)) == len(runs)
    assert piped("index", "reconcile", home=home, **NO_BROKER).returncode == 7

    piped("index", "rebuild", "--processes", "1", home=home, **NO_BROKER)
    status = json.loads(piped("index", "status", "--json", home=home, **NO_BROKER).stdout)
    assert 0 <= status["behind_seconds"] < 60
    with sqlite3.connect(home / "index.db") as connection:
        connection.execute("UPDATE state SET value = '2026-08-01T00:00:00Z' WHERE name LIKE 'complete%'")
    log.writer.put_run(make_run(NOON))
    done = piped("runs", "list", "--json", home=home, **NO_BROKER)
    assert len(json.loads(done.stdout)) == 4
    assert "complete up to 2026-08-01T00:00:00Z; the indexer is behind" in done.stderr
    doctor = json.loads(piped("doctor", "--json", home=home, **NO_BROKER).stdout)
    assert [row["state"] for row in doctor if row["check"] == "index"] == ["warning"]

    done = piped("index", "reconcile", "--json", home=home, **NO_BROKER)
    assert json.loads(done.stdout)["changes"] == 1
    done = piped("runs", "list", "--json", home=home, **NO_BROKER)
    assert len(json.loads(done.stdout)) == 5
    assert "complete up to" in done.stderr
    assert "behind" not in done.stderr
    doctor = json.loads(piped("doctor", "--json", home=home, **NO_BROKER).stdout)
    assert [row["state"] for row in doctor if row["check"] == "index"] == ["ok"]


def test_a_damaged_index_is_said_and_the_store_answers(home: Path, runs: list[RunArtifact]) -> None:
    piped("index", "rebuild", "--processes", "1", home=home, **NO_BROKER)
    (home / "index.db").write_bytes(b"garbage" * 9_000)
    done = piped("runs", "list", "--json", home=home, **NO_BROKER)
    assert [row["run_id"] for row in json.loads(done.stdout)] == [run.run_id for run in runs]
    assert "index.unused" in done.stderr
    doctor = json.loads(piped("doctor", "--json", home=home, **NO_BROKER).stdout)
    assert [row["state"] for row in doctor if row["check"] == "index"] == ["warning"]
    assert piped("index", "rebuild", "--processes", "1", home=home, **NO_BROKER).returncode == 0
    assert "index.unused" not in piped("runs", "list", home=home, **NO_BROKER).stderr


def test_corrupt_files_are_listed_by_the_index_too(home: Path, runs: list[RunArtifact]) -> None:
    path = home / "runs" / runs[1].date / f"{runs[1].run_id}.json"
    path.chmod(0o600)
    path.write_bytes(b"{}")
    for _ in range(2):
        told = rows(home, code=7)
        assert [row["status"] for row in told] == ["OK", "CORRUPT", "BLOCKED", "OK"]
        done = piped("runs", "list", "--mode", "mode-0", home=home, **NO_BROKER)
        assert done.returncode == 7
        assert f"{runs[1].run_id}.json is corrupt" in done.stderr
        piped("index", "rebuild", "--processes", "1", home=home, **NO_BROKER)


def test_another_store_has_no_index_of_this_home(home: Path, tmp_path: Path, runs: list[RunArtifact]) -> None:
    piped("index", "rebuild", "--processes", "1", home=home, **NO_BROKER)
    other = {"RMOS_RUNS_DIR": str(tmp_path / "other"), **NO_BROKER}
    local_store(tmp_path / "other")
    assert piped("runs", "list", home=home, **other).stderr.splitlines()[-1] == "runs: none"
    assert piped("index", "status", home=home, **other).returncode == 2
    told = f"sqlite:///{home}/index.db"
    done = piped("runs", "list", home=home, RMOS_INDEX_URL=told, **other)
    assert "another store" in done.stderr
    assert len(rows(home)) == len(runs)
