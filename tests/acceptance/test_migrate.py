"""``rmos migrate`` on sources of some hundred records each, as an operator would run it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.verification import StoreVerification
from rmos_shared.store.local import LocalStore
from support import spawn
from support.command import RMOS, environment, piped
from support.old_records import (
    FINE,
    INCOMPLETE,
    UNREADABLE,
    draft_run,
    dumped,
    every_oddity,
    old_link,
    old_link_v1,
    old_run,
    put,
    put_link,
    run_id_of,
    state_of,
    write_file,
    write_flat,
    write_partitioned,
)

#: More than two groups that are written together.
COUNT = 220
#: Numbers of spoilt runs, far from those of the whole ones.
ODD = 5_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.init_store()
    return place


def migrate(home: Home, what: str, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return piped("migrate", what, str(source), *options, home=home.root)


def entries(
    home: Home, what: str, source: Path, *options: str
) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Return the exit code, what is said of each record, and the figures."""
    done = migrate(home, what, source, "--json", *options)
    *lines, last = map(json.loads, done.stdout.splitlines())
    return done.returncode, lines, last["summary"]


def stored(home: Home) -> dict[str, bytes]:
    """Return every file of the store."""
    store = LocalStore(home.runs_dir)
    return {key: store.get(key) or b"" for key in store.list("")}


def damage(home: Home) -> list[str]:
    """Return what ``rmos runs verify --all`` would name."""
    verification = StoreVerification(LocalStore(home.runs_dir))
    parts = [*map(verification.day, verification.days()), verification.elsewhere()]
    return [f"{item.key}: {item.damage}" for part in parts for item in part if item.damage]


def spoilt_partitioned(root: Path, count: int = COUNT) -> None:
    write_partitioned(root, count)
    for _, number, data in every_oddity(ODD):
        put(root / "2026-02-01" / f"{run_id_of(number)}.json", data)
    put_link(root, old_run(1), old_link_v1(run_id_of(1), "second"), prefix="run_")
    put_link(root, old_run(2), old_link("judged", approved_for_workflow=True, reviewed_by="ana"))


def spoilt_flat(root: Path, count: int = COUNT) -> None:
    write_flat(root, count)
    for _, number, data in every_oddity(ODD):
        (root / f"{run_id_of(number)}.json").write_bytes(data)
    for number in range(ODD + 100, ODD + 120):
        run = draft_run(number, hashes={}, decision={})
        (root / f"{run['run_id']}.json").write_bytes(dumped(run))


def spoilt_file(path: Path) -> None:
    write_file(path, COUNT)
    whole = path.read_bytes().removesuffix(b"\n}")
    for name, number, data in every_oddity(ODD):
        # These cannot stand inside a document: it ends with them, or there is nothing.
        if name not in {"empty", "cut", "nested without end", "byte order mark"}:
            whole += b",\n" + json.dumps(run_id_of(number)).encode() + b": " + data
    path.write_bytes(whole + b"}")


SPOILT: dict[str, Callable[[Path], None]] = {
    "partitioned": spoilt_partitioned,
    "flat": spoilt_flat,
    "file": spoilt_file,
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_source_with_every_oddity_is_planned_migrated_and_verified(
    home: Home, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "old"
    SPOILT[kind](source)
    before = state_of(source)
    bad = {run_id_of(n) for name, n, _ in every_oddity(ODD) if name in UNREADABLE}
    incomplete = len(INCOMPLETE) + (20 if kind == "flat" else 0)
    unreadable = len(UNREADABLE) - (3 if kind == "file" else 0)
    runs = COUNT + incomplete + len(FINE) - (1 if kind == "file" else 0)

    code, planned, summary = entries(home, "plan", source)
    assert (code, summary["source_kind"]) == (7, kind)
    assert summary["runs"] == {"new": runs, "unreadable": unreadable}
    assert (summary["blocked"], summary["faults"]) == (incomplete, unreadable)
    assert [key for key in stored(home) if not key.startswith("_")] == [], "a plan writes nothing"

    code, done, summary = entries(home, "run", source)
    assert (code, summary["runs"]) == (7, {"created": runs, "unreadable": unreadable})
    # Runs of a group come before its links.
    told = Counter(json.dumps(entry | {"outcome": "x"}) for entry in done)
    assert told == Counter(json.dumps(entry | {"outcome": "x"}) for entry in planned)
    assert {
        name for entry in done if entry["outcome"] == "unreadable" for name in bad if name in entry["place"]
    }
    assert all(entry["reason"] for entry in done if entry["outcome"] == "unreadable")

    files = stored(home)
    assert piped("runs", "verify", "--all", home=home.root).returncode == 0
    code, again, summary = entries(home, "run", source)
    assert (code, summary["runs"]) == (7, {"already_same": runs, "unreadable": unreadable})
    assert {entry["outcome"] for entry in again} == {"already_same", "unreadable"}
    assert stored(home) == files, "a repeat changes nothing"

    code, compared, summary = entries(home, "verify", source)
    assert (code, summary["faults"]) == (7, unreadable)
    assert {entry["outcome"] for entry in compared} == {"already_same", "unreadable"}
    assert state_of(source) == before, "the source is never touched"

    reader = RunReader(LocalStore(home.runs_dir))
    read = [reader.read(entry["run_id"]) for entry in done if entry["kind"] == "run" and entry["run_id"]]
    assert Counter(run.status.value == "BLOCKED" for run in read) == {
        True: incomplete,
        False: runs - incomplete,
    }
    assert all("legacy" in run.meta for run in read)


def test_advisories_come_with_their_verdicts(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    spoilt_partitioned(source, 10)
    write_flat(tmp_path / "draft", 3)
    assert migrate(home, "run", source).returncode == 7
    assert migrate(home, "run", tmp_path / "draft").returncode == 0
    reader = RunReader(LocalStore(home.runs_dir))

    explained = reader.read(run_id_of(0))
    assert explained.explanation_status.value == "READY"
    assert [(item.link.engine_id, item.needs_review) for item in explained.advisory_inputs] == [
        ("explainer", True)
    ]
    (second,) = reader.read(run_id_of(1)).advisory_inputs
    assert (second.link.advisory_id, second.link.kind, second.link.advisory_sha256) == (
        "second",
        "advisory",
        "d" * 64,
    )
    (judged,) = reader.read(run_id_of(2)).advisory_inputs
    assert (judged.approved, judged.link.approved) == (True, False)
    assert judged.review is not None
    assert judged.review.reviewed_by == "ana"
    (green,) = reader.read(draft_run(1)["run_id"]).advisory_inputs
    assert (green.approved, green.link.reviewed_by) == (True, "system:auto_explanation_green")


@pytest.mark.parametrize(
    ("write", "kind"), [(write_partitioned, "partitioned"), (write_flat, "flat"), (write_file, "file")]
)
def test_a_whole_source_ends_with_nothing_to_say(
    home: Home, tmp_path: Path, write: Callable[[Path, int], None], kind: str
) -> None:
    source = tmp_path / "old"
    write(source, 230)
    counted = json.loads(migrate(home, "status", source, "--json").stdout)
    assert (counted["source_kind"], counted["source"]["runs"], counted["store"]["runs"]) == (kind, 230, 0)
    done = migrate(home, "run", source)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "runs: 230 created")
    assert "━" not in done.stderr, "no bar in a pipe"
    done = migrate(home, "verify", source)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "runs: 230 already_same")
    counted = json.loads(migrate(home, "status", source, "--json").stdout)
    assert (counted["store"]["runs"], counted["source_ids_in_store"]) == (230, 230)


def test_a_list_is_a_source_too(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "runs.json"
    write_file(source, 5, as_list=True)
    assert migrate(home, "run", source).returncode == 0
    assert migrate(home, "verify", source).returncode == 0
    assert json.loads(migrate(home, "status", source, "--json").stdout)["source_ids_in_store"] == 5


def test_plan_names_the_first_blocked_runs_and_every_fault(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    spoilt_partitioned(source, 10)
    done = migrate(home, "plan", source, "--show", "2")
    blocked = [line for line in done.stdout.splitlines() if ": BLOCKED: " in line]
    faults = [line for line in done.stdout.splitlines() if ": run unreadable: " in line]
    assert (len(blocked), len(faults), done.returncode) == (2, len(UNREADABLE), 7)
    assert f"{len(UNREADABLE)} records of the source are not in the store" in done.stderr
    assert f"{len(INCOMPLETE) - 2} BLOCKED runs are not named here" in done.stderr


# Stopped, and gone on with

#: Sends itself a signal when it is about to publish its so-manieth file.
_STOPPED = """
import os, sys
from rmos_shared.store import local
number, at, publish = int(sys.argv.pop(1)), int(sys.argv.pop(1)), local._link
def link(*place):
    global at
    at -= 1
    if at == 0: os.kill(os.getpid(), number)
    publish(*place)
local._link = link
from rmos_runs.cli import main
main()
"""


def stopped(home: Home, source: Path, number: signal.Signals, at: int) -> subprocess.CompletedProcess[str]:
    return spawn.run(
        [sys.executable, "-c", _STOPPED, str(number.value), str(at), "migrate", "run", str(source)],
        env=environment(RMOS_HOME=str(home.root)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_at_any_moment_it_goes_on(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 400)
    # At the first run, among runs, at the first link, among links, in a later group, at the last links.
    for at in (1, 60, 101, 110, 300, 470):
        assert stopped(home, source, signal.SIGKILL, at).returncode == -signal.SIGKILL
        assert damage(home) == []
    code, _, summary = entries(home, "verify", source)
    assert (code, summary["links"]["missing"]) == (7, 11)
    assert migrate(home, "run", source).returncode == 0
    code, _, summary = entries(home, "verify", source)
    assert (code, summary["runs"], summary["links"]) == (0, {"already_same": 400}, {"already_same": 80})
    assert damage(home) == []


def test_ctrl_c_says_how_far_it_came(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 300)
    done = stopped(home, source, signal.SIGINT, 150)
    assert done.returncode not in {0, -signal.SIGINT}
    assert "stopped after 100 runs; the same command goes on from there" in done.stderr
    assert "Traceback" not in done.stderr
    assert migrate(home, "run", source).returncode == 0
    assert migrate(home, "verify", source).returncode == 0


def test_a_limit_goes_on_where_the_last_one_ended(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_flat(source, 250)
    for told in ("runs: 120 created", "runs: 120 already_same, 120 created"):
        done = migrate(home, "run", source, "--limit", "120")
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, told)
    done = migrate(home, "run", source, "--limit", "120")
    assert done.stdout.splitlines()[0] == "runs: 240 already_same, 10 created"


# What is there already


def test_what_the_store_holds_otherwise_stays_and_is_named(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 30)
    assert migrate(home, "run", source).returncode == 0
    before = stored(home)
    write_partitioned(tmp_path / "other", 30, links=False)
    # The same id in the same partition, in another partition, and with another advisory of the same id.
    day = old_run(5)["created_at_utc"][:10]
    put(tmp_path / "other" / day / f"{run_id_of(5)}.json", dumped(old_run(5, tool_id="another")))
    run = old_run(6, created_at_utc="2026-03-01T00:00:00Z")
    (tmp_path / "other" / old_run(6)["created_at_utc"][:10] / f"{run_id_of(6)}.json").unlink()
    put(tmp_path / "other" / "2026-03-01" / f"{run_id_of(6)}.json", dumped(run))
    put_link(tmp_path / "other", run, old_link("adv"))
    put_link(tmp_path / "other", old_run(10), old_link("adv-10", engine_id="another"))
    for what in ("plan", "run", "verify"):
        code, said, summary = entries(home, what, tmp_path / "other")
        conflicts = {(entry["kind"], entry["run_id"]) for entry in said if entry["outcome"] == "conflict"}
        assert conflicts == {("run", run_id_of(5)), ("run", run_id_of(6)), ("link", run_id_of(10))}, what
        assert (code, summary["runs"]["conflict"], summary["links"]) == (7, 2, {"conflict": 1, "orphan": 1})
        assert stored(home) == before, what


def test_a_file_in_the_place_of_a_partition_costs_only_its_runs(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 40, links=False)
    day = old_run(0)["created_at_utc"][:10]
    (home.runs_dir / day).write_bytes(b"")
    there = sum(old_run(number)["created_at_utc"].startswith(day) for number in range(40))
    code, _, summary = entries(home, "run", source)
    assert (code, summary["runs"]) == (7, {"conflict": there, "created": 40 - there})


def test_a_link_that_comes_later_is_added(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 10, links=False)
    assert migrate(home, "run", source).returncode == 0
    put_link(source, old_run(3), old_link("late"))
    assert migrate(home, "run", source).stdout.splitlines() == ["runs: 10 already_same", "links: 1 created"]


def test_large_gcode_and_originals_lie_beside_the_runs(home: Home, tmp_path: Path) -> None:
    text = "G1 X1.5\n" * 30_000
    put(tmp_path / "old" / "big.json", dumped(old_run(1, outputs={"gcode_text": text}, hashes={})))
    data = INCOMPLETE["NaN in feasibility"][0](2)
    put(tmp_path / "old" / "odd.json", data)
    assert migrate(home, "run", tmp_path / "old").returncode == 0
    store = LocalStore(home.runs_dir)
    reader = RunReader(store)
    path = reader.read(run_id_of(1)).outputs.gcode_path
    assert path is not None
    assert store.get(path) == text.encode()
    assert store.get(reader.read(run_id_of(2)).meta["legacy"]["original"]) == data
    assert damage(home) == []
    for key in list(stored(home)):
        if key.startswith("_attachments/") and key.endswith(".json"):
            (home.runs_dir / key).unlink()
    code, _, summary = entries(home, "verify", tmp_path / "old")
    assert (code, summary["runs"]) == (7, {"missing": 1, "already_same": 1})


# Around it


_READ_ONLY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
source = os.fsencode(sys.argv[3])
user, group = os.getuid(), os.getgid()
steps = [lambda: libc.unshare(0x00020000 | 0x10000000)]
def ids():
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file: file.write(text)
    return 0
# Bound onto itself, then made read-only: MS_BIND, then MS_REMOUNT | MS_BIND | MS_RDONLY.
steps += [ids, lambda: libc.mount(source, source, None, 0x1000, None)]
steps += [lambda: libc.mount(None, source, None, 0x20 | 0x1000 | 0x1, None)]
for step in steps:
    if step() != 0: sys.exit(f"cannot: {os.strerror(ctypes.get_errno())}")
try: open(source + b"/x", "w")
except OSError: pass
else: sys.exit("cannot: it can be written")
from rmos_runs.cli import main
main()
"""


def test_a_read_only_source_is_enough(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 20)
    for what in ("status", "plan", "run", "verify"):
        done = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, "migrate", what, str(source)],
            env=environment(RMOS_HOME=str(home.root)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.stderr.startswith("cannot: "):
            pytest.skip(f"no mount namespace: {done.stderr}")
        assert done.returncode == 0, done.stderr


def test_a_terminal_shows_a_bar(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "old"
    write_flat(source, 300)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    process = spawn.Popen[bytes](
        [*RMOS, "migrate", "run", str(source)],
        env=environment(RMOS_HOME=str(home.root)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = bytearray()
    with suppress(OSError):  # Linux answers EIO once the last writer has closed its side
        while data := os.read(master, 65_536):
            shown += data
    os.close(master)
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed) == (0, b"runs: 300 created\nlinks: 75 created\n")
    assert "300 runs, 0 left out" in shown.decode()


def test_what_is_no_source_is_refused(home: Home, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", home.runs_dir, home.root):
        done = migrate(home, "run", path)
        assert (done.returncode, "SOURCE_INVALID" in done.stderr) == (3, True), path
    assert migrate(Home(tmp_path / "elsewhere"), "plan", tmp_path).returncode == 6, "no store is there"


def test_workers_may_be_live_on_the_store(
    tmp_path: Path,
    runs_dir: Path,
    start_worker: Callable[..., object],
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
) -> None:
    source = tmp_path / "old"
    write_partitioned(source, 300)
    start_worker()
    receipts: list[Any] = []
    pouring = threading.Thread(
        target=lambda: receipts.extend(runs_client.create_run(run) for run in sample_requests[:100])
    )
    pouring.start()
    done = piped("migrate", "run", str(source), home=tmp_path / "home", RMOS_RUNS_DIR=str(runs_dir))
    pouring.join()
    for receipt in receipts:
        assert runs_client.wait(receipt, timeout=60).state == "done"
    assert (done.returncode, len(receipts)) == (0, 100), done.stderr
    done = piped("migrate", "verify", str(source), home=tmp_path / "home", RMOS_RUNS_DIR=str(runs_dir))
    assert done.returncode == 0
    done = piped("runs", "verify", "--all", home=tmp_path / "home", RMOS_RUNS_DIR=str(runs_dir))
    assert "artifact 400" in done.stderr
    assert done.returncode == 0
