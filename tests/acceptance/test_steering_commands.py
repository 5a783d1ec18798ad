"""What an operator does to jobs and letters: numbers are confirmed, acts are recorded."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rmos_runs.operations.identity import current_identity
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobState
from rmos_shared.jobs.work import Lease
from rmos_shared.tasks.table import CREATE, CREATE_MANY, SUGGEST
from support.command import RMOS, environment
from support.in_process import Rmos, in_process

LEASE = Lease("w", "1")
TRACE = '  File "/srv/rmos_worker/handlers/create.py", line 33, in _store\n    x\n'
SECRET = '{"secret":"payload-31415"}'


@pytest.fixture
def rmos(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Rmos:
    """Run a command in this process, as its entry point does: no terminal, nobody to ask."""
    monkeypatch.setenv("RMOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RMOS_BROKER_URL", broker_url)

    return in_process(monkeypatch, capsys)


def accept(ledger: JobLedger, amount: int, task: str = CREATE.name) -> list[str]:
    ids = [new_uuid7() for _ in range(amount)]
    ledger.accept([Job(job_id, task, f"run-{job_id}", "request", SECRET) for job_id in ids])
    return ids


def bury(ledger: JobLedger, *ids: str, reason: str = "conflict") -> None:
    failure = Failure(reason=reason, error_type="ArtifactConflict", message="=taken", traceback=TRACE)
    for job_id in ids:
        ledger.work.claim([job_id], LEASE, lease_seconds=60)
        assert ledger.work.bury(job_id, LEASE, failure=failure) == "dead"


def test_nobody_acts_on_more_or_fewer_than_they_saw(rmos: Rmos, ledger: JobLedger, tmp_path: Path) -> None:
    ids, others = accept(ledger, 4), accept(ledger, 2, CREATE_MANY.name)
    words = ("jobs", "cancel", "--queue", CREATE.queue, "--why", "sent twice")

    dry = rmos(*words, "--dry-run", "--json").json
    assert (dry["count"], dry["act_id"], len(dry["sample"]), dry["dry_run"]) == (4, None, 4, True)
    shown = rmos(*words, "--dry-run")
    assert "would be cancelled: 4" in shown.err
    assert ids[0] in shown.out
    asked = rmos(*words)
    assert (asked.code, "--yes-number 4" in " ".join(asked.err.split())) == (2, True)
    for wrong in ("3", "5"):
        refused = rmos(*words, "--yes-number", wrong)
        assert (refused.code, "NUMBER_DIFFERS" in refused.err) == (5, True)
    assert ledger.stats().discarded == 0
    assert list(ledger.acts.newest_first()) == []

    # A file of runs narrows the choice; what is not waiting or accepted is left out of it.
    named = tmp_path / "runs.txt"
    named.write_text(f"run-{ids[0]}\n\nrun-{ids[1]}\nrun-{others[0]}\nno-such-run\n")
    ledger.work.claim([ids[1]], LEASE, lease_seconds=60)
    some = rmos(
        "jobs", "cancel", "--run-id-file", str(named), "--why", "x", "--yes-number", "2", "--json"
    ).json
    assert (some["count"], some["found"], some["outcome"]) == (2, 2, "complete")
    assert {ledger.get(one).state for one in (ids[0], others[0])} == {JobState.DISCARDED}

    running = rmos("jobs", "cancel", ids[1], "--why", "x")
    assert (running.code, "is running, and is not killed" in running.err) == (5, True)
    assert rmos("jobs", "cancel", ids[2], "--task", "x", "--why", "x").code == 2
    assert rmos("jobs", "cancel", "--why", "x").code == 2
    assert rmos("jobs", "cancel", ids[2]).code == 2, "without a reason"
    assert ledger.stats().invariant


def test_every_act_is_recorded_with_who_when_why_and_how_many(rmos: Rmos, ledger: JobLedger) -> None:
    ids = accept(ledger, 3)
    failure = Failure(reason="store_unavailable", error_type="X", message="x")
    ledger.work.claim([ids[0]], LEASE, lease_seconds=60)
    ledger.work.reschedule(ids[0], LEASE, delay_seconds=500, spends_retry=True, failure=failure)

    now = ("jobs", "run-now", "--reason", "store_unavailable")
    ran = rmos(*now, "--yes-number", "1", "--as", "Ana", "--why", "back", "--json").json
    assert ledger.get(ids[0]).due_at_utc
    cancelled = rmos("jobs", "cancel", "--all", "--yes-number", "3", "--why", "twice", "--json").json
    listed = rmos("acts", "list", "--json").json
    assert [act["act_id"] for act in listed] == [cancelled["act_id"], ran["act_id"]]
    shown = rmos("acts", "show", ran["act_id"], "--json").json
    assert (shown["kind"], shown["why"], shown["found"], shown["done"]) == ("run_now", "back", 1, 1)
    assert shown["by"] == f"{current_identity()} (as Ana)"
    assert shown["about"] == {"states": ["waiting"], "reason": "store_unavailable"}
    assert shown["outcome"] == "complete"
    assert ledger.get(ids[0]).history[-2]["by"] == shown["by"]
    assert rmos("acts", "show", "nothing").code == 4


def test_pauses_are_seen_wherever_one_would_wonder(rmos: Rmos, ledger: JobLedger) -> None:
    (job_id,) = accept(ledger, 1)
    paused = rmos("pause", "queue", CREATE.queue, "--why", "the disk moves", "--json").json
    assert (paused["subject"], paused["why"]) == (f"queue:{CREATE.queue}", "the disk moves")
    assert "paused already: queue runs.create" in rmos("pause", "queue", CREATE.queue, "--why", "me too").err
    assert rmos("pause", "schedule", "--why", "x").code == 0
    assert rmos("pause", "task", SUGGEST.name, "--why", "x").code == 0

    assert [row["subject"] for row in rmos("pauses", "--json").json] == [
        f"queue:{CREATE.queue}",
        "schedule",
        f"task:{SUGGEST.name}",
    ]
    assert "the disk moves" in rmos("jobs", "list").err
    shown = rmos("jobs", "show", job_id).err
    assert "the disk moves" in shown
    assert "schedule" not in shown, "only what holds this job back"
    checks = json.loads(rmos("doctor", "--json").out)
    found = [check for check in checks if check["check"] == "paused"]
    assert [check["state"] for check in found] == ["warning"] * 3
    assert f"rmos resume queue {CREATE.queue}" in {check["repair"] for check in found}

    for words in (("queue", CREATE.queue), ("schedule",), ("task", SUGGEST.name)):
        assert rmos("resume", *words).code == 0
    assert "was not paused" in rmos("resume", "schedule").err
    assert rmos("pauses", "--json").json == []
    assert [act["kind"] for act in rmos("acts", "list", "--json").json].count("resume") == 4
    assert rmos("pause", "queue", "runs.nope", "--why", "x").code == 3
    assert rmos("pause", "queue", "--why", "x").code == 2
    assert rmos("pause", "schedule", "nightly", "--why", "x").code == 2


def test_letters_are_grouped_and_exported_without_payloads_unless_asked(
    rmos: Rmos, ledger: JobLedger, tmp_path: Path
) -> None:
    bury(ledger, *accept(ledger, 3))
    bury(ledger, *accept(ledger, 1), reason="unexpected_error")
    ledger._client.lpush(CREATE.queue, b"\xff" + SECRET.encode())
    assert ledger.queues.take(CREATE.queue)

    largest, *rest = rmos("dlq", "groups", "--json").json
    assert (largest["count"], largest["reason"], largest["error_type"], largest["kind"]) == (
        *(3, "conflict", "ArtifactConflict"),
        CREATE.name,
    )
    assert largest["place"] == "rmos_worker/handlers/create.py:33 in _store"
    assert rmos("dlq", "show", largest["example"]).code == 0
    assert sorted(group["count"] for group in rest) == [1, 1]

    plain, private, table = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.csv"))
    assert rmos("dlq", "export", str(plain), "--json").json["letters"] == 5
    assert "31415" not in plain.read_text()
    assert len(plain.read_text().splitlines()) == 5
    taken = rmos("dlq", "export", str(plain))
    assert (taken.code, "name another file" in taken.err, "--force" in taken.err) == (5, True, False)

    rmos("dlq", "export", str(private), "--payloads", "--task", CREATE.name)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    letters = [json.loads(line) for line in private.read_text().splitlines()]
    assert [letter["payload"] for letter in letters] == [SECRET] * 4
    assert letters[0]["history"][0]["what"] == "died"

    rmos("dlq", "export", str(table), "--format", "csv", "--payloads")
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["message"] for row in rows[:4]] == ["'=taken"] * 4, "no formula"
    assert (rows[4]["payload"], bool(rows[4]["payload_base64"])) == ("", True)
    piped = rmos("dlq", "export", "-", "--reason", "unexpected_error").out
    assert json.loads(piped)["reason"] == "unexpected_error"
    assert list(tmp_path.glob(".*")) == [], "no draft is left"


# With a person, or a kill, in between


@pytest.fixture
def letters(broker_url: str, ledger: JobLedger) -> Iterator[list[str]]:
    del broker_url
    ids = accept(ledger, 60)
    bury(ledger, *ids)
    yield ids
    stats = ledger.stats()
    assert (stats.dead + stats.ready, stats.invariant) == (60, True)


def on_a_terminal(words: tuple[str, ...], typed: str, **changes: str) -> tuple[int, str]:
    """Run it with a person at a terminal, who types once they are asked."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*RMOS, *words], env=environment(**changes), stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown, asked = b"", False
    with suppress(OSError):  # Linux answers EIO once the other side is closed
        while data := os.read(master, 65_536):
            shown += data
            if not asked and b"Type their number" in shown:
                asked = True
                os.write(master, f"{typed}\n".encode())
    os.close(master)
    return process.wait(timeout=30), shown.decode()


def test_a_person_types_the_number_that_they_saw(
    letters: list[str], ledger: JobLedger, broker_url: str, tmp_path: Path
) -> None:
    words = ("dlq", "replay", "--reason", "conflict", "--home", str(tmp_path))
    code, shown = on_a_terminal(words, "60", RMOS_BROKER_URL=broker_url)
    assert (code, ledger.stats().dead) == (0, 0), shown
    assert "60 dead letters will be replayed. Type their number to go on" in shown
    assert "replayed: 60 (act " in shown
    assert {ledger.get(one).history[-1]["what"] for one in letters} == {"replayed"}


def test_a_paced_replay_that_is_stopped_or_killed_says_how_far_it_got(
    rmos: Rmos, letters: list[str], ledger: JobLedger, broker_url: str, tmp_path: Path
) -> None:
    def replay(found: int, rate: str) -> subprocess.Popen[bytes]:
        words = (
            "dlq",
            "replay",
            "--all",
            "--yes-number",
            str(found),
            "--rate",
            rate,
            "--home",
            str(tmp_path),
        )
        told = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([*RMOS, *words], env=environment(RMOS_BROKER_URL=broker_url), **told)  # type: ignore[call-overload, no-any-return]

    def begun(process: subprocess.Popen[bytes], before: int) -> None:
        while ledger.stats().dead == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)

    stopped = replay(len(letters), "20")
    begun(stopped, 60)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=30)
    left = ledger.stats().dead
    assert 0 < left < 60
    assert stopped.returncode == 130
    assert f"replayed: {60 - left} of 60" in said.decode()
    assert "the same command does the rest" in said.decode()

    killed = replay(left, "20")
    begun(killed, left)
    killed.kill()
    killed.communicate(timeout=30)
    rest = ledger.stats().dead
    assert 0 < rest < left

    began = time.monotonic()
    assert rmos("dlq", "replay", "--all", "--yes-number", str(rest), "--rate", "40").code == 0
    assert time.monotonic() - began > (rest - 20) / 40, "no faster than asked"
    acts = [act for act in ledger.acts.newest_first() if act.kind == ActKind.REPLAY]
    assert [(act.outcome, act.done, act.found) for act in acts] == [
        ("complete", rest, rest),
        (None, left - rest, left),
        ("stopped", 60 - left, 60),
    ]
