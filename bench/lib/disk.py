"""The disk by itself: a bare loop of write, fsync, link and directory fsync, singly or in groups.

``python -m lib.disk DIRECTORY GROUP START SECONDS`` begins at the moment START of the monotonic
clock, and prints the files it published a second.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lib.group import environment_of, program
from lib.scene import requests_of
from rmos_shared.runs.model import RunRequest
from rmos_worker.handlers.artifact import artifact_of

GROUP = 100
_SAMPLE = 600
_START_SECONDS = 1.2


def sample() -> list[bytes]:
    """Return the sample's artifacts as they are stored."""
    return [artifact_of(RunRequest.read(request))[0].to_bytes() for request in requests_of(_SAMPLE)]


def publish(folder: int, files: Sequence[bytes]) -> None:
    """Publish a group below the open directory ``folder``, with nothing around the system calls."""
    drafts = [_draft(folder, data) for data in files]
    for draft in drafts:
        os.fsync(draft)
    for draft in drafts:
        name = secrets.token_hex(16)
        os.link(f"/proc/self/fd/{draft}", name, dst_dir_fd=folder, follow_symlinks=True)
        os.close(draft)
    os.fsync(folder)


def _draft(folder: int, data: bytes) -> int:
    draft = os.open(f"/proc/self/fd/{folder}", os.O_TMPFILE | os.O_WRONLY, 0o440)
    os.write(draft, data)
    return draft


def rate(directory: Path, *, group: int, processes: int, seconds: float) -> float:
    """Return the files a second that so many processes publish together in one directory."""
    directory.mkdir()
    start = time.monotonic() + _START_SECONDS
    command = program("disk", directory, group, start, seconds)
    loops = [
        subprocess.Popen(command, env=environment_of({}), stdout=subprocess.PIPE) for _ in range(processes)
    ]
    try:
        return sum(float(loop.communicate(timeout=60 + seconds)[0]) for loop in loops)
    finally:
        for loop in loops:
            loop.kill()


def main() -> None:
    """Run the loop."""
    directory, group, start, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    files = sample()
    folder = os.open(directory, os.O_RDONLY)
    time.sleep(max(0.0, start - time.monotonic()))
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        publish(folder, [files[(done + index) % len(files)] for index in range(group)])
        done += group
    print(done / (time.monotonic() - began))


if __name__ == "__main__":
    main()
