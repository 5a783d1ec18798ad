"""``rmos reexplain`` and ``rmos batches`` as an operator uses them, on a worker that gives way to others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rmos_runs.cli.main import app
from rmos_runs.local.home import Home
from rmos_runs.local.processes import Pipeline
from rmos_shared.batches.report import report_key
from rmos_shared.errors import RmosError
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import RunRequest
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.identity import init_store
from rmos_worker.handlers.artifact import artifact_of
from support.command import on_terminal

RUNS = 30
DAYS = ("--date-from", "2026-08-01", "--date-to", "2026-08-02")
Eventually = Callable[..., None]


class Command:
    """``rmos`` on a home, called in this process."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = environment

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"RMOS_HOME": str(self.home), **self.environment})

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and the text of a call that is refused."""
        done = self(*arguments)
        error = done.exception
        if isinstance(error, RmosError):
            return error.exit_code, str(error)
        return done.exit_code, done.stderr


@pytest.fixture
def idle(tmp_path: Path, broker_url: str) -> Command:
    """A home with a store and a broker, where nobody works."""
    init_store(tmp_path / "runs")
    return Command(tmp_path, RMOS_BROKER_URL=broker_url)


def priorities(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sorted(os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads)


def test_a_batch_from_the_dry_run_to_its_report(
    tmp_path: Path,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)
    home, rmos = Home(tmp_path), Command(tmp_path)
    with Pipeline(home, names=("advisory-store", "worker-reexplain")) as pipeline:
        pipeline.start()
        requests = [{**request, "run_id": new_uuid7()} for request in sample_requests[:RUNS]]
        runs = [artifact_of(RunRequest.read(request))[0] for request in requests]
        RunWriter(chosen_store(home.store_settings())).put_runs(runs)
        days = ("--date-from", runs[0].date, "--date-to", runs[-1].date)

        found = rmos.json("reexplain", *days, "--dry-run", "--limit", "20")
        assert (found["meant"], found["limited"], len(found["sample"])) == (20, True, 10)
        assert rmos.json("batches", "list") == []

        why = ("--as", "Ana", "--why", "new words")
        batch_id = rmos.json("reexplain", *days, *why, "--rate", "1000")["batch_id"]
        ledger = JobLedger.connect(home.producer_settings())
        eventually(lambda: ledger.batches.get(batch_id).state == "done", 120)
        assert ledger.stats().accepted == RUNS + 2

        shown = rmos.json("batches", "show", batch_id)
        assert (shown["batch"]["counts"]["linked"], shown["batch"]["pending"]) == (RUNS, 0)
        assert shown["report"]["counts"] == shown["batch"]["counts"]
        assert shown["report"]["report_sha256"] == shown["batch"]["report_sha256"]
        assert (home.store_settings().runs_dir / report_key(batch_id)).stat().st_mode & 0o222 == 0
        (listed,) = rmos.json("batches", "list")
        assert (listed["batch_id"], listed["linked"], listed["why"]) == (batch_id, RUNS, "new words")
        assert listed["by"].endswith("(as Ana)")
        assert rmos("reexplain", *days, "--dry-run").stdout == "would be explained: 0\n"

        # Only the threads that did it have given way: heartbeat and reconciler wait for nobody.
        pid, ours = pipeline.supervisor.pids()["worker-reexplain"], os.getpriority(os.PRIO_PROCESS, 0)
        assert 1 <= priorities(pid).count(19) <= 2
        assert priorities(pid).count(ours) == len(priorities(pid)) - priorities(pid).count(19)
        assert os.getpriority(os.PRIO_PROCESS, pid) == ours

        # The ledger may be lost; what stands in the store stays.
        ledger._client.delete(f"rmos:batch:{batch_id}")
        kept = rmos.json("batches", "show", batch_id)
        assert (kept["batch"], kept["report"]) == (None, shown["report"])
        ledger.close()


def test_a_batch_is_steered_and_says_who_did_it(idle: Command) -> None:
    first, batch_id = (idle.json("reexplain", *DAYS)["batch_id"] for _ in range(2))
    assert idle("batches", "pause", batch_id, "--why", "noise").stdout == f"paused: batch {batch_id}\n"
    assert [row["batch_id"] for row in idle.json("batches", "list", "--state", "paused")] == [batch_id]
    assert idle.json("batches", "resume", batch_id)["state"] == "running"
    assert idle.json("batches", "cancel", batch_id, "--as", "Ben")["state"] == "cancelling"
    code, said = idle.refused("batches", "resume", batch_id)
    assert (code, "is cancelling" in said) == (5, True)
    # Its store may be away while it is under way.
    (idle.home / "runs").rename(idle.home / "elsewhere")
    history = idle.json("batches", "show", batch_id)["batch"]["history"]
    assert [act["what"] for act in history] == ["pause", "resume", "cancel"]
    assert history[0]["why"] == "noise"
    assert history[2]["by"].endswith("(as Ben)")

    for width in (80, 160):
        shown = on_terminal("batches", "list", home=idle.home, width=width, **idle.environment)
        assert {first, batch_id} <= set(shown.stdout.split())
        assert max(map(len, shown.stdout.splitlines())) <= width
        assert width == 160 or "columns hidden" in shown.stderr
    cut = idle("batches", "list", "--limit", "1")
    assert "there are more than these 1" in cut.stderr


def test_what_cannot_be_meant_opens_no_batch(idle: Command) -> None:
    for arguments, code, said in (
        (("--date-from", "2026-08-02", "--date-to", "2026-08-01"), 3, "date_from is after date_to"),
        ((*DAYS, "--missing-only", "--failed-only"), 3, "exclude one another"),
        ((*DAYS, "--engine-older-than", "newest"), 3, "engine_older_than"),
        ((*DAYS, "--rate", "0"), 2, "--rate"),
    ):
        refused, told = idle.refused("reexplain", *arguments)
        assert (refused, said in told) == (code, True), told
    assert idle.json("batches", "list") == []
    assert idle.refused("batches", "show", new_uuid7())[0] == 4
    assert idle.refused("batches", "cancel", "no-id")[0] == 4
    assert idle("reexplain", *DAYS, "--dry-run").stdout == "would be explained: 0\n"
