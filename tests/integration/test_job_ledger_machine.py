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
        #: Keys that jobs published, in the order in which they ended; nothing of it is lost or told twice.
        self.published: list[str] = []
        #: Acts begun, and up to where the feed is sealed.
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
