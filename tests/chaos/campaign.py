"""One run from start to end: bring up, break, heal, drain, audit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import redis

from chaos.audit import audit, audited
from chaos.faults import Faults, plan
from chaos.options import Options
from chaos.post_journal import read_posts
from chaos.pulse import Pulse
from chaos.report import Report, make_report
from chaos.system import System
from chaos.verified import look
from rmos_shared.errors import RmosError

_TICK_SECONDS = 0.05
#: Faults that a busy machine has put off for longer than that are left out.
_LATE_SECONDS = 60
#: How long everything must look done before it counts as done.
_QUIET_SECONDS = 2.0


def run(options: Options, directory: Path, say: Callable[[str], None]) -> Report:
    """Do it, in ``directory``. Everything that was started has ended on return, whatever happens.

    Raises:
        SystemFailed: the pipeline did not even come up.
    """
    began = time.monotonic()
    with System(directory, options) as system:
        system.start()
        faults, pulse = Faults(system), Pulse(system)
        pulse.start()
        try:
            system.start_load()
            for finding in system.findings:
                say(finding)
            say(f"up after {time.monotonic() - began:.1f} s; faults for {options.seconds:g} s")
            _break(options, system, faults, say)
            faults.heal()
            drained = _drain(options, system, faults) and _settle(options, system, faults)
            say("drained" if drained else "not drained in time")
            _look(system)
            log_findings = look(system)
        finally:
            samples = pulse.stop()
        system.stop()
        # What the disks hold is what counts, read by a server that nobody else knows.
        with audited(system) as client:
            found = audit(client, system, faults)
        found.log_findings = dict(log_findings)
        posted = read_posts(system.post_journal)
        return make_report(options, found, faults, samples, posted, seconds=time.monotonic() - began)


def _break(options: Options, system: System, faults: Faults, say: Callable[[str], None]) -> None:
    start = time.monotonic()

    def wait_until(seconds: float) -> None:
        while time.monotonic() - start < seconds:
            system.tend()
            faults.tick()
            time.sleep(_TICK_SECONDS)

    for planned in plan(options):
        wait_until(planned.at)
        late = time.monotonic() - start - planned.at
        if time.monotonic() - start > options.seconds + _LATE_SECONDS:
            faults.skipped["too_late"] += 1
            continue
        say(
            f"{time.monotonic() - start:6.1f} s  {planned.kind}"
            + (f"  ({late:.1f} s late)" if late > 1 else "")
        )
        faults.do(planned)
        system.tend()
    # What the last fault broke has to repair by itself for as long as faults were asked for.
    wait_until(options.seconds)


def _settle(options: Options, system: System, faults: Faults) -> bool:
    """End what only a person or another version can end. Returns whether all was done then."""
    faults.edges.check_later()
    faults.edges.finish_later()
    replayed = faults.edges.replay_sacrifices()
    return not (replayed or faults.edges.tally.later) or _drain(options, system, faults)


def _look(system: System) -> None:
    """Have the doctor say that all is well, now that nothing is wrong any more."""
    ended = system.rmos("doctor")
    if ended.returncode:
        system.breach(f"doctor is not content at the end ({ended.returncode}): …{ended.stderr[-300:]}")
    if not system.flower_is_well():
        system.breach("Flower does not answer at the end")
    if not system.gateway_is_well():
        system.breach("the gateway does not answer at the end")


def _drain(options: Options, system: System, faults: Faults) -> bool:
    """Wait until nothing is left to do. Returns whether that came in time."""
    deadline = time.monotonic() + options.drain_seconds
    quiet_since: float | None = None
    while time.monotonic() < deadline:
        system.tend()
        faults.tick()
        done = system.load_is_done and not faults.edges.lasting
        if not (done and _nothing_left(system, faults.edges.later_pending)):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > _QUIET_SECONDS:
            return True
        time.sleep(_TICK_SECONDS)
    return False


def _nothing_left(system: System, pending: int) -> bool:
    """Say whether nothing waits but so many jobs that nobody can do yet."""
    try:
        stats = system.stats()
    except (RmosError, redis.RedisError, OSError):
        return False
    queued = sum(length for queue, length in stats.queues.items() if queue != "runs.dead_letter")
    return stats.pending <= pending and queued == 0
