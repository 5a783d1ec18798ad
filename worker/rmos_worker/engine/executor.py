"""The one task body: claim, do, and settle each job in the ledger, whatever is raised."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.work import Claim, Finish, JobWork, Lease, Settlement
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.events import (
    JobDead,
    JobFailed,
    JobGivenBack,
    JobRescheduled,
    JobsFinished,
    SettlementLost,
)
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.scope import Scope, busy_with
from rmos_shared.telemetry.traces.base import NoTraces, Traces
from rmos_worker.engine.heartbeat import Heartbeat
from rmos_worker.engine.job_spans import JobSpans
from rmos_worker.engine.retry import Bury, GiveBack, RetryLimits, Wait, decide
from rmos_worker.handlers.base import Handler

#: How long a settlement is repeated here before the heartbeat is left to give the lease back.
_SETTLE_PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0)
#: Half of the time after which the audit log calls a file late that nobody told of.
_PROMPT_SECONDS = 60.0
#: As the ledger still has a job whose settlement did not get through.
_UNSETTLED = Settlement.RUNNING
_EVENTS: dict[type[Wait | Bury | GiveBack], type[JobFailed]] = {
    Wait: JobRescheduled,
    Bury: JobDead,
    GiveBack: JobGivenBack,
}
_AnswerT = TypeVar("_AnswerT")


@dataclass(slots=True)
class Report:
    """How one notification was answered: the jobs by the state that the ledger now has them in."""

    done: list[str] = field(default_factory=list)
    #: With the delay, in seconds.
    waiting: dict[str, float] = field(default_factory=dict)
    #: The reason of each of those.
    why_waiting: dict[str, str] = field(default_factory=dict)
    #: With the reason.
    dead: dict[str, str] = field(default_factory=dict)
    #: Not ours to do: the state that says why (``running`` elsewhere, not due, unknown).
    refused: dict[str, str] = field(default_factory=dict)

    def outcome(self, job_id: str) -> str:
        """Return the state in which the ledger has a job of this notification."""
        if job_id in self.dead:
            return Settlement.DEAD.value
        return Settlement.WAITING.value if job_id in self.waiting else self.refused.get(job_id, "done")


class Executor:
    """Answers notifications. Nothing that a job raises gets past it."""

    def __init__(
        self,
        *,
        work: JobWork,
        heartbeat: Heartbeat,
        handlers: Mapping[str, Handler],
        settings: WorkerSettings,
        traces: Traces | None = None,
    ) -> None:
        """Take all that the work needs; ``handlers`` by task name; ``traces`` has a span made of each job."""
        self._work = work
        self._heartbeat = heartbeat
        self._handlers = handlers
        self._settings = settings
        self._traces = traces or NoTraces()
        self._limits = RetryLimits(
            max_tries=settings.max_tries,
            base_seconds=settings.retry_base_seconds,
            cap_seconds=settings.retry_cap_seconds,
            total_seconds=settings.retry_total_seconds,
        )

    def answer(self, job_ids: Sequence[str]) -> Report:
        """Do the jobs that are free, and settle each of them in the ledger.

        Raises:
            BrokerUnavailable: the claim did not get through; the jobs are in line again after the grace.
        """
        lease = Lease(self._heartbeat.name, secrets.token_hex(8))
        report = Report()
        # Working from before the claim on, so that the heartbeat never gives a fresh lease back.
        with self._heartbeat.working(job_ids):
            claims = self._work.claim(job_ids, lease, lease_seconds=self._settings.lease_seconds)
            report.refused = claims.refused
            for task, group in groupby(claims.claimed, key=attrgetter("task")):
                spans = JobSpans(self._traces, list(group))
                # A group has no one job whose ids its lines could bear.
                with busy_with(spans.claims[0].scope if len(spans.claims) == 1 else Scope()):
                    errors = self._do(task, spans.claims, lease, report)
                spans.end(report.outcome, errors)
        return report

    def _do(
        self, task: str, claims: Sequence[Claim], lease: Lease, report: Report
    ) -> Mapping[str, BaseException]:
        """Do jobs of one task and settle them; return what was raised, by job."""
        handler = self._handlers[task]
        started = time.monotonic()
        ends = _ends(handler, claims)
        finished = [end for end in ends if isinstance(end, Finish)]
        if finished:
            self._finish(_as_told(finished, time.monotonic() - started), lease, report)
        failed = [
            (claim, end) for claim, end in zip(claims, ends, strict=True) if isinstance(end, BaseException)
        ]
        quiet = []
        for claim, error in failed:
            with busy_with(claim.scope):
                quiet.append(self._put_off_or_bury(handler, claim, error, lease, report))
        emit(
            JobsFinished(
                task=task,
                jobs=len(claims),
                done=len(report.done),
                waiting=len(report.waiting),
                dead=len(report.dead),
                milliseconds=round((time.monotonic() - started) * 1000, 1),
                job_id=claims[0].job_id,
                run_id=claims[0].run_id,
                request_id=claims[0].request_id,
            ),
            # An outage is reported once, by the breaker, and not for each job.
            quiet=not finished and all(quiet),
        )
        return {claim.job_id: error for claim, error in failed}

    def _finish(self, finished: Sequence[Finish], lease: Lease, report: Report) -> None:
        states = _settled(
            lambda: self._work.finish(finished, lease, ttl_seconds=self._settings.done_ttl_seconds)
        )
        if states is None:
            report.refused.update((finish.job_id, _UNSETTLED) for finish in finished)
            return
        for finish in finished:
            state = states[finish.job_id]
            if state is Settlement.DONE:
                report.done.append(finish.job_id)
            else:
                # The lease passed on while we worked; effects are idempotent, so the new holder repairs all.
                report.refused[finish.job_id] = state

    def _put_off_or_bury(
        self, handler: Handler, claim: Claim, error: BaseException, lease: Lease, report: Report
    ) -> bool:
        """Settle a job that failed; return if it is one of the many that an outage puts off."""
        end = self._decide(error, claim)
        published: Sequence[Publication] = ()
        if isinstance(end, Bury):
            try:
                published = handler.on_dead(claim, end.failure)
            except BaseException as unrecorded:  # noqa: BLE001 - nothing gets past here, nor hides why it died
                # An audit record that cannot be written now keeps the job alive until it can.
                later = self._decide(unrecorded, claim)
                end = end if isinstance(later, Bury) else later
        outage = isinstance(end, Wait) and end.outage
        emit(
            _EVENTS[type(end)](
                task=claim.task,
                job_id=claim.job_id,
                run_id=claim.run_id,
                request_id=claim.request_id,
                reason=end.failure.reason,
                error=end.failure.error_type,
            ),
            quiet=outage,
        )
        state = _settled(lambda: self._settle(claim.job_id, lease, end, published))
        if state is Settlement.DEAD:
            report.dead[claim.job_id] = end.failure.reason
        elif state is Settlement.WAITING and isinstance(end, Wait):
            report.waiting[claim.job_id] = end.delay_seconds
            report.why_waiting[claim.job_id] = end.failure.reason
        else:
            report.refused[claim.job_id] = state or _UNSETTLED
        return outage

    def _settle(
        self, job_id: str, lease: Lease, end: Wait | Bury | GiveBack, published: Sequence[Publication]
    ) -> Settlement:
        """Do what was decided; return the job's state afterwards."""
        match end:
            case Bury(failure):
                return self._work.bury(job_id, lease, failure=failure, published=published)
            case Wait(delay, spends_retry, failure, held):
                return self._work.reschedule(
                    job_id, lease, delay_seconds=delay, spends_retry=spends_retry, failure=failure, held=held
                )
            case GiveBack():
                return self._work.give_back(job_id, lease, max_crashes=self._settings.max_crashes)

    def _decide(self, error: BaseException, claim: Claim) -> Wait | Bury | GiveBack:
        return decide(
            error,
            retry_count=claim.retry_count,
            waiting_seconds=claim.waiting_seconds,
            limits=self._limits,
            jitter=random.uniform,
        )


def _ends(handler: Handler, claims: Sequence[Claim]) -> Sequence[Finish | BaseException]:
    """Do the jobs, and return what each came to or what was raised."""
    try:
        return handler.handle(claims)
    except (SystemExit, KeyboardInterrupt) as error:
        return [error] * len(claims)  # we are asked to end
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not cost a job
        if len(claims) == 1:
            return [error]
    # One of them is to blame, and nobody knows which; what was done already is done again without effect.
    return [end for claim in claims for end in _ends(handler, [claim])]


def _as_told(finished: Sequence[Finish], seconds: float) -> Sequence[Finish]:
    """Return them as the audit log may be told: of a job that took long it may have found a file already."""
    if seconds < _PROMPT_SECONDS:
        return finished
    return [
        replace(finish, published=tuple(replace(item, created=False) for item in finish.published))
        for finish in finished
    ]


def _settled(step: Callable[[], _AnswerT]) -> _AnswerT | None:
    """Repeat a settlement while the broker is away; None when it stayed away.

    Then the lease is left standing: once this task has ended, the heartbeat finds it unknown and gives it
    back, and the job runs again without counting as a crash.
    """
    for pause in _SETTLE_PAUSES_SECONDS:
        try:
            return step()
        except (BrokerUnavailable, BrokerDamaged):
            time.sleep(pause)
    emit(SettlementLost())
    return None
