"""Several sealers at once on one store, killed at random, and then the count. Longer than the tests do it:

    PYTHONPATH=tests .venv/bin/python -m support.sealers --seconds 1200 --seed 1

A publisher writes files and appends their receipts to a feed, under a lock that gives them their times, as
the ledger does. Of some it says nothing, so that they are late; of some it says twice what it said. Then: one
log, every file in it exactly once, and nothing else.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from rmos_shared.auditlog import keys
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, SealEntry, parse_entry
from rmos_shared.auditlog.layout import is_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Signer, verified
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.reconcile import Reconciler
from rmos_shared.auditlog.sealer import Sealer
from rmos_shared.canonical import sha256_hex
from rmos_shared.ids import new_uuid7
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
from support import spawn
from support.audit_log import assert_sound, place

#: Between two seals a sealer rests for up to that long, so that kills fall into all of its steps.
REST_SECONDS = 0.03
MOST_READ = 400
#: Of the feed, read first: a long one is seldom needed whole.
TAIL_BYTES = 1 << 18
#: Of files without a receipt: older than what reconciliation leaves alone.
OLD = timedelta(minutes=10)


@dataclass(slots=True)
class Site:
    """Where it all happens."""

    root: Path
    store: LocalStore
    signer: Signer

    @classmethod
    def open(cls, root: Path) -> Self:
        identity = init_store(root / "runs")
        key = root / "key.pem"
        origin = origin_of(identity.store_id)
        signer = keys.load_file(key, origin) if key.exists() else keys.generate(key, origin)
        return cls(root, LocalStore(root / "runs"), signer)

    @property
    def feed(self) -> Path:
        return self.root / "feed"

    def sealer(self) -> Sealer:
        return Sealer(self.store, self.signer.name, self.signer, heartbeat=timedelta(seconds=2))

    @contextmanager
    def locked(self, how: int) -> Iterator[int]:
        file = os.open(self.feed, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        try:
            fcntl.flock(file, how)
            yield file
        finally:
            os.close(file)


@dataclass(slots=True)
class Published:
    """What was published, by key."""

    told: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


def publish(site: Site, dice: random.Random, published: Published, number: int) -> None:
    """Write a handful of files, and tell of most of them."""
    told: list[tuple[str, str, int, bool]] = []
    for _ in range(dice.choice([1, 1, 5, 40])):
        now = datetime.now(UTC)
        key = f"{now.date().isoformat()}/{new_uuid7(now)}.json"
        data = f"{key} {number}".encode()
        site.store.create(key, data)
        if dice.random() < 0.05:
            old = (now - OLD).timestamp()
            os.utime(site.root / "runs" / key, (old, old))
            published.late.append(key)
        else:
            published.told.append(key)
            told.append((key, sha256_hex(data), len(data), True))
            if dice.random() < 0.05:
                told.append((key, sha256_hex(data), len(data), False))
    if published.told and dice.random() < 0.2:
        key = dice.choice(published.told)
        stored = site.store.get(key)
        assert stored is not None
        told.append((key, sha256_hex(stored), len(stored), False))
    with site.locked(fcntl.LOCK_EX) as file:
        at = datetime.now(UTC)
        lines = [json.dumps([f"{number}-{place}", at.isoformat(), *each]) for place, each in enumerate(told)]
        os.write(file, "".join(f"{line}\n" for line in lines).encode())


def read(site: Site, after: str) -> tuple[list[Receipt], datetime, bool]:
    """Return the receipts after a place in the feed, the time, and whether there are no more."""
    with site.locked(fcntl.LOCK_SH) as file:
        rows = _rows(file, TAIL_BYTES)
        if not rows or place(rows[0][0]) > place(after):
            rows = _rows(file, os.fstat(file).st_size)
        now = datetime.now(UTC)
    rest = [row for row in rows if place(row[0]) > place(after)]
    receipts = [
        Receipt(key, sha256, size, datetime.fromisoformat(at), feed_id, created)
        for feed_id, at, key, sha256, size, created in rest[:MOST_READ]
    ]
    return receipts, now, len(rest) <= MOST_READ


def _rows(file: int, tail: int) -> list[Any]:
    """Return the whole lines among the last bytes of the feed."""
    start = max(0, os.fstat(file).st_size - tail)
    lines = os.pread(file, tail, start).splitlines()
    return [json.loads(line) for line in (lines[1:] if start else lines)]


def seal_for_ever(root: Path, seed: int) -> None:
    """Be one sealer, until killed."""
    site = Site.open(root)
    dice = random.Random(seed)  # noqa: S311 - no secret
    sealer = site.sealer()
    reconciler = Reconciler(site.store, sealer.log)
    while True:
        seal_once(site, sealer, reconciler if dice.random() < 0.2 else None)
        time.sleep(dice.random() * REST_SECONDS)


def seal_once(site: Site, sealer: Sealer, reconciler: Reconciler | None) -> bool:
    """Seal what there is; return whether anything was."""
    size = sealer.log.newest_size()
    receipts, now, at_end = read(site, sealer.log.seal(size).seal.feed if size else "")
    if reconciler is not None and at_end:
        receipts += reconciler.find(now).receipts
    return sealer.seal(receipts, now=now, feed_at_end=at_end) is not None


@dataclass(frozen=True, slots=True)
class Counted:
    """What came out."""

    kills: int
    seals: int
    entries: int
    told: int
    late: int

    def __str__(self) -> str:
        return (
            f"{self.kills} sealers killed, {self.seals} seals, {self.entries} entries: one log, "
            f"with all {self.told} files that were told of and {self.late} others in it exactly once"
        )


def campaign(root: Path, *, seconds: float, seed: int, sealers: int = 3) -> Counted:
    """Let sealers race and kill them for so long; then finish what they left and count."""
    site = Site.open(root)
    dice = random.Random(seed)  # noqa: S311 - no secret
    published = Published()
    # Before the first file: nothing is there to be adopted.
    seal_once(site, site.sealer(), None)
    running: list[subprocess.Popen[bytes]] = []
    kills = 0
    number = 0
    try:
        # The first may have to wait for the libraries to be read.
        running.append(_start(root, seed))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            number += 1
            publish(site, dice, published, number)
            while len(running) < sealers:
                running.append(_start(root, dice.randrange(1 << 30)))
            time.sleep(dice.random() * 0.1)
            if dice.random() < 0.4:
                _kill(running.pop(dice.randrange(len(running))))
                kills += 1
    finally:
        for process in running:
            _kill(process)
    sealer = site.sealer()
    reconciler = Reconciler(site.store, sealer.log)
    while seal_once(site, sealer, reconciler):
        pass
    return count(site, sealer.log, published, kills)


def count(site: Site, log: AuditLog, published: Published, kills: int) -> Counted:
    """Assert that the log is sound, and holds every file exactly once, by the times that it promises."""
    seals = assert_sound(log)
    found: Counter[str] = Counter()
    late: set[str] = set()
    upto: datetime | None = None
    waiting: list[RecordEntry] = []
    for size in log.sizes():
        verified(log.note(size)[1], [site.signer.verifier])
    for entry in map(parse_entry, log.entries()):
        if isinstance(entry, SealEntry):
            for record in waiting:
                assert record.at <= entry.at, f"{record.key} was sealed before its receipt came"
                assert upto is None or record.at >= upto, f"{record.key} came before a seal of all till then"
            waiting, upto = [], entry.seal.upto
            continue
        found[entry.key] += 1
        if entry.found:
            late.add(entry.key)
        else:
            waiting.append(entry)
    twice = [key for key, times in found.items() if times > 1]
    assert not twice, f"{len(twice)} keys have two entries: {twice[:3]}"
    expected = {*published.told, *published.late}
    assert found.keys() == expected, f"{len(expected ^ found.keys())} keys are missing or foreign"
    assert {key for key in site.store.list("") if is_entry(key)} == expected
    assert late == set(published.late)
    return Counted(kills, seals, found.total() + seals, len(published.told), len(published.late))


def _start(root: Path, seed: int) -> subprocess.Popen[bytes]:
    return spawn.Popen[bytes](
        [sys.executable, "-m", "support.sealers", "--root", str(root), "--seed", str(seed), "--one"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    code = process.wait(timeout=10)
    assert code == -signal.SIGKILL, f"a sealer ended by itself, with {code}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sealers", type=int, default=3, help="at a time")
    parser.add_argument("--root", type=Path, help="a directory to be kept; else a new one that is removed")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.one:
        seal_for_ever(told.root, told.seed)
    with tempfile.TemporaryDirectory(prefix="rmos-sealers-") as directory:
        root = told.root or Path(directory)
        print(campaign(root, seconds=told.seconds, seed=told.seed, sealers=told.sealers))  # noqa: T201


if __name__ == "__main__":
    main()
