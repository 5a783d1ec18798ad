"""The directory in which a worker counts: one that is abandoned is removed, one in use is not."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from rmos_worker.monitoring import metric_files


def left_behind(directory: Path, name: str, *, age_seconds: float) -> Path:
    left = directory / f"rmos-metrics-{name}"
    left.mkdir()
    (left / "lock").touch()
    made = left.stat().st_mtime - age_seconds
    os.utime(left, (made, made))
    return left


def test_what_a_killed_worker_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned = left_behind(tmp_path, "abandoned", age_seconds=120)
    new = left_behind(tmp_path, "new", age_seconds=10)
    used = left_behind(tmp_path, "used", age_seconds=120)
    foreign = tmp_path / "somebody-elses"
    foreign.mkdir()
    with (used / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        metric_files._remove_abandoned()
    assert not abandoned.exists()
    assert all(directory.exists() for directory in (new, used, foreign))


def write(directory: Path, name: str, **counts: float) -> None:
    file = MmapedDict(str(directory / name))
    for event, count in counts.items():
        file.write_value(mmap_key("e", "e_total", ["event"], [event], "Events."), count, 0.0)
    file.close()


def read(file: Path) -> list[float]:
    return [value for _, value, *_ in MmapedDict.read_all_values_from_file(str(file))]


def test_what_dead_processes_counted_is_kept_in_one_file(tmp_path: Path) -> None:
    no_process = 2**22 + 1  # above the largest that there can be
    write(tmp_path, f"counter_{no_process}.db", a=1, b=2)
    write(tmp_path, f"counter_{no_process + 1}.db", a=10)
    write(tmp_path, f"counter_{os.getpid()}.db", a=100)
    (tmp_path / f"counter_{no_process + 2}.db").touch()  # killed as it was made
    (tmp_path / "lock").touch()
    metric_files._add_up_the_dead(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"lock", "counter_0.db", f"counter_{os.getpid()}.db"}
    assert read(tmp_path / "counter_0.db") == [11, 2]
    write(tmp_path, f"counter_{no_process}.db", b=5)
    metric_files._add_up_the_dead(tmp_path)
    assert read(tmp_path / "counter_0.db") == [11, 7]
