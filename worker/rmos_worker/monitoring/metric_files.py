"""The files in which the processes of one worker count together.

Each process of a prefork worker counts in files of its own, which it maps into its memory; the main process
adds them up when it is asked. So a count is but a write to memory, and a killed child loses none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from rmos_shared.telemetry.prometheus import Family

_PREFIX = "rmos-metrics-"
_LOCK = "lock"
#: Younger ones may be just about to be locked by their worker.
_ABANDONED_SECONDS = 60.0
_TRIES = 5
_TRY_SECONDS = 0.01
#: What the library calls its files: <type>_<process id>.db. The process of this number is none.
_OF_THE_DEAD = 0


class MetricFiles:
    """A directory of one worker's own, below that for temporary files; removed with it.

    What a worker that was killed has left is removed by the next one of the same user.
    """

    def __init__(self) -> None:
        """Make the directory, and let this process and its children count there from now on."""
        _remove_abandoned()
        self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Held by this process and its children: nobody takes it for abandoned while one of them lives.
        self._lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._owner = os.getpid()
        self._reading = threading.Lock()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._directory)
        # The library looks for the variable when it is imported, and Celery's command line has had Flower's
        # plugin import it before anybody could set one.
        values.ValueClass = values.MultiProcessValue()

    def collect(self) -> list[Family]:
        """Return what all processes of the worker have counted, those that have ended too."""
        with self._reading:
            _add_up_the_dead(self._directory)
            for _ in range(_TRIES - 1):
                # A process may just be making its first file.
                with suppress(OSError, struct.error, RuntimeError, ValueError):
                    return list(MultiProcessCollector(None, self._directory).collect())
                time.sleep(_TRY_SECONDS)
            return list(MultiProcessCollector(None, self._directory).collect())

    def remove(self) -> None:
        """Remove the directory; only in the process that made it."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._directory, ignore_errors=True)


def _add_up_the_dead(directory: Path) -> None:
    """Keep what processes that have ended counted, in one file of each type."""
    for file in list(_of_dead_processes(directory)):
        kept = MmapedDict(str(directory / f"{file.name.partition('_')[0]}_{_OF_THE_DEAD}.db"))
        # One that was killed as it made its file leaves half a file, with nothing counted in it.
        with closing(kept), suppress(struct.error, RuntimeError, ValueError):
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):
                kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
        file.unlink()


def _of_dead_processes(directory: Path) -> Iterator[Path]:
    for file in directory.glob("*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if pid != _OF_THE_DEAD and not Path(f"/proc/{pid}").exists():
            yield file


def _remove_abandoned() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = directory.lstat()
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _ABANDONED_SECONDS:
                continue
            lock = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
