"""Which processes there are, read from the kernel: whoever started them, whoever their parent is by now."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Marks every process of one run of the harness, through all their descendants.
MARK = "CHAOS_RUN"
SERVER = "server"
GATEWAY = "gateway"
#: What tells a process of ``rmos up`` by its command line.
_WORDS = {
    "worker-create": ("rmos_worker.celery_app.main", "worker", "create@"),
    "worker-advise": ("rmos_worker.celery_app.main", "worker", "advise@"),
    "worker-notify": ("rmos_worker.celery_app.main", "worker", "notify@"),
    "worker-reexplain": ("rmos_worker.celery_app.main", "worker", "reexplain@"),
    "worker-audit": ("rmos_worker.celery_app.main", "worker", "audit@"),
    "beat": ("rmos_worker.celery_app.main", "beat"),
    "flower": ("rmos_worker.flower",),
    "advisory-store": ("rmos_advisory_store",),
    GATEWAY: ("rmos_runs.gateway",),
    "indexer": ("rmos_shared.index",),
}
WORKERS = ("worker-create", "worker-advise", "worker-notify", "worker-reexplain", "worker-audit")


@dataclass(frozen=True, slots=True)
class Seen:
    """One process."""

    pid: int
    parent: int
    #: A name of ``rmos up``'s, ``server``, or empty.
    role: str
    command: str


class Census:
    """The living processes of one run; zombies do not count."""

    def __init__(self, home: Path, mark: str) -> None:
        self._home = str(home.resolve())
        self._mark = f"{MARK}={mark}".encode()
        #: Processes that were seen with a parent of their own role.
        self._forked: set[int] = set()

    def everybody(self) -> list[Seen]:
        """Return all but the harness itself."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and int(place.name) != os.getpid():
                with suppress(OSError, IndexError, ValueError):
                    if seen := self._look(place):
                        found.append(seen)
        return found

    def mains(self) -> dict[str, list[int]]:
        """Return the process ids by role, without the children that a process forked of itself.

        A child whose parent was killed lives on for a moment under another one, and is a child all the same.
        """
        everybody = self.everybody()
        roles = {seen.pid: seen.role for seen in everybody}
        found: dict[str, list[int]] = {}
        for seen in everybody:
            if seen.role and roles.get(seen.parent) == seen.role:
                self._forked.add(seen.pid)
            elif seen.role and seen.pid not in self._forked:
                found.setdefault(seen.role, []).append(seen.pid)
        return found

    def children(self, pids: list[int]) -> list[int]:
        return [seen.pid for seen in self.everybody() if seen.parent in pids and seen.role]

    def await_end(self, seconds: float) -> list[Seen]:
        """Wait until nobody is left. Returns those that are after that time."""
        deadline = time.monotonic() + seconds
        while (left := self.everybody()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def end(self, *, but: set[int] | frozenset[int] = frozenset()) -> None:
        """Kill everybody, however it went before."""
        for _ in range(50):
            left = [seen for seen in self.everybody() if seen.pid not in but]
            if not left:
                return
            for seen in left:
                kill(seen.pid)
            time.sleep(0.05)

    def _look(self, place: Path) -> Seen | None:
        state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
        if state == "Z":
            return None
        command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        # A server writes its title over its environment, so it is known by where it works.
        serves = (place / "exe").readlink().name.removesuffix(" (deleted)") == "valkey-server"
        here = str((place / "cwd").readlink()).startswith(self._home)
        if not here and self._mark not in (place / "environ").read_bytes().split(b"\0"):
            return None
        return Seen(int(place.name), int(parent), SERVER if serves else _role(command), command[:150])


def alive(pid: int) -> bool:
    """Say whether it runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, how)


def _role(command: str) -> str:
    return next((role for role, words in _WORDS.items() if all(word in command for word in words)), "")
