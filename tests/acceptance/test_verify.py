"""``rmos runs verify`` and ``rmos doctor`` on a store with damage, as an operator would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.local.home import Home
from rmos_shared.runs.model import RunRequest
from rmos_shared.store.local import LocalStore
from rmos_worker.handlers.artifact import artifact_of
from support import spawn
from support.records import make_link, make_run
from support.runs import Runs

RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")


def rmos(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
    done = spawn.run(
        [*RMOS, *arguments],
        env={**clean, "RMOS_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with four runs of today in its store, one of them linked."""
    place = Home(tmp_path / "home")
    place.init_store()
    log = Runs(LocalStore(place.runs_dir))
    runs = [make_run(datetime.now(UTC)) for _ in range(4)]
    log.writer.put_runs(runs)
    log.writer.attach(make_link(runs[0]))
    return place


def spoil(home: Home, number: int) -> str:
    """Cut that many artifacts short, and return the key of the last."""
    paths = sorted(path for path in home.runs_dir.glob("20*/*.json") if "_advisory_" not in path.name)
    for path in paths[:number]:
        path.chmod(0o640)
        path.write_bytes(path.read_bytes()[:-9])
    return paths[number - 1].relative_to(home.runs_dir).as_posix()


def test_a_whole_store_is_well(home: Home) -> None:
    done = rmos(home, "runs", "verify", "--all")
    assert (done.returncode, done.stdout) == (0, "")
    assert "5 files checked (artifact 4, link 1), 0 damaged" in done.stderr
    done = rmos(home, "runs", "verify", "--all", "--json")
    assert json.loads(done.stdout) == {"damage": [], "files": 5, "damaged": 0, "artifact": 4, "link": 1}


def test_damage_is_named_one_a_line_and_ends_with_seven(home: Home) -> None:
    spoil(home, 3)
    day = datetime.now(UTC).date().isoformat()
    done = rmos(home, "runs", "verify", "--date-from", day)
    assert done.returncode == 7
    assert len(done.stdout.splitlines()) == 3
    assert all(line.endswith(".json: the content is not JSON") for line in done.stdout.splitlines())
    told = json.loads(rmos(home, "runs", "verify", "--all", "--json").stdout)
    assert (told["damaged"], len(told["damage"])) == (3, 3)
    assert {entry["kind"] for entry in told["damage"]} == {"artifact"}


def test_one_run_is_checked_by_its_id(home: Home) -> None:
    run_id = Path(spoil(home, 1)).stem
    done = rmos(home, "runs", "verify", run_id)
    assert (done.returncode, f"{run_id}.json: " in done.stdout) == (7, True)
    assert rmos(home, "runs", "verify", "0" * 32).returncode == 4


@pytest.mark.parametrize("arguments", [(), ("--all", "x"), ("--all", "--date-from", "2026-01-01")])
def test_what_to_check_is_said_once(home: Home, arguments: tuple[str, ...]) -> None:
    done = rmos(home, "runs", "verify", *arguments)
    assert (done.returncode, "name runs, or give" in done.stderr) == (2, True)


def test_doctor_names_damaged_files_of_today(home: Home) -> None:
    """F7: doctor ended with 0 while fifteen damaged files lay in the store."""
    key = spoil(home, 1)
    done = rmos(home, "doctor", "--json")
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert rows[f"file {key}"]["state"] == "broken"
    assert rows["files"]["detail"] == "5 of today and yesterday, 1 damaged"
    assert "files" in re.search(r"not well: (.*);", done.stderr)[1]  # type: ignore[index]
    assert done.returncode == 7


def test_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    peak = {}
    for days in (1, 20):
        home = Home(tmp_path / str(days))
        home.init_store()
        log = Runs(LocalStore(home.runs_dir))
        for day in range(1, days + 1):
            log.writer.put_runs([make_run(datetime(2026, 8, day, tzinfo=UTC)) for _ in range(200)])
        script = (
            "import resource, sys; from rmos_runs.cli import main\n"
            "sys.argv[0] = 'rmos'\n"
            "try: main()\n"
            "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        clean = {n: value for n, value in os.environ.items() if not n.startswith("RMOS_")}
        done = subprocess.run(
            [sys.executable, "-c", script, "runs", "verify", "--all", "--home", str(home.root)],
            env=clean,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert f"{200 * days} files checked" in done.stderr
        peak[days] = int(done.stderr.split()[-1])
    assert peak[20] < 1.1 * peak[1]


def test_the_recipe_in_the_documents_proves_every_hash(
    tmp_path: Path, sample_requests: list[dict[str, Any]]
) -> None:
    """U15: by jq's JSON, which has no 0.0, 308 of 400 correct hashes looked wrong."""
    document = (Path(__file__).parents[2] / "docs/verify.md").read_text()
    (recipe,) = re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    (tmp_path / "recipe.py").write_text(recipe)
    request = next(r for r in sample_requests if "0.0" in json.dumps(r["feasibility"]))
    outputs = {"gcode_text": "G21\n", "opplan_json": {"depth": 0.0, "ü": [1e22]}}
    artifact, _ = artifact_of(RunRequest.read({**request, "outputs": outputs}))
    (tmp_path / "run.json").write_bytes(artifact.to_bytes())

    def run() -> list[str]:
        command = [sys.executable, "-I", str(tmp_path / "recipe.py"), str(tmp_path / "run.json")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert run() == ["feasibility True", "gcode True", "opplan True"]
    altered = {**artifact.dump(), "feasibility": {**artifact.feasibility, "score": 1}}
    (tmp_path / "run.json").write_text(json.dumps(altered))
    assert run()[0] == "feasibility False"
