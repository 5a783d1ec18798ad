"""The verifier of the audit log against `sha256sum` over the very same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lib import disk
from lib.ratio import Mark, compare
from lib.result import Section
from lib.size import Size
from rmos_runs.auditor import verifier
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.sealer import Sealer
from rmos_shared.ids import new_uuid7
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore

_DAYS = 5
_PER_SEAL = 1_000
_HEARTBEAT = timedelta(hours=12)


def section(scratch: Path, size: Size) -> Section:
    """Fill and seal a store, then verify it, and hash its files, in turn."""
    root = scratch / "audited"
    try:
        vkey = _filled(root, size.audit_runs)
        files = sum(len(names) for _, _, names in os.walk(root))
        command = [sys.executable, "-I", str(verifier.__file__), "verify", str(root), "--key", vkey, "--json"]

        def ours() -> None:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            told = json.loads(done.stdout)
            # The identity is not counted.
            if told["summary"]["files_read"] < files - 1:
                raise RuntimeError(f"not all {files} files were read: {told['summary']}")

        def reference() -> None:
            subprocess.run(
                ["/bin/sh", "-c", 'find "$0" -type f -print0 | xargs -0 sha256sum', str(root)],
                stdout=subprocess.DEVNULL,
                check=True,
            )

        mark = Mark("audit-verify", f"verify, {size.audit_runs:,} runs", "sha256sum", 0.8, "files/s")
        row = compare(mark, ours, reference, amount=files, rounds=min(3, size.rounds))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    remark = (
        f"{files:,} files, sealed over {_DAYS} days: artifacts, links and some reviews, and the log itself. "
        "`find | xargs sha256sum` is one process; the verifier takes one for each core."
    )
    return Section([row], remarks=[remark])


def _filled(root: Path, runs: int) -> str:
    """Write the files without waiting for the disk, seal them by the real sealer; return the log's key."""
    origin = f"rmos-runs/{init_store(root).store_id}"
    signer = Signer(origin, Ed25519PrivateKey.generate())
    sealer = Sealer(LocalStore(root), origin, signer, heartbeat=_HEARTBEAT)
    bodies, per_day = disk.sample(), -(-runs // _DAYS)
    at = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0) - timedelta(days=_DAYS + 1)
    # The log begins before its records, so that it adopts none.
    sealer.seal([], now=at - timedelta(hours=1), feed_at_end=True)
    for _ in range(_DAYS):
        receipts: list[Receipt] = []
        for number in range(per_day):
            now = at + number * timedelta(hours=10) / per_day
            receipts += _run(root, bodies[number % len(bodies)], now)
            if len(receipts) >= _PER_SEAL:
                sealer.seal(receipts, now=now, feed_at_end=True)
                receipts = []
        sealer.seal(receipts, now=at + timedelta(hours=10), feed_at_end=True)
        sealer.seal([], now=at + timedelta(hours=22), feed_at_end=True)
        at += timedelta(days=1)
    return signer.vkey


def _run(root: Path, body: bytes, at: datetime) -> Iterator[Receipt]:
    run_id, day = new_uuid7(at), f"{at:%Y-%m-%d}"
    files = {
        f"{day}/{run_id}.json": body,
        f"{day}/{run_id}_advisory_{sha256(run_id.encode()).hexdigest()[:32]}.json": body[:1_200],
    }
    if run_id[-1] == "0":
        files[f"_reviews/{day}/{run_id}/{new_uuid7(at)}.json"] = body[:400]
    for key, data in files.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (at.timestamp(), at.timestamp()))
        yield Receipt(key, sha256(data).hexdigest(), len(data), at, created=True)
