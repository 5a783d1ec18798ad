"""A state machine drives the job ledger beside a plain model, on the real server and on fakeredis."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from rmos_shared.errors import TransitionRefused
from rmos_shared.ids import explain_job_id, new_uuid7, seal_job_id
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import Acceptance, JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.webhooks import WEBHOOK_EVENTS, Subscription
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.table import CREATE, CREATE_MANY, QUEUES, SEAL, SUGGEST, TASKS


def publication(name: str) -> Publication:
    return Publication(f"2026-08-01/{name.replace('.', '_')}.json", "a" * 64, 1, created=True)


WORKERS = ("w1", "w2")
MAX_CRASHES = 3
SUBJECTS = (
    f"queue:{CREATE.queue}",
    f"queue:{SUGGEST.queue}",
    f"task:{CREATE_MANY.name}",
    f"task:{SUGGEST.name}",
    "queue:runs.notify",
    "schedule",
)
FAILURE = Failure(reason="retries_exhausted", error_type="X", message="x")


@dataclass
class Model:
    """What one job should be like."""

    payload: str
    state: str = "accepted"
    crash_count: int = 0
    retry_count: int = 0
    lease: Lease | None = None
    finished_by: Lease | None = None
    task: str = SUGGEST.name
    #: Whether it is in its queue's line, so that the next take must hand it out unless it is paused.
    in_line: bool = True

    def paused_by(self, subjects: set[str]) -> bool:
        return bool(subjects & {f"task:{self.task}", f"queue:{TASKS[self.task].queue}"})


class LedgerMachine(RuleBasedStateMachine):
    """Whatever the order of steps and repeats, the real ledger and the model agree."""

    client: redis.Redis
    options: ClassVar[dict[str, Any]] = {}
    #: Whether an endpoint wants to hear of every end.
    told: ClassVar[bool] = False
    ids: Bundle[str] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.ledger = JobLedger(self.client, **self.options)
        self.jobs: dict[str, Model] = {}
        self.accepted = 0
        self.token = 0
        #: Ends of jobs so far; a job that is replayed may end again.
        self.ends = 0
        #: Keys that jobs published, in the order in which they ended: the feed tells of each once.
        self.published: list[str] = []
        #: Acts begun, and how much of the feed is sealed.
        self.acts = 0
        self.sealed = 0
        self.paused: set[str] = set()
        if self.told:
            self.ledger.webhooks.configure([Subscription("erp", WEBHOOK_EVENTS)])

    @rule(
        target=ids,
        payloads=st.lists(st.sampled_from(["{}", '{"a":1}']), min_size=1, max_size=3),
        task=st.sampled_from([CREATE.name, CREATE_MANY.name, SUGGEST.name]),
    )
    def accept(self, payloads: list[str], task: str) -> MultipleResults[str]:
        jobs = [
            Job(job_id=new_uuid7(), task=task, run_id=new_uuid7(), request_id=None, payload=payload)
            for payload in payloads
        ]
        assert self.ledger.accept(jobs) == [Acceptance.NEW] * len(jobs)
        for job in jobs:
            self.jobs[job.job_id] = Model(job.payload, task=task)
            self.accepted += 1
        return multiple(*(job.job_id for job in jobs))

    @rule(job_id=ids, payload=st.sampled_from(["{}", '{"a":1}']))
    def accept_again(self, job_id: str, payload: str) -> None:
        record = self.ledger.get(job_id)
        job = Job(job_id=job_id, task=record.task, run_id=record.run_id, request_id=None, payload=payload)
        same = payload == self.jobs[job_id].payload
        assert self.ledger.accept([job]) == [Acceptance.REPEAT if same else Acceptance.CONFLICT]

    @rule(job_ids=st.lists(ids, min_size=1, max_size=3, unique=True), worker=st.sampled_from(WORKERS))
    def claim(self, job_ids: list[str], worker: str) -> None:
        self.token += 1
        lease = Lease(worker, str(self.token))
        for _ in range(2):  # a repeat of the call, as after a lost answer, changes nothing
            claims = self.ledger.work.claim(job_ids, lease, lease_seconds=1000)
        free = [
            job_id
            for job_id in job_ids
            if self.jobs[job_id].state == "accepted"
            and (len(job_ids) == 1 or self.jobs[job_id].crash_count == 0)
        ]
        assert [claim.job_id for claim in claims.claimed] == free
        for claim in claims.claimed:
            model = self.jobs[claim.job_id]
            model.state, model.lease, model.in_line = "running", lease, False
            model.crash_count += 1
            assert (claim.crash_count, claim.retry_count) == (model.crash_count, model.retry_count)
            assert claim.payload.decode() == model.payload
        assert claims.refused == {i: self.jobs[i].state for i in job_ids if i not in free}

    @rule(job_id=ids, follow=st.booleans(), stale=st.booleans(), repeats=st.integers(1, 2))
    def finish(self, job_id: str, follow: bool, stale: bool, repeats: int) -> None:  # noqa: FBT001
        model = self.jobs[job_id]
        lease = Lease("stranger", "0") if stale or model.lease is None else model.lease
        child = explain_job_id(job_id.partition(".")[0])
        follow = follow and child not in self.jobs and "." not in job_id
        job = Job(job_id=child, task=SUGGEST.name, run_id=new_uuid7(), request_id=None, payload="{}")
        mine = model.state == "running" and lease == model.lease
        for _ in range(repeats):
            published = (publication(job_id), publication(f"{job_id}_g"))
            state = self.ledger.work.finish(
                [Finish(job_id, {"n": 1}, (job,) if follow else (), published)], lease, ttl_seconds=1000
            )[job_id]
        if mine:
            assert state == "done"
            self.published += [item.key for item in published]
            model.state, model.finished_by = "done", lease
            self.ends += 1
            if follow:
                self.jobs[child] = Model("{}")
                self.accepted += 1
        elif model.state == "done":
            assert state == ("done" if lease == model.finished_by else "done_elsewhere")
        else:
            assert state == model.state

    @rule(job_id=ids, due=st.booleans(), spends_retry=st.booleans(), repeats=st.integers(1, 2))
    def wait(self, job_id: str, due: bool, spends_retry: bool, repeats: int) -> None:  # noqa: FBT001
        model = self.jobs[job_id]
        mine = model.state == "running"
        lease = model.lease or Lease("stranger", "0")
        for _ in range(repeats):
            state = self.ledger.work.reschedule(
                job_id, lease, delay_seconds=0 if due else 1000, spends_retry=spends_retry, failure=FAILURE
            )
        if not mine:
            assert state == model.state
            return
        assert state == "waiting"
        model.crash_count, model.retry_count = 0, model.retry_count + spends_retry
        model.state = "waiting"
        if due:
            self._comes_due(job_id)

    def _comes_due(self, job_id: str) -> None:
        self._take_all()
        assert (
            self.ledger.queues.reconcile(batch=1000, grace_seconds=1000, max_crashes=MAX_CRASHES).ready == 1
        )
        model = self.jobs[job_id]
        model.state, model.in_line = "accepted", True
        self._take_all()

    @rule(job_id=ids, repeats=st.integers(1, 2))
    def bury(self, job_id: str, repeats: int) -> None:
        model = self.jobs[job_id]
        lease = model.lease or Lease("stranger", "0")
        for _ in range(repeats):
            attempt = publication(f"{job_id}_{self.ends}")
            state = self.ledger.work.bury(job_id, lease, failure=FAILURE, published=[attempt])
        if model.state == "running":
            model.state = "dead"
            self.published.append(attempt.key)
            self.ends += 1
        assert state == model.state

    @rule(worker=st.sampled_from(WORKERS))
    def worker_dies(self, worker: str) -> None:
        """It falls silent: its jobs are notified again, or dead after too many starts."""
        self.client.zadd("rmos:workers", {worker: 1}, xx=True)
        self._take_all()
        self.ledger.queues.reconcile(batch=1000, grace_seconds=1000, max_crashes=MAX_CRASHES)
        self._lapse(worker, MAX_CRASHES)
        self._take_all()

    @rule(worker=st.sampled_from(WORKERS), keep=st.booleans())
    def beat(self, worker: str, keep: bool) -> None:  # noqa: FBT001
        """A lease the worker does not know of is given back, and does not count as a crash."""
        held = [
            i for i, m in self.jobs.items() if m.state == "running" and m.lease and m.lease.worker == worker
        ]
        self._take_all()
        lapsed = self.ledger.work.beat(worker, held if keep else [], lease_seconds=1000, stale_seconds=-1)
        given_back = [] if keep else held
        assert lapsed == len(given_back)
        for job_id in given_back:
            model = self.jobs[job_id]
            model.state, model.lease, model.in_line = "accepted", None, True
            model.crash_count -= 1
        self._take_all()

    @rule(worker=st.sampled_from(WORKERS))
    def retire(self, worker: str) -> None:
        self._take_all()
        self.ledger.work.retire(worker, max_crashes=MAX_CRASHES)
        self._lapse(worker, MAX_CRASHES)
        self._take_all()

    def _take_all(self) -> None:
        """Take every notification: all that is in line comes, save what is paused, and nothing else."""
        notified = set()
        while taken := self.ledger.queues.take(*QUEUES):
            assert taken.notification is not None  # each is one that the gate lets pass
            notified |= set(json.loads(json.loads(taken.notification)["body"])[0][0])
        expected = {job_id for job_id, m in self.jobs.items() if m.in_line and not m.paused_by(self.paused)}
        assert notified & set(self.jobs) == expected
        for job_id in expected:
            self.jobs[job_id].in_line = False

    def _lapse(self, worker: str, max_crashes: int) -> None:
        for model in self.jobs.values():
            if model.state == "running" and model.lease and model.lease.worker == worker:
                model.lease = None
                model.state = "dead" if model.crash_count >= max_crashes else "accepted"
                model.in_line = model.state == "accepted"
                self.ends += model.state == "dead"

    @rule(subject=st.sampled_from(SUBJECTS))
    def pause(self, subject: str) -> None:
        assert self.ledger.steering.apply(ActKind.PAUSE, [subject], by="op", why="test") == {}
        self.paused.add(subject)
        self._take_all()

    @rule(subject=st.sampled_from(SUBJECTS))
    def resume(self, subject: str) -> None:
        assert self.ledger.steering.apply(ActKind.RESUME, [subject], by="op", why="test") == {}
        self.paused.discard(subject)
        self._take_all()

    @rule(job_ids=st.lists(ids, min_size=1, max_size=3, unique=True), repeats=st.integers(1, 2))
    def cancel(self, job_ids: list[str], repeats: int) -> None:
        free = {i for i in job_ids if self.jobs[i].state in {"accepted", "waiting"}}
        self._act(ActKind.CANCEL, job_ids, free, repeats)
        for job_id in free:
            self.jobs[job_id].state, self.jobs[job_id].in_line = "discarded", False
            self.ends += 1
            assert self.ledger.get(job_id).history[-1]["what"] == "cancelled"

    @rule(job_ids=st.lists(ids, min_size=1, max_size=3, unique=True), repeats=st.integers(1, 2))
    def run_now(self, job_ids: list[str], repeats: int) -> None:
        put_off = {i for i in job_ids if self.jobs[i].state == "waiting"}
        self._act(ActKind.RUN_NOW, job_ids, put_off, repeats)
        self._take_all()
        moved = self.ledger.queues.reconcile(batch=1000, grace_seconds=1000, max_crashes=MAX_CRASHES)
        assert moved.ready == len(put_off)
        for job_id in put_off:
            self.jobs[job_id].state, self.jobs[job_id].in_line = "accepted", True
        self._take_all()

    @rule(part=st.integers(1, 5))
    def seal(self, part: int) -> None:
        """A seal job takes the beginning of the feed away, and nothing behind it."""
        entries = self.ledger.unsealed.read(most=part).entries
        number = self.ledger.unsealed.state(begin=True).number
        job = Job(seal_job_id(number), SEAL.name, "audit-log", None, f'{{"number":{number}}}')
        assert self.ledger.accept([job]) == [Acceptance.NEW]
        lease = Lease("sealer", str(number))
        self._take_all()
        self.ledger.work.claim([job.job_id], lease, lease_seconds=1000)
        result = {"seals": 1, "feed": entries[-1].feed_id if entries else None}
        for _ in range(2):
            self.ledger.work.finish([Finish(job.job_id, result)], lease, ttl_seconds=1000)
        model = Model(job.payload, state="done", crash_count=1, task=SEAL.name, in_line=False)
        model.finished_by = lease
        self.jobs[job.job_id] = model
        self.accepted += 1
        self.sealed += sum(len(entry.published) + (entry.act_id is not None) for entry in entries)

    def _act(self, kind: ActKind, job_ids: list[str], changed: set[str], repeats: int) -> None:
        self.acts += 1
        act_id = self.ledger.acts.begin(kind, by="op", why="test", about={}, found=len(job_ids))
        for _ in range(repeats):  # a repeat of the call, as after a lost answer, changes and counts nothing
            refused = self.ledger.steering.apply(kind, job_ids, by="op", why="test", act_id=act_id)
        assert set(refused) == {*job_ids} - changed
        assert {type(error) for error in refused.values()} <= {TransitionRefused}
        assert self.ledger.acts.get(act_id).done == len(changed)

    @rule(job_id=ids)
    def replay(self, job_id: str) -> None:
        model = self.jobs[job_id]
        if model.state == "dead":
            self._take_all()
            self.ledger.dead_letters.replay(job_id, by="op", why="test")
            model.state, model.crash_count, model.retry_count, model.lease = "accepted", 0, 0, None
            model.in_line = True
            self._take_all()
            assert self.ledger.get(job_id).history[-1]["what"] == "replayed"
        else:
            with pytest.raises(TransitionRefused):
                self.ledger.dead_letters.replay(job_id, by="op", why="test")

    @rule(job_id=ids)
    def discard(self, job_id: str) -> None:
        model = self.jobs[job_id]
        if model.state in {"dead", "discarded"}:
            self.ends += model.state == "dead"
            self.ledger.dead_letters.discard(job_id, by="op", why="test")
            model.state = "discarded"
        else:
            with pytest.raises(TransitionRefused):
                self.ledger.dead_letters.discard(job_id, by="op", why="test")

    @invariant()
    def is_told_once(self) -> None:
        entries = self.ledger.unsealed.read(most=10_000).entries
        told = [item.key for entry in entries for item in entry.published]
        assert told == self.published[len(self.published) - len(told) :]
        acts = sum(entry.act_id is not None for entry in entries)
        assert self.sealed + len(told) + acts == len(self.published) + self.acts
        assert self.ledger.unsealed.state().unsealed == len(told) + acts

    @invariant()
    def agrees(self) -> None:
        stats = self.ledger.stats()
        states = [model.state for model in self.jobs.values()]
        # One delivery for each end; nobody claims them here.
        deliveries = self.ends if self.told else 0
        states += ["accepted"] * deliveries
        assert stats.invariant
        assert self.accepted == len(self.jobs)
        assert stats.accepted == self.accepted + deliveries
        assert stats.done == states.count("done")
        assert stats.dead == states.count("dead") == stats.queues["runs.dead_letter"]
        assert stats.discarded == states.count("discarded")
        assert (stats.ready, stats.running, stats.waiting) == (
            states.count("accepted"),
            states.count("running"),
            states.count("waiting"),
        )
        for job_id, model in self.jobs.items():
            record = self.ledger.get(job_id)
            assert (record.state, record.crash_count, record.retry_count) == (
                model.state,
                model.crash_count,
                model.retry_count,
            )


@pytest.mark.parametrize("webhooks", [False, True], ids=["alone", "webhooks"])
@pytest.mark.parametrize("kind", ["real", "fake"])
def test_ledger_agrees_with_the_model(kind: str, *, webhooks: bool, request: pytest.FixtureRequest) -> None:
    client: redis.Redis
    options: dict[str, str] = {}
    if kind == "real":
        client = redis.Redis.from_url(request.getfixturevalue("broker_url"))
    else:
        client = fakeredis.FakeRedis(server_type="valkey")
        options = {"script_header": ""}

    class Machine(LedgerMachine):
        pass

    Machine.client = client
    Machine.options = options
    Machine.told = webhooks
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                # The fake runs its Lua ten times slower, and is held to the same model all the same.
                max_examples=60 if kind == "real" else 8,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
            ),
        )
    finally:
        client.close()
