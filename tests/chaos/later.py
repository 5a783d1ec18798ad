"""A later version of the package, which knows one task more.

``python -m chaos.later plant STATE``, or ``finish ID...``, on the broker of ``RMOS_BROKER_URL``. Its jobs are
what the version under test finds after a roll-back, or while only half of the machines are new.
"""

from __future__ import annotations

import sys
import time

from rmos_shared.tasks import table as tasks

LATER = tasks.TaskSpec("runs.later", tasks.CREATE.queue, tasks.CREATE.payload, "later")
if __name__ == "__main__":
    # Before anything makes the script, into which this table is written.
    tasks.TASKS[LATER.name] = LATER

from rmos_shared.ids import new_uuid7  # noqa: E402 - only now
from rmos_shared.jobs.ledger import JobLedger  # noqa: E402
from rmos_shared.jobs.model import Failure, Job, JobState  # noqa: E402
from rmos_shared.jobs.work import Finish, Lease  # noqa: E402
from rmos_shared.settings.broker import BrokerSettings  # noqa: E402

#: Where such a job may be when the new version goes away.
STATES = ("accepted", "waiting", "running", "dead")
_FAILURE = Failure(reason="retries_exhausted", error_type="Later", message="made by a later version")
_SECONDS = 30.0


def plant(ledger: JobLedger, state: str) -> str:
    """Accept a job of the later task, and leave it in this state. Returns its id."""
    job_id = new_uuid7()
    job = Job(job_id=job_id, task=LATER.name, run_id=new_uuid7(), request_id=None, payload="{}")
    ledger.accept([job])
    if state != "accepted":
        lease = Lease(f"later:{job_id}", job_id)
        assert ledger.work.claim([job_id], lease, lease_seconds=2.0).claimed
        if state == "waiting":
            ledger.work.reschedule(job_id, lease, delay_seconds=1.0, spends_retry=True, failure=_FAILURE)
        elif state == "dead":
            ledger.work.bury(job_id, lease, failure=_FAILURE)
    return job_id


def finish(ledger: JobLedger, job_ids: list[str]) -> dict[str, str]:
    """Work these jobs off as the later version would. Returns the state in which each of them is."""
    lease, deadline = Lease("later:finish", new_uuid7()), time.monotonic() + _SECONDS
    while True:
        records = {job_id: ledger.find(job_id) for job_id in job_ids}
        states = {job_id: record.state.value if record else "gone" for job_id, record in records.items()}
        open_ids = [job_id for job_id, state in states.items() if state not in {"done", "gone"}]
        if not open_ids or time.monotonic() > deadline:
            ledger.work.retire(lease.worker, max_crashes=100)
            return states
        for job_id in open_ids:
            if states[job_id] == JobState.DEAD.value:
                ledger.dead_letters.replay(job_id, by="later", why="known again")
            # Alone, for some of them were started in vain.
            if ledger.work.claim([job_id], lease, lease_seconds=10.0).claimed:
                ledger.work.finish([Finish(job_id, {})], lease, ttl_seconds=86_400)
        ledger.queues.reconcile(batch=100, grace_seconds=1.0, max_crashes=100)
        time.sleep(0.2)


def main() -> None:
    what, *words = sys.argv[1:]
    ledger = JobLedger.connect(BrokerSettings.load())
    if what == "plant":
        sys.stdout.write(plant(ledger, words[0]) + "\n")
    else:
        for job_id, state in finish(ledger, words).items():
            sys.stdout.write(f"{job_id} {state}\n")


if __name__ == "__main__":
    main()
