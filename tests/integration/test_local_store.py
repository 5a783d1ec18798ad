"""The local store against the kernel: order of syscalls, injected faults, races, kills, planted files."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rmos_shared.errors import CorruptArtifact, DurabilityUnknown, StoreUnavailable
from rmos_shared.store.base import KeyInvalid, Outcome
from rmos_shared.store.identity import IDENTITY_FILE, init_store
from rmos_shared.store.local import STAGING, LocalStore
from support.stores import local_store

KEY = "2026-08-01/a.json"

#: Every child prints one JSON value; an error of ours as its class, text and whether its cause is chained.
CHILD = """
import errno, hashlib, json, os, resource, sys, time
from pathlib import Path
from rmos_shared.errors import RmosError
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
root = Path(sys.argv[1])
def tell(verb, *args):
    try:
        answer = verb(*args)
    except RmosError as error:
        return [type(error).__name__, str(error), isinstance(error.__cause__, OSError)]
    return getattr(answer, "value", answer)
def refuse_tmpfile():
    real = os.open
    def refusing(path, flags, *args, **kwargs):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "refused")
        return real(path, flags, *args, **kwargs)
    os.open = refusing
"""
CREATE = """
store = LocalStore(root)
print(json.dumps([tell(store.create, "2026-08-01/a.json", b"data"), store.healthy]))
"""


def child(script: str, *args: object, wrapper: tuple[str, ...] = (), cwd: Path | None = None) -> Any:
    """Run ``script`` in a process of its own and return what it prints as JSON."""
    init_store(Path(cwd or ".", str(args[0])))
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", CHILD + script, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        # A child that is traced must make no calls but its own; measuring coverage makes many.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unavailable_here(what: str) -> NoReturn:
    """Skip on a developer's machine; in CI a check that cannot run is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must run this test")
    pytest.skip(what)


Traced = Callable[..., tuple[Any, list[str]]]


@pytest.fixture(scope="session")
def strace() -> str:
    """The path of an strace that may trace here."""
    found = shutil.which("strace")
    if found is None:
        unavailable_here("strace is not installed")
    works = subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if works.returncode != 0:
        unavailable_here(f"strace may not trace here: {works.stderr.strip()}")
    return found


@pytest.fixture
def traced(strace: str, tmp_path: Path) -> Traced:
    """Run a child under strace; return what it prints and its calls on files, paths shown."""
    log = tmp_path / "strace.log"

    def run(script: str, root: Path, *inject: str) -> tuple[Any, list[str]]:
        options = [option for fault in inject for option in ("-e", f"inject={fault}")]
        calls = "trace=openat,mkdirat,write,fsync,linkat,unlinkat,rename,renameat,renameat2"
        answer = child(
            script, root, wrapper=(strace, "-f", "-y", "-s", "16", "-e", calls, *options, "-o", str(log))
        )
        return answer, log.read_text().splitlines()

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store root with one partition in it, so that a create makes no directory."""
    path = tmp_path / "runs"
    init_store(path)
    (path / "2026-08-01").mkdir()
    return path


@pytest.fixture
def no_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no O_TMPFILE."""
    real = os.open

    def refusing(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)


def files_below(root: Path) -> set[str]:
    """Return the files below ``root``, without the identity that every store has."""
    found = (path for path in root.rglob("*") if not path.is_dir() and path.name != IDENTITY_FILE)
    return {str(path.relative_to(root)) for path in found}


def steps(lines: list[str], root: Path) -> list[str]:
    """Reduce a trace to the store's own steps: verb and, for a sync, what was synced."""
    found = []
    for line in lines:
        call = re.sub(r"^\d+ +", "", line)
        verb = call.split("(", 1)[0]
        if str(root) not in call or (verb == "openat" and "O_TMPFILE" not in call):
            continue
        if verb == "fsync":
            match = re.search(r"<([^>]+)>", call)
            assert match, call
            target = Path(match[1].removesuffix(" (deleted)"))
            verb += " file" if target.name.startswith("#") else f" {target.name}"
        found.append(verb)
    return found


# Order


def test_a_file_is_synced_before_it_has_a_name_and_its_directory_after(traced: Traced, root: Path) -> None:
    answer, lines = traced(CREATE, root)
    assert answer == ["created", True]
    assert steps(lines, root) == [
        "openat",
        "write",
        "fsync file",
        "linkat",
        "fsync 2026-08-01",
        # Another process may have made the partition and not synced its name yet.
        "fsync runs",
    ]


def test_a_new_partition_is_durable_too(traced: Traced, tmp_path: Path) -> None:
    _, lines = traced(CREATE, tmp_path / "runs")
    assert steps(lines, tmp_path) == [
        "mkdirat",
        "openat",
        "write",
        "fsync file",
        "linkat",
        "fsync 2026-08-01",
        "fsync runs",
    ]


def test_the_directories_above_are_synced_once_per_process(traced: Traced, root: Path) -> None:
    script = """
store = LocalStore(root)
print(json.dumps([tell(store.create, f"2026-08-01/{n}", b"data") for n in range(2)]))
"""
    _, lines = traced(script, root)
    second = ["openat", "write", "fsync file", "linkat", "fsync 2026-08-01"]
    assert steps(lines, root)[-5:] == second
    assert steps(lines, root).count("fsync runs") == 1


def test_a_new_directory_beside_another_syncs_no_further_up_than_to_its_parent(
    traced: Traced, root: Path
) -> None:
    script = """
store = LocalStore(root)
print(json.dumps([tell(store.create, f"_log/tile/{n}/1", b"data") for n in range(2)]))
"""
    _, lines = traced(script, root)
    made = ["openat", "write", "fsync file", "linkat"]
    first = [*["mkdirat"] * 3, *made, "fsync 0", "fsync tile", "fsync _log", "fsync runs"]
    assert steps(lines, root) == [*first, "mkdirat", *made, "fsync 1", "fsync tile"]


def test_many_share_the_sync_of_their_directory(traced: Traced, root: Path) -> None:
    script = """
items = [(f"2026-08-01/{n}", b"data") for n in range(3)]
print(json.dumps([outcome.value for outcome in LocalStore(root).create_many(items)]))
"""
    _, lines = traced(script, root)
    assert steps(lines, root) == [
        *["openat", "write"] * 3,
        *["fsync file"] * 3,
        *["linkat"] * 3,
        "fsync 2026-08-01",
        "fsync runs",
    ]


@pytest.mark.parametrize("data", [b"data", b"other"])
def test_what_is_there_already_is_synced_before_it_is_vouched_for(
    traced: Traced, root: Path, data: bytes
) -> None:
    (root / KEY).write_bytes(data)
    answer, lines = traced(CREATE, root)
    assert answer[0] == ("already_same" if data == b"data" else "conflict")
    assert steps(lines, root)[-4:] == ["linkat", "fsync a.json", "fsync 2026-08-01", "fsync runs"]


def test_the_fallback_keeps_the_order(traced: Traced, root: Path) -> None:
    answer, lines = traced("refuse_tmpfile()\n" + CREATE, root)
    assert answer == ["created", True]
    made, *rest = steps(lines, root)
    assert made == "mkdirat"
    assert [re.sub(r"[0-9a-f]{32}", "staged", step) for step in rest] == [
        "write",
        "fsync staged",
        "linkat",
        "fsync 2026-08-01",
        "fsync runs",
        "unlinkat",
    ]


# Injected faults


def test_a_failed_file_sync_publishes_nothing(traced: Traced, root: Path) -> None:
    (outcome, healthy), lines = traced(CREATE, root, "fsync:error=EIO:when=1")
    assert outcome[0] == "StoreUnavailable"
    assert outcome[2], "the cause is chained"
    assert f"{root / KEY}: Input/output error; check the disk" in outcome[1]
    assert healthy
    assert files_below(root) == set()
    # The kernel would call the pages clean: this inode must never be synced again.
    assert steps(lines, root) == ["openat", "write", "fsync file"]
    assert local_store(root).create(KEY, b"data") is Outcome.CREATED


def test_a_failed_file_sync_leaves_nothing_staged(traced: Traced, root: Path) -> None:
    (outcome, _), _ = traced("refuse_tmpfile()\n" + CREATE, root, "fsync:error=EIO:when=1")
    assert outcome[0] == "StoreUnavailable"
    assert files_below(root) == set()


@pytest.mark.parametrize("when", [2, 3])
def test_a_failed_directory_sync_is_durability_unknown(traced: Traced, root: Path, when: int) -> None:
    (outcome, healthy), _ = traced(CREATE, root, f"fsync:error=EIO:when={when}")
    assert outcome[0] == "DurabilityUnknown"
    assert outcome[2], "the cause is chained"
    assert not healthy
    assert files_below(root) == {KEY}
    assert local_store(root).create(KEY, b"data") is Outcome.ALREADY_SAME


def test_a_failed_sync_of_what_is_there_is_durability_unknown(traced: Traced, root: Path) -> None:
    (root / KEY).write_bytes(b"data")
    (outcome, healthy), _ = traced(CREATE, root, "fsync:error=EIO:when=2")
    assert (outcome[0], healthy) == ("DurabilityUnknown", False)


@pytest.mark.parametrize("code", ["EOPNOTSUPP", "EPERM"])
def test_a_refused_link_refuses(traced: Traced, root: Path, code: str) -> None:
    script = """
store = LocalStore(root)
print(json.dumps([tell(store.create, "2026-08-01/a.json", b"data"), tell(store.probe)]))
"""
    answers, lines = traced(script, root, f"linkat:error={code}")
    for name, text, chained in answers:
        assert (name, chained) == ("StoreUnavailable", True)
        assert "hard links" in text
    assert not any("rename" in line.split("(")[0] for line in lines)
    assert files_below(root) == set()


def test_an_unreadable_sector_is_damage_to_one_file(strace: str, root: Path) -> None:
    local_store(root).create(KEY, b"data")
    script = """
print(json.dumps(tell(LocalStore(root).get, "2026-08-01/a.json")))
"""
    failing = ("-P", str(root / KEY), "-e", "trace=read", "-e", "inject=read:error=EIO", "-o", os.devnull)
    name, text, chained = child(script, root, wrapper=(strace, "-f", *failing))
    assert (name, chained) == ("CorruptArtifact", True)
    assert f"{KEY} is corrupt: it cannot be read (Input/output error)" in text


# The same without strace, so that a machine that forbids tracing still tells


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, turn: int, code: int = errno.EIO) -> None:
    """Make the ``turn``-th call of ``os.name`` fail."""
    real, calls = getattr(os, name), itertools.count(1)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == turn:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize(
    ("name", "turn", "expected"),
    [
        ("write", 1, StoreUnavailable),
        ("fsync", 1, StoreUnavailable),
        ("link", 1, StoreUnavailable),
        ("fsync", 2, DurabilityUnknown),
        ("fsync", 3, DurabilityUnknown),
    ],
)
def test_after_any_failure_the_same_call_again_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, turn: int, expected: type[StoreUnavailable]
) -> None:
    store = local_store(root)
    published = expected is DurabilityUnknown
    fail_at(monkeypatch, name, turn)
    with pytest.raises(StoreUnavailable) as caught:
        store.create(KEY, b"data")
    assert type(caught.value) is expected
    assert isinstance(caught.value.__cause__, OSError)
    assert store.healthy is not published
    assert files_below(root) == ({KEY} if published else set())
    assert store.create(KEY, b"data") is (Outcome.ALREADY_SAME if published else Outcome.CREATED)
    assert store.get(KEY) == b"data"


def test_after_a_failure_among_many_the_same_call_again_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = local_store(root)
    items = [(f"2026-08-01/{number}", b"data") for number in range(3)]
    fail_at(monkeypatch, "link", 2)
    with pytest.raises(StoreUnavailable, match="2026-08-01/1"):
        store.create_many(items)
    assert files_below(root) == {"2026-08-01/0"}
    assert store.create_many(items) == [Outcome.ALREADY_SAME, Outcome.CREATED, Outcome.CREATED]


def test_a_failed_sync_of_what_is_there_is_durability_unknown_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / KEY).write_bytes(b"data")
    fail_at(monkeypatch, "fsync", 2)
    with pytest.raises(DurabilityUnknown):
        local_store(root).create(KEY, b"data")


def test_a_directory_that_cannot_be_listed_is_named_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = local_store(tmp_path)
    keys = ["2026-08-01/a", "2026-08-02/b", "2026-08-03/c"]
    store.create_many([(key, b"") for key in keys])
    fail_at(monkeypatch, "scandir", 3)  # after the root and the first partition
    assert list(store.list("")) == [keys[0], "2026-08-02", keys[2]]


# The fallback


@pytest.mark.usefixtures("no_tmpfile")
def test_without_tmpfile_staging_takes_its_place(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    assert store.create(KEY, b"x") is Outcome.CREATED
    assert store.create(KEY, b"x") is Outcome.ALREADY_SAME
    assert store.create(KEY, b"y") is Outcome.CONFLICT
    store.probe()
    assert files_below(tmp_path) == {KEY}
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) & 0o333 == 0
    assert (tmp_path / KEY).stat().st_nlink == 1


def test_what_a_killed_process_left_in_staging_is_never_seen(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    (tmp_path / STAGING).mkdir()
    (tmp_path / STAGING / "left.json").write_bytes(b"half")
    store.create(KEY, b"x")
    assert list(store.list("")) == [KEY]
    assert list(store.list(f"{STAGING}/")) == list(store.list("_st")) == []
    for verb in (store.get, store.head, lambda key: store.create(key, b"")):
        with pytest.raises(KeyInvalid, match="own"):
            verb(f"{STAGING}/left.json")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EMFILE, errno.EINVAL])
def test_other_refusals_are_no_reason_to_fall_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store, real = local_store(root), os.open

    def refusing(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StoreUnavailable, match="cannot write"):
        store.create(KEY, b"x")
    assert not (root / STAGING).exists()


@pytest.mark.usefixtures("no_tmpfile")
def test_a_staged_name_that_will_not_go_does_not_undo_the_create(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "unlink", failing)
    assert local_store(root).create(KEY, b"x") is Outcome.CREATED


# Races and kills

RACE = """
rounds, start, data = int(sys.argv[2]), float(sys.argv[3]), sys.argv[4].encode()
store, outcomes = LocalStore(root), []
for turn in range(rounds):
    while time.time() < start + turn * 0.004:
        pass
    # Each fifth round opens a new partition, so that the race for the directory is run as well.
    outcomes.append(store.create(f"2026-08-{turn // 5 + 1:02}/{turn}", data).value)
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("same", [False, True], ids=["other bytes", "same bytes"])
def test_of_many_processes_one_creates(tmp_path: Path, same: bool) -> None:  # noqa: FBT001
    init_store(tmp_path)
    start = time.time() + 2
    racers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHILD + RACE,
                str(tmp_path),
                "50",
                str(start),
                "same" if same else f"racer {number}",
            ],
            stdout=subprocess.PIPE,
        )
        for number in range(8)
    ]
    told = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8
    store = local_store(tmp_path)
    for turn, outcomes in enumerate(zip(*told, strict=True)):
        winner = outcomes.index("created")
        losers = [outcome for number, outcome in enumerate(outcomes) if number != winner]
        assert losers == (["already_same"] * 7 if same else ["conflict"] * 7)
        expected = b"same" if same else b"racer %d" % winner
        assert store.get(f"2026-08-{turn // 5 + 1:02}/{turn}") == expected
    assert len(list(store.list(""))) == 50


KILLED = """
if sys.argv[2] == "staging":
    refuse_tmpfile()
store = LocalStore(root)
while True:
    data = os.urandom(32_768)
    name = hashlib.sha256(data).hexdigest()
    store.create_many([(f"2026-08-01/{name}", data)])
    print(name, flush=True)
"""


@pytest.mark.parametrize("way", ["tmpfile", "staging"])
def test_kill_9_leaves_whole_files_and_all_that_were_acknowledged(tmp_path: Path, way: str) -> None:
    init_store(tmp_path)
    acknowledged = set()
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD + KILLED, str(tmp_path), way], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout
            acknowledged.add(writer.stdout.readline().strip())
            time.sleep(random.uniform(0, 0.03))  # noqa: S311 - any moment will do
            writer.send_signal(signal.SIGKILL)
            # The last line may be cut off, and is then no acknowledgement.
            acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    store = local_store(tmp_path)
    published = set()
    for key in store.list(""):
        data = store.get(key)
        assert data is not None
        assert key == f"2026-08-01/{hashlib.sha256(data).hexdigest()}"
        published.add(key.removeprefix("2026-08-01/"))
    assert acknowledged <= published


# A store that is full, read-only, away


def in_small_disk(script: str, disk: Path) -> Any:
    """Run a child whose ``disk`` is a tmpfs of 256 KiB, in a mount namespace that ends with it."""
    unshare = ("unshare", "--map-root-user", "--mount")
    mount = f"mount -t tmpfs -o size=256k,mode=755 none {disk} && "
    try:
        works = subprocess.run(
            [*unshare, "sh", "-c", mount + "true"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed; RLIMIT_FSIZE stands in for a full disk")
    if works.returncode != 0:
        pytest.skip(f"may not mount here: {works.stderr.strip()}; RLIMIT_FSIZE stands in for a full disk")
    return child(
        "init_store(root)\n" + script, disk, wrapper=(*unshare, "sh", "-c", mount + 'exec "$@"', "sh")
    )


FULL = """
store = LocalStore(root)
first = tell(store.create, "2026-08-01/a", bytes(100_000))
too_much = tell(store.create, "2026-08-01/b", bytes(300_000))
group = tell(store.create_many, [("2026-08-01/c", b"small"), ("2026-08-01/d", bytes(300_000))])
left = sorted(str(path.relative_to(root)) for path in root.rglob("*/*") if path.is_file())
fits = tell(store.create, "2026-08-01/b", bytes(100_000))
print(json.dumps([first, too_much, group, left, fits]))
"""


@pytest.mark.parametrize("way", ["", "refuse_tmpfile()\n"], ids=["tmpfile", "staging"])
def test_a_full_disk_publishes_nothing_and_leaves_nothing(tmp_path: Path, way: str) -> None:
    first, too_much, group, left, fits = in_small_disk(way + FULL, tmp_path)
    assert first == "created"
    for name, text, chained in (too_much, group):
        assert (name, chained) == ("StoreUnavailable", True)
        assert "No space left on device; free space" in text
    assert left == ["2026-08-01/a"]
    assert fits == "created", "the space of the failed file is free again"


@pytest.mark.parametrize("way", ["", "refuse_tmpfile()\n"], ids=["tmpfile", "staging"])
def test_a_file_too_large_to_write_publishes_nothing(root: Path, way: str) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
    (name, text, chained), healthy = child(way + limit + CREATE, root)
    assert (name, chained, healthy) == ("StoreUnavailable", True, True)
    assert "raise the limit on file size" in text
    assert files_below(root) == set()


def test_a_read_only_disk_can_be_read_and_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    script = """
store = LocalStore(root)
store.create("2026-08-01/a", b"data")
assert os.system(f"mount -o remount,ro {root}") == 0
print(json.dumps([
    tell(store.create, "2026-08-01/b", b"data"),
    tell(store.create, "2026-08-02/b", b"data"),
    tell(LocalStore(root).probe),
    store.get("2026-08-01/a").decode(),
    list(store.list("")),
]))
"""
    *refused, data, listed = in_small_disk(script, tmp_path)
    for name, text, chained in refused:
        assert (name, chained) == ("StoreUnavailable", True)
        assert "Read-only file system; mount it writable" in text
    assert (data, listed) == ("data", ["2026-08-01/a"])


def test_a_vanished_root_is_unavailable_and_never_made_again(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    store = local_store(root)
    store.create(KEY, b"x")
    shutil.rmtree(root)
    for verb in (
        lambda: store.create(KEY, b"x"),
        lambda: store.get(KEY),
        lambda: store.head(KEY),
        lambda: list(store.list("")),
        lambda: list(store.list("2026-08-01/")),
        store.probe,
    ):
        with pytest.raises(StoreUnavailable, match="mounted") as caught:
            verb()
        assert isinstance(caught.value.__cause__, OSError)
    assert not root.exists()


def test_a_root_that_is_a_file_or_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="cannot make"):
        init_store(file / "runs")
    with pytest.raises(StoreUnavailable, match="check RMOS_RUNS_DIR"):
        LocalStore(file).get(KEY)


def test_a_root_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    assert local_store(tmp_path / "runs").create(KEY, b"x") is Outcome.CREATED
    assert (tmp_path / "disk" / KEY).read_bytes() == b"x"


def test_without_permission_writing_waits_and_reading_is_damage(tmp_path: Path) -> None:
    store = local_store(tmp_path / "runs")
    store.create("2026-08-01/a", b"closed")
    store.create("2026-08-02/b", b"open")
    store.create("2026-08-03/c", b"hidden")
    root = tmp_path / "runs"
    root.chmod(0o755)
    for directory in root.iterdir():
        directory.chmod(0o755)
    (root / "2026-08-01/a").chmod(0o000)
    (root / "2026-08-02/b").chmod(0o444)
    (root / "2026-08-03").chmod(0o000)
    script = """
if os.geteuid() == 0:
    os.setuid(65_534)
store = LocalStore(Path("."))
store.get("2026-08-02/b")
print(json.dumps([
    [tell(store.get, "2026-08-01/a"), tell(store.head, "2026-08-01/a"), tell(store.get, "2026-08-03/c")],
    [tell(store.create, "2026-08-01/a", b"closed"), tell(store.create, "2026-08-03/c", b"x")],
    list(store.list("")),
    list(store.list("", "2026-08-03")),
]))
"""
    # The working directory, because the way down to it is closed to others.
    damaged, refused, listed, after = child(script, ".", cwd=root)
    (root / "2026-08-03").chmod(0o755)
    assert [name for name, *_ in damaged] == ["CorruptArtifact"] * 3
    for name, text, chained in refused:
        assert (name, chained) == ("StoreUnavailable", True)
        assert "Permission denied; give this process's user access" in text
    assert listed == ["2026-08-01/a", "2026-08-02/b", "2026-08-03"], (
        "named, so that nobody takes it for empty"
    )
    assert after == []


# Planted things


@pytest.mark.parametrize("kind", ["link to outside", "link to inside", "dangling link", "file"])
def test_what_stands_in_for_a_partition_is_damage(tmp_path: Path, kind: str) -> None:
    store = local_store(tmp_path / "runs")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.json").write_bytes(b"secret")
    store.create("2026-07-31/a.json", b"inside")
    partition = tmp_path / "runs" / "2026-08-01"
    if kind == "file":
        partition.write_bytes(b"")
    else:
        target = {"link to outside": str(outside), "link to inside": "2026-07-31", "dangling link": "nowhere"}
        partition.symlink_to(target[kind])
    for verb in (
        lambda: store.create("2026-08-01/b.json", b"x"),
        lambda: store.create(KEY, b"secret"),
        lambda: store.get(KEY),
        lambda: store.head(KEY),
        lambda: list(store.list("2026-08-01/")),
    ):
        with pytest.raises(CorruptArtifact, match="2026-08-01 is corrupt"):
            verb()
    assert [path.name for path in outside.iterdir()] == ["a.json"]
    assert list(store.list("")) == ["2026-07-31/a.json", "2026-08-01"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "socket", "directory"])
def test_what_stands_in_for_an_artifact_is_never_read_or_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store, path = local_store(root), root / KEY
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        # Its address is limited to some hundred bytes, so bind it from where it is.
        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    else:
        secret = root.parent / "secret"
        if kind == "link":
            secret.write_bytes(b"secret")
        path.symlink_to(secret)
    before = path.lstat()
    for verb in (store.get, store.head):
        with pytest.raises(CorruptArtifact):
            verb(KEY)
    assert store.create(KEY, b"secret") is Outcome.CONFLICT
    assert path.lstat().st_ino == before.st_ino
    if kind != "directory":
        assert list(store.list("")) == [KEY]


@pytest.mark.parametrize(
    ("key", "most"), [("_log/checkpoints/000/000/000/007", 1 << 26), ("2026-08-01/a.json", 1 << 30)]
)
def test_what_is_too_large_to_be_ours_is_not_read(root: Path, key: str, most: int) -> None:
    store, path = local_store(root), root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    for size in (most + 1, 1 << 36):
        os.truncate(path, size)  # sparse: it takes no room on the disk
        with pytest.raises(CorruptArtifact, match=f"it has {size} bytes"):
            store.get(key)
        head = store.head(key)
        assert head is not None
        assert head.size_bytes == size
        with store.pieces(key) as pieces:
            assert pieces is not None
            assert len(next(pieces)) == 1 << 20
        assert store.create(key, b"small") is Outcome.CONFLICT
    # As much as the largest seal has, and more, is read for a record.
    os.truncate(path, 1 << 26)
    assert len(store.get(key) or b"") == 1 << 26


def test_foreign_files_are_listed_under_the_name_they_have(root: Path) -> None:
    for name in (b"a b.json", b".x.json", b"\xff.json", "é".encode()):
        (Path(os.fsdecode(os.fsencode(root) + b"/2026-08-01/" + name))).write_bytes(b"")
    listed = list(local_store(root).list("2026-08-01/"))
    assert listed == sorted(f"2026-08-01/{name}" for name in (".x.json", "a b.json", "\\xff.json", "é"))


# The rest


def test_files_and_directories_are_closed_to_others(tmp_path: Path) -> None:
    answer = child("os.umask(0)\n" + CREATE, tmp_path / "runs")
    assert answer[0] == "created"
    modes = [
        stat.S_IMODE((tmp_path / "runs" / path).stat().st_mode) for path in (KEY, "2026-08-01", "../runs")
    ]
    assert modes == [0o440, 0o750, 0o750]


def test_a_name_too_long_for_the_file_system_is_a_wrong_key(root: Path) -> None:
    store = local_store(root)
    for verb in (store.get, store.head, lambda key: store.create(key, b"")):
        with pytest.raises(KeyInvalid):
            verb("2026-08-01/" + "a" * 256)
    assert files_below(root) == set()


def test_a_listing_survives_a_directory_that_goes_while_it_runs(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    store.create_many([("2026-08-01/a", b""), ("2026-08-02/b", b""), ("2026-08-03/c", b"")])
    listing = store.list("")
    assert next(listing) == "2026-08-01/a"
    shutil.rmtree(tmp_path / "2026-08-02")
    assert list(listing) == ["2026-08-03/c"]


def test_no_descriptor_is_left_open(root: Path) -> None:
    script = """
store = LocalStore(root)
def use():
    tell(store.create_many, [(f"2026-08-01/{n}", b"x") for n in range(150)])
    tell(store.create, "2026-08-01/0", b"y"), tell(store.get, "2026-08-01/0"), tell(store.head, "no/thing")
    tell(store.get, "2026-08-01/0/below"), list(store.list("")), store.probe()
use()
before = len(os.listdir("/proc/self/fd"))
use()
print(json.dumps(len(os.listdir("/proc/self/fd")) - before))
"""
    assert child(script, root) == 0


def test_the_memory_of_durable_directories_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmos_shared.store.local._SETTLED_LIMIT", 4)
    store = local_store(root)
    for number in range(5):
        store.create(f"_reviews/2026-08-01/{number}/r", b"")
        assert len(store._settled) <= 4
