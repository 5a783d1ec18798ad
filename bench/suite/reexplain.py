"""Many runs explained again under a new version of the engine, while live runs come in: do those wait?

Not part of ``make bench``; by hand: ``PYTHONPATH=bench .venv/bin/python -m suite.reexplain``. One run: live
runs alone, then beside the batch until that has ended, then alone again. A live run's time is from when it
was due to be enqueued until its explanation is linked.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from lib.contender import celery
from lib.group import Group
from lib.scene import Scene, requests_of, scene, until
from rmos_runs import RunsClient
from rmos_runs.local.ports import lasting_port
from rmos_shared.advisories.engine import Engine
from rmos_shared.advisories.model import AdvisoryLink, Explanation
from rmos_shared.batches.candidates import advisory_ids
from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchRecord, BatchSpec
from rmos_shared.canonical import canonical_sha256
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.runs.model import RunArtifact, RunRequest
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.store.local import LocalStore
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules
from rmos_worker.handlers.artifact import artifact_of
from suite.advise import _answers
from suite.latency import percentile

_APP = "lib.newer_engine"
_GROUP = 100
_SHARES = (0.5, 0.95, 0.99)
_BATCH_SECONDS = 3_600.0


@dataclass(slots=True)
class Live:
    """A producer that keeps a pace until it is stopped, and says of each run when it was due."""

    client: RunsClient
    rate: float
    due: dict[str, float] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Enqueue."""
        began = time.time()
        for index, request in enumerate(cycle(requests_of(600))):
            moment = began + index / self.rate
            if self.stopping.wait(max(0.0, moment - time.time())):
                return
            receipt = self.client.create_run(request, explain=True)
            if receipt.explain_job_id is not None:
                self.due[receipt.explain_job_id] = moment


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--live", type=float, default=10.0, help="live runs a second")
    parser.add_argument("--alone", type=float, default=60.0, help="seconds without the batch, twice")
    parser.add_argument("--rate", type=float, help="of the batch")
    parser.add_argument("--threads", type=int, default=2, help="of the batch's worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reexplain") as scratch, scene(Path(scratch)) as place:
        days = _prepare(place, options.runs)
        port = lasting_port()
        environment = {
            **place.environment,
            "RMOS_ADVISORY_URL": f"http://127.0.0.1:{port}",
            "RMOS_ADVISORY_PORT": str(port),
            "RMOS_ADVISORY_DIR": str(place.directory / "advisories"),
            "ENGINE_VERSION": "2",
        }
        workers = {
            "create": celery(_APP, "runs.create,runs.batch"),
            "advise": celery(_APP, "runs.advise", pool="threads", processes=8),
            "reexplain": celery(_APP, "runs.reexplain", pool="threads", processes=options.threads),
        }
        with (
            Group((sys.executable, "-m", "rmos_advisory_store"), environment, place.log("advisory-store")),
            Group((*workers["create"], "-l", "INFO"), environment, place.log("create")),
            Group((*workers["advise"], "-l", "INFO"), environment, place.log("advise")),
            Group((*workers["reexplain"], "-l", "INFO"), environment, place.log("reexplain")) as background,
        ):
            until(lambda: _answers(port), "the advisory store")
            until(lambda: all("ready." in place.log(name).read_text() for name in workers), "the workers")
            ledger = JobLedger.connect(BrokerSettings.load(broker_url=place.url))
            with RunsClient.connect(broker_url=place.url) as client:
                live = Live(client, options.live)
                thread = threading.Thread(target=live.run)
                thread.start()
                _measure(ledger, live, days, options, background)
                live.stopping.set()
                thread.join()
                ledger.close()
            _check(place, options.runs)


def _measure(
    ledger: JobLedger, live: Live, days: dict[str, str], options: argparse.Namespace, background: Group
) -> None:
    time.sleep(10)  # processes that have not yet imported all they need
    first = time.time()
    time.sleep(options.alone)
    opened, batch_id = time.time(), new_uuid7()
    spec = BatchSpec(choice=RunChoice.read(days), rate_per_second=options.rate, by="person:bench")
    ledger.batches.open(batch_id, spec)
    until(lambda: ledger.batches.get(batch_id).state.ended, "the batch", seconds=_BATCH_SECONDS)
    ended = time.time()
    time.sleep(options.alone)
    last = time.time()
    until(lambda: ledger.stats().pending < live.rate, "the rest")
    times = _times(ledger, live)
    alone = [taken for due, taken in times if first <= due < opened - 1 or ended + 1 <= due < last]
    beside = [taken for due, taken in times if opened <= due < ended]
    _tell(ledger.batches.get(batch_id), ended - opened, alone, beside, background)


def _times(ledger: JobLedger, live: Live) -> list[tuple[float, float]]:
    found = []
    for job_id, due in list(live.due.items()):
        record = ledger.find(job_id)
        if record is not None and record.state is JobState.DONE:
            found.append((due, record.changed_at_utc.timestamp() - due))
    return found


def _tell(
    batch: BatchRecord, seconds: float, alone: Sequence[float], beside: Sequence[float], background: Group
) -> None:
    shares = {
        f"p{share * 100:g}": [percentile(list(times), share) * 1_000 for times in (alone, beside)]
        for share in _SHARES
    }
    linked = batch.counts.linked
    print(f"batch: {linked} new links in {seconds:.0f} s, {linked / seconds:.0f} a second")
    print(f"its worker: {background.cpu_seconds():.0f} s of a processor")
    for name, (without, with_batch) in shares.items():
        ratio = with_batch / without
        print(f"live {name}: {without:.1f} ms without, {with_batch:.1f} ms with, ratio {ratio:.2f}")
    print(f"live runs: {len(alone)} without, {len(beside)} with")
    print(json.dumps(batch.counts.dump()))


def _prepare(place: Scene, runs: int) -> dict[str, str]:
    """Store runs of one day, each explained by version 1 of the engine; return the day as a choice has it."""
    explainer = FeasibilityExplainer(load_rules(), Engine("feasibility_explainer", "1"))
    writer = RunWriter(LocalStore(place.runs_dir))
    store = LocalStore(place.runs_dir)
    day = datetime.now(UTC).date().isoformat()
    requests = requests_of(runs)
    for start in range(0, runs, _GROUP):
        group = [artifact_of(RunRequest.read(request))[0] for request in requests[start : start + _GROUP]]
        writer.put_runs(group)
        store.create_many(
            [_link_file(run, explainer.explain(run, "summary")) for run in group],
        )
    return {"date_from": day, "date_to": datetime.now(UTC).date().isoformat()}


def _link_file(run: RunArtifact, explanation: Explanation) -> tuple[str, bytes]:
    ids = advisory_ids(
        run.run_id, explanation.engine_id, explanation.engine_version, explanation.inputs_sha256
    )
    link = AdvisoryLink(
        run_id=run.run_id,
        advisory_id=ids["summary"],
        kind="explanation",
        created_at_utc=run.created_at_utc,
        request_id=None,
        engine_id=explanation.engine_id,
        engine_version=explanation.engine_version,
        summary=explanation.summary,
        inputs_sha256=explanation.inputs_sha256,
        advisory_sha256=canonical_sha256(explanation.dump()),
        policy_id="green_auto",
        policy_version="1",
        approved=False,
        reviewed_by=None,
        reason="made for the measurement",
    )
    return f"{run.date}/{run.run_id}_advisory_{link.advisory_id}.json", link.to_bytes()


def _check(place: Scene, runs: int) -> None:
    """Say whether each run has the links that it should have."""
    of: dict[str, list[str]] = {}
    for entry in RunReader(LocalStore(place.runs_dir)).list_links():
        if entry.link is not None:
            of.setdefault(entry.link.run_id, []).append(entry.link.engine_version)
    again = sum(1 for versions in of.values() if sorted(versions) == ["1", "2"])
    once = sum(1 for versions in of.values() if versions == ["2"])
    print(f"links: {again} of {runs} runs with one of each version, {once} live ones with one")
    if again != runs or again + once != len(of):
        raise SystemExit("some run has too few links, or too many")


if __name__ == "__main__":
    main()
