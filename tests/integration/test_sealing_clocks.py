"""The clock of the ledger's server is set back: what waits is sealed all the same, and somebody is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rmos_runs.operations.sealing_status import sealing_status
from rmos_shared.auditlog.entry import format_time
from rmos_shared.canonical import sha256_hex
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.table import AUDIT_QUEUE
from support.worker import StartWorker

Eventually = Callable[..., None]
AHEAD = timedelta(minutes=30)


def set_back(redis_client: Any) -> None:
    """Leave what a server has whose clock was half an hour ahead until now: no id of a stream steps back."""
    then = datetime.now(UTC) + AHEAD
    milliseconds = round(then.timestamp() * 1_000)
    redis_client.xadd("rmos:unsealed", {"n": 0, "total": 0, "p": "[]"}, id=f"{milliseconds}-0")
    redis_client.xtrim("rmos:unsealed", maxlen=0)
    times = {"at": format_time(then), "next": format_time(then + timedelta(hours=1))}
    redis_client.hset("rmos:seals", mapping={**times, "reconciled_at": milliseconds})


def test_what_waits_is_sealed_at_once_and_until_then_sealing_has_stopped(
    start_worker: StartWorker, ledger: JobLedger, runs_dir: Path, redis_client: Any, eventually: Eventually
) -> None:
    store = LocalStore(runs_dir)
    ledger.unsealed.state(begin=True)
    SealingRun(ledger, SealParts.of(AuditSettings.load(), store, ledger), lock_seconds=5).run(lambda _: False)
    set_back(redis_client)
    assert not sealing_status(ledger).has_stopped, "nothing waits"
    published = Publication("2026-08-01/run_1.json", sha256_hex(b"1"), 1, created=True)
    ledger.unsealed.add([published])
    waiting = ledger.unsealed.state()
    assert waiting.oldest_at is not None
    assert waiting.oldest_at > waiting.now
    assert sealing_status(ledger).has_stopped
    start_worker(queues=(AUDIT_QUEUE,))
    # Not in half an hour.
    eventually(lambda: ledger.unsealed.state().unsealed == 0, told=ledger.unsealed.state)
    state = ledger.unsealed.state()
    assert state.seals >= 1
    assert state.reconciled_at is not None
    assert state.reconciled_at <= state.now, "it was due too, and is so no more"
    assert not sealing_status(ledger).has_stopped
    # The seal's own time and promise are ahead, and no reason for a job in each second until then.
    time.sleep(3)
    assert ledger.unsealed.state().number - state.number <= 1
