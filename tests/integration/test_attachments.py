"""Attachments in real processes: raced, killed, on a full disk, very large; in a worker, at the terminal."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_shared.canonical import sha256_hex
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.runs.attachment_key import attachment_key, attachment_sha256
from rmos_shared.runs.attachments import Attachments
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import STAGING, LocalStore
from support import spawn
from support.records import make_run
from support.runs import Runs
from support.stores import local_store
from support.worker import StartWorker

Eventually = Callable[..., None]

CHILD = """
import errno, hashlib, io, json, os, resource, sys, time
from pathlib import Path
from rmos_shared.errors import RmosError
from rmos_shared.runs.attachments import Attachments
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
root = Path(sys.argv[1])
def refuse_tmpfile():
    real = os.open
    def refusing(path, flags, *args, **kwargs):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "refused")
        return real(path, flags, *args, **kwargs)
    os.open = refusing
class Source:
    # A stream of any length that costs no memory; the same bytes for the same seed.
    def __init__(self, size, seed=b"x"):
        self.left, self.block = size, hashlib.sha256(seed).digest() * 2048
    def read(self, size):
        size = min(size, self.left, len(self.block))
        self.left -= size
        return self.block[:size]
"""


def child(script: str, *args: object, wrapper: tuple[str, ...] = ()) -> Any:
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", CHILD + script, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unavailable_here(what: str) -> NoReturn:
    """Skip on a developer's machine; in CI a check that cannot run is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must run this test")
    pytest.skip(what)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init_store(tmp_path / "runs")
    return tmp_path / "runs"


def attached(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.glob("_attachments/**/*") if path.is_file()]


def proven(root: Path) -> None:
    """Everything that is visible is whole."""
    store = LocalStore(root)
    for key in store.list(""):
        data = store.get(key)
        assert data is not None
        assert attachment_sha256(key) == sha256_hex(data)


# Order, races, kills


def test_an_attachment_is_synced_before_it_has_a_name_and_its_directories_after(
    tmp_path: Path, root: Path
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        unavailable_here("strace is not installed")
    log = tmp_path / "strace.log"
    options = ("-f", "-y", "-e", "trace=openat,mkdirat,write,fsync,linkat,rename,renameat,renameat2")
    works = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False)
    if works.returncode != 0:
        unavailable_here("strace may not trace here")
    key = child(
        'print(json.dumps(Attachments(LocalStore(root)).put(Source(3_000_000), ".nc")))',
        root,
        wrapper=(strace, *options, "-o", str(log)),
    )
    steps: list[str] = []
    for line in log.read_text().splitlines():
        call = line.split(maxsplit=1)[1]
        verb = call.partition("(")[0]
        if str(root) not in call or (verb == "openat" and "O_TMPFILE" not in call):
            continue
        target = (
            call[call.find("<") + 1 : call.find(">")].removesuffix(" (deleted)") if verb == "fsync" else ""
        )
        name = "file" if "/#" in target else target.removeprefix(str(root.parent))
        step = f"{verb} {name}".strip()
        if steps[-1:] != [step]:
            steps.append(step)
    directory = f"/runs/{key.rpartition('/')[0]}"
    assert steps == [
        "openat",
        "write",
        "mkdirat",
        "fsync file",
        "linkat",
        f"fsync {directory}",
        "fsync /runs/_attachments",
        "fsync /runs",
    ]


RACE = """
start, way = float(sys.argv[2]), sys.argv[3]
attachments, keys = Attachments(LocalStore(root)), []
for turn in range(20):
    while time.time() < start + turn * 0.03:
        pass
    source = Source(2_000_000 + turn)
    keys.append(attachments.put(source if way == "stream" else source.read(1 << 30), ".nc"))
print(json.dumps(keys))
"""


def test_of_many_processes_that_put_the_same_all_succeed_and_one_file_is_there(root: Path) -> None:
    start = time.time() + 2
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD + RACE, str(root), str(start), "stream"],
            stdout=subprocess.PIPE,
        )
        for _ in range(6)
    ]
    told = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 6
    assert all(keys == told[0] for keys in told)
    assert sorted(attached(root)) == sorted(set(told[0]))
    proven(root)


UPLOADING = """
if sys.argv[2] == "staging":
    refuse_tmpfile()
attachments = Attachments(LocalStore(root))
for turn in range(1_000_000):
    with attachments.receive(".nc") as upload:
        source = Source(400_000, b"%d" % turn)
        while piece := source.read(50_000):
            upload.write(piece)
            print("writing", flush=True)
        print(upload.publish(), flush=True)
"""


@pytest.mark.parametrize("way", ["tmpfile", "staging"])
def test_kill_9_during_an_upload_leaves_nothing_that_a_reader_sees(root: Path, way: str) -> None:
    acknowledged = set()
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD + UPLOADING, str(root), way], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(random.uniform(0, 0.05))  # noqa: S311 - any moment will do
            writer.send_signal(signal.SIGKILL)
            lines = [line.strip() for line in writer.stdout if line.endswith("\n")]
        acknowledged |= {line for line in lines if line != "writing"}
    assert acknowledged <= set(attached(root))
    assert way == "staging" or not list(root.glob(f"{STAGING}/*"))
    proven(root)


# Full, large


FULL = """
init_store(root)
attachments = Attachments(LocalStore(root))
def tell(size):
    try:
        return attachments.put(Source(size), ".nc")
    except RmosError as error:
        return [type(error).__name__, str(error), isinstance(error.__cause__, OSError)]
answers = [tell(4_000_000), tell(100_000)]
left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
print(json.dumps([*answers, left]))
"""


@pytest.mark.parametrize("way", ["", "refuse_tmpfile()\n"], ids=["tmpfile", "staging"])
def test_a_full_disk_publishes_nothing_and_gives_its_room_back(tmp_path: Path, way: str) -> None:
    unshare = ("unshare", "--map-root-user", "--mount")
    mount = f"mount -t tmpfs -o size=1m,mode=755 none {tmp_path} && "
    if shutil.which("unshare") is None:
        unavailable_here("unshare is not installed")
    works = subprocess.run([*unshare, "sh", "-c", mount + "true"], capture_output=True, check=False)
    if works.returncode != 0:
        unavailable_here("may not mount here")
    refused, stored, left = child(
        way + FULL, tmp_path, wrapper=(*unshare, "sh", "-c", mount + 'exec "$@"', "sh")
    )
    assert refused[0] == "StoreUnavailable"
    assert "No space left on device; free space" in refused[1]
    assert refused[2], "the cause is chained"
    assert left == sorted([stored, "_store.json"]), "the second found the room that the first had taken"


MEMORY = """
attachments, size = Attachments(LocalStore(root)), int(sys.argv[2])
attachments.verify(attachments.put(Source(1_000_000), ".nc"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
key = attachments.put(Source(size), ".nc")
attachments.put(Source(size), ".nc")
attachments.verify(key)
from rmos_shared.runs.verification import StoreVerification
damage = [checked.damage for checked in StoreVerification(LocalStore(root)).elsewhere()]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([attachments.head(key).size_bytes, grown, damage]))
"""


def test_memory_is_flat_however_large_an_attachment_is(root: Path) -> None:
    size = 200 << 20
    told, grown_kib, damage = child(MEMORY, root, size)
    assert told == size
    assert damage == [None, None]
    assert grown_kib < 8 << 10, "written, compared, read and verified"


# A worker


def test_a_run_waits_for_the_attachment_that_it_names(
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    eventually: Eventually,
) -> None:
    start_worker()
    data = b"G21\n" * 100_000
    key = attachment_key(data, ".nc")
    receipt = runs_client.create_run({"request_id": "r", "mode": "saw", "outputs": {"gcode_path": key}})
    eventually(lambda: ledger.get(receipt.job_id).state is JobState.WAITING)
    waiting = ledger.get(receipt.job_id).failure
    assert waiting is not None
    assert (waiting.reason, "outputs.gcode_path" in waiting.message) == ("attachment_pending", True)
    Attachments(run_log.store).put(data, ".nc")
    assert runs_client.wait(receipt, timeout=60).state is JobState.DONE
    run = run_log.reader.get_artifact(receipt.run_id)
    assert (run.outputs.gcode_path, run.hashes.gcode_sha256) == (key, sha256_hex(data))


def test_an_attachment_that_never_comes_makes_a_dead_letter_that_a_replay_brings_back(
    start_worker: StartWorker, runs_client: RunsClient, ledger: JobLedger, run_log: Runs
) -> None:
    start_worker(attachment_wait_seconds=0.5)
    key = attachment_key(b"<svg/>", ".svg")
    receipt = runs_client.create_run({"request_id": "r", "outputs": {"preview_svg_path": key}})
    record = runs_client.wait(receipt, timeout=60)
    assert record.state is JobState.DEAD
    assert record.failure is not None
    assert record.failure.reason == "invalid_payload"
    assert (
        "outputs.preview_svg_path: names an attachment that was not stored within 0.5 s"
        in record.failure.message
    )
    Attachments(run_log.store).put(b"<svg/>", ".svg")
    ledger.dead_letters.replay(receipt.job_id, by="person:test", why="it came")
    assert runs_client.wait(receipt, timeout=60).state is JobState.DONE


# The terminal


def rmos(home: Home, *arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
    done = spawn.run(
        [sys.executable, "-c", "from rmos_runs.cli import main; main()", *map(str, arguments)],
        env={**clean, "RMOS_HOME": str(home.root)},
        input=given.decode(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.init_store()
    return place


def test_an_attachment_goes_in_and_comes_out_at_the_terminal(home: Home, tmp_path: Path) -> None:
    source, target = tmp_path / "plate.NC", tmp_path / "out.nc"
    source.write_bytes(b"G21\n")
    key = attachment_key(b"G21\n", ".nc")
    done = rmos(home, "attachments", "put", source)
    assert (done.returncode, done.stdout.strip()) == (0, key)
    told = json.loads(
        rmos(home, "attachments", "put", "-", "--suffix", ".nc", "--json", given=b"G21\n").stdout
    )
    assert told == {"key": key, "sha256": sha256_hex(b"G21\n")}
    assert rmos(home, "attachments", "get", key, "-o", target).returncode == 0
    assert target.read_bytes() == b"G21\n"
    again = rmos(home, "attachments", "get", key, "-o", target)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_what_is_wrong_at_the_terminal_leaves_nothing(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "plate.nc"
    source.write_bytes(b"G21\n")
    refused = rmos(home, "attachments", "put", source, "--sha256", "0" * 64)
    assert (refused.returncode, "0" * 64 in refused.stderr) == (3, True)
    assert sha256_hex(b"G21\n") in refused.stderr
    assert rmos(home, "attachments", "put", tmp_path / "none").returncode == 2
    assert attached(home.runs_dir) == []
    missing = rmos(home, "attachments", "get", attachment_key(b"x", ""), "-o", tmp_path / "x")
    assert missing.returncode == 4
    assert rmos(home, "attachments", "runs", attachment_key(b"x", "")).returncode == 4
    key = rmos(home, "attachments", "put", source).stdout.strip()
    nowhere = rmos(home, "attachments", "get", key, "-o", tmp_path / "no/such/file")
    assert nowhere.returncode == 2
    path = home.runs_dir / key
    path.chmod(0o640)
    path.write_bytes(b"G22\n")
    damaged = rmos(home, "attachments", "get", key, "-o", tmp_path / "x")
    assert damaged.returncode == 7
    assert {item.name for item in tmp_path.iterdir()} == {"plate.nc", "home"}


def test_attachments_are_listed_with_what_names_them(home: Home) -> None:
    store = local_store(home.runs_dir)
    used, unused = (Attachments(store).put(data, ".nc") for data in (b"a", b"b"))
    run = make_run(outputs={"preview_svg_path": used})
    Runs(store).writer.put_run(run)
    every = json.loads(rmos(home, "attachments", "list", "--json").stdout)
    assert sorted(row["key"] for row in every) == sorted([used, unused])
    assert {row["bytes"] for row in every} == {1}
    left = json.loads(rmos(home, "attachments", "list", "--unreferenced", "--json").stdout)
    assert [row["key"] for row in left] == [unused]
    assert [
        row["run_id"] for row in json.loads(rmos(home, "attachments", "runs", used, "--json").stdout)
    ] == [run.run_id]
    (home.runs_dir / "2026-08-01/broken.json").write_text("{")
    for words in (("list", "--unreferenced"), ("runs", used)):
        told = rmos(home, "attachments", *words, "--json")
        assert (told.returncode, "2026-08-01/broken.json is corrupt" in told.stderr) == (7, True)


def test_a_preview_that_lies_is_found_by_verify(home: Home) -> None:
    store = local_store(home.runs_dir)
    key = Attachments(store).put(b"<svg/>", ".svg")
    run = make_run(outputs={"preview_svg_path": key})
    Runs(store).writer.put_run(run)
    assert rmos(home, "runs", "verify", "--all").returncode == 0
    (home.runs_dir / key).chmod(0o640)
    (home.runs_dir / key).write_bytes(b"<bad/>")
    told = rmos(home, "runs", "verify", run.run_id)
    assert (told.returncode, "another hash" in told.stdout) == (7, True)
    (home.runs_dir / key).unlink()
    told = rmos(home, "runs", "verify", run.run_id)
    assert (told.returncode, "is not stored" in told.stdout) == (7, True)
