"""A run of the sealer, and the job that has it done: backlog, acts, damage, and what makes way for what."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
import redis

from rmos_runs.operations.sealing import seal_now
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.introduction import introduce
from rmos_shared.auditlog.keys import generate
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.receipt import receipt_of
from rmos_shared.auditlog.reconcile import Reconciler, Unsealed
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import CorruptArtifact, SealerBusy, SettingsInvalid
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import ActKind, ActOutcome
from rmos_shared.jobs.ledger import Acceptance, JobLedger
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import LOCK, MOST_SEALS, SEAL_PUBLICATIONS, Come, SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.table import AUDIT_QUEUE
from rmos_worker.engine.sealing import next_seal, seal_job
from rmos_worker.handlers.seal import SealHandler
from support.audit_log import assert_sound
from support.worker import StartWorker

LEASE = Lease("w", "1")
FAILURE = Failure(reason="misconfigured", error_type="SettingsInvalid", message="no such key")


@pytest.fixture
def store(runs_dir: Path) -> LocalStore:
    return LocalStore(runs_dir)


def run(ledger: JobLedger, store: LocalStore, *, reconcile: bool = False, **settings: Any) -> Come:
    parts = SealParts.of(AuditSettings.load(**settings), store, ledger)
    return SealingRun(ledger, parts, lock_seconds=5).run(lambda _: reconcile)


def told(number: int) -> Publication:
    data = f"file {number}".encode()
    return Publication(f"2026-08-01/run_{number}.json", sha256_hex(data), len(data), created=True)


def log_of(store: LocalStore) -> AuditLog:
    return AuditLog(store, origin_of(store.identity().store_id))


def records(store: LocalStore) -> list[RecordEntry]:
    entries = map(parse_entry, log_of(store).entries())
    return [entry for entry in entries if isinstance(entry, RecordEntry)]


def do(ledger: JobLedger, store: LocalStore, **settings: Any) -> dict[str, Any]:
    """Do the next seal job as a worker does; return what it came to."""
    loaded = AuditSettings.load(**settings)
    job = seal_job(ledger.unsealed.state(begin=True).number)
    assert ledger.accept([job]) != [Acceptance.CONFLICT]
    claims = ledger.work.claim([job.job_id], LEASE, lease_seconds=60).claimed
    handler = SealHandler(
        ledger,
        lambda: SealParts.of(loaded, store, ledger),
        lock_seconds=5,
        is_reconciliation_due=lambda _: False,
        next_job=seal_job,
    )
    (end,) = handler.handle(claims)
    if isinstance(end, Exception):
        raise end
    ledger.work.finish([end], LEASE, ttl_seconds=60)
    return end.result


def test_a_backlog_is_sealed_in_parts_and_goes_on_at_once(ledger: JobLedger, store: LocalStore) -> None:
    amount = SEAL_PUBLICATIONS * (MOST_SEALS + 1) + 500
    for first in range(0, amount, 70):
        # Their ends are not those of seals, which take each entry of the feed whole.
        ledger.unsealed.add([told(number) for number in range(first, min(first + 70, amount))])
    assert ledger.unsealed.state().unsealed == amount
    job = seal_job(ledger.unsealed.state(begin=True).number)
    result = do(ledger, store)
    assert result["seals"] == MOST_SEALS
    assert MOST_SEALS * SEAL_PUBLICATIONS <= result["records"] < amount
    assert ledger.unsealed.state().unsealed == amount - result["records"]
    following = seal_job(ledger.unsealed.state().number)
    assert following.job_id != job.job_id
    assert ledger.get(following.job_id).state.value == "accepted", "in the same step"
    do(ledger, store)
    assert ledger.unsealed.state().unsealed == 0
    assert [entry.key for entry in records(store)] == [told(number).key for number in range(amount)]
    assert ledger.unsealed.read(most=1).entries == ()


def test_what_was_sealed_by_a_run_that_was_killed_is_not_sealed_again(
    ledger: JobLedger, store: LocalStore
) -> None:
    ledger.unsealed.add([told(1), told(2)])
    come = run(ledger, store)  # and no finish: its worker was killed
    assert come.records == 2
    ledger.unsealed.add([told(3)])
    result = do(ledger, store)
    assert result["records"] == 1
    assert [entry.key for entry in records(store)] == [told(number).key for number in (1, 2, 3)]
    assert ledger.unsealed.state().unsealed == 0
    assert_sound(log_of(store))


def test_the_records_of_an_act_are_the_same_bytes_however_often_they_are_written(
    ledger: JobLedger, store: LocalStore
) -> None:
    act_id = ledger.acts.begin(ActKind.REPAIR, by="op", why="test", about={"ids": ["a"]}, found=1)
    ledger.acts.end(act_id, ActOutcome.COMPLETE, refused=0, done=1)
    run(ledger, store)
    keys = [entry.key for entry in records(store)]
    day = datetime.now(UTC).date().isoformat()
    assert [key.removeprefix(f"_acts/{day}/") for key in keys] == [
        f"{act_id}_begun.json",
        f"{act_id}_ended.json",
    ]
    before = [store.get(key) for key in keys]
    do(ledger, store)
    assert [store.get(key) for key in keys] == before
    assert [entry.key for entry in records(store)] == keys
    begun, ended = (json.loads(data or b"") for data in before)
    assert (begun["kind"], begun["by"], begun["origin"]["caller"]) == ("repair", "op", "cli")
    assert (ended["outcome"], ended["done"]) == ("complete", 1)


def test_an_act_whose_record_is_gone_holds_nothing_up(
    ledger: JobLedger, store: LocalStore, redis_client: redis.Redis
) -> None:
    act_id = ledger.acts.begin(ActKind.REPAIR, by="op", why="", about={}, found=1)
    redis_client.delete(f"rmos:act:{act_id}")
    for about in (r'{"a":"\udcff"}', '{"a":NaN}', "[]", "garbage"):
        planted = ledger.acts.begin(ActKind.REPAIR, by="op", why="", about={}, found=1)
        redis_client.hset(f"rmos:act:{planted}", "about", about)
    fields = {"kind": "x", "by": "x", "why": "", "about": "{}", "found": "1", "done": "1", "begun_at": "1"}
    for name, value in fields.items():
        redis_client.hset("rmos:act:no-id", name, value)
    redis_client.xadd("rmos:unsealed", {"act": "no-id", "what": "begun"})
    redis_client.xadd("rmos:unsealed", {"foreign": "entry"})
    ledger.unsealed.add([told(1)])
    do(ledger, store)
    assert [entry.key for entry in records(store)] == [told(1).key]
    assert ledger.unsealed.state().unsealed == 0


def test_two_runs_keep_away_from_each_other(ledger: JobLedger, store: LocalStore) -> None:
    assert ledger.queues.try_lock(LOCK, "another", seconds=60)
    with pytest.raises(SealerBusy):
        run(ledger, store)
    ledger.queues.unlock(LOCK, "a stranger")
    with pytest.raises(SealerBusy):
        run(ledger, store)
    ledger.queues.unlock(LOCK, "another")
    run(ledger, store)
    assert ledger.queues.try_lock(LOCK, "next", seconds=60), "it is given back at the end"


def test_a_dead_seal_job_is_followed_by_none_until_it_is_replayed_or_discarded(
    ledger: JobLedger,
) -> None:
    settings = AuditSettings.load(audit_seal_seconds=1e-9)
    ledger.unsealed.add([told(1)])
    due = next_seal(ledger.unsealed.state(begin=True), settings)
    assert due is not None
    ledger.accept([due])
    ledger.work.claim([due.job_id], LEASE, lease_seconds=60)
    ledger.work.bury(due.job_id, LEASE, failure=FAILURE)
    again = next_seal(ledger.unsealed.state(begin=True), settings)
    assert again == due
    assert ledger.accept([due]) == [Acceptance.REPEAT]
    assert ledger.stats().dead == 1
    ledger.dead_letters.discard(due.job_id, by="op", why="never mind")
    after = next_seal(ledger.unsealed.state(begin=True), settings)
    assert after is not None
    assert after.job_id != due.job_id
    assert ledger.accept([after]) == [Acceptance.NEW]


def test_a_record_of_seals_that_was_lost_brings_no_old_job_back(
    ledger: JobLedger, store: LocalStore, redis_client: redis.Redis
) -> None:
    do(ledger, store)
    known = ledger.unsealed.state().number
    redis_client.delete("rmos:seals")
    assert ledger.unsealed.state(begin=True).number > known
    ledger.unsealed.add([told(1)])
    do(ledger, store)
    assert ledger.unsealed.state().size == log_of(store).newest_size()


def test_a_log_that_was_rolled_back_is_not_continued_until_somebody_says_so(
    ledger: JobLedger, store: LocalStore, runs_dir: Path, tmp_path: Path
) -> None:
    ledger.unsealed.add([told(1)])
    do(ledger, store)
    copytree(runs_dir / "_log", tmp_path / "backup")
    ledger.unsealed.add([told(2)])
    do(ledger, store)
    rmtree(runs_dir / "_log")
    copytree(tmp_path / "backup", runs_dir / "_log")
    ledger.unsealed.add([told(7)])
    with pytest.raises(CorruptArtifact, match="rolled back"):
        do(ledger, store)
    ledger.unsealed.forget_checkpoint()
    do(ledger, store)
    assert told(7).key in {entry.key for entry in records(store)}


def test_once_signed_the_log_is_not_continued_without_its_key(
    ledger: JobLedger, store: LocalStore, tmp_path: Path
) -> None:
    generate(tmp_path / "key.pem", origin_of(store.identity().store_id))
    ledger.unsealed.add([told(1)])
    do(ledger, store, audit_key_file=tmp_path / "key.pem")
    ledger.unsealed.add([told(2)])
    with pytest.raises(SettingsInvalid):
        do(ledger, store)


def test_a_worker_without_its_key_refuses_to_start_if_it_is_the_one_that_seals(
    start_worker: StartWorker, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    key = tmp_path / "key.pem"
    key.write_text("secret-31415")
    key.chmod(0o600)
    other = start_worker(queues=("runs.create",), audit_key_file=key)
    sealing = start_worker(queues=(AUDIT_QUEUE,), wait=False, audit_key_file=key)
    eventually(lambda: not sealing.alive)
    log = sealing.log.read_text()
    assert f"error SETTINGS_INVALID: {key}" in log
    assert "secret-31415" not in log
    assert other.alive


def test_the_time_between_publication_and_seal_is_in_the_log(ledger: JobLedger, store: LocalStore) -> None:
    before = ledger.unsealed.state().now
    ledger.unsealed.add([told(1)])
    do(ledger, store)
    (entry,) = records(store)
    seal = log_of(store).seal(log_of(store).newest_size())
    assert before <= entry.at <= seal.at <= seal.seal.next - timedelta(minutes=59)
    assert seal.seal.upto >= entry.at


def test_a_finish_that_is_repeated_counts_a_seal_once(ledger: JobLedger) -> None:
    job = seal_job(ledger.unsealed.state(begin=True).number)
    ledger.accept([job])
    ledger.work.claim([job.job_id], LEASE, lease_seconds=60)
    for _ in range(2):
        ledger.work.finish([Finish(job.job_id, {"seals": 2, "late": 1, "size": 9})], LEASE, ttl_seconds=60)
    state = ledger.unsealed.state()
    assert (state.seals, state.late, state.size) == (2, 1, 9)


def test_a_key_is_introduced_by_the_key_before_it_and_by_nothing_else(
    ledger: JobLedger, store: LocalStore, tmp_path: Path
) -> None:
    origin = origin_of(store.identity().store_id)
    old = generate(tmp_path / "old.pem", origin)
    new, stranger = generate(tmp_path / "new.pem", origin), generate(tmp_path / "stranger.pem", origin)
    planted: list[dict[str, Any]] = [
        {"trusts": stranger.vkey},
        {"trusts": stranger.vkey, "introduction": introduce(stranger, stranger.vkey)},
        {"trusts": stranger.vkey, "introduction": introduce(old, new.vkey)},
        {"trusts": stranger.vkey, "introduction": "no note"},
    ]
    for about in planted:
        ledger.acts.begin(ActKind.KEY_ROTATION, by="op", why="", about=about, found=1)
    good = {"trusts": new.vkey, "introduction": introduce(old, new.vkey)}
    act_id = ledger.acts.begin(ActKind.KEY_ROTATION, by="op", why="", about=good, found=1)
    ledger.acts.end(act_id, ActOutcome.COMPLETE, refused=0, done=1)
    do(ledger, store, audit_key_file=tmp_path / "old.pem")
    trusted = [(entry.key, entry.trusts) for entry in records(store) if entry.trusts is not None]
    assert [(key.rpartition("/")[2], vkey) for key, vkey in trusted] == [(f"{act_id}_begun.json", new.vkey)]
    assert len(records(store)) == len(planted) + 2, "the others are sealed as any act"
    assert ledger.unsealed.state().unintroduced == len(planted)
    ledger.unsealed.add([told(1)])
    with pytest.raises(SettingsInvalid):
        do(ledger, store, audit_key_file=tmp_path / "stranger.pem")
    ledger.work.retire(LEASE.worker, max_crashes=9)
    do(ledger, store, audit_key_file=tmp_path / "new.pem")


def test_in_a_log_without_a_key_nobody_can_introduce_one(ledger: JobLedger, store: LocalStore) -> None:
    ledger.acts.begin(ActKind.KEY_ROTATION, by="op", why="", about={"trusts": "a+00+b"}, found=1)
    do(ledger, store)
    assert [entry.trusts for entry in records(store)] == [None]


@pytest.fixture
def untold(ledger: JobLedger, store: LocalStore, runs_dir: Path) -> list[str]:
    """Return a dozen old files that nobody told of, in a log that adopts no more."""
    run(ledger, store)
    old = datetime.now(UTC) - timedelta(days=5)
    keys = [f"{old.date().isoformat()}/{new_uuid7(old)}.json" for _ in range(12)]
    for key in keys:
        store.create(key, key.encode())
        os.utime(runs_dir / key, (old.timestamp(), old.timestamp()))
    return keys


def late(store: LocalStore) -> list[str]:
    return [entry.key for entry in records(store) if entry.found == "late"]


LIMITS = ["rmos_shared.auditlog.reconcile.MOST_LATE", "rmos_shared.auditlog.sealer.MOST_RECORDS"]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_round_that_left_something_late_is_not_called_done(
    limit: str,
    ledger: JobLedger,
    store: LocalStore,
    untold: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limit, 5)
    for _ in range(2):
        come = run(ledger, store, reconcile=True)
        assert (come.late, come.records, come.more) == (5, 5, True)
        assert come.reconciled_at is come.whole_at is None
        assert not {"reconciled_at", "whole_at"} & come.result().keys()
    come = run(ledger, store, reconcile=True)
    assert (come.late, come.more) == (2, False)
    assert come.reconciled_at is not None
    assert come.whole_at is not None
    assert sorted(late(store)) == sorted(untold)


def test_the_whole_store_is_looked_at_though_the_clock_was_set_back_since(
    ledger: JobLedger, store: LocalStore, untold: list[str], redis_client: redis.Redis
) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=3)
    redis_client.hset("rmos:seals", "whole_at", str(round(ahead.timestamp() * 1_000)))
    assert ledger.unsealed.state().whole_at is not None
    assert run(ledger, store, reconcile=True).late == len(untold)


@pytest.mark.parametrize("limit", LIMITS)
def test_sealing_all_by_hand_seals_all(
    limit: str,
    ledger: JobLedger,
    store: LocalStore,
    untold: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limit, 5)
    done = seal_now(ledger, AuditSettings.load(), store, whole=True)
    assert (done.seals, done.records, done.late) == (3, 12, 12)
    assert sorted(late(store)) == sorted(untold)


def test_what_the_sealer_takes_nothing_of_is_not_looked_for_again_at_once(
    ledger: JobLedger, store: LocalStore, untold: list[str]
) -> None:
    """Else one job would follow the other, for ever."""
    run(ledger, store, reconcile=True)

    class Mistaken(Reconciler):
        def find(self, now: datetime, *, whole: bool = False) -> Unsealed:  # noqa: ARG002
            return Unsealed([receipt_of(store, key, now, "late") for key in untold], more=True)

    parts = SealParts.of(AuditSettings.load(), store, ledger)
    parts = replace(parts, reconciler=Mistaken(store, parts.sealer.log))
    come = SealingRun(ledger, parts, lock_seconds=5).run(lambda _: True)
    assert (come.late, come.more) == (0, False)
    assert come.reconciled_at is not None
