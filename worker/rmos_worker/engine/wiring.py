"""The wiring of one worker process: every part made once, passed in, closed at the end."""

from __future__ import annotations

from dataclasses import dataclass

from rmos_shared.batches.candidates import Candidates
from rmos_shared.batches.report import BatchReports
from rmos_shared.clock import SystemClock
from rmos_shared.jobs.connection import connect_broker
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.files import RunFiles
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.sealing.parts import SealParts
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.local import LocalStore
from rmos_shared.tasks.table import (
    ATTACH,
    CREATE,
    CREATE_MANY,
    DELIVER,
    PLAN,
    REEXPLAIN,
    REPORT,
    SEAL,
    SUGGEST,
    TIMESTAMP,
)
from rmos_shared.telemetry.traces.base import Traces
from rmos_shared.telemetry.traces.choice import chosen_traces
from rmos_worker.advisories.breaker import RedisBreaker
from rmos_worker.advisories.client import AdvisoryClient
from rmos_worker.engine.executor import Executor
from rmos_worker.engine.heartbeat import Heartbeat
from rmos_worker.engine.sealing import reconciliation_is_due, seal_job
from rmos_worker.explainers.choice import chosen_explainer
from rmos_worker.handlers.attach import AttachHandler
from rmos_worker.handlers.attachments import NamedAttachments
from rmos_worker.handlers.base import Handler
from rmos_worker.handlers.create import CreateHandler
from rmos_worker.handlers.existing_run import ExistingRuns
from rmos_worker.handlers.plan import PlanHandler
from rmos_worker.handlers.precedence import Precedence
from rmos_worker.handlers.reexplain import ReexplainHandler
from rmos_worker.handlers.report import ReportHandler
from rmos_worker.handlers.seal import SealHandler
from rmos_worker.handlers.suggest import SuggestHandler
from rmos_worker.handlers.timestamp import TimestampHandler
from rmos_worker.handlers.webhook import DeliverHandler
from rmos_worker.policies.choice import policy_named
from rmos_worker.timestamps.client import TimestampClient
from rmos_worker.webhooks.addresses import CheckedAddresses
from rmos_worker.webhooks.client import WebhookClient
from rmos_worker.webhooks.endpoints import WebhookConfig
from rmos_worker.webhooks.shares import EndpointShares


@dataclass(frozen=True, slots=True)
class Services:
    """What one process needs to answer notifications."""

    executor: Executor
    heartbeat: Heartbeat
    ledger: JobLedger
    advisories: AdvisoryClient
    webhooks: WebhookClient
    timestamps: TimestampClient | None
    traces: Traces

    @classmethod
    def start(
        cls, settings: WorkerSettings, store: LocalStore, webhooks: WebhookConfig | None = None
    ) -> Services:
        """Connect, and begin to beat; ``store`` is the one that the worker's main process has opened.

        ``webhooks`` are the endpoints that it has read; none if left out.
        """
        webhooks = webhooks or WebhookConfig()
        clock = SystemClock()
        traces = chosen_traces("rmos-worker")
        client = connect_broker(settings)
        ledger = JobLedger(client)
        writer, reader = RunWriter(store), RunReader(store, ledger)
        existing = ExistingRuns(reader, ledger)
        policy = policy_named(settings.policy)
        advisories = AdvisoryClient(
            settings.advisory_url,
            token=settings.advisory_token,
            timeout_seconds=settings.advisory_timeout_seconds,
            total_seconds=settings.advisory_total_seconds,
            tries=settings.advisory_tries,
            breaker=RedisBreaker.of(client, settings),
            clock=clock,
            traces=traces,
        )
        named = NamedAttachments(
            Attachments(store, most_bytes=settings.max_attachment_bytes),
            wait_seconds=settings.attachment_wait_seconds,
        )
        create = CreateHandler(writer, reader, named, ledger.unsealed.tell)
        explainer = chosen_explainer()
        suggest = SuggestHandler(
            writer=writer,
            existing=existing,
            explainer=explainer,
            advisories=advisories,
            policy=policy,
            clock=clock,
        )
        attach = AttachHandler(
            writer=writer, existing=existing, advisories=advisories, policy=policy, clock=clock
        )
        webhook_client = WebhookClient(
            timeout_seconds=settings.webhook_timeout_seconds,
            answer_bytes=settings.webhook_answer_bytes,
            resolve=CheckedAddresses(webhooks.networks),
            clock=clock,
        )
        shares = EndpointShares(
            most_calls=settings.webhook_endpoint_jobs,
            base_seconds=settings.retry_base_seconds,
            cap_seconds=settings.retry_cap_seconds,
            clock=clock,
        )
        timestamps = TimestampClient.of(settings)
        handlers: dict[str, Handler] = {
            CREATE.name: create,
            CREATE_MANY.name: create,
            SUGGEST.name: suggest,
            ATTACH.name: attach,
            PLAN.name: PlanHandler(Candidates(store, ledger, explainer.engine), explainer.engine),
            REEXPLAIN.name: ReexplainHandler(suggest, RunFiles(store), Precedence(ledger.work)),
            REPORT.name: ReportHandler(ledger.batches, BatchReports(store)),
            DELIVER.name: DeliverHandler(
                config=webhooks, webhooks=ledger.webhooks, client=webhook_client, shares=shares
            ),
            TIMESTAMP.name: TimestampHandler(store, timestamps),
            SEAL.name: SealHandler(
                ledger,
                lambda: SealParts.of(settings, store, ledger),
                lock_seconds=settings.lease_seconds,
                is_reconciliation_due=lambda state: reconciliation_is_due(state, settings),
                next_job=seal_job,
            ),
        }
        heartbeat = Heartbeat(ledger.work, settings)
        heartbeat.start()
        executor = Executor(
            work=ledger.work, heartbeat=heartbeat, handlers=handlers, settings=settings, traces=traces
        )
        return cls(executor, heartbeat, ledger, advisories, webhook_client, timestamps, traces)

    def stop(self) -> None:
        """Give the leases back and close the connections."""
        self.heartbeat.retire()
        self.advisories.close()
        self.webhooks.close()
        if self.timestamps is not None:
            self.timestamps.close()
        self.traces.close()
        self.ledger.close()
