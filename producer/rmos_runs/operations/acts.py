"""Carrying out an act on many jobs: in steps, at a pace, recorded from before the first step to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import BrokerDamaged, BrokerUnavailable, RmosError
from rmos_shared.jobs.acts import ActKind, ActOutcome
from rmos_shared.jobs.ledger import JobLedger

#: Jobs of one step: the server does nothing else meanwhile.
_STEP = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """An act that is about to be carried out."""

    kind: ActKind
    #: Jobs, letters or subjects of pauses: these and no others, whatever comes to be meanwhile.
    ids: Sequence[str]
    #: How they were chosen, for the record.
    about: Mapping[str, Any]
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class ActReport:
    """What an act came to."""

    act_id: str
    #: Jobs that it changed, as its record counts them.
    done: int
    #: Those whose state forbade it.
    refused: Mapping[str, RmosError]
    outcome: ActOutcome


def carry_out(
    ledger: JobLedger,
    plan: Plan,
    *,
    rate: float | None = None,
    on_begin: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    clock: Clock | None = None,
) -> ActReport:
    """Do the plan, at most ``rate`` jobs a second, and return what it came to.

    ``on_begin`` hears the id of the act before anything is changed, ``on_progress`` how many jobs were looked
    at. Ctrl-C ends it between two steps or within one, with the outcome ``stopped``. Killed, its record says
    how far it got, and the same choice made again means the rest.

    Raises:
        BrokerUnavailable: the record says how far it got; repeat the choice for the rest.
    """
    act_id = ledger.acts.begin(plan.kind, by=plan.by, why=plan.why, about=plan.about, found=len(plan.ids))
    refused: dict[str, RmosError] = {}
    outcome, looked_at = ActOutcome.FAILED, 0
    try:
        if on_begin is not None:
            on_begin(act_id)
        for page in paced(plan.ids, rate, clock or SystemClock()):
            refused |= ledger.steering.apply(plan.kind, page, by=plan.by, why=plan.why, act_id=act_id)
            looked_at += len(page)
            if on_progress is not None:
                on_progress(looked_at)
        outcome = ActOutcome.COMPLETE
    except KeyboardInterrupt:
        outcome = ActOutcome.STOPPED
    finally:
        with suppress(BrokerUnavailable, BrokerDamaged):
            ledger.acts.end(act_id, outcome, refused=len(refused))
    return ActReport(act_id, ledger.acts.get(act_id).done, refused, outcome)


def paced(ids: Sequence[str], rate: float | None, clock: Clock) -> Iterator[Sequence[str]]:
    """Yield the ids in steps, each when it is time: at most ``rate`` a second, half a second's at once."""
    size = _STEP if rate is None else max(1, min(_STEP, int(rate / 2)))
    began = clock.monotonic()
    for first in range(0, len(ids), size):
        if rate is not None:
            due = began + first / rate
            clock.sleep(max(0.0, due - clock.monotonic()))
        yield ids[first : first + size]
