"""What a process of its own shows of a migration's source: memory, and files that it may not read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.old_records import write_partitioned


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    root = tmp_path / "old"
    write_partitioned(root, 30, links=False)
    (day, *_) = sorted(path for path in root.iterdir() if path.is_dir())
    (other,) = [next(path.iterdir()) for path in sorted(root.iterdir()) if path.is_dir()][1:2]
    day.chmod(0)
    other.chmod(0)
    code = (
        "import json, os, pathlib, sys\n"
        "from rmos_runs.operations.migration.scratch import Scratch\n"
        "from rmos_runs.operations.migration.sources import source_of\n"
        # Root may read everything.
        "if os.getuid() == 0: os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "source = source_of(pathlib.Path(sys.argv[1]), None, Scratch())\n"
        "print(json.dumps({item.place: item.reason for item in source.records() if item.reason}))"
    )
    for parent in (tmp_path, *tmp_path.parents):
        if os.getuid() == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        day.name: "cannot be listed: Permission denied",
        f"{other.parent.name}/{other.name}": "cannot be read: Permission denied",
    }


_MEASURE = """
import json, pathlib, resource, sys
from rmos_runs.operations.migration.preparation import prepared
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import source_of
with Scratch() as scratch:
    source = source_of(pathlib.Path(sys.argv[1]), None, scratch)
    count = sum(1 for _ in (source.records() if sys.argv[2] == "read" else prepared(source, scratch)))
print(json.dumps([count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def most_mebibytes(path: Path, step: str, count: int) -> float:
    """Return the most MiB that it takes to take all runs of a document so far."""
    small = {"created_at_utc": "2025-12-18T06:00:00Z", "mode": "saw", "tool_id": "t", "feasibility": {"s": 1}}
    text = json.dumps(small)[:-1]
    with path.open("w") as file:
        file.write("{")
        for number in range(count):
            file.write(f'{"," * bool(number)}"r{number}":{text},"run_id":"r{number}"}}')
        file.write("}")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), step], capture_output=True, check=True, timeout=150
    )
    found, mebibytes = json.loads(done.stdout)
    assert found == count
    return float(mebibytes)


@pytest.mark.parametrize(("step", "count"), [("read", 200_000), ("prepare", 20_000)])
def test_a_document_of_many_runs_takes_no_more_memory_than_a_small_one(
    tmp_path: Path, step: str, count: int
) -> None:
    little = most_mebibytes(tmp_path / "runs.json", step, 500)
    assert most_mebibytes(tmp_path / "runs.json", step, count) < little + 12
