"""Batches in one process: the rounds of a reconciler, and workers that die wherever a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.engine import Engine
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.batches.candidates import Candidates
from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchRecord, BatchSpec
from rmos_shared.batches.report import BatchReports
from rmos_shared.clock import SystemClock
from rmos_shared.errors import AdvisoryNotFound, AdvisoryRefused
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import DeadReason
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.runs.files import RunFiles
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.base import ArtifactStore
from rmos_shared.tasks.table import BACKGROUND_QUEUE, PLAN, REEXPLAIN, REPORT
from rmos_worker.engine.batches import BatchRounds
from rmos_worker.engine.retry import describe
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules
from rmos_worker.handlers.base import Handler
from rmos_worker.handlers.existing_run import ExistingRuns
from rmos_worker.handlers.plan import PlanHandler
from rmos_worker.handlers.precedence import Precedence
from rmos_worker.handlers.reexplain import ReexplainHandler
from rmos_worker.handlers.report import ReportHandler
from rmos_worker.handlers.suggest import SuggestHandler
from rmos_worker.policies.choice import policy_named

TODAY = datetime.now(UTC).date().isoformat()


class Advisories:
    """An advisory store in memory, which refuses the runs named."""

    def __init__(self) -> None:
        self.assets: dict[str, AdvisoryAsset] = {}
        self.refused: set[str] = set()

    def save(self, asset: AdvisoryAsset) -> SaveOutcome:
        if asset.meta["run_id"] in self.refused:
            raise AdvisoryRefused("not this one")
        known = self.assets.setdefault(asset.asset_id, asset)
        assert known.content_hash == asset.content_hash
        return SaveOutcome.CREATED if known is asset else SaveOutcome.ALREADY_SAME

    def fetch(self, asset_id: str) -> AdvisoryAsset:
        if asset_id not in self.assets:
            raise AdvisoryNotFound(asset_id)
        return self.assets[asset_id]


class BatchWorker:
    """Does what the workers do for batches, by the same parts, one step at a time."""

    def __init__(
        self, ledger: JobLedger, store: ArtifactStore, *, version: str = "1", page_runs: int = 1_000
    ) -> None:
        self.ledger = ledger
        self.store = store
        self.advisories = Advisories()
        self._page_runs = page_runs
        self._name = 0
        self.upgrade(version)

    def upgrade(self, version: str) -> None:
        """Explain with another version of the engine from now on."""
        explainer = FeasibilityExplainer(load_rules(), Engine("feasibility_explainer", version))
        reader = RunReader(self.store, self.ledger)
        suggest = SuggestHandler(
            writer=RunWriter(self.store),
            existing=ExistingRuns(reader, self.ledger),
            explainer=explainer,
            advisories=self.advisories,
            policy=policy_named("green_auto"),
            clock=SystemClock(),
        )
        candidates = Candidates(self.store, self.ledger, explainer.engine)
        self.suggest = suggest
        self.handlers: dict[str, Handler] = {
            PLAN.name: PlanHandler(candidates, explainer.engine, page_runs=self._page_runs),
            REEXPLAIN.name: ReexplainHandler(suggest, RunFiles(self.store), Precedence(self.ledger.work)),
            REPORT.name: ReportHandler(self.ledger.batches, BatchReports(self.store)),
        }

    def open(self, *, limit: int | None = None, rate: float | None = None, **choice: Any) -> str:
        """Open a batch of today's runs, or of other days."""
        asked = RunChoice.read({"date_from": TODAY, "date_to": TODAY} | choice)
        batch_id = new_uuid7()
        self.ledger.batches.open(
            batch_id, BatchSpec(choice=asked, limit=limit, rate_per_second=rate, by="person:ana")
        )
        return batch_id

    def round(self) -> None:
        """Do what a round of the reconciler does for batches."""
        BatchRounds(self.ledger).round()

    def work(self, *, dies: Callable[[str], bool] = lambda _: False, only: str | None = None) -> int:
        """Do the jobs that are in line, and return how many notifications were answered.

        ``dies`` is asked before and after the work of each notification, before its jobs are settled; if it
        says so, the worker is gone, and what it had is in line again.
        """
        answered = 0
        while self._answer(dies, only):
            answered += 1
        return answered

    def until_ended(self, batch_id: str, *, dies: Callable[[str], bool] = lambda _: False) -> BatchRecord:
        """Go on until the batch has ended."""
        for _ in range(2_000):
            if self.ledger.batches.get(batch_id).state.ended:
                break
            self.round()
            self.work(dies=dies)
        record = self.ledger.batches.get(batch_id)
        assert record.state.ended, record
        assert self.ledger.stats().invariant
        return record

    def _answer(self, dies: Callable[[str], bool], only: str | None) -> bool:
        taken = self.ledger.queues.take(BACKGROUND_QUEUE)
        if taken is None:
            return False
        (ids,), _, _ = json.loads(json.loads(taken.notification or b"")["body"])
        task = self.ledger.get(ids[0]).task
        if only not in {None, task}:
            self.ledger.queues.put_back(ids)
            return False
        self._name += 1
        lease = Lease(f"worker-{self._name}", "t")
        claims = self.ledger.work.claim(ids, lease, lease_seconds=60).claimed
        if dies("before"):
            self._die(lease)
            return True
        ends = self.handlers[task].handle(claims)
        if dies("after"):
            self._die(lease)
            return True
        finishes = [end for end in ends if isinstance(end, Finish)]
        if finishes:
            self.ledger.work.finish(finishes, lease, ttl_seconds=3_600)
            if dies("repeat"):
                # Its answer was lost.
                self.ledger.work.finish(finishes, lease, ttl_seconds=3_600)
        for claim, end in zip(claims, ends, strict=True):
            if not isinstance(end, Finish):
                assert isinstance(end, AdvisoryRefused), end
                failure = describe(end, DeadReason.ADVISORY_REFUSED)
                published = self.handlers[task].on_dead(claim, failure)
                self.ledger.work.bury(claim.job_id, lease, failure=failure, published=published)
        return True

    def _die(self, lease: Lease) -> None:
        # By its heartbeat's silence; here at once, and never as a crash loop.
        self.ledger.work.retire(lease.worker, max_crashes=1_000)


def at_random(seed: int, chance: float) -> Callable[[str], bool]:
    """Return what has a worker die now and then."""
    random = Random(seed)  # noqa: S311 - to kill by, not to keep secrets
    return lambda _: random.random() < chance
