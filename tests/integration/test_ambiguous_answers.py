"""The server did it and the answer was cut off: every step of the ledger, made again, comes to the same end.

Each step goes through a proxy that lets the request reach the server and ends the connection instead of
answering. Cut off once, the call succeeds by itself; cut off each time, it raises ``BrokerUnavailable``, and
the caller makes the same call again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import redis

from rmos_shared.errors import BrokerUnavailable, TransitionRefused
from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import Acceptance, JobLedger
from rmos_shared.jobs.model import DeadReason, Failure, Job
from rmos_shared.jobs.work import Finish, Lease, Settlement
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import CREATE, DEAD_LETTER_QUEUE, SUGGEST
from support.proxy import Proxy, proxied

LEASE = Lease("worker", "token")
FAILURE = Failure(reason=DeadReason.CONFLICT.value, error_type="ArtifactConflict", message="taken")
RAW = b"no message of ours"


def a_job(task: str = CREATE.name, job_id: str | None = None) -> Job:
    return Job(
        job_id=job_id or new_uuid7(), task=task, run_id=new_uuid7(), request_id="req", payload='{"n":1}'
    )


JOB = a_job()
FOLLOWER = a_job(SUGGEST.name, explain_job_id(JOB.job_id))


def accepted(ledger: JobLedger) -> None:
    ledger.accept([JOB])


def claimed(ledger: JobLedger) -> None:
    accepted(ledger)
    assert ledger.work.claim([JOB.job_id], LEASE, lease_seconds=60).claimed


def dead(ledger: JobLedger) -> None:
    claimed(ledger)
    assert ledger.work.bury(JOB.job_id, LEASE, failure=FAILURE) == "dead"


def pushed(ledger: JobLedger) -> None:
    ledger._client.lpush(CREATE.queue, RAW)


def raw(ledger: JobLedger) -> None:
    pushed(ledger)
    assert ledger.queues.take(CREATE.queue)
    assert raw_id(ledger)


def raw_id(ledger: JobLedger) -> str:
    (key,) = ledger._client.keys("rmos:raw:*")
    return str(cast("bytes", key).decode().removeprefix("rmos:raw:"))


def accept_in_two_halves(ledger: JobLedger) -> list[Acceptance]:
    with ledger.accepting([JOB]) as outcomes:
        return outcomes()


def claim(ledger: JobLedger) -> list[tuple[str, int, int]]:
    claims = ledger.work.claim([JOB.job_id], LEASE, lease_seconds=60)
    assert claims.refused == {}
    return [(claim.job_id, claim.crash_count, claim.retry_count) for claim in claims.claimed]


def finish(ledger: JobLedger) -> dict[str, Settlement]:
    return ledger.work.finish([Finish(JOB.job_id, {"n": 1}, (FOLLOWER,))], LEASE, ttl_seconds=60)


def wait(ledger: JobLedger) -> str:
    return ledger.work.reschedule(JOB.job_id, LEASE, delay_seconds=60, spends_retry=True, failure=FAILURE)


def waiting(ledger: JobLedger) -> None:
    claimed(ledger)
    assert wait(ledger) == "waiting"


def begun(
    kind: ActKind, begins: Callable[[JobLedger], object] = lambda _: None
) -> Callable[[JobLedger], None]:
    """Begin an act, after what it needs."""

    def made(ledger: JobLedger) -> None:
        begins(ledger)
        ledger.acts.begin(kind, by="op", why="x", about={}, found=1)

    return made


def act_on(kind: ActKind, about: str) -> Callable[[JobLedger], int]:
    """Do a step of the act that was begun; answers what its record counts."""

    def made(ledger: JobLedger) -> int:
        act = next(ledger.acts.newest_first())
        assert ledger.steering.apply(kind, [about], by="op", why="x", act_id=act.act_id) == {}
        return ledger.acts.get(act.act_id).done

    return made


def unsaid(call: Callable[[JobLedger], object]) -> Callable[[JobLedger], None]:
    """Make the call and pass its answer over: nothing hangs on it but that there is one."""

    def made(ledger: JobLedger) -> None:
        call(ledger)

    return made


@dataclass(frozen=True)
class Step:
    """One call, where it begins, and what the ledger has after it, however often it was made."""

    #: The operation's name, as it stands on the wire.
    word: str
    begins: Callable[[JobLedger], object]
    call: Callable[[JobLedger], Any]
    #: The figures that are not zero; the invariant follows from them and is asserted besides.
    figures: dict[str, int]
    #: What the call answers, where its callers go by that.
    answer: Any = None
    #: Fields of the job's record.
    record: dict[str, Any] = field(default_factory=dict)
    #: How a person who makes the call again is told that it was done already.
    told: type[Exception] | None = None
    mirrored: int = 0


STEPS = {
    "accept": Step(
        "accept",
        lambda _: None,
        lambda ledger: set(ledger.accept([JOB])) <= {Acceptance.NEW, Acceptance.REPEAT},
        {"accepted": 1, "ready": 1},
        answer=True,
        record={"state": "accepted", "crash_count": 0},
    ),
    "accept_to_the_disk": Step(
        "accept",
        lambda _: None,
        lambda ledger: set(ledger.accept([JOB], disk_seconds=5)) <= {Acceptance.NEW, Acceptance.REPEAT},
        {"accepted": 1, "ready": 1},
        answer=True,
        record={"state": "accepted", "crash_count": 0},
    ),
    "accept_in_two_halves": Step(
        "accept",
        lambda _: None,
        lambda ledger: set(accept_in_two_halves(ledger)) <= {Acceptance.NEW, Acceptance.REPEAT},
        {"accepted": 1, "ready": 1},
        answer=True,
        record={"state": "accepted", "crash_count": 0},
    ),
    "claim": Step(
        "claim",
        accepted,
        claim,
        {"accepted": 1, "running": 1},
        answer=[(JOB.job_id, 1, 0)],
        record={"state": "running", "crash_count": 1},
    ),
    "finish": Step(
        "finish",
        claimed,
        finish,
        {"accepted": 2, "done": 1, "ready": 1},
        answer={JOB.job_id: "done"},
        record={"state": "done", "result": {"n": 1}},
    ),
    "reschedule": Step(
        "reschedule",
        claimed,
        wait,
        {"accepted": 1, "waiting": 1},
        answer="waiting",
        record={"state": "waiting", "retry_count": 1},
    ),
    "bury": Step(
        "bury",
        claimed,
        lambda ledger: ledger.work.bury(JOB.job_id, LEASE, failure=FAILURE),
        {"accepted": 1, "dead": 1},
        answer="dead",
        record={"state": "dead", "failure": FAILURE},
        mirrored=1,
    ),
    "give_back": Step(
        "give_back",
        claimed,
        unsaid(lambda ledger: ledger.work.give_back(JOB.job_id, LEASE, max_crashes=3)),
        {"accepted": 1, "ready": 1},
        record={"state": "accepted", "crash_count": 1},
    ),
    "give_back_for_the_last_time": Step(
        "give_back",
        claimed,
        unsaid(lambda ledger: ledger.work.give_back(JOB.job_id, LEASE, max_crashes=1)),
        {"accepted": 1, "dead": 1},
        record={"state": "dead", "crash_count": 1},
        mirrored=1,
    ),
    "retire": Step(
        "retire",
        claimed,
        unsaid(lambda ledger: ledger.work.retire(LEASE.worker, max_crashes=3)),
        {"accepted": 1, "ready": 1},
        record={"state": "accepted", "crash_count": 1},
    ),
    "replay": Step(
        "replay",
        dead,
        unsaid(lambda ledger: ledger.dead_letters.replay(JOB.job_id, by="op", why="repaired")),
        {"accepted": 1, "ready": 1},
        record={"state": "accepted", "crash_count": 0, "history": ["died", "replayed"]},
        told=TransitionRefused,
    ),
    "discard": Step(
        "discard",
        dead,
        lambda ledger: ledger.dead_letters.discard(JOB.job_id, by="op", why="known"),
        {"accepted": 1, "discarded": 1},
        record={"state": "discarded", "history": ["died", "discarded"]},
    ),
    # What the lost answer held is not answered again: a notification is sent again, a letter is kept.
    "take_notification": Step(
        "take",
        accepted,
        unsaid(lambda ledger: ledger.queues.take(CREATE.queue)),
        {"accepted": 1, "ready": 1},
        record={"state": "accepted"},
    ),
    "take_raw": Step(
        "take", pushed, unsaid(lambda ledger: ledger.queues.take(CREATE.queue)), {"raw": 1}, mirrored=1
    ),
    "cancel": Step(
        "cancel",
        begun(ActKind.CANCEL, accepted),
        act_on(ActKind.CANCEL, JOB.job_id),
        {"accepted": 1, "discarded": 1},
        answer=1,
        record={"state": "discarded", "history": ["cancelled"]},
    ),
    "run_now": Step(
        "run_now",
        begun(ActKind.RUN_NOW, waiting),
        act_on(ActKind.RUN_NOW, JOB.job_id),
        {"accepted": 1, "waiting": 1},
        answer=1,
        record={"state": "waiting", "history": ["put_off", "run_now"]},
    ),
    "pause": Step("pause", begun(ActKind.PAUSE), act_on(ActKind.PAUSE, "queue:runs.create"), {}, answer=1),
    "discard_raw": Step(
        "discard",
        raw,
        lambda ledger: ledger.dead_letters.discard(raw_id(ledger), by="op", why="noise"),
        {},
    ),
}


@pytest.fixture
def line(broker_url: str, ledger: JobLedger) -> Iterator[Proxy]:
    # The server knows the scripts from here on: a step is one round trip, and none but its own is cut.
    ledger.accept([])
    ledger.stats()
    with proxied(broker_url) as proxy:
        yield proxy


@pytest.fixture
def far(line: Proxy) -> Iterator[JobLedger]:
    """The ledger at the other end of the line."""
    url = f"redis://127.0.0.1:{line.port}/0"
    connected = JobLedger.connect(BrokerSettings.load(broker_url=url, broker_timeout_seconds=10))
    yield connected
    connected.close()


def assert_end(step: Step, ledger: JobLedger, client: redis.Redis) -> None:
    stats = ledger.stats()
    assert stats.invariant
    figures = stats.model_dump(exclude={"queues"})
    assert {name: count for name, count in figures.items() if count} == step.figures
    assert client.llen(DEAD_LETTER_QUEUE) == step.mirrored
    if step.record:
        record = ledger.get(JOB.job_id)
        told = {name: getattr(record, name) for name in step.record}
        if "history" in told:
            told["history"] = [entry["what"] for entry in told["history"]]
        assert told == step.record
    if step.word == "finish":
        assert ledger.get(FOLLOWER.job_id).state == "accepted"


@pytest.mark.parametrize("name", STEPS)
def test_a_step_whose_answer_is_cut_off_is_made_again_by_itself(
    name: str, line: Proxy, far: JobLedger, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    step = STEPS[name]
    step.begins(ledger)
    line.cut_before_answer(1, only=f"\r\n{step.word}\r\n".encode())
    assert step.call(far) == step.answer
    assert line.swallowed == 1
    assert_end(step, ledger, redis_client)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_whose_answers_are_all_cut_off_may_be_called_again(
    name: str, line: Proxy, far: JobLedger, ledger: JobLedger, redis_client: redis.Redis
) -> None:
    step = STEPS[name]
    step.begins(ledger)
    line.cut_before_answer(1_000, only=f"\r\n{step.word}\r\n".encode())
    with pytest.raises(BrokerUnavailable, match="repeat the call"):
        step.call(far)
    assert line.swallowed >= 1
    assert_end(step, ledger, redis_client)  # it was done, once, though nobody knows

    line.heal()
    with suppress(*([step.told] if step.told else [])):
        assert step.call(far) == step.answer
    assert_end(step, ledger, redis_client)
