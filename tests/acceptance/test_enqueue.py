"""``rmos enqueue``: every line accounted for, whatever ends it, and no line in twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from rmos_shared.ids import UUID7, uuid7_time
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.store.local import LocalStore
from support import spawn
from support.command import RMOS, environment, piped
from support.embedded_server import EmbeddedServer

OVERSIZE = 9 << 20


def request(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": f"r{number}", "mode": "saw", "tool_id": "saw:veneer_160", **more}


def write(file: Path, requests: list[dict[str, Any]], *, changed: float = 1_785_564_000.25) -> Path:
    """Write the requests, last changed in 2026."""
    file.write_text("".join(json.dumps(request) + "\n" for request in requests))
    os.utime(file, (changed, changed))
    return file


@pytest.fixture
def enqueue(tmp_path: Path, broker_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        settings = {"RMOS_BROKER_URL": broker_url, **options}
        return piped("enqueue", *map(str, words), home=tmp_path / "home", **settings)

    return run


Enqueue = Callable[..., subprocess.CompletedProcess[str]]


def receipts(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def counts(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = re.findall(r"^\d+ jobs accepted.*$", done.stderr, re.MULTILINE)
    return str(line)


# -- lines that are too large ---------------------------------------------------------------------


def test_a_line_too_large_is_told_by_its_number_and_the_rest_goes_in(
    tmp_path: Path, enqueue: Enqueue, ledger: JobLedger
) -> None:
    requests = [request(number) for number in range(350)]
    requests[249]["meta"] = {"notes": "x" * OVERSIZE}
    done = enqueue(write(tmp_path / "f", requests), "--json")
    assert done.returncode == 3
    assert re.search(r"^line 250: .*RMOS_MAX_PAYLOAD_BYTES allows 8388608$", done.stderr, re.MULTILINE)
    assert counts(done) == "349 jobs accepted, 1 lines refused"
    assert [told["line"] for told in receipts(done)] == [n for n in range(1, 351) if n != 250]
    assert ledger.stats().accepted == 349


def test_a_giant_line_is_passed_by_in_little_memory(
    tmp_path: Path, broker_url: str, ledger: JobLedger
) -> None:
    file = tmp_path / "f"
    with file.open("w") as out:
        out.write(json.dumps(request(1)) + "\n{")
        for _ in range(600):
            out.write(" " * 1_000_000)
        out.write("}\n" + json.dumps(request(2)))
    # The interpreter, redis and pydantic need some 300 MB of addresses; the line has 600 MB.
    program = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (500 << 20,) * 2)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *RMOS, "enqueue", str(file)],
        env=environment(RMOS_HOME=str(tmp_path), RMOS_BROKER_URL=broker_url),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert "line 2: invalid request: line: is longer than" in done.stderr
    assert counts(done) == "2 jobs accepted, 1 lines refused"
    assert ledger.stats().accepted == 2


@pytest.mark.parametrize("letter", ["é", "字", "\U0001f3b8"], ids=ascii)
def test_what_fits_is_taken_however_it_is_escaped(enqueue: Enqueue, letter: str) -> None:
    pad = letter * (1_000_000 // len(letter.encode()))
    line = json.dumps(request(1, meta={"notes": pad}))
    assert len(line) > 1.9 * len(pad.encode())
    done = enqueue("-", stdin=line, RMOS_MAX_PAYLOAD_BYTES="1000500")
    assert counts(done) == "1 jobs accepted, 0 lines refused"


def test_large_payloads_do_not_go_in_one_command(
    tmp_path: Path, enqueue: Enqueue, redis_client: redis.Redis
) -> None:
    redis_client.config_resetstat()
    requests = [request(number, meta={"notes": "x" * 7_000_000}) for number in range(9)]
    assert counts(enqueue(write(tmp_path / "f", requests))) == "9 jobs accepted, 0 lines refused"
    calls = redis_client.info("commandstats")
    assert sum(calls[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in calls) >= 3


# -- the same file again --------------------------------------------------------------------------


def test_the_same_file_again_makes_no_second_run(tmp_path: Path, enqueue: Enqueue, ledger: JobLedger) -> None:
    # Two lines are equal: two attempts, so two runs. One has a time of its own, one an id.
    own = "019fbbe86f007abc8def0123456789ab"
    requests = [request(1), request(2), request(2), request(3, created_at_utc="2025-02-03T04:05:06.789Z")]
    requests.append(request(4, run_id=own))
    file = write(tmp_path / "f", requests)
    first = enqueue(file, "--json")
    assert counts(first) == "5 jobs accepted, 0 lines refused"
    told = receipts(first)
    assert all(UUID7.fullmatch(one["run_id"]) and UUID7.fullmatch(one["job_id"]) for one in told)
    assert len({one["run_id"] for one in told}) == len({one["job_id"] for one in told}) == 5
    at = datetime(2026, 8, 1, 6, 0, 0, 250_000, tzinfo=UTC)
    own_time = datetime(2025, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    assert [uuid7_time(one["run_id"]) for one in told[:4]] == [at, at, at, own_time]
    assert told[4]["run_id"] == own

    for again in (enqueue(file, "--json"), enqueue(file, "--json", "--bulk", "1")):
        assert again.returncode == 0
        assert counts(again) == "0 jobs accepted, 5 accepted before, 0 lines refused"
        assert receipts(again) == [{**one, "repeat": True} for one in told]
    assert ledger.stats().accepted == 5


def test_explaining_what_is_in_already_makes_jobs_of_their_own_for_the_same_runs(
    tmp_path: Path, enqueue: Enqueue, ledger: JobLedger
) -> None:
    file = write(tmp_path / "f", [request(number) for number in range(3)])
    plain = receipts(enqueue(file, "--json"))
    explained, again = (receipts(enqueue(file, "--json", "--explain")) for _ in range(2))
    assert [one["run_id"] for one in explained] == [one["run_id"] for one in plain]
    assert not {one["job_id"] for one in explained} & {one["job_id"] for one in plain}
    assert [one["explain_job_id"] for one in again] == [f"{one['job_id']}.explain" for one in explained]
    assert [one["repeat"] for one in explained + again] == [False] * 3 + [True] * 3
    assert ledger.stats().accepted == 6


def test_a_repaired_or_moved_file_goes_on_with_the_ids_it_had(
    tmp_path: Path, enqueue: Enqueue, ledger: JobLedger
) -> None:
    requests = [request(number) for number in range(6)]
    requests[2]["mode"] = ""
    first = enqueue(write(tmp_path / "f", requests))
    (way,) = re.findall(r"with the same options (--ids-from \S+):", first.stderr)
    requests[2]["mode"] = "saw"
    repaired = write(tmp_path / "g", [*requests, request(7)], changed=time.time())
    assert counts(enqueue(repaired, *way.split())) == "2 jobs accepted, 5 accepted before, 0 lines refused"
    # The line may as well be left out, the file split, or come through a pipe.
    rest = write(tmp_path / "h", requests[3:], changed=5.0)
    assert counts(enqueue(rest, *way.split())) == "0 jobs accepted, 3 accepted before, 0 lines refused"
    done = enqueue("-", "--ids-from", tmp_path / "f", stdin=rest.read_bytes())
    assert counts(done) == "0 jobs accepted, 3 accepted before, 0 lines refused"
    assert ledger.stats().accepted == 7


def test_through_a_pipe_ids_stay_only_if_their_time_is_told(enqueue: Enqueue, ledger: JobLedger) -> None:
    lines = json.dumps(request(1)) + "\n" + json.dumps(request(2, created_at_utc="2025-02-03T04:05:06Z"))
    first, again = (enqueue("-", stdin=lines) for _ in range(2))
    assert "1 runs got ids of their own" in first.stderr
    assert counts(again) == "1 jobs accepted, 1 accepted before, 0 lines refused"
    told = [enqueue("-", "--ids-from", "2026-08-01T06:00:00+02:00", stdin=lines) for _ in range(2)]
    assert counts(told[0]) == "1 jobs accepted, 1 accepted before, 0 lines refused"
    assert counts(told[1]) == "0 jobs accepted, 2 accepted before, 0 lines refused"
    assert "ids of their own" not in told[0].stderr
    assert ledger.stats().accepted == 4
    assert enqueue("-", "--ids-from", "yesterday", stdin=lines).returncode == 2
    assert enqueue("-", "--ids-from", "2026-08-01T06:00:00", stdin=lines).returncode == 2


def test_a_job_id_that_is_taken_is_told_by_its_line(
    tmp_path: Path, enqueue: Enqueue, broker_url: str
) -> None:
    file = write(tmp_path / "f", [request(number) for number in range(3)])
    told = receipts(enqueue(file, "--json"))
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
    ledger = JobLedger.connect(BrokerSettings.load(broker_url=broker_url))
    job = told[1]
    ledger.accept([Job(job["job_id"], "runs.create_many", job["run_id"], None, '{"run":{"mode":"other"}}')])
    done = enqueue(file, "--json")
    ledger.close()
    assert done.returncode == 5
    assert f"line 2: job {job['job_id']} was already accepted with a different payload" in done.stderr
    assert counts(done) == "2 jobs accepted, 1 lines refused"
    assert [one["line"] for one in receipts(done)] == [1, 3]


# -- whatever ends it -----------------------------------------------------------------------------


def start(*words: str, home: Path, url: str) -> subprocess.Popen[str]:
    return spawn.Popen(
        [*RMOS, "enqueue", *words],
        env=environment(RMOS_HOME=str(home), RMOS_BROKER_URL=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_half_way_and_repeated_there_are_as_many_runs_as_lines(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    enqueue: Enqueue,
    ledger: JobLedger,
    broker_url: str,
    start_worker: Callable[..., Any],
    runs_dir: Path,
    eventually: Callable[..., None],
) -> None:
    file = write(tmp_path / "f", [request(number) for number in range(2_000)])
    for _ in range(3):
        process = start(str(file), "--bulk", "1", home=tmp_path, url=broker_url)
        before = ledger.stats().accepted
        eventually(lambda before=before: ledger.stats().accepted > before + 200)
        process.kill()
        process.communicate()
    half = ledger.stats().accepted
    assert 600 < half < 2_000
    done = enqueue(file)
    assert counts(done) == f"{2_000 - half} jobs accepted, {half} accepted before, 0 lines refused"
    start_worker()
    eventually(lambda: ledger.stats().pending == 0, 120)
    stats = ledger.stats()
    # So many records are worth a job that seals the log.
    assert (stats.accepted - stats.done, stats.dead) == (0, 0)
    assert stats.done - 2_000 in {0, 1, 2}
    stored = [key for key in LocalStore(runs_dir).list("") if key.startswith("2")]
    assert len(stored) == 2_000


def test_interrupted_it_says_how_far_it_came(tmp_path: Path, broker_url: str, ledger: JobLedger) -> None:
    process = start("-", "--bulk", "2", "--ids-from", "2026-08-01T06:00:00Z", home=tmp_path, url=broker_url)
    assert process.stdin
    # Three steps' worth: two are in, and one more line is read and waits for a second.
    for number in range(5):
        process.stdin.write(json.dumps(request(number)) + "\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while ledger.stats().accepted < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode in {1, 130}
    assert "Traceback" not in said
    ((accepted, last),) = re.findall(
        r"^(\d) jobs accepted, 0 lines refused, stopped; the last line known to be in is (\d)$",
        said,
        re.MULTILINE,
    )
    assert (accepted, last) == ("2", "2")
    # The second step's answer is not read before the third is: so it is told as unsure.
    assert re.search("^lines 3 to [45] may be accepted or not$", said, re.MULTILINE)
    assert "--ids-from 2026-08-01T06:00:00Z: accepted lines are recognised" in said


def test_a_broker_that_goes_away_half_way_leaves_counts_and_a_way_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    requests = [request(number) for number in range(10)]
    with EmbeddedServer(tmp_path / "server") as server:
        process = start(
            "-", "--bulk", "2", "--json", "--ids-from", "1970-01-02T00:00:00Z", home=home, url=server.url
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write("".join(json.dumps(one) + "\n" for one in requests[:4]))
        process.stdin.flush()
        ledger = JobLedger.connect(BrokerSettings.load(broker_url=server.url))
        deadline = time.monotonic() + 30
        while ledger.stats().accepted < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.kill()
        process.stdin.write("".join(json.dumps(one) + "\n" for one in requests[4:]))
        out, said = process.communicate(timeout=60)
        assert process.returncode == 6
        assert "BROKER_UNAVAILABLE" in said
        assert "Traceback" not in said
        assert re.search(r"^\d jobs accepted, 0 lines refused, stopped", said, re.MULTILINE)
        assert re.search(r"^lines \d to \d may be accepted or not$", said, re.MULTILINE)
        known = {json.loads(line)["job_id"] for line in out.splitlines()}

        server.start()
        done = piped(
            *("enqueue", "-", "--bulk", "2", "--json", "--ids-from", "1970-01-02T00:00:00Z"),
            home=home,
            stdin="".join(json.dumps(one) + "\n" for one in requests),
            RMOS_BROKER_URL=server.url,
        )
        assert done.returncode == 0, done.stderr
        assert known <= {one["job_id"] for one in receipts(done)}
        assert ledger.stats().accepted == 10
        ledger.close()
