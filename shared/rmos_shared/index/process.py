"""The indexer wired from settings: for ``python -m rmos_shared.index`` and ``rmos index run`` alike."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import ExitStack
from functools import partial

from rmos_shared.index.choice import chosen_database, store_id_of
from rmos_shared.index.indexer import LOCK, LOCK_SECONDS, Indexer, Stopped
from rmos_shared.index.notices import NoNotices, Notices
from rmos_shared.index.rebuild import Progress, rebuild
from rmos_shared.index.stream import StreamNotices
from rmos_shared.jobs.event_stream import JobEvents
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.base import ArtifactStore


def run_indexer(
    settings: IndexSettings, store: ArtifactStore, broker: BrokerSettings | None, stopping: threading.Event
) -> None:
    """Keep the index as the store is, until ``stopping`` is set; without a broker by looking alone.

    Raises:
        SettingsInvalid: the settings name no index, or what it needs is not installed.
        StoreUnavailable: the store is away at the start.
    """
    with ExitStack() as stack:
        database = chosen_database(settings)
        stack.callback(database.close)
        notices: Notices = NoNotices(stopping)
        lock = None
        if broker is not None:
            ledger = JobLedger.connect(broker)
            stack.callback(ledger.close)
            events = JobEvents.connect(broker)
            stack.callback(events.close)
            notices = StreamNotices(events)
            lock = partial(ledger.queues.try_lock, LOCK, secrets.token_hex(8), seconds=LOCK_SECONDS)

        def stop_or_go_on(_: Progress) -> None:
            # The lock is not kept up meanwhile: no two processes rebuild at once, and until this one is
            # through, that keeps a second indexer waiting as well.
            if stopping.is_set():
                raise Stopped

        store_id = store_id_of(store)
        Indexer(
            database,
            store,
            notices,
            rebuild=partial(
                rebuild,
                database,
                store,
                store_id=store_id,
                processes=processes_for_a_rebuild(),
                tell=stop_or_go_on,
            ),
            store_id=store_id,
            lock=lock or (lambda: True),
            reconcile_seconds=settings.index_reconcile_seconds,
        ).run(stopping)


def processes_for_a_rebuild() -> int:
    """Return how many processes read the store at once."""
    return len(os.sched_getaffinity(0))
