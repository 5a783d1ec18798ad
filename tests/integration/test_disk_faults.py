"""The disk fails below real workers: full, read-only, gone, or with damaged files on it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rmos_runs.client import Receipt, RunsClient
from rmos_shared.canonical import canonical_json
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import ExplanationStatus
from rmos_shared.store.identity import IDENTITY_FILE, init_store
from rmos_shared.store.local import LocalStore
from support.runs import Runs
from support.worker import StartWorker, Worker

POOLS = ["prefork", "threads"]
#: Twenty of them do not fit on the small disk.
LARGE = {"note": "x" * 56_000}
SMALL_DISK_BYTES = 1_048_576
Eventually = Callable[..., None]


def unavailable_here(what: str) -> NoReturn:
    """Skip on a developer's machine; in CI a check that cannot run is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must run this test")
    pytest.skip(what)


class Disk:
    """The small disk of a worker, from outside."""

    def __init__(self, worker: Worker, runs_dir: Path) -> None:
        self._worker = worker
        self._runs_dir = runs_dir
        self.root = Path(f"/proc/{worker.pid}/root{runs_dir}")
        self._ballast = self.root / "_ballast"
        self._aside = runs_dir.with_name("aside")

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4_096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        self._in_namespace("mount", "-o", f"remount,{how}", self._runs_dir)

    def _in_namespace(self, *command: object) -> None:
        entered = ["nsenter", "-t", str(self._worker.pid), "-U", "-m", "--preserve-credentials"]
        subprocess.run([*entered, *map(str, command)], check=True)

    def unmount(self) -> None:
        """Take the disk away, as a lost mount; what is on it stays."""
        self._aside.mkdir(exist_ok=True)
        self._in_namespace("mount", "--bind", self._runs_dir, self._aside)
        # Lazily, for a worker may be writing at this very moment.
        self._in_namespace("umount", "--lazy", self._runs_dir)

    def mount(self) -> None:
        """Bring back what ``unmount`` took away."""
        self._in_namespace("mount", "--bind", self._aside, self._runs_dir)

    def used(self) -> int:
        """Return the bytes in use, the files that have no name included."""
        told = os.statvfs(self.root)
        return (told.f_blocks - told.f_bfree) * told.f_frsize

    def everything_is_whole(self) -> bool:
        """Read all that has a name, and say whether each of it is what its name says."""
        entries = list(Runs(LocalStore(self.root)).reader.list_runs())
        assert [entry.error for entry in entries if entry.error] == []
        aside = {self._ballast, self.root / IDENTITY_FILE}
        named = {path for path in self.root.rglob("*") if path.is_file() and path not in aside}
        return named == {self.root / entry.key for entry in entries}


@pytest.fixture
def small_disk(start_worker: StartWorker, runs_dir: Path) -> Callable[[str], tuple[Worker, Disk]]:
    """Start a worker whose run directory is a disk of a megabyte."""
    try:
        allowed = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "true"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        unavailable_here("unshare is not installed")
    if allowed.returncode != 0:
        unavailable_here(f"may not mount here: {allowed.stderr.strip()}")

    def start(pool: str) -> tuple[Worker, Disk]:
        worker = start_worker(pool, app="small_disk")
        disk = Disk(worker, runs_dir)
        assert os.statvfs(disk.root).f_blocks * os.statvfs(disk.root).f_frsize == SMALL_DISK_BYTES
        return worker, disk

    return start


def enqueue(client: RunsClient, request: dict[str, Any], count: int) -> list[Receipt]:
    """Half as single jobs, half in bulk."""
    requests = [{**request, "run_id": new_uuid7(), "meta": LARGE} for _ in range(count)]
    singles = [client.create_run(each) for each in requests[: count // 2]]
    return singles + list(client.create_runs(requests[count // 2 :]))


@pytest.mark.parametrize("pool", POOLS)
def test_jobs_wait_for_room_on_a_full_disk_and_nothing_partial_is_ever_seen(
    *,
    pool: str,
    small_disk: Callable[[str], tuple[Worker, Disk]],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker, disk = small_disk(pool)
    receipts = enqueue(runs_client, sample_requests[0], 10)
    eventually(lambda: disk.everything_is_whole() and ledger.stats().pending == 0)
    room = disk.used()
    disk.fill()
    receipts += enqueue(runs_client, sample_requests[0], 6)

    def each_was_put_off() -> bool:
        assert disk.everything_is_whole()
        found = [ledger.get(receipt.job_id) for receipt in receipts[10:]]
        return all(record.failure is not None for record in found)

    eventually(each_was_put_off, told=lambda: worker.log.read_text()[-2_000:])
    stats = ledger.stats()
    assert (stats.done, stats.pending, stats.dead, stats.invariant) == (10, 6, 0, True)
    record = ledger.get(receipts[-1].job_id)
    assert record.failure is not None
    assert "No space left on device; free space" in record.failure.message

    disk.free()
    eventually(lambda: disk.everything_is_whole() and ledger.stats().pending == 0)
    for receipt in receipts:
        record = ledger.get(receipt.job_id)
        assert (record.state, record.retry_count) == ("done", 0), "a full disk is no fault of the job"
        assert Runs(LocalStore(disk.root)).reader.get_artifact(receipt.run_id).meta == LARGE
    # What could not be written has left nothing behind, not even a file without a name.
    assert disk.used() <= room * 16 / 10 + 65_536
    assert worker.alive
    assert ledger.stats().invariant


def test_jobs_wait_while_the_disk_is_read_only(
    *,
    small_disk: Callable[[str], tuple[Worker, Disk]],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker, disk = small_disk("prefork")
    first = runs_client.create_run(sample_requests[0])
    assert runs_client.wait(first.job_id, 20).state == "done"
    disk.remount("ro")
    receipts = enqueue(runs_client, sample_requests[0], 4)
    eventually(lambda: all(ledger.get(receipt.job_id).failure for receipt in receipts))
    record = ledger.get(receipts[-1].job_id)
    assert record.failure is not None
    assert "Read-only file system; mount it writable" in record.failure.message
    assert Runs(LocalStore(disk.root)).reader.get_artifact(first.run_id).run_id == first.run_id, "still read"
    disk.remount("rw")
    eventually(lambda: ledger.stats().pending == 0)
    assert [ledger.get(receipt.job_id).state for receipt in receipts] == ["done"] * 4
    assert disk.everything_is_whole()
    assert worker.alive


@pytest.mark.parametrize("pool", POOLS)
def test_jobs_wait_while_the_disk_is_not_mounted_and_nothing_is_written_below_it(
    *,
    pool: str,
    small_disk: Callable[[str], tuple[Worker, Disk]],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    runs_dir: Path,
    eventually: Eventually,
) -> None:
    """F1: an empty mount point was taken for the store, and what was written there was gone afterwards."""
    worker, disk = small_disk(pool)
    first = runs_client.create_run(sample_requests[0])
    assert runs_client.wait(first.job_id, 20).state == "done"
    disk.unmount()
    receipts = enqueue(runs_client, sample_requests[0], 6)
    eventually(lambda: all(ledger.get(receipt.job_id).failure for receipt in receipts))
    record = ledger.get(receipts[-1].job_id)
    assert record.failure is not None
    assert (record.failure.error_type, record.retry_count) == ("StoreUnavailable", 0)
    # Seen from outside the worker's namespace, the runs directory always is what lies below the disk.
    assert {path.name for path in runs_dir.iterdir()} <= {IDENTITY_FILE}
    assert list(disk.root.glob("20*")) == []
    disk.mount()
    eventually(lambda: ledger.stats().pending == 0)
    assert [ledger.get(receipt.job_id).state for receipt in receipts] == ["done"] * 6
    stored = {path.stem for path in disk.root.glob("20*/*.json")}
    assert stored == {receipt.run_id for receipt in (first, *receipts)}
    assert worker.alive


@pytest.mark.parametrize("pool", POOLS)
def test_a_run_directory_that_vanishes_is_waited_for_and_never_made_again(
    *,
    pool: str,
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    runs_dir: Path,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker = start_worker(pool)
    assert runs_client.wait(runs_client.create_run(sample_requests[0]).job_id, 20).state == "done"
    away = runs_dir.with_name("away")
    runs_dir.rename(away)  # as a mount that is lost
    receipts = enqueue(runs_client, sample_requests[0], 6)
    eventually(lambda: all(ledger.get(receipt.job_id).failure for receipt in receipts))
    record = ledger.get(receipts[-1].job_id)
    assert record.failure is not None
    assert (record.failure.error_type, record.retry_count) == ("StoreUnavailable", 0)
    assert "mounted" in record.failure.message
    assert not runs_dir.exists(), "it would be written below the mount point"

    away.rename(runs_dir)
    eventually(lambda: ledger.stats().pending == 0)
    # Neither an empty directory in its place, as below a lost mount, nor another store is taken for it.
    runs_dir.rename(away)
    for init in (Path.mkdir, init_store):
        shutil.rmtree(runs_dir, ignore_errors=True)
        init(runs_dir)
        late = enqueue(runs_client, sample_requests[0], 2)
        receipts += late
        eventually(lambda late=late: all(ledger.get(receipt.job_id).failure for receipt in late))
        assert {ledger.get(receipt.job_id).failure.error_type for receipt in late} == {"StoreUnavailable"}  # type: ignore[union-attr]
        assert [path.name for path in runs_dir.iterdir() if path.name != IDENTITY_FILE] == []
    shutil.rmtree(runs_dir)
    away.rename(runs_dir)
    eventually(lambda: ledger.stats().pending == 0)
    assert [ledger.get(receipt.job_id).state for receipt in receipts] == ["done"] * 10
    stored = {path.stem for path in runs_dir.glob("20*/*.json")}
    assert stored >= {receipt.run_id for receipt in receipts}
    assert worker.alive
    assert ledger.stats().invariant


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n")


def altered(path: Path) -> None:
    """What the server judged no longer has the hash that stands beside it."""
    artifact = json.loads(path.read_bytes())
    artifact["feasibility"]["risk_level"] = "RED"
    path.write_bytes(canonical_json(artifact))


def another_run(path: Path) -> None:
    """It is an artifact, and whole, and not that which its name says."""
    other = next(each for each in path.parent.glob("*.json") if each != path)
    path.write_bytes(other.read_bytes())


def a_link(path: Path) -> None:
    """A symbolic link to the very same bytes, elsewhere."""
    elsewhere = path.parents[2] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [cut_short, emptied, foreign, altered, another_run, a_link, a_directory]


def seen(path: Path) -> tuple[Any, ...]:
    """What must be the same before and after."""
    told = path.lstat()
    content = None if path.is_dir() else path.read_bytes()
    return told.st_ino, told.st_mtime_ns, told.st_mode, content


def test_a_worker_that_meets_a_corrupt_artifact_says_so_and_never_overwrites_it(
    *,
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    runs_dir: Path,
    sample_requests: list[dict[str, Any]],
) -> None:
    worker = start_worker("threads", max_tries=2)
    green = next(request for request in sample_requests if request["decision"]["risk_level"] == "GREEN")
    sound = runs_client.create_run(green)
    for damage in DAMAGE:
        name = damage.__name__
        request = {**green, "run_id": new_uuid7()}
        receipt = runs_client.create_run(request)
        assert runs_client.wait(receipt.job_id, 20).state == "done", name
        key = run_log.reader.artifact_key(receipt.run_id)
        assert key is not None
        path = runs_dir / key
        path.chmod(0o640)
        damage(path)
        before = seen(path)

        # One job has to read it, one to write what is there already.
        explanation = runs_client.suggest_and_attach(receipt.run_id)
        again = runs_client.create_run(request)
        for job_id in (explanation.job_id, again.job_id):
            record = runs_client.wait(job_id, 20)
            assert (record.state, record.crash_count) == ("dead", 1), (name, record)
            assert record.failure is not None
            assert (record.failure.reason, record.failure.error_type) == (
                "corrupt_artifact",
                "CorruptArtifact",
            ), (name, record.task)
            assert key in record.failure.message, name
        assert seen(path) == before, name
    told = worker.log.read_text()
    assert told.count('"file.corrupt"') >= len(DAMAGE)
    # The damage of some has hidden nothing of the others.
    assert run_log.reader.read(sound.run_id).explanation_status is ExplanationStatus.NONE
    stats = ledger.stats()
    assert (stats.done, stats.dead, stats.invariant) == (1 + len(DAMAGE), 2 * len(DAMAGE), True)
