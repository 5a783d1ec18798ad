"""What the routes work with, made once for a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rmos_runs.gateway.body import Bodies
from rmos_runs.gateway.catalog import Catalogs
from rmos_runs.gateway.refused_changes import RefusedChanges
from rmos_runs.gateway.threads import Threads
from rmos_runs.gateway.turns import Turns
from rmos_runs.gateway.watch import JobWatch
from rmos_runs.operations.status import Sources
from rmos_shared.jobs.async_ledger import AsyncJobLedger
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.query import RunCatalog
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.nightly import NightlySettings
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.local import LocalStore
from rmos_shared.store.told import ToldStore


@dataclass(frozen=True, slots=True)
class Services:
    """The parts; what blocks is called through ``threads``."""

    settings: GatewaySettings
    #: For accepting and waiting: no call of it holds a thread.
    ledger: AsyncJobLedger
    watch: JobWatch
    bodies: Bodies
    #: Of requests about many runs.
    many: Turns
    threads: Threads
    #: For what reads many files: threads of its own, so that it holds up no short call.
    long: Threads
    #: These block.
    jobs: JobLedger
    store: LocalStore
    reader: RunReader
    writer: RunWriter
    refused: RefusedChanges
    catalog: RunCatalog
    #: Of the status.
    sources: Sources

    @property
    def disk_seconds(self) -> float | None:
        """How long to wait for the server's disk; None when it is not to be asked."""
        settings = self.settings
        return settings.broker_timeout_seconds / 2 if settings.accept_waits_for_aof else None


@asynccontextmanager
async def services_of(
    settings: GatewaySettings, catalogs: Catalogs, index: IndexSettings | None
) -> AsyncIterator[Services]:
    """Yield the parts, and close them; nothing connects before it is needed."""
    ledger, jobs = AsyncJobLedger.connect(settings), JobLedger.connect(settings)
    store = chosen_store(settings)
    reader, watch = RunReader(store, jobs), JobWatch(ledger)
    threads = Threads(settings.store_threads, timeout_seconds=settings.store_timeout_seconds)
    catalog = catalogs(reader, store)
    long = Threads(settings.bulk_requests, timeout_seconds=settings.request_timeout_seconds)
    try:
        yield Services(
            settings=settings,
            ledger=ledger,
            watch=watch,
            bodies=Bodies(settings.max_bodies_bytes),
            many=Turns(settings.bulk_requests),
            threads=threads,
            long=long,
            jobs=jobs,
            store=store,
            reader=reader,
            writer=RunWriter(ToldStore(store, jobs.unsealed.tell)),
            refused=RefusedChanges(jobs),
            catalog=catalog,
            sources=Sources(
                ledger=lambda: jobs,
                store=lambda: store,
                index=lambda: index,
                catalog=lambda: catalog,
                nightly=NightlySettings.load,
            ),
        )
    finally:
        watch.close()
        threads.close()
        long.close()
        jobs.close()
        await ledger.close()
