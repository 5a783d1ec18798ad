"""What the audit log costs those who create runs: a backlog is worked off with the log, and without, in turn.

One drain after the other would differ by more than what is looked for, so the turns are short and follow
each other within one drain. Without the log, jobs tell it nothing and its worker stands still; what it had
not sealed by then it seals in its own turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis

from lib.contender import Contender, bulk, celery, single
from lib.drain import fill
from lib.group import Group, cpu_seconds
from lib.ratio import Mark
from lib.result import Section
from lib.scene import Scene, scene, until
from lib.size import Size
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.keys import generate
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.store.local import LocalStore
from rmos_worker.engine.sealing import seal_job

_APP = "rmos_worker.celery_app.main"
_SEALER = celery(_APP, "runs.audit", pool="threads", processes=2)
_WHAT = "the same, telling no audit log, in turn within one drain"
_WARM = 500
#: The last ones are left, so that no process stands idle.
_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class _Turn:
    """What was seen while the log was in use, or not."""

    logged: bool
    rate: float
    #: Processor seconds of all processes and the server, for 1,000 runs.
    cpu: float


@dataclass(frozen=True, slots=True)
class _Drain:
    turns: Sequence[_Turn]
    #: Which part of what it was told the log held at the end.
    held: float


def section(scratch: Path, size: Size) -> Section:
    """Compare each turn with those before and after it."""
    rows, remarks = [], []
    for ours, key in ((single(), "single"), (bulk(), "bulk")):
        drains = [_drain(ours, scratch, size) for _ in range(size.drains)]
        pairs = [pair for drain in drains for pair in _pairs(drain.turns)]
        held = statistics.median(drain.held for drain in drains)
        remarks.append(f"Of what it was told, the log held {held:.0%} when a drain of {key} jobs ended.")
        what = f"create-run, {key} jobs, with the sealer beside"
        rows += [
            Mark(f"sealing-{key}", what, _WHAT, 0.95, "runs/s").row(
                [logged.rate for logged, _ in pairs], [without.rate for _, without in pairs]
            ),
            Mark(f"sealing-{key}-cpu", f"CPU, {what}", _WHAT, 1.05, "s", at_most=True).row(
                [logged.cpu for logged, _ in pairs], [without.cpu for _, without in pairs]
            ),
        ]
    return Section(rows, remarks=remarks)


def _drain(ours: Contender, scratch: Path, size: Size) -> _Drain:
    """Work one backlog off in turns, with the log first."""
    with scene(scratch) as place, ExitStack() as stack:
        fill(ours, place, size.sealing_jobs)
        generate(place.audit_key, origin_of(LocalStore(place.runs_dir).identity().store_id))
        sealer = stack.enter_context(Group(_SEALER, place.environment, place.log("sealer")))
        _begin_log(place)
        untold = place.directory / "untold"
        command = ["lib.unlogged" if word == _APP else word for word in ours.worker]
        environment = {**place.environment, "RMOS_BENCH_UNTOLD": str(untold)}
        workers = stack.enter_context(Group(command, environment, place.log("worker")))
        until(lambda: place.stored() >= _WARM, "the first runs", seconds=60)
        turns: list[_Turn] = []
        goal = round(size.sealing_jobs * _SHARE)
        while place.stored() < goal:
            logged = len(turns) % 2 == 0
            if logged:
                untold.unlink(missing_ok=True)
                sealer.resume()
            else:
                untold.touch()
                sealer.pause()
            turns.append(_turn(place, [sealer, workers], size.sealing_seconds, logged=logged))
        sealer.resume()
        with _ledger(place) as ledger:
            state = ledger.unsealed.state()
        # The backlog ended within the last turn.
        return _Drain(turns[:-1], held=state.size / (state.size + state.unsealed))


def _turn(place: Scene, groups: Sequence[Group], seconds: float, *, logged: bool) -> _Turn:
    def cpu() -> float:
        return sum(group.cpu_seconds() for group in groups) + cpu_seconds(place.server.pid)

    first, spent, began = place.stored(), cpu(), time.perf_counter()
    time.sleep(seconds)
    runs, spent, took = place.stored() - first, cpu() - spent, time.perf_counter() - began
    if runs <= 0:
        raise RuntimeError("nothing was stored while we counted")
    return _Turn(logged, runs / took, 1000 * spent / runs)


def _pairs(turns: Sequence[_Turn]) -> Iterator[tuple[_Turn, _Turn]]:
    """Yield with and without the log: each turn but the first and the last, and its neighbours' mean.

    What changes steadily while a backlog is worked off, falls out so.
    """
    for before, turn, after in zip(turns, turns[1:], turns[2:], strict=False):
        around = replace(before, rate=(before.rate + after.rate) / 2, cpu=(before.cpu + after.cpu) / 2)
        yield (turn, around) if turn.logged else (around, turn)


def _begin_log(place: Scene) -> None:
    """Have the first seal made: it looks for what there was before the log, once in the life of a store."""
    with _ledger(place) as ledger:
        job = seal_job(ledger.unsealed.state(begin=True).number)
        ledger.accept([job])
        until(lambda: ledger.get(job.job_id).state is JobState.DONE, "the first seal", seconds=60)


@contextmanager
def _ledger(place: Scene) -> Iterator[JobLedger]:
    with redis.Redis.from_url(place.url) as client:
        yield JobLedger(client)
