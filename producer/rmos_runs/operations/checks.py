"""The checks of ``rmos doctor``: is everything as the guarantees need it?"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from itertools import islice
from typing import Any, Literal
from urllib.request import HTTPErrorProcessor, ProxyHandler, Request, build_opener

from rmos_runs.local.home import Home
from rmos_runs.operations.sealing_status import sealing_status
from rmos_shared.advisories.answers import ASSETS_PATH, mistake_behind
from rmos_shared.errors import BrokerDamaged, BrokerUnavailable, RmosError, StoreUnavailable
from rmos_shared.index.choice import has_index, index_state, store_id_of
from rmos_shared.jobs.connection import connect_broker
from rmos_shared.jobs.consistency import OTHER_VERSION
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.models.base import format_utc
from rmos_shared.runs.verification import StoreVerification
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.variables import variables
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.choice import chosen_store

#: An indexer that works is never farther behind.
_INDEX_LAG = timedelta(minutes=1)
_CLOCK_SKEW_SECONDS = 2.0
_MOST_NAMED = 100
#: Longest time that the files of the last two days may take.
_FILES_SECONDS = 10.0
_ADVISORY_SECONDS = 5.0
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it is, and what to do if it is not well."""

    check: str
    state: Literal["ok", "warning", "broken"]
    detail: str
    repair: str = ""


def findings(place: Home) -> Iterator[Finding]:
    """Yield what each check came to; one that cannot be made is itself a finding.

    Looks at settings, processes, both stores, the index, the broker, and the ledger with its invariant.
    """
    yield from _settings()
    yield from _processes(place)
    yield from _store(place)
    yield from _index(place)
    yield from _advisory_store(place)
    try:
        settings = place.producer_settings()
        yield from _broker(settings)
        with closing(JobLedger.connect(settings)) as ledger:
            yield from _ledger(ledger)
    except BrokerUnavailable as error:
        yield Finding("broker", "broken", str(error), "start it, or correct RMOS_BROKER_URL")
    except BrokerDamaged as error:
        yield Finding("ledger", "broken", str(error), "move that key away; nothing was changed")


def _settings() -> Iterator[Finding]:
    unknown = sorted(
        name for name in os.environ if name.startswith("RMOS_") and name not in {*variables(), "RMOS_HOME"}
    )
    if unknown:
        # A misspelt variable is otherwise ignored in silence, and the default rules.
        yield Finding(
            "settings", "warning", f"unknown: {', '.join(unknown)}", "correct the names or unset them"
        )
    else:
        yield Finding("settings", "ok", "every RMOS_ variable is known")


def _processes(place: Home) -> Iterator[Finding]:
    values = place.addresses()
    if values is None:
        return  # they run elsewhere, or not at all, as the broker's row tells
    if values.held_back:
        yield Finding(
            "processes",
            "broken",
            f"end again and again: {', '.join(values.held_back)}",
            f"see their logs in {place.logs_dir}; they are started again by themselves",
        )
    else:
        yield Finding("processes", "ok", "all of rmos up run")


def _broker(settings: BrokerSettings) -> Iterator[Finding]:
    with broker_errors(), closing(connect_broker(settings)) as client:
        config = client.config_get("appendonly", "appendfsync", "maxmemory-policy")
        seconds, microseconds = client.time()
    values = {_text(name): _text(value) for name, value in config.items()}
    appendonly, fsync = values.get("appendonly"), values.get("appendfsync")
    if appendonly != "yes":
        yield Finding(
            "persistence", "broken", "no append-only file", "set appendonly yes: a restart loses every job"
        )
    elif fsync != "always":
        yield Finding(
            "persistence",
            "warning",
            f"appendfsync {fsync}",
            "a power cut can lose the last second; set appendfsync always",
        )
    else:
        yield Finding("persistence", "ok", "append-only file, synced always")
    policy = values.get("maxmemory-policy")
    if policy == "noeviction":
        yield Finding("eviction", "ok", "noeviction")
    else:
        yield Finding(
            "eviction", "broken", f"maxmemory-policy {policy}", "set noeviction: jobs may be thrown away"
        )
    skew = abs(time.time() - (seconds + microseconds / 1e6))
    if skew <= _CLOCK_SKEW_SECONDS:
        yield Finding("clock", "ok", f"{skew:.1f} s from the broker's")
    else:
        yield Finding(
            "clock", "warning", f"{skew:.1f} s from the broker's", "set the clock: run ids carry its time"
        )


def _ledger(ledger: JobLedger) -> Iterator[Finding]:
    stats = ledger.stats()
    figures = (
        f"accepted {stats.accepted} = done {stats.done} + dead {stats.dead} + discarded {stats.discarded} "
        f"+ pending {stats.pending}"
    )
    if stats.invariant:
        yield Finding("invariant", "ok", figures)
    else:
        yield Finding(
            "invariant", "broken", figures, "repair the jobs named below; if there are none, records are gone"
        )
    consistency = ledger.consistency
    inconsistencies = consistency.inconsistencies()
    for job_id, inconsistency in islice(inconsistencies.items(), _MOST_NAMED):
        if inconsistency.endswith(OTHER_VERSION):
            yield Finding(f"job {job_id}", "warning", inconsistency, "it waits for a worker of that version")
        else:
            yield Finding(f"job {job_id}", "broken", inconsistency, f"rmos jobs repair {job_id}")
    least = consistency.records
    if stats.accepted < least.total or stats.done < least.done:
        yield Finding(
            "counters",
            "broken",
            f"{least.total} records, {least.done} of them done, are more than were counted",
            "the counters were deleted or set back: the records are whole, the invariant says nothing",
        )
    if len(inconsistencies) > _MOST_NAMED:
        yield Finding(
            "jobs",
            "broken",
            f"{len(inconsistencies)} inconsistent jobs in all",
            "repair those above, then look again",
        )
    letters = stats.dead + stats.raw
    if letters:
        yield Finding("dead letters", "warning", f"{letters}", "see rmos dlq list")
    else:
        yield Finding("dead letters", "ok", "none")
    yield from _audit_log(ledger)
    yield from _pauses(ledger)
    yield from _webhooks(ledger)


def _audit_log(ledger: JobLedger) -> Iterator[Finding]:
    try:
        audit = sealing_status(ledger)
    except BrokerDamaged as error:
        yield Finding("audit log", "broken", str(error), "rmos jobs repair --feed")
        return
    sealed = (
        "nothing is sealed yet"
        if audit.sealed_at_utc is None
        else f"{audit.entries} entries, sealed at {format_utc(audit.sealed_at_utc)}"
    )
    waits = audit.oldest_unsealed_seconds
    oldest = "" if waits is None else f", the oldest for {waits:.0f} s"
    told = f"{sealed}; {audit.unsealed} not sealed{oldest}"
    if audit.dead_job is not None:
        yield Finding(
            "audit log",
            "broken",
            f"{told}; the seal job {audit.dead_job} is dead",
            f"rmos dlq show {audit.dead_job} says why; repair that, then rmos dlq replay it",
        )
    elif audit.has_stopped:
        yield Finding("audit log", "broken", told, "start worker-audit, or see its log; nothing is lost")
    else:
        yield Finding("audit log", "ok", told)
    if audit.sealed_at_utc is not None and audit.signed_by is None:
        yield Finding(
            "audit key",
            "warning",
            "none: the audit log is sealed unsigned",
            "make one by rmos audit keygen, and give it to worker-audit in RMOS_AUDIT_KEY_FILE",
        )
    elif audit.signed_by is not None:
        yield Finding("audit key", "ok", f"signs as {audit.signed_by}")
    if audit.unintroduced:
        yield Finding(
            "audit key",
            "broken",
            f"{audit.unintroduced} acts name a new key that the key in use has not introduced",
            "none of them is trusted; somebody else writes to the ledger: find out who (rmos acts list)",
        )
    if audit.late:
        yield Finding(
            "late entries",
            "warning",
            f"{audit.late} files lay in the store and nobody had told of them",
            "rmos audit verify names each; find out who wrote it",
        )


def _pauses(ledger: JobLedger) -> Iterator[Finding]:
    for pause in ledger.pauses.all():
        yield Finding("paused", "warning", pause.sentence, f"rmos resume {pause.words}")


def _webhooks(ledger: JobLedger) -> Iterator[Finding]:
    endpoints = ledger.webhooks.endpoints()
    off = [f"{state.endpoint} ({state.reason})" for state in endpoints if not state.enabled]
    if off:
        yield Finding(
            "webhooks",
            "warning",
            f"disabled: {', '.join(off)}",
            "see rmos webhooks list; rmos webhooks enable",
        )
    elif endpoints:
        yield Finding("webhooks", "ok", f"{len(endpoints)} endpoints")


def _store(place: Home) -> Iterator[Finding]:
    try:
        settings = place.store_settings()
        store = chosen_store(settings)
        store.probe()
        identity = store.identity()
        yield Finding(
            "store", "ok", f"writes, syncs and publishes in {settings.runs_dir} ({identity.store_id})"
        )
        yield from _files(store)
    except RmosError as error:
        yield Finding("store", "broken", str(error), "mount it or correct RMOS_RUNS_DIR; jobs wait meanwhile")


def _files(store: ArtifactStore) -> Iterator[Finding]:
    """Check what was stored today and yesterday, as far as it takes little time."""
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    verification, files, damaged = StoreVerification(store), 0, 0
    until, cut = time.monotonic() + _FILES_SECONDS, ""
    for day in verification.days(yesterday, today):
        for checked in verification.day(day):
            files += 1
            if checked.damage is not None:
                damaged += 1
                if damaged <= _MOST_NAMED:
                    yield Finding(f"file {checked.key}", "broken", checked.damage, "restore it from a backup")
            if time.monotonic() > until:
                cut = f" (the first {_FILES_SECONDS:g} seconds' worth)"
                break
    yield Finding(
        "files",
        "broken" if damaged else "ok",
        f"{files} of today and yesterday{cut}, {damaged} damaged",
        f"rmos runs verify --date-from {yesterday} checks all of them" if damaged or cut else "",
    )


def _index(place: Home) -> Iterator[Finding]:
    """Check that lists are answered by the index, and how far behind it is."""
    try:
        settings = place.index_settings()
        if not has_index(settings):
            yield Finding("index", "ok", "none: lists are answered by the store, slower")
            return
        state = index_state(settings, store_id_of(chosen_store(place.store_settings())))
    except StoreUnavailable:
        return  # the store's row tells
    except RmosError as error:
        yield Finding("index", "warning", str(error), "rmos index rebuild; the store answers meanwhile")
        return
    behind = datetime.now(UTC) - state.complete_until_utc
    until = f"complete up to {format_utc(state.complete_until_utc)}"
    if behind > _INDEX_LAG:
        yield Finding("index", "warning", until, "start the indexer; rmos index reconcile completes it now")
    else:
        yield Finding("index", "ok", until)


def _advisory_store(place: Home) -> Iterator[Finding]:
    values = place.addresses()
    if values is not None:
        yield _asked(values.advisory_url, values.advisory_token)
        return
    try:
        settings = WorkerSettings.load()
    except RmosError as error:
        yield Finding("advisory store", "broken", str(error), "correct the setting")
        return
    secret = settings.advisory_token
    yield _asked(settings.advisory_url, None if secret is None else secret.get_secret_value())


class _AnyAnswer(HTTPErrorProcessor):
    """Takes every status for an answer, and follows no redirect, as the workers do."""

    def http_response(self, request: Request, response: Any) -> Any:  # noqa: ARG002 - urllib's signature
        """Return the answer as it is."""
        return response

    https_response = http_response


def _asked(url: str, token: str | None) -> Finding:
    # As a worker asks, for an asset that nobody has: whether it answers at /health proves nothing.
    address = f"{url.rstrip('/')}{ASSETS_PATH}/rmos-doctor-asks-{secrets.token_hex(8)}"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    opener = build_opener(ProxyHandler({}), _AnyAnswer)
    try:
        request = Request(address, headers=headers)  # noqa: S310 - the operator's own setting
        with opener.open(request, timeout=_ADVISORY_SECONDS) as answer:
            status, kind = answer.status, answer.headers.get("Content-Type", "")
            body = answer.read1(_MOST_BYTES)
    except (OSError, ValueError, HTTPException):
        repair = "start it, or correct RMOS_ADVISORY_URL; explanations wait"
        return Finding("advisory store", "broken", f"no answer at {url}", repair)
    mistake = mistake_behind("GET", status, content_type=kind, body=body)
    if mistake is not None:
        return Finding(
            "advisory store", "broken", f"status {status} at {url}", f"{mistake}; explanations wait"
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Finding(
            "advisory store", "broken", f"status {status} at {url}", "see its log; explanations wait"
        )
    return Finding("advisory store", "ok", f"answers at {url}")


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
