"""``rmos demo``: the main job as a new user meets it, with real processes killed and taken away meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.local.home import Home
from rmos_runs.local.ports import lasting_port
from rmos_runs.local.processes import Pipeline
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import ExplanationStatus
from rmos_shared.store.local import LocalStore
from support import spawn
from support.runs import Runs

RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")
WHOLE = {"accepted": 1200, "done": 1200, "dead": 0, "discarded": 0, "pending": 0, "artifacts": 600}
WHOLE |= {"links": 600, "explanations_approved": 240, "explanations_to_review": 360}
WHOLE |= {"corrupt": 0, "log_findings": 0, "invariant": True}
#: Jobs that seal the log: one each minute, or each thousand records.
MOST_SEALING = 10
#: Of the sample, where all of it would only take longer.
SOME = 300
#: Faults in these tests last seconds, not minutes, and so do the waits that answer them.
QUICK = {
    "RMOS_RETRY_BASE_SECONDS": "0.3",
    "RMOS_BREAKER_OPEN_SECONDS": "0.3",
    "RMOS_LEASE_SECONDS": "3",
    "RMOS_HEARTBEAT_SECONDS": "0.5",
    "RMOS_NOTIFICATION_GRACE_SECONDS": "1",
}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def start(home: Home) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``rmos demo`` on ``home``; it is gone after the test whatever happens in it."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
        process = subprocess.Popen(
            [*RMOS, "demo", "--json", "--home", str(home.root), *arguments],
            env={**clean, **QUICK, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def summary_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the last line of the demo's output, which must be its summary."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def assert_came_to(home: Home, told: dict[str, Any], figures: dict[str, Any]) -> None:
    """Hold a summary against figures that leave out the jobs which seal: time decides how many there are."""
    sealing = told["accepted"] - figures["accepted"]
    assert 0 <= sealing <= MOST_SEALING
    # Each record, what the processes said at their start, and the end of each seal.
    assert told.pop("log_entries") > told["artifacts"] + told["links"]
    counted = {"accepted": figures["accepted"] + sealing, "done": figures["done"] + sealing}
    assert told == {**figures, **counted, "runs_dir": str(home.runs_dir)}


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def links(home: Home) -> int:
    return sum(1 for _ in home.runs_dir.glob("*/*_advisory_*.json"))


def artifacts(home: Home) -> int:
    return sum(1 for _ in home.runs_dir.glob("2*/*.json")) - links(home)


def rmos(home: Home, *arguments: str) -> Any:
    done = spawn.run(
        [*RMOS, *arguments, "--json", "--home", str(home.root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_six_hundred_real_requests_and_what_is_kept_of_them(
    home: Home, start: Callable[..., subprocess.Popen[str]]
) -> None:
    assert_came_to(home, summary_of(start()), WHOLE)

    assert artifacts(home) == 600
    assert len(rmos(home, "reviews", "list", "--limit", "1000")) == 360
    listed = rmos(home, "runs", "list", "--limit", "1000")
    assert len(listed) == 600
    shown = rmos(home, "runs", "show", listed[0]["run_id"])
    assert shown["explanation_status"] == "READY"
    assert len(shown["advisory_inputs"]) == 1
    with Pipeline(home) as pipeline:  # what `rmos up` does on a kept directory
        pipeline.start()
        told = rmos(home, "doctor")
    assert {finding["check"]: finding["state"] for finding in told}["invariant"] == "ok"


@pytest.fixture
def some(tmp_path: Path, sample_requests: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A part of the sample in a file, and what comes of it if nothing goes wrong."""
    requests = sample_requests[:SOME]
    file = tmp_path / "some.ndjson"
    file.write_text("".join(json.dumps(request) + "\n" for request in requests))
    green = sum(request["decision"]["risk_level"] == "GREEN" for request in requests)
    figures = dict.fromkeys(("artifacts", "links"), SOME) | dict.fromkeys(("accepted", "done"), 2 * SOME)
    judged = {"explanations_approved": green, "explanations_to_review": SOME - green}
    return str(file), WHOLE | figures | judged


def test_workers_killed_in_the_middle_change_no_figure(
    home: Home, start: Callable[..., subprocess.Popen[str]], some: tuple[str, dict[str, Any]]
) -> None:
    file, figures = some
    demo = start(file)
    until(lambda: artifacts(home) >= SOME / 4)
    kill_process(demo.pid, "worker-create")
    until(lambda: links(home) >= SOME / 4)
    kill_process(demo.pid, "worker-advise")

    assert_came_to(home, summary_of(demo), figures)
    assets = {path.name for path in home.advisory_dir.rglob("assets/*") if path.is_file()}
    assert len(assets) == SOME


def kill_process(parent: int, name: str) -> None:
    """Kill a process of the pipeline and its children, as the kernel or an operator would: -9."""
    queue = {"worker-create": "runs.create,runs.batch", "worker-advise": "runs.advise"}[name]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_text().split("\0")
            parent_of = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent_of == parent and queue in command:
            found.append(int(entry.name))
    assert len(found) == 1
    os.killpg(found[0], signal.SIGKILL)


def test_the_advisory_store_away_for_a_while_changes_no_figure(
    home: Home,
    start: Callable[..., subprocess.Popen[str]],
    some: tuple[str, dict[str, Any]],
    advisory_store: Callable[..., Any],
) -> None:
    file, figures = some
    store = advisory_store(advisory_token="a-token-for-this-test")
    demo = start(file, RMOS_ADVISORY_URL=store.url, RMOS_ADVISORY_TOKEN="a-token-for-this-test")
    until(lambda: links(home) >= SOME / 8)
    store.kill()
    until(lambda: artifacts(home) == SOME)
    time.sleep(1)  # its breaker opens, and is tried in vain
    seen = links(home)
    store.start()

    assert seen < SOME
    assert_came_to(home, summary_of(demo), figures)


def test_the_advisory_store_down_for_good_and_replay_once_it_is_back(
    home: Home,
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    sample_requests: list[dict[str, Any]],
) -> None:
    few = tmp_path / "few.ndjson"
    few.write_text("".join(json.dumps(request) + "\n" for request in sample_requests[:20]))
    told = summary_of(
        start(
            str(few),
            RMOS_ADVISORY_URL=f"http://127.0.0.1:{lasting_port()}",
            RMOS_MAX_TRIES="3",
            RMOS_RETRY_TOTAL_SECONDS="3",
        )
    )
    figures = ("artifacts", "links", "done", "dead", "pending", "invariant")
    assert [told[name] for name in figures] == [20, 0, 20, 20, 0, True]
    runs = Runs(LocalStore(home.runs_dir))
    views = [runs.reader.read(entry.artifact.run_id) for entry in runs.reader.list_runs() if entry.artifact]
    assert {view.explanation_status for view in views} == {ExplanationStatus.ERROR}
    assert all("retries_exhausted" in (view.explanation_summary or "") for view in views)

    with Pipeline(home) as pipeline:
        addresses = pipeline.start()
        assert (
            rmos(home, "dlq", "replay", "--reason", "retries_exhausted", "--yes-number", "20")["count"] == 20
        )
        ledger = JobLedger.connect(home.producer_settings(broker_url=addresses.broker_url))
        until(lambda: ledger.stats().pending == 0)
        stats = ledger.stats()
        ledger.close()
        shown = rmos(home, "runs", "show", views[0].run_id)

    assert (stats.done, stats.dead, stats.invariant) == (40, 0, True)
    assert links(home) == 20
    assert shown["explanation_status"] == "READY"


def test_wrong_lines_are_named_and_the_rest_is_done(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, sample_requests: list[dict[str, Any]]
) -> None:
    good = json.dumps(sample_requests[0])
    mixed = tmp_path / "mixed.ndjson"
    mixed.write_text(f'{good}\n{{"mode": " "}}\nnot json\n\n{{"tool_id": "t1"}}\n')
    demo = start(str(mixed))

    out, err = demo.communicate(timeout=120)

    told = json.loads(out.splitlines()[-1])
    # The last line lacks required fields, but says what it is about: a BLOCKED artifact, not a refusal.
    assert (told["artifacts"], told["links"], told["accepted"]) == (2, 2, 4)
    assert "line 2: invalid request: mode: must not be blank" in err
    assert "line 3: invalid request: line: is not strict JSON" in err
