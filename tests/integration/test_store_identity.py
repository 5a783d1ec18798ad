"""A store knows itself: nothing is written to, or read from, a directory that is not the one it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rmos_shared.errors import StoreUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.store.base import KeyInvalid, Outcome
from rmos_shared.store.identity import IDENTITY_FILE, init_store
from rmos_shared.store.local import LocalStore
from support import spawn

KEY = "2026-08-01/a.json"
RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")


def rmos(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
    done = spawn.run(
        [*RMOS, *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


# Making


def test_a_new_and_empty_directory_becomes_a_store_and_stays_that_one(tmp_path: Path) -> None:
    root = tmp_path / "a/b/runs"
    identity = init_store(root)
    assert init_store(root) == identity
    assert LocalStore(root).identity() == identity
    assert [path.name for path in root.iterdir()] == [IDENTITY_FILE]
    assert (root / IDENTITY_FILE).stat().st_mode & 0o777 == 0o440


def test_a_fresh_disk_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert init_store(tmp_path).store_id


def test_a_directory_with_files_is_taken_only_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "2026-08-01").mkdir()
    (tmp_path / KEY).write_bytes(b"restored")
    with pytest.raises(StoreUnavailable, match="holds 1 files or directories and no"):
        init_store(tmp_path)
    assert not (tmp_path / IDENTITY_FILE).exists()
    init_store(tmp_path, adopt=True)
    assert LocalStore(tmp_path).get(KEY) == b"restored"


def test_of_many_that_make_it_at_once_all_have_the_same(tmp_path: Path) -> None:
    for turn in range(20):
        root = tmp_path / str(turn)
        with ThreadPoolExecutor(8) as pool:
            identities = list(pool.map(lambda _, root=root: init_store(root), range(8)))
        assert len({identity.store_id for identity in identities}) == 1
        assert [path.name for path in root.iterdir()] == [IDENTITY_FILE]


# Using


def verbs(store: LocalStore) -> list[Callable[[], object]]:
    return [
        lambda: store.create(KEY, b"x"),
        lambda: store.get(KEY),
        lambda: store.head(KEY),
        lambda: list(store.list("")),
        store.probe,
        store.identity,
    ]


def test_a_directory_without_an_identity_is_no_store_and_stays_empty(tmp_path: Path) -> None:
    for verb in verbs(LocalStore(tmp_path)):
        with pytest.raises(StoreUnavailable, match="is no store"):
            verb()
    assert list(tmp_path.iterdir()) == []


def test_an_open_store_takes_no_other_for_itself_and_knows_itself_again(tmp_path: Path) -> None:
    root, away = tmp_path / "runs", tmp_path / "away"
    init_store(root)
    store = LocalStore(root)
    store.create(KEY, b"data")
    root.rename(away)
    other = init_store(root).store_id
    for verb in verbs(store):
        with pytest.raises(StoreUnavailable, match=f"holds store {other}, not"):
            verb()
    assert [path.name for path in root.iterdir()] == [IDENTITY_FILE]
    # Back under other numbers, as a disk that is mounted again: a copy is the same store.
    (root / IDENTITY_FILE).unlink()
    (root / IDENTITY_FILE).write_bytes((away / IDENTITY_FILE).read_bytes())
    assert store.create(KEY, b"data") is Outcome.CREATED


def test_a_store_may_be_told_who_it_is(tmp_path: Path) -> None:
    identity = init_store(tmp_path)
    LocalStore(tmp_path, store_id=identity.store_id).probe()
    with pytest.raises(StoreUnavailable, match="RMOS_STORE_ID"):
        LocalStore(tmp_path, store_id=new_uuid7()).probe()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"store_id": 1}', b"\xff", b"[" * 4_096])
def test_a_damaged_identity_is_a_store_that_is_away_and_no_jobs_fault(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IDENTITY_FILE).write_bytes(content)
    for verb in verbs(LocalStore(tmp_path)):
        with pytest.raises(StoreUnavailable, match="is damaged; restore it"):
            verb()


def test_the_identity_is_no_key_of_the_store(tmp_path: Path) -> None:
    init_store(tmp_path)
    store = LocalStore(tmp_path)
    assert list(store.list("")) == []
    for verb in (lambda: store.create(IDENTITY_FILE, b"x"), lambda: store.get(IDENTITY_FILE)):
        with pytest.raises(KeyInvalid):
            verb()


# Commands


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "list"),
        ("runs", "show", "x"),
        ("runs", "verify", "--all"),
        ("reviews", "list"),
        ("store", "show"),
    ],
)
def test_reading_makes_no_store_and_says_that_there_is_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    """F2: a mistyped home was made, and said to hold no runs."""
    done = rmos(*command, RMOS_HOME=str(tmp_path / "typo"))
    assert (done.returncode, done.stdout) == (6, "")
    assert "error STORE_UNAVAILABLE: cannot open" in done.stderr
    done = rmos("doctor", RMOS_HOME=str(tmp_path / "typo"))
    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_init_makes_a_store_once_and_show_tells_which(tmp_path: Path) -> None:
    first = rmos("store", "init", "--json", RMOS_HOME=str(tmp_path / "home"))
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    for command in (("store", "init"), ("store", "show")):
        assert json.loads(rmos(*command, "--json", RMOS_HOME=str(tmp_path / "home")).stdout) == told
    assert rmos("runs", "list", "--json", RMOS_HOME=str(tmp_path / "home")).stdout == "[]\n"


def test_a_home_never_takes_an_empty_mount_point_for_its_store(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert rmos("store", "init", RMOS_HOME=str(home)).returncode == 0
    (home / "runs").rename(home / "away")
    (home / "runs").mkdir()
    for command in (("demo", "--home", str(home)), ("up", "--home", str(home)), ("runs", "list")):
        done = rmos(*command, RMOS_HOME=str(home))
        assert (done.returncode, "STORE_UNAVAILABLE" in done.stderr) == (6, True), done.stderr
    assert list((home / "runs").iterdir()) == []
    # A store made anew is the operator's own decision.
    assert rmos("store", "init", RMOS_HOME=str(home)).returncode == 0
    assert rmos("runs", "list", RMOS_HOME=str(home)).returncode == 0


def test_a_worker_does_not_start_on_a_directory_that_is_no_store(
    tmp_path: Path, start_worker: Callable[..., object], broker_url: str
) -> None:
    del broker_url
    (tmp_path / "bare").mkdir()
    worker = start_worker("prefork", wait=False, runs_dir=tmp_path / "bare")
    assert worker._process.wait(30) != 0  # type: ignore[attr-defined]
    assert "STORE_UNAVAILABLE" in worker.log.read_text()  # type: ignore[attr-defined]
    assert list((tmp_path / "bare").iterdir()) == []
