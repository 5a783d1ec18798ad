"""The task body on a real ledger: whatever a handler does, each job ends where it belongs, and once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from celery.exceptions import Retry
from redis.commands.core import Script

from rmos_shared.errors import (
    AdvisoryUnavailable,
    BrokerUnavailable,
    FieldProblem,
    InvalidRequest,
    RunNotFound,
    StoreUnavailable,
)
from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobState
from rmos_shared.jobs.work import Claim, Finish, Lease
from rmos_shared.runs.model import RunArtifact, RunRequest
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import CreateRun
from rmos_shared.tasks.table import CREATE, CREATE_MANY, SUGGEST, TaskSpec
from rmos_worker.celery_app.app import JobDead, celery_state
from rmos_worker.engine import executor as executor_module
from rmos_worker.engine.executor import Executor, Report
from rmos_worker.engine.heartbeat import Heartbeat
from rmos_worker.handlers import create as create_module
from support.handlers import create_handler
from support.runs import Runs

SECRET = "feed=31415"
MakeSettings = Callable[..., WorkerSettings]


class FakeHandler:
    """Does to each job what the test says: an exception is its end, anything else a result."""

    def __init__(self, *, whole_group: bool = False) -> None:
        self.ends: dict[str, BaseException | Finish] = {}
        self.whole_group = whole_group
        self.on_dead_error: BaseException | None = None
        self.handled: list[str] = []
        self.died: list[tuple[str, str]] = []
        self.recorded: tuple[Publication, ...] = ()
        self.while_working: Callable[[], object] = lambda: None

    def handle(self, claims: Sequence[Claim]) -> list[Any]:
        self.handled += [claim.job_id for claim in claims]
        self.while_working()
        ends = [self.ends.get(claim.job_id, Finish(claim.job_id, {"n": 1})) for claim in claims]
        for end in ends:
            if isinstance(end, BaseException) and (self.whole_group or not isinstance(end, Exception)):
                raise end
        return ends

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:
        self.died.append((claim.job_id, failure.reason))
        if self.on_dead_error is not None:
            raise self.on_dead_error
        return self.recorded


class LossyLine:
    """A line to the server that loses the next calls, or the next answers, of one operation of the ledger."""

    def __init__(self) -> None:
        self.operation = ""
        self.lost_answers = 0
        self.lost_calls = 0
        self.calls = 0

    def carry(self, script: Script, keys: list[Any], args: list[Any]) -> Any:
        if args[0] != self.operation:
            return _call_script(script, keys=keys, args=args)
        self.calls += 1
        if self.lost_calls:
            self.lost_calls -= 1
            raise redis.ConnectionError("refused")
        answer = _call_script(script, keys=keys, args=args)
        if self.lost_answers:
            self.lost_answers -= 1
            raise redis.ConnectionError("reset while reading the answer")
        return answer


_call_script = Script.__call__


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> LossyLine:
    line = LossyLine()

    def call(script: Script, keys: list[Any], args: list[Any]) -> Any:
        return line.carry(script, keys, args)

    monkeypatch.setattr(Script, "__call__", call)
    monkeypatch.setattr(executor_module, "_SETTLE_PAUSES_SECONDS", (0.01, 0.01, 0.01))
    return line


@pytest.fixture
def handler() -> FakeHandler:
    return FakeHandler()


@pytest.fixture
def heartbeat(ledger: JobLedger, worker_settings: MakeSettings) -> Heartbeat:
    return Heartbeat(ledger.work, worker_settings())


@pytest.fixture
def make_executor(
    ledger: JobLedger,
    heartbeat: Heartbeat,
    handler: FakeHandler,
    worker_settings: MakeSettings,
) -> Callable[..., Executor]:
    def make(**settings: Any) -> Executor:
        handlers = {CREATE.name: handler, CREATE_MANY.name: handler, SUGGEST.name: handler}
        return Executor(
            work=ledger.work,
            heartbeat=heartbeat,
            handlers=handlers,
            settings=worker_settings(**settings),
        )

    return make


@pytest.fixture
def executor(make_executor: Callable[..., Executor]) -> Executor:
    return make_executor()


def make_job(spec: TaskSpec = CREATE_MANY, job_id: str | None = None) -> Job:
    return Job(
        job_id=job_id or new_uuid7(),
        task=spec.name,
        run_id=new_uuid7(),
        request_id="r",
        payload=f'{{"note":"{SECRET}"}}',
    )


def accept(ledger: JobLedger, count: int = 1) -> list[str]:
    jobs = [make_job() for _ in range(count)]
    ledger.accept(jobs)
    return [job.job_id for job in jobs]


def states(ledger: JobLedger, job_ids: Sequence[str]) -> list[JobState]:
    assert ledger.stats().invariant
    return [ledger.get(job_id).state for job_id in job_ids]


# -- one notification, many ends ----------------------------------------------------------------------


def test_each_job_of_a_group_has_its_own_end(
    ledger: JobLedger, executor: Executor, handler: FakeHandler
) -> None:
    done, waiting, dead, blameless = job_ids = accept(ledger, 4)
    handler.ends = {
        waiting: AdvisoryUnavailable("down"),
        dead: InvalidRequest((FieldProblem("mode", "is blank"),)),
        blameless: StoreUnavailable("disk full"),
    }
    report = executor.answer(job_ids)
    assert states(ledger, job_ids) == ["done", "waiting", "dead", "waiting"]
    assert report.done == [done]
    assert report.waiting.keys() == {waiting, blameless}
    assert report.dead == {dead: "invalid_payload"}
    assert report.refused == {}
    assert ledger.get(done).result == {"n": 1}
    assert [ledger.get(job_id).retry_count for job_id in (waiting, blameless)] == [1, 0]
    assert handler.died == [(dead, "invalid_payload")]
    assert ledger.dead_letters.payload(done) is None
    assert ledger.dead_letters.payload(dead) is not None


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (GeneratorExit(), "dead", "unexpected_error"),
        (ZeroDivisionError(SECRET), "dead", "unexpected_error"),
        (MemoryError(), "waiting", "try_failed"),
        (TimeoutError(), "waiting", "try_failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_nothing_that_is_raised_gets_past(
    *,
    ledger: JobLedger,
    executor: Executor,
    handler: FakeHandler,
    heartbeat: Heartbeat,
    error: BaseException,
    state: str,
    reason: str,
) -> None:
    job_ids = accept(ledger, 3)
    handler.whole_group = True
    handler.ends = {job_ids[1]: error}
    report = executor.answer(job_ids)
    # It was raised for the whole group; each is then done by itself, and only the one to blame pays for it.
    assert states(ledger, job_ids) == ["done", state, "done"]
    assert {*report.dead, *report.waiting} == {job_ids[1]}
    failure = ledger.get(job_ids[1]).failure
    assert failure is not None
    assert (failure.reason, failure.error_type) == (reason, type(error).__name__)
    assert ledger.stats().running == 0
    heartbeat.beat()
    assert states(ledger, job_ids) == ["done", state, "done"]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_jobs_of_a_process_that_is_asked_to_end_start_elsewhere(
    *,
    ledger: JobLedger,
    executor: Executor,
    handler: FakeHandler,
    worker_settings: Callable[..., WorkerSettings],
    error: BaseException,
) -> None:
    job_ids = accept(ledger, 2)
    handler.whole_group = True
    handler.ends = dict.fromkeys(job_ids, error)
    starts = worker_settings().max_crashes
    for start in range(1, starts):
        # Together at first, and each by itself from then on.
        reports = [executor.answer(ids) for ids in ([job_ids] if start == 1 else [[i] for i in job_ids])]
        # Free again at once, and no try spent; but the start counts, or this could go on for ever.
        assert [i for told in reports for i, state in told.refused.items() if state == "accepted"] == job_ids
        assert [(ledger.get(job_id).crash_count, ledger.get(job_id).retry_count) for job_id in job_ids] == [
            (start, 0)
        ] * 2
    for job_id in job_ids:
        assert executor.answer([job_id]).dead == {job_id: "crash_loop"}
    assert states(ledger, job_ids) == ["dead", "dead"]
    assert handler.died == []


def test_error_texts_hold_nothing_of_the_payload(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    (job_id,) = accept(ledger)

    def fail() -> None:
        try:
            dict[str, str]()[SECRET]
        except KeyError as cause:
            raise ValueError(f"cannot read {SECRET}") from cause

    handler.while_working = fail
    with caplog.at_level("DEBUG"):
        report = executor.answer([job_id])
    with pytest.raises(JobDead) as dead:
        celery_state(report)
    told = ledger.get(job_id).model_dump_json() + str(dead.value) + caplog.text
    assert "ValueError" in told
    assert "in fail" in told  # the traceback's frames are there
    assert SECRET not in told


def test_a_job_that_waits_is_refused_until_due_and_dead_after_its_tries(
    ledger: JobLedger,
    make_executor: Callable[..., Executor],
    handler: FakeHandler,
    redis_client: redis.Redis,
) -> None:
    executor = make_executor(max_tries=3, retry_base_seconds=100, retry_cap_seconds=100)
    (job_id,) = accept(ledger)
    handler.ends = {job_id: AdvisoryUnavailable("down")}
    for tries in (1, 2):
        assert 50 <= executor.answer([job_id]).waiting[job_id] <= 100
        assert ledger.get(job_id).retry_count == tries
        assert executor.answer([job_id]).refused == {job_id: "waiting"}
        redis_client.zadd("rmos:waiting", {job_id: 1})
        redis_client.hset(f"rmos:job:{job_id}", "due_at", 1)
    report = executor.answer([job_id])
    assert report.dead == {job_id: "retries_exhausted"}
    assert handler.died == [(job_id, "retries_exhausted")]
    assert len(handler.handled) == 3


# -- what is told to the audit log -----------------------------------------------------------------------

PUBLICATION = Publication("2026-08-01/a.json", "a" * 64, 1, created=True)


def told(ledger: JobLedger) -> list[Publication]:
    return [item for entry in ledger.unsealed.read(most=100).entries for item in entry.published]


def test_the_step_that_ends_a_job_tells_what_it_published_once(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, line: LossyLine
) -> None:
    done, dead = accept(ledger, 2)
    attempt = replace(PUBLICATION, key="_attempts/a.json")
    handler.recorded = (attempt,)
    handler.ends = {
        done: Finish(done, {}, published=(PUBLICATION,)),
        dead: InvalidRequest((FieldProblem("mode", "is blank"),)),
    }
    for line.operation in ("finish", "bury"):
        line.lost_answers = 1
        executor.answer([done if line.operation == "finish" else dead])
    assert told(ledger) == [PUBLICATION, attempt]


def test_a_job_that_took_long_tells_as_of_what_was_there_already(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = accept(ledger)
    handler.ends = {job_id: Finish(job_id, {}, published=(PUBLICATION,))}
    monkeypatch.setattr(executor_module, "_PROMPT_SECONDS", 0.0)
    executor.answer([job_id])
    # Meanwhile the log may have found the file by itself, so it must look.
    assert told(ledger) == [replace(PUBLICATION, created=False)]


# -- on_dead_error -------------------------------------------------------------------------------------


def test_a_job_whose_death_cannot_be_recorded_waits(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, redis_client: redis.Redis
) -> None:
    (job_id,) = accept(ledger)
    handler.ends = {job_id: InvalidRequest((FieldProblem("mode", "is blank"),))}
    handler.on_dead_error = StoreUnavailable("read-only file system")
    assert executor.answer([job_id]).waiting.keys() == {job_id}
    record = ledger.get(job_id)
    assert (record.state, record.retry_count) == (JobState.WAITING, 0)
    assert record.failure is not None
    assert "read-only" in record.failure.message

    redis_client.hset(f"rmos:job:{job_id}", "due_at", 1)
    handler.on_dead_error = None
    assert executor.answer([job_id]).dead == {job_id: "invalid_payload"}


@pytest.mark.parametrize("on_dead_error", [RunNotFound("x"), ValueError(SECRET)], ids=repr)
def test_on_dead_error_that_can_never_work_neither_hides_why_nor_harms_the_others(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, on_dead_error: BaseException
) -> None:
    job_ids = accept(ledger, 3)
    handler.ends = dict.fromkeys(job_ids[:2], InvalidRequest((FieldProblem("mode", "is blank"),)))
    handler.on_dead_error = on_dead_error
    report = executor.answer(job_ids)
    assert report.dead == dict.fromkeys(job_ids[:2], "invalid_payload")
    assert states(ledger, job_ids) == ["dead", "dead", "done"]


# -- leases that pass on, answers that are lost ---------------------------------------------------


def take_over(ledger: JobLedger, redis_client: redis.Redis, job_id: str, by: Lease) -> None:
    """Let the present holder fall silent and ``by`` claim the job."""
    for worker in cast("list[bytes]", redis_client.zrange("rmos:workers", 0, -1)):
        redis_client.zadd("rmos:workers", {worker: 1})
    assert ledger.queues.reconcile(batch=10, grace_seconds=100, max_crashes=5).ready == 1
    assert [claim.job_id for claim in ledger.work.claim([job_id], by, lease_seconds=100).claimed] == [job_id]


@pytest.mark.parametrize("end", ["done", "waiting", "dead"])
def test_a_lease_that_passed_on_settles_nothing(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, redis_client: redis.Redis, end: str
) -> None:
    (job_id,) = accept(ledger)
    other = Lease("other", "token")
    follower = make_job(SUGGEST, explain_job_id(job_id))
    ends: dict[str, BaseException | Finish] = {
        "done": Finish(job_id, {"by": "first"}, (follower,)),
        "waiting": AdvisoryUnavailable("down"),
        "dead": InvalidRequest((FieldProblem("mode", "is blank"),)),
    }
    handler.ends = {job_id: ends[end]}
    handler.while_working = lambda: take_over(ledger, redis_client, job_id, other)
    report = executor.answer([job_id])

    assert report.refused == {job_id: "running"}
    assert (report.done, report.waiting, report.dead) == ([], {}, {})
    with pytest.raises(Retry, match="1 job with another worker"):
        celery_state(report)
    assert states(ledger, [job_id]) == ["running"]
    assert ledger.find(follower.job_id) is None
    finish = Finish(job_id, {"by": "other"}, (follower,))
    assert ledger.work.finish([finish], other, ttl_seconds=100) == {job_id: "done"}
    assert ledger.get(job_id).result == {"by": "other"}
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.pending, stats.dead) == (2, 1, 1, 0)


def test_a_finish_whose_answer_is_lost_is_repeated_and_counted_once(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, line: LossyLine, redis_client: redis.Redis
) -> None:
    job_ids = accept(ledger, 3)
    followers = [make_job(SUGGEST, explain_job_id(job_id)) for job_id in job_ids]
    handler.ends = {
        job_id: Finish(job_id, {}, (job,)) for job_id, job in zip(job_ids, followers, strict=True)
    }
    line.operation, line.lost_answers = "finish", 2
    report = executor.answer(job_ids)
    assert report.done == job_ids
    assert line.calls == 3
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.pending) == (6, 3, 3)
    assert states(ledger, [job.job_id for job in followers]) == ["accepted"] * 3
    # Each follower is notified once, by a notification of its own.
    assert redis_client.llen(SUGGEST.queue) == 3


@pytest.mark.parametrize("operation", ["reschedule", "bury", "claim"])
def test_other_steps_whose_answer_is_lost_are_repeated_too(
    ledger: JobLedger, executor: Executor, handler: FakeHandler, line: LossyLine, operation: str
) -> None:
    (job_id,) = accept(ledger)
    if operation != "claim":
        handler.ends = {
            job_id: AdvisoryUnavailable("down")
            if operation == "reschedule"
            else InvalidRequest((FieldProblem("mode", "is blank"),))
        }
    line.operation, line.lost_answers = operation, 1
    if operation == "claim":
        with pytest.raises(BrokerUnavailable):
            executor.answer([job_id])
        assert states(ledger, [job_id]) == ["running"]  # by nobody who knows: the heartbeat gives it back
        return
    report = executor.answer([job_id])
    assert line.calls == 2
    if operation == "reschedule":
        assert report.waiting.keys() == {job_id}
        assert ledger.get(job_id).retry_count == 1
    else:
        assert report.dead.keys() == {job_id}
        assert (ledger.stats().dead, ledger.stats().queues["runs.dead_letter"]) == (1, 1)


@pytest.mark.parametrize("operation", ["finish", "reschedule", "bury"])
def test_a_settlement_that_stays_undelivered_is_no_success_and_runs_again(
    *,
    ledger: JobLedger,
    make_executor: Callable[..., Executor],
    heartbeat: Heartbeat,
    handler: FakeHandler,
    line: LossyLine,
    redis_client: redis.Redis,
    operation: str,
) -> None:
    executor = make_executor()
    (job_id,) = accept(ledger)
    if operation != "finish":
        handler.ends = {
            job_id: AdvisoryUnavailable("down")
            if operation == "reschedule"
            else InvalidRequest((FieldProblem("mode", "is blank"),))
        }
    line.operation, line.lost_calls = operation, 1_000
    report = executor.answer([job_id])
    with pytest.raises(Retry, match="1 job with another worker"):
        celery_state(report)
    assert states(ledger, [job_id]) == ["running"]

    line.lost_calls = 0
    redis_client.zadd(f"rmos:leases:{heartbeat.name}", {job_id: 1})  # as old as if a lease had passed
    heartbeat.beat()
    assert states(ledger, [job_id]) == ["accepted"]
    assert ledger.get(job_id).crash_count == 0
    handler.ends = {}
    assert executor.answer([job_id]).done == [job_id]
    assert ledger.stats().done == 1


def test_a_finish_is_repeated_while_the_broker_refuses_writes(
    ledger: JobLedger,
    executor: Executor,
    handler: FakeHandler,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (job_id,) = accept(ledger)
    pauses: list[float] = []

    def resume(seconds: float) -> None:
        pauses.append(seconds)
        redis_client.config_set("min-replicas-to-write", 0)

    monkeypatch.setattr("rmos_worker.engine.executor.time.sleep", resume)
    handler.while_working = lambda: redis_client.config_set("min-replicas-to-write", 1)
    try:
        report = executor.answer([job_id])
    finally:
        redis_client.config_set("min-replicas-to-write", 0)
    assert pauses == [0.1]
    assert report.done == [job_id]
    assert ledger.stats().accepted == ledger.stats().done == 1


@pytest.mark.parametrize(("setting", "code"), [("maxmemory", "OOM"), ("min-replicas-to-write", "NOREPLICAS")])
def test_a_broker_that_refuses_is_told_as_unavailable(
    ledger: JobLedger, redis_client: redis.Redis, setting: str, code: str
) -> None:
    # redis-py has classes of its own for some of these and cuts the code off their texts.
    redis_client.config_set(setting, 1)
    try:
        with pytest.raises(BrokerUnavailable, match=code):
            accept(ledger)
        with pytest.raises(BrokerUnavailable, match=code):
            ledger.queues.try_lock("name", "holder", seconds=1)
    finally:
        redis_client.config_set(setting, 0)


def test_a_follower_is_accepted_once_whoever_finishes(
    ledger: JobLedger, executor: Executor, handler: FakeHandler
) -> None:
    (job_id,) = accept(ledger)
    handler.ends = {job_id: Finish(job_id, {}, (make_job(SUGGEST, explain_job_id(job_id)),))}
    assert executor.answer([job_id]).done == [job_id]
    again = executor.answer([job_id])
    assert again.refused == {job_id: "done"}
    assert celery_state(again) == "1 job done before"
    assert (ledger.stats().accepted, handler.handled) == (2, [job_id])


def test_a_follower_is_notified_for_in_the_step_that_ends_its_parent(
    ledger: JobLedger, executor: Executor, handler: FakeHandler
) -> None:
    (job_id,) = accept(ledger)
    follower = make_job(SUGGEST, explain_job_id(job_id))
    handler.ends = {job_id: Finish(job_id, {}, (follower,))}
    assert executor.answer([job_id]).done == [job_id]
    taken = ledger.queues.take(SUGGEST.queue)
    assert taken
    assert follower.job_id.encode() in (taken.notification or b"")


def test_unknown_ids_are_told_and_keep_no_other_job_from_its_turn(
    ledger: JobLedger, executor: Executor
) -> None:
    (job_id,) = accept(ledger)
    unknown = new_uuid7()
    report = executor.answer([unknown, job_id])
    assert report.done == [job_id]
    assert report.refused == {unknown: "unknown"}


def test_jobs_count_as_worked_on_from_before_the_claim_to_after_the_end(
    ledger: JobLedger,
    executor: Executor,
    handler: FakeHandler,
    heartbeat: Heartbeat,
    redis_client: redis.Redis,
) -> None:
    (job_id,) = accept(ledger)

    def beat_late() -> None:
        redis_client.zadd(f"rmos:leases:{heartbeat.name}", {job_id: 1})
        heartbeat.beat()
        assert ledger.get(job_id).state is JobState.RUNNING

    handler.while_working = beat_late
    assert executor.answer([job_id]).done == [job_id]
    assert not heartbeat._working


# -- the group of create-run jobs -----------------------------------------------------------------


@pytest.fixture
def create_jobs(ledger: JobLedger, sample_requests: list[dict[str, Any]]) -> list[Job]:
    jobs = []
    for index, request in enumerate(sample_requests[:5]):
        run = RunRequest.read(request | ({"created_at_utc": "2026-01-02T00:00:00Z"} if index == 2 else {}))
        payload = CreateRun(run=run).to_bytes().decode()
        jobs.append(
            Job(
                job_id=new_uuid7(), task=CREATE_MANY.name, run_id=run.run_id, request_id=None, payload=payload
            )
        )
    ledger.accept(jobs)
    return jobs


def test_one_bad_run_does_not_touch_the_others_of_its_group(
    *,
    ledger: JobLedger,
    heartbeat: Heartbeat,
    worker_settings: MakeSettings,
    run_log: Runs,
    runs_dir: Path,
    redis_client: redis.Redis,
    create_jobs: list[Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_ids = [job.job_id for job in create_jobs]
    redis_client.set(f"rmos:payload:{job_ids[1]}", "[" * 100_000)
    real_artifact_of = create_module.artifact_of  # type: ignore[attr-defined]  # replaced below

    def artifact_of(request: RunRequest) -> tuple[RunArtifact, bytes | None]:
        if request.run_id == create_jobs[3].run_id:
            raise ValueError(SECRET)  # a bug of ours that only this run wakes
        return real_artifact_of(request)

    monkeypatch.setattr(create_module, "artifact_of", artifact_of)
    (runs_dir / "2026-01-02").touch()  # a file where the partition of the third belongs
    executor = Executor(
        work=ledger.work,
        heartbeat=heartbeat,
        handlers={CREATE_MANY.name: create_handler(run_log.store)},
        settings=worker_settings(),
    )
    report = executor.answer(job_ids)
    assert report.done == [job_ids[0], job_ids[4]]
    assert report.dead == {
        job_ids[1]: "invalid_payload",
        job_ids[2]: "corrupt_artifact",
        job_ids[3]: "unexpected_error",
    }
    for job in (create_jobs[0], create_jobs[4]):
        assert run_log.reader.get_artifact(job.run_id).run_id == job.run_id


# -- what Flower shows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report(done=["a"]), "1 job done"),
        (Report(done=["a", "b"]), "2 jobs done"),
        (Report(refused={"a": "done"}), "1 job done before"),
        (Report(done=["a"], refused={"b": "running"}), "1 of 2 jobs done, 1 of 2 jobs with another worker"),
        (Report(refused={"a": "unknown"}), "1 job unknown"),
    ],
    ids=str,
)
def test_success_says_how_many_are_done(report: Report, words: str) -> None:
    assert celery_state(report) == words


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            Report(dead={"a": "conflict", "b": "crash_loop"}, done=["c"], waiting={"d": 1.0}),
            "2 of 4 jobs dead (conflict, crash_loop): rmos dlq show a",
        ),
        (
            Report(refused={"a": "dead"}, waiting={"d": 1.0}),
            "1 of 2 jobs dead (dead before): rmos dlq show a",
        ),
    ],
    ids=["now", "already"],
)
def test_failure_when_any_is_dead(report: Report, words: str) -> None:
    with pytest.raises(JobDead) as dead:
        celery_state(report)
    assert str(dead.value) == words


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            Report(done=["a"], waiting={"b": 12.4}, why_waiting={"b": "breaker_open"}),
            "1 of 2 jobs put off for 12 s (breaker_open)",
        ),
        (Report(refused={"b": "waiting"}), "1 job put off before, and not due yet"),
        (Report(refused={"a": "running"}), "1 job with another worker"),
        (Report(refused={"a": "accepted"}), "1 job with another worker"),
    ],
    ids=["now", "already", "running elsewhere", "in line again"],
)
def test_retry_when_it_is_done_later_or_elsewhere(report: Report, words: str) -> None:
    with pytest.raises(Retry) as later:
        celery_state(report)
    # Flower is told of the error, and of nothing else that Retry holds.
    assert repr(later.value.exc) == f"PutOff('{words}')"
