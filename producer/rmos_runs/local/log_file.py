"""The log of a process: bounded in size, whoever writes it and however long."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: A log is turned over above this, and so many older ones are kept.
MAX_BYTES = 16_777_216
KEPT = 3
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def open_log(path: Path) -> int:
    """Return a descriptor for appending to the log, which its owner alone may read."""
    return os.open(path, _FLAGS, 0o600)


def turn_over(path: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Copy a log that has grown too large to ``<name>.1``, older ones one further, and empty it.

    Its writers go on undisturbed, for they append. Lines written between the last look and the emptying are
    lost: some microseconds' worth, more where the machine is busy. A pipe in place of the
    file would lose nothing, but would block every process while its reader is held up, and end it when the
    reader ends.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(KEPT - 1, 0, -1):
        older = _older(path, number)
        if older.exists():
            older.replace(_older(path, number + 1))
    copy = os.open(_older(path, 1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with path.open("rb+") as source, os.fdopen(copy, "wb") as target:
        shutil.copyfileobj(source, target)
        # Lines that came during the copy.
        while rest := source.read(65_536):
            target.write(rest)
        source.truncate(0)
    return True


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
