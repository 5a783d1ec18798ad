"""What the listing commands print into pipes and on terminals: nothing cut, nothing kept back unsaid."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.cli.context import print_rows
from rmos_runs.cli.table import Row
from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_runs.operations.identity import current_identity
from rmos_shared.advisories.model import AdvisoryLink
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import StoreUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Lease
from rmos_shared.runs.model import RunArtifact, RunRequest
from rmos_worker.handlers.artifact import artifact_of
from support import spawn
from support.command import RMOS, environment, on_terminal, piped
from support.runs import Runs
from support.stores import local_store

AT = datetime(2026, 8, 1, 6, tzinfo=UTC)
#: Where nobody answers: lists of the store need no broker.
NO_BROKER = "redis://127.0.0.1:1/0"
ZEROS = "0" * 64
BLOCKED = {
    "mode": "router",
    "tool_id": "router:endmill_3p175mm",
    "status": "BLOCKED",
    "feasibility": {"risk_level": "RED"},
    "decision": {"risk_level": "RED", "score": 12, "block_reason": "the pocket is too deep"},
}
#: Text that a terminal or a markup parser would take for something else.
NASTY = "[/] \x1b[2Jgone [red]" + "and a sentence that is much longer than any terminal is wide " * 3


def make_run(number: int) -> RunArtifact:
    at = AT - timedelta(seconds=number)
    return artifact_of(RunRequest.read({**BLOCKED, "created_at_utc": at}))[0]


def make_link(run: RunArtifact) -> AdvisoryLink:
    return AdvisoryLink.read(
        {
            "run_id": run.run_id,
            "advisory_id": canonical_sha256(run.run_id)[:32],
            "kind": "explanation",
            "created_at_utc": run.created_at_utc,
            "request_id": None,
            "engine_id": "feasibility_explainer",
            "engine_version": "1",
            "summary": f"BLOCKED, risk RED. {NASTY}",
            "inputs_sha256": ZEROS,
            "advisory_sha256": ZEROS,
            "policy_id": "green_auto",
            "policy_version": "1",
            "approved": False,
            "reviewed_by": None,
            "reason": "RED",
        }
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Home(tmp_path / "home").init_store()
    return tmp_path / "home"


@pytest.fixture
def run_log(home: Path) -> Runs:
    return Runs(local_store(home / "runs"))


@pytest.fixture
def runs(run_log: Runs) -> list[RunArtifact]:
    """Five runs, newest first, each with an explanation that waits for a person."""
    made = [make_run(number) for number in range(5)]
    run_log.writer.put_runs(made)
    for run in made:
        run_log.writer.attach(make_link(run))
    return made


@pytest.fixture
def ledger(broker_url: str) -> Iterator[JobLedger]:
    """A ledger with a dead job and waiting ones, of all kinds of ids."""
    with RunsClient.connect(broker_url=broker_url) as client:
        receipt = client.create_run({"mode": "saw", "request_id": "r"}, explain=True)
        client.suggest_and_attach(receipt.run_id)
        lease = Lease("test", "1")
        client.ledger.work.claim([receipt.job_id], lease, lease_seconds=60)
        failure = Failure(reason="conflict", error_type="Conflict", message=NASTY)
        client.ledger.work.bury(receipt.job_id, lease, failure=failure)
        yield client.ledger


#: Each listing command, with its columns in the order of their importance.
LISTS: dict[tuple[str, ...], list[str]] = {
    ("runs", "list"): ["run_id", "status", "risk", "tool", "path"],
    ("reviews", "list"): ["run_id", "advisory_id", "risk", "summary", "waits_since_utc", "tool", "kind"],
    ("jobs", "list"): ["job_id", "state", "task", "run_id", "retry_count", "crash_count"],
    ("dlq", "list"): ["id", "reason", "message", "kind", "run_id", "died_at_utc"],
}


def ids_of(rows: list[dict[str, Any]]) -> set[str]:
    return {
        value for row in rows for value in row.values() if value and re.fullmatch("[0-9a-f]{32}", str(value))
    }


def as_json(*words: str, home: Path, url: str) -> list[dict[str, Any]]:
    done = piped(*words, "--json", home=home, RMOS_BROKER_URL=url)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
@pytest.mark.usefixtures("runs", "ledger")
def test_a_pipe_gets_every_column_whole(words: tuple[str, ...], home: Path, broker_url: str) -> None:
    rows = as_json(*words, home=home, url=broker_url)
    assert rows
    for width in ("20", "80"):
        done = piped(*words, home=home, RMOS_BROKER_URL=broker_url, COLUMNS=width)
        header, *lines = done.stdout.splitlines()
        assert header.split("\t") == LISTS[words] == list(rows[0])
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows, strict=True):
            cells = line.split("\t")
            assert len(cells) == len(row)
            for cell, value in zip(cells, row.values(), strict=True):
                assert cell == ("" if value is None else str(value).replace("\x1b", r"\x1b"))
        assert "\x1b" not in done.stdout
        assert "hidden" not in done.stderr


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("words", LISTS, ids=" ".join)
@pytest.mark.usefixtures("runs", "ledger")
def test_a_terminal_cuts_no_id_and_is_told_what_it_does_not_show(
    words: tuple[str, ...], width: int, home: Path, broker_url: str
) -> None:
    rows = as_json(*words, home=home, url=broker_url)
    done = on_terminal(*words, home=home, width=width, RMOS_BROKER_URL=broker_url)

    _, header, _, *lines = done.stdout.splitlines()
    shown = header.split()
    assert max(map(len, done.stdout.splitlines())) <= width
    # The most important ones are there, in their order; the others are named.
    assert shown == LISTS[words][: len(shown)]
    hidden = re.findall(
        r"^columns hidden: (.*); widen the terminal, or add --json$", done.stderr, re.MULTILINE
    )
    assert hidden == ([", ".join(LISTS[words][len(shown) :])] if len(shown) < len(LISTS[words]) else [])
    assert len(shown) >= 2
    text = "\n".join(lines)
    for found in re.findall(r"[0-9a-f]{16,}", text):
        assert len(found) == 32
    assert {found for found in ids_of(rows) if any(row[shown[0]] == found for row in rows)} <= set(
        re.findall(r"[0-9a-f]{32}", text)
    )
    assert "…" not in text
    assert "\x1b" not in text


@pytest.mark.usefixtures("runs", "ledger")
def test_no_color_is_respected(home: Path, broker_url: str) -> None:
    for words in LISTS:
        done = on_terminal(*words, home=home, width=80, RMOS_BROKER_URL=broker_url, NO_COLOR="1")
        assert "\x1b[" not in done.stdout + done.stderr
    done = on_terminal("runs", "show", "nothing", home=home, width=80, NO_COLOR="1")
    assert "\x1b[" not in done.stdout + done.stderr


@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_a_list_says_when_there_is_more_and_how_to_get_it(
    home: Path, runs: list[RunArtifact], json_: list[str]
) -> None:
    broker = {"RMOS_BROKER_URL": NO_BROKER}
    whole = piped("runs", "list", "--limit", "5", *json_, home=home, **broker)
    assert "more" not in whole.stderr
    pages: list[list[str]] = []
    way: list[str] = []
    while True:
        done = piped("runs", "list", "--limit", "2", *way, "--json", home=home, **broker)
        pages.append([row["run_id"] for row in json.loads(done.stdout)])
        told = re.search(
            r"^runs: there are more than these 2; for the rest: (--after \S+),", done.stderr, re.MULTILINE
        )
        if told is None:
            break
        way = told[1].split()
    assert pages == [[run.run_id for run in runs[first : first + 2]] for first in (0, 2, 4)]
    done = piped("runs", "list", "--after", runs[3].run_id, "--json", home=home, **broker)
    assert [row["run_id"] for row in json.loads(done.stdout)] == [runs[4].run_id]
    assert piped("runs", "list", "--after", new_uuid7(), home=home, **broker).returncode == 4
    assert piped("runs", "list", "--after", "../../etc/passwd", home=home, **broker).returncode == 4

    done = piped("reviews", "list", "--limit", "4", *json_, home=home, **broker)
    assert "waiting for a person: there are more than these 4; for the rest: raise --limit" in done.stderr
    done = piped("reviews", "list", "--limit", "5", *json_, home=home, **broker)
    assert "more" not in done.stderr


@pytest.mark.usefixtures("runs")
def test_the_review_list_names_damaged_files_and_ends_with_seven(home: Path, runs: list[RunArtifact]) -> None:
    link = next((home / "runs").glob(f"2*/{runs[2].run_id}_advisory_*.json"))
    link.write_bytes(link.read_bytes()[:-9])
    done = piped("reviews", "list", "--json", home=home, RMOS_BROKER_URL=NO_BROKER)
    assert done.returncode == 7
    assert link.name in done.stderr
    # The others are listed all the same.
    assert len(json.loads(done.stdout)) == 4


def test_an_approval_says_that_it_is_of_the_explanation(home: Path, runs: list[RunArtifact]) -> None:
    run_id, advisory_id = runs[0].run_id, make_link(runs[0]).advisory_id
    before = {path: path.read_bytes() for path in (home / "runs").glob("2*/*")}
    broker = {"RMOS_BROKER_URL": NO_BROKER}
    verdict = [f"run {run_id}: BLOCKED, risk RED, score 12", "  because: the pocket is too deep"]

    shown = piped("runs", "show", run_id, home=home, **broker).stdout.splitlines()
    assert shown[:3] == [*verdict, "explanation: waits for a person (its words, not the cut)"]

    anna = f"{current_identity('anna')}"
    done = piped("reviews", "approve", run_id, advisory_id, "--as", "anna", home=home, **broker)
    assert done.stdout.splitlines() == [
        f"approved by {anna}: advisory {advisory_id}",
        "The run itself stays as the server judged it:",
        *verdict,
    ]
    shown = piped("runs", "show", run_id, home=home, **broker).stdout.splitlines()
    assert shown[:3] == [*verdict, f"explanation: approved by {anna} (its words, not the cut)"]

    told = json.loads(piped("runs", "show", run_id, "--json", home=home, **broker).stdout)
    assert list(told)[:4] == ["schema_version", "run_id", "status", "decision"]
    args = ("reviews", "reject", run_id, advisory_id, "--as", "berta", "--json")
    told = json.loads(piped(*args, home=home, **broker).stdout)
    assert (told["approved"], told["judged"]) == (False, "advisory")
    assert told["run_verdict"] == {
        "status": "BLOCKED",
        "risk_level": "RED",
        "block_reason": "the pocket is too deep",
    }
    assert {path: path.read_bytes() for path in before} == before


# -- many runs ------------------------------------------------------------------------------------

_MANY = 20_000


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of so many runs that all of them at once would not go unnoticed."""
    home = tmp_path_factory.mktemp("crowded")
    made = make_run(0)
    Home(home).init_store()
    text = made.to_bytes().decode()
    for number in range(_MANY):
        at = AT - timedelta(minutes=number)
        folder = home / "runs" / at.date().isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        run_id = new_uuid7(at)
        data = text.replace(made.run_id, run_id).replace("2026-08-01T06:00:00Z", f"{at:%Y-%m-%dT%H:%M:%SZ}")
        (folder / f"{run_id}.json").write_text(data)
    return home


def peak_kilobytes(home: Path, limit: int, *options: str) -> tuple[int, int]:
    """Return the most memory that a list needed, and how many rows it printed."""
    program = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, len(done.stdout.splitlines()),"
        " done.stdout.count(b'BLOCKED'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *RMOS, "runs", "list", "--limit", str(limit), *options],
        env=environment(RMOS_HOME=str(home), RMOS_BROKER_URL=NO_BROKER),
        capture_output=True,
        text=True,
        check=True,
        timeout=170,
    )
    most, _, rows = map(int, done.stdout.split())
    return most, rows


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_a_long_list_needs_no_more_memory_than_a_short_one(crowded: Path, options: list[str]) -> None:
    few, few_rows = peak_kilobytes(crowded, 50, *options)
    many, many_rows = peak_kilobytes(crowded, 100_000, *options)
    assert (few_rows, many_rows) == (50, _MANY)
    # All of them at once took some 13 KB each.
    assert many - few < 30_000, (few, many)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_the_first_rows_are_there_before_the_last_is_read(crowded: Path, options: list[str]) -> None:
    process = spawn.Popen[bytes](
        [*RMOS, "runs", "list", "--limit", "100000", *options],
        env=environment(RMOS_HOME=str(crowded), RMOS_BROKER_URL=NO_BROKER),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert select.select([process.stdout], [], [], 60)[0]
    first = process.stdout.read(4_096)  # some rows; the first line alone may come by itself
    # A pipe holds 64 KB, so it cannot be through: it waits for us, and notices that we go.
    assert b"BLOCKED" in first
    assert process.poll() is None
    process.stdout.close()
    assert process.stderr
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in {1, 141}
    assert b"Traceback" not in said
    assert b"Exception" not in said


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
def test_each_row_is_printed_before_the_next_is_read(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    """The memory test above would not notice rows that are gathered: they are small beside their files."""
    printed: list[str] = []

    def rows() -> Iterator[Row]:
        for number in range(200):
            printed.append(capsys.readouterr().out)
            yield {"number": number}

    print_rows(rows(), as_json=as_json, title="numbers")
    assert "198" in printed[-1]


def test_what_is_listed_in_json_is_a_list_whatever_stops_it(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[Row]:
        yield from ({"run_id": number} for number in range(3))
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        print_rows(rows(), as_json=True, title="runs")
    print_rows([], as_json=True, title="runs")
    listed, none = map(json.loads, capsys.readouterr().out.splitlines())
    assert listed == [{"run_id": number} for number in range(3)]
    assert none == []
