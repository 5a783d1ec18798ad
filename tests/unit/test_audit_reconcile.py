"""What lies in the store and in no entry: found, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.reconcile import Reconciler
from rmos_shared.auditlog.sealer import Sealer
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import CorruptArtifact
from rmos_shared.ids import new_uuid7
from rmos_shared.store.local import LocalStore
from support.audit_log import assert_sound, receipt, sealer_of
from support.stores import local_store

#: Later than any time at which these tests run, for files and directories have the times of the real clock.
NOW = datetime.now(UTC) + timedelta(hours=1)
TODAY = NOW.date().isoformat()
OLD_DAY = (NOW - timedelta(days=400)).date().isoformat()
A_MINUTE = timedelta(minutes=1)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return local_store(tmp_path)


@pytest.fixture
def sealer(store: LocalStore) -> Sealer:
    """Return the sealer of a log that has adopted nothing, an hour ago."""
    sealer = sealer_of(store)
    assert sealer.seal([], now=NOW - timedelta(hours=1), feed_at_end=True) is not None
    return sealer


def put(store: LocalStore, root: Path, key: str, at: datetime | None = None) -> str:
    """Publish a file without a receipt; ``at`` is what its time is set to."""
    store.create(key, key.encode())
    if at is not None:
        os.utime(root / key, (at.timestamp(), at.timestamp()))
    return key


def attachment(number: int) -> str:
    digest = sha256_hex(b"%d" % number)
    return f"_attachments/{digest[:2]}/{digest}.nc"


def ours(day: str, at: datetime = NOW) -> list[str]:
    run, other = new_uuid7(at), new_uuid7(at)
    return [
        f"{day}/{run}.json",
        f"{day}/{run}_advisory_{'c' * 32}.json",
        f"_reviews/{day}/{run}/{other}.json",
        f"_attempts/{day}/{run}/{other}.explain_1785585600000.json",
        f"_acts/{day}/{other}_begun.json",
        f"_acts/{day}/{other}_ended.json",
        f"_batches/{day}/{other}.json",
        attachment(at.microsecond),
    ]


def found(sealer: Sealer, kind: str) -> list[str]:
    entries = map(parse_entry, sealer.log.entries())
    return [entry.key for entry in entries if isinstance(entry, RecordEntry) and entry.found == kind]


def reconcile(sealer: Sealer, reconciler: Reconciler, now: datetime, *, whole: bool = False) -> list[str]:
    """Do what the ledger's seal job does; return what was found late."""
    late = reconciler.find(now, whole=whole)
    assert late.unreadable == []
    sealer.seal(late.receipts, now=now, feed_at_end=True)
    return [receipt.key for receipt in late.receipts]


@pytest.mark.parametrize("whole", [False, True])
def test_every_kind_of_record_without_a_receipt_is_sealed_as_late_and_once(
    tmp_path: Path, store: LocalStore, sealer: Sealer, *, whole: bool
) -> None:
    keys = sorted(put(store, tmp_path, key) for key in ours(TODAY))
    reconciler = Reconciler(store, sealer.log)
    assert sorted(reconcile(sealer, reconciler, LATER, whole=whole)) == keys
    assert reconcile(sealer, reconciler, LATER + A_MINUTE, whole=whole) == []
    assert reconcile(sealer, Reconciler(store, sealer.log), LATER + A_MINUTE, whole=True) == []
    assert sorted(found(sealer, "late")) == keys
    assert_sound(sealer.log)


def test_only_a_look_at_all_finds_what_lies_by_an_older_day(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    keys = sorted(put(store, tmp_path, key) for key in ours(OLD_DAY)[:-1])
    reconciler = Reconciler(store, sealer.log)
    assert reconcile(sealer, reconciler, LATER) == []
    assert sorted(reconcile(sealer, reconciler, LATER, whole=True)) == keys


def test_what_is_younger_than_two_minutes_may_have_its_receipt_on_the_way(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    put(store, tmp_path, f"{TODAY}/a.json", LATER - timedelta(seconds=119))
    put(store, tmp_path, f"{TODAY}/b.json", LATER - timedelta(seconds=121))
    reconciler = Reconciler(store, sealer.log)
    assert reconcile(sealer, reconciler, LATER) == [f"{TODAY}/b.json"]
    assert reconcile(sealer, reconciler, LATER + timedelta(seconds=2)) == [f"{TODAY}/a.json"]


def test_a_receipt_that_waits_in_the_feed_is_right_and_what_was_found_is_not(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    told = receipt(1, LATER)
    put(store, tmp_path, told.key, NOW)
    reconciler = Reconciler(store, sealer.log)
    late = reconciler.find(LATER, whole=True)
    assert [late.key for late in late.receipts] == [told.key]
    with pytest.raises(ValueError, match="read to its end"):
        sealer.seal([told, *late.receipts], now=LATER, feed_at_end=False)
    sealer.seal([*late.receipts, told], now=LATER, feed_at_end=True)
    assert found(sealer, "late") == []
    assert len(list(sealer.log.find({told.key: NOW}))) == 1


def test_foreign_names_stay_out_of_the_log(tmp_path: Path, store: LocalStore, sealer: Sealer) -> None:
    for name in (
        "notes.txt",
        "2026-99-99/a.json",
        f"{TODAY}/a.txt",
        f"{TODAY}/sub/a.json",
        f"_reviews/{TODAY}/a.json",
    ):
        put(store, tmp_path, name)
    for name in (
        f"{TODAY}/a b.json",
        f"{TODAY}/.hidden",
        "_attachments/ab/short.nc",
        "_other/2026-08-01/a.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert reconcile(sealer, Reconciler(store, sealer.log), LATER, whole=True) == []


def test_a_directory_that_cannot_be_read_is_told_and_stops_nothing(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    put(store, tmp_path, f"{TODAY}/a.json")
    # Links are not followed, so none of these can be read, and no user is needed who may not.
    for name in (OLD_DAY, f"_acts/{TODAY}", f"_reviews/{TODAY}/run", f"{TODAY}/b.json", "_attachments/ab"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / TODAY)
    late = Reconciler(store, sealer.log).find(LATER, whole=True)
    assert [receipt.key for receipt in late.receipts] == [f"{TODAY}/a.json"]
    assert {error.key for error in late.unreadable} == {
        OLD_DAY,
        f"_acts/{TODAY}",
        f"_reviews/{TODAY}/run",
        f"{TODAY}/b.json",
        "_attachments/ab",
    }


def test_a_file_that_goes_while_it_is_read_is_told(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [put(store, tmp_path, f"{TODAY}/{name}.json") for name in "abc"]
    real = store.pieces

    def going(key: str) -> AbstractContextManager[Iterator[bytes] | None]:
        if key == keys[1]:
            (tmp_path / key).unlink()
        return real(key)

    monkeypatch.setattr(store, "pieces", going)
    late = Reconciler(store, sealer.log).find(LATER)
    assert [receipt.key for receipt in late.receipts] == [keys[0], keys[2]]
    assert [error.key for error in late.unreadable] == [keys[1]]


def test_much_that_is_late_is_told_of_in_parts(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.reconcile.MOST_LATE", 5)
    monkeypatch.setattr("rmos_shared.auditlog.reconcile._BATCH", 3)
    keys = sorted({put(store, tmp_path, key) for key in [*ours(TODAY), *ours(OLD_DAY)]})
    reconciler = Reconciler(store, sealer.log)
    found: list[str] = []
    while part := reconcile(sealer, reconciler, LATER, whole=True):
        assert len(part) <= 5
        found += part
    assert sorted(found) == keys
    assert_sound(sealer.log)


def test_a_round_says_whether_it_left_something_late(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.reconcile.MOST_LATE", 3)
    keys = [put(store, tmp_path, f"{TODAY}/{name}.json") for name in "abcd"]
    reconciler = Reconciler(store, sealer.log)
    assert reconciler.find(LATER, whole=True).more
    assert reconcile(sealer, reconciler, LATER, whole=True) == keys[:3]
    assert not reconciler.find(LATER, whole=True).more
    assert reconcile(sealer, reconciler, LATER, whole=True) == keys[3:]


def test_what_may_still_be_told_of_takes_no_place_of_what_is_late(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.reconcile.MOST_LATE", 2)
    at = NOW.replace(microsecond=0)
    keys = [put(store, tmp_path, f"{TODAY}/{name}.json", at) for name in "abcd"]
    reconciler = Reconciler(store, sealer.log)
    reconciler.spare(lambda key, modified_at: key in keys[:2] and modified_at == at)
    late = reconciler.find(LATER, whole=True)
    assert ([receipt.key for receipt in late.receipts], late.more) == (keys[2:], False)
    reconciler.spare(lambda _key, _modified_at: False)
    assert reconcile(sealer, reconciler, LATER, whole=True) == keys[:2]


@pytest.mark.parametrize("amount", [1, 6, 8])
def test_however_much_lies_in_one_directory_little_of_it_is_held_at_a_time(
    amount: int, tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.reconcile._BATCH", 3)
    at = NOW - timedelta(minutes=10)
    runs = [new_uuid7(at) for _ in range(amount)]
    days = (f"{TODAY}/", f"_attempts/{TODAY}/", "_attachments/ab/")
    keys = sorted(
        put(store, tmp_path, key, at)
        for number, run in enumerate(runs)
        for key in (
            f"{TODAY}/{run}.json",
            f"_attempts/{TODAY}/{run}/{run}.explain_1785585600000.json",
            f"_attachments/ab/ab{number:062x}.nc",
        )
    )
    held: list[int] = []
    real = sealer.log.find

    def finding(keys: Mapping[str, datetime], *, size: int | None = None) -> dict[str, int]:
        held.append(len(keys))
        return real(keys, size=size)

    monkeypatch.setattr(sealer.log, "find", finding)
    reconciler = Reconciler(store, sealer.log, clock=Ahead())
    assert sorted(receipt.key for receipt in reconciler.find(LATER, whole=True).receipts) == keys
    assert max(held) < 2 * 3
    assert sorted(reconcile(sealer, reconciler, LATER, whole=True)) == keys
    assert reconcile(sealer, reconciler, LATER, whole=True) == []
    with listed(store, monkeypatch) as prefixes:
        assert reconcile(sealer, reconciler, LATER, whole=True) == []
    assert {day for day in days if day in prefixes} == {f"_attempts/{TODAY}/"}, "they are remembered"


def test_a_part_is_remembered_only_if_nothing_is_missing_in_any_of_its_pieces(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.reconcile._BATCH", 3)
    young, *keys = [put(store, tmp_path, f"{TODAY}/{name}.json", NOW) for name in "abcdefgh"]
    os.utime(tmp_path / young, (LATER.timestamp(), LATER.timestamp()))
    reconciler = Reconciler(store, sealer.log, clock=Ahead())
    assert reconcile(sealer, reconciler, LATER) == keys
    assert reconcile(sealer, reconciler, LATER) == [], "all in its last piece is in the log"
    assert reconcile(sealer, reconciler, LATER + 3 * A_MINUTE) == [young]


def test_a_directory_that_cannot_be_read_to_its_end_is_not_remembered(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.reconcile._BATCH", 2)
    keys = [put(store, tmp_path, f"{TODAY}/{name}.json") for name in "abcde"]
    reconciler = Reconciler(store, sealer.log, clock=Ahead())
    real = store.list

    def breaking(prefix: str, after: str = "") -> Iterator[str]:
        for key in real(prefix, after):
            if key == keys[3]:
                raise CorruptArtifact(f"{TODAY}", "it cannot be read (Input/output error)")
            yield key

    with monkeypatch.context() as patch:
        patch.setattr(store, "list", breaking)
        late = reconciler.find(LATER)
    assert [error.key for error in late.unreadable] == [TODAY]
    assert keys[:2] == [receipt.key for receipt in late.receipts], "what was listed before is looked at"
    sealer.seal(late.receipts, now=LATER, feed_at_end=True)
    assert reconcile(sealer, reconciler, LATER) == keys[2:]


def test_a_file_whose_time_lies_ahead_is_late_as_any(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    """Planted, or put there by a machine whose clock is wrong: its time may not come for years."""
    ahead = LATER + timedelta(days=3650)
    run = put(store, tmp_path, f"{OLD_DAY}/{new_uuid7(NOW - timedelta(days=400))}.json", ahead)
    attached = put(store, tmp_path, attachment(1), ahead)
    put(store, tmp_path, f"{TODAY}/soon.json", LATER + 4 * A_MINUTE)  # clocks may differ that much
    late = Reconciler(store, sealer.log).find(LATER, whole=True)
    assert [receipt.key for receipt in late.receipts] == [run, attached]


def test_what_is_in_the_log_is_not_late_though_its_time_lies_ahead_by_now(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    attached = put(store, tmp_path, attachment(1), NOW - timedelta(minutes=50))
    sealed_at = NOW - timedelta(minutes=49)
    told = receipt(1, sealed_at)
    sealer.seal([type(told)(attached, told.sha256, 1, sealed_at, "1-1")], now=sealed_at, feed_at_end=True)
    sealer.seal([receipt(2, NOW)], now=NOW, feed_at_end=True)
    os.utime(tmp_path / attached, ((LATER + timedelta(days=3650)).timestamp(),) * 2)
    assert reconcile(sealer, Reconciler(store, sealer.log), LATER + timedelta(days=2), whole=True) == []


def test_a_store_without_stamps_is_looked_at_each_time(
    sealer: Sealer, store: LocalStore, tmp_path: Path
) -> None:
    class Plain:
        """What any store must have, and no stamps."""

        create, create_many, draft = store.create, store.create_many, store.draft
        get, pieces, head, list = store.get, store.pieces, store.head, store.list

    keys = sorted(put(store, tmp_path, key) for key in ours(TODAY))
    reconciler = Reconciler(Plain(), sealer.log, clock=Ahead())
    assert sorted(reconcile(sealer, reconciler, LATER)) == keys
    late = put(store, tmp_path, f"{TODAY}/late.json", NOW)
    assert reconcile(sealer, reconciler, LATER) == [late]
    assert reconcile(sealer, reconciler, LATER) == []


@contextmanager
def listed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    prefixes: list[str] = []
    real = store.list

    def listing(prefix: str, after: str = "") -> Iterator[str]:
        prefixes.append(prefix)
        return real(prefix, after)

    with monkeypatch.context() as patch:
        patch.setattr(store, "list", listing)
        yield prefixes


def test_directories_that_did_not_change_are_not_listed_again(
    tmp_path: Path, store: LocalStore, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [put(store, tmp_path, key) for key in ours(TODAY)]
    reconciler = Reconciler(store, sealer.log, clock=Ahead())
    assert sorted(reconcile(sealer, reconciler, LATER)) == sorted(keys)
    assert reconcile(sealer, reconciler, LATER) == []
    with listed(store, monkeypatch) as prefixes:
        assert reconcile(sealer, reconciler, LATER) == []
    flat = {
        f"{TODAY}/",
        f"_acts/{TODAY}/",
        f"_batches/{TODAY}/",
        *(f"_attachments/{n:02x}/" for n in range(256)),
    }
    assert flat.isdisjoint(prefixes)
    put(store, tmp_path, f"{TODAY}/new.json", NOW)
    assert reconcile(sealer, reconciler, LATER) == [f"{TODAY}/new.json"]


def test_a_log_that_a_backup_has_replaced_is_held_against_the_whole_store(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    reconciler = Reconciler(store, sealer.log, clock=Ahead())
    shutil.copytree(tmp_path / "_log", tmp_path.with_name("backup"))
    keys = sorted(put(store, tmp_path, key) for key in ours(TODAY))
    assert sorted(reconcile(sealer, reconciler, LATER)) == keys
    assert reconcile(sealer, reconciler, LATER) == []
    shutil.rmtree(tmp_path / "_log")
    shutil.copytree(tmp_path.with_name("backup"), tmp_path / "_log")
    assert sorted(reconcile(sealer, reconciler, LATER)) == keys


def test_an_attachment_put_back_with_its_old_time_is_found_by_the_look_at_all(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    reconciler = Reconciler(store, sealer.log, clock=Ahead())
    first = put(store, tmp_path, attachment(1))
    assert reconcile(sealer, reconciler, LATER) == [first]
    assert reconcile(sealer, reconciler, LATER) == []
    old = put(store, tmp_path, f"{first}.gz", NOW - timedelta(days=100))
    assert reconcile(sealer, reconciler, LATER) == []
    assert reconcile(sealer, reconciler, LATER, whole=True) == [old]


def test_what_comes_within_a_tick_of_the_file_systems_clock_is_found(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    put(store, tmp_path, f"{TODAY}/a.json", NOW)
    reconciler = Reconciler(store, sealer.log)
    assert reconcile(sealer, reconciler, LATER) == [f"{TODAY}/a.json"]
    times = (tmp_path / TODAY).stat()
    assert reconcile(sealer, reconciler, LATER) == []  # changed a moment ago, so it is not remembered
    put(store, tmp_path, f"{TODAY}/b.json", NOW)
    os.utime(tmp_path / TODAY, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reconcile(sealer, reconciler, LATER) == [f"{TODAY}/b.json"]


class Ahead:
    """A clock that shows a time long after the files'."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=5)

    def monotonic(self) -> float:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def test_a_file_put_back_with_a_new_time_is_known_by_the_time_in_its_name(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    key = put(store, tmp_path, f"{TODAY}/{new_uuid7(NOW - timedelta(minutes=30))}.json")
    sealed_at = NOW - timedelta(minutes=29)
    told = receipt(1, sealed_at)
    sealer.seal([type(told)(key, told.sha256, 1, sealed_at, "1-1")], now=sealed_at, feed_at_end=True)
    for minutes in range(2, 20):
        sealer.seal([receipt(minutes, sealed_at)], now=sealed_at + minutes * A_MINUTE, feed_at_end=True)
    os.utime(tmp_path / key, (LATER.timestamp(), LATER.timestamp()))
    assert reconcile(sealer, Reconciler(store, sealer.log), LATER + timedelta(hours=1)) == []


def test_a_file_whose_id_is_of_a_clock_ahead_is_known_by_its_own_time(
    tmp_path: Path, store: LocalStore, sealer: Sealer
) -> None:
    sealed_at = NOW - timedelta(minutes=50)
    ahead = NOW + timedelta(minutes=20)
    key = put(store, tmp_path, f"{ahead.date().isoformat()}/{new_uuid7(ahead)}.json", sealed_at)
    told = receipt(1, sealed_at)
    sealer.seal([type(told)(key, told.sha256, 1, sealed_at, "1-1")], now=sealed_at, feed_at_end=True)
    sealer.seal([receipt(2, NOW)], now=NOW, feed_at_end=True)
    assert reconcile(sealer, Reconciler(store, sealer.log), NOW + timedelta(minutes=30), whole=True) == []


def test_what_was_there_before_the_log_is_adopted_in_several_seals(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.sealer.MOST_RECORDS", 5)
    keys = sorted({put(store, tmp_path, key) for key in [*ours(TODAY), *ours(OLD_DAY)]})
    put(store, tmp_path, "foreign.txt")
    sealer = sealer_of(store)
    reconciler = Reconciler(store, sealer.log)
    seals = 0
    while (sealed := sealer.seal(reconciler.find(LATER).receipts, now=LATER, feed_at_end=True)) is not None:
        seals += 1
        assert sealed.more is (seals < 4)
        sealer = sealer_of(store)  # as if the first had been killed
    assert seals == 4
    assert found(sealer, "adopted") == keys
    assert_sound(sealer.log)
    late = put(store, tmp_path, f"{TODAY}/late.json", NOW)
    assert reconcile(sealer, reconciler, LATER, whole=True) == [late]
    assert found(sealer, "adopted") == keys


def test_a_receipt_of_what_was_adopted_a_moment_ago_makes_no_second_entry(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.sealer.MOST_RECORDS", 3)
    told = [receipt(number, NOW + number * A_MINUTE / 60) for number in range(6)]
    for each in told:
        put(store, tmp_path, each.key)
    sealer = sealer_of(store)
    # Some are told of before they are adopted, some after.
    sealer.seal([told[5], told[4]], now=NOW, feed_at_end=True)
    while sealer.seal([], now=NOW, feed_at_end=True) is not None:
        pass
    again = [
        type(each)(each.key, each.sha256, each.size, each.at, f"2000-{n}") for n, each in enumerate(told)
    ]
    sealer.seal(again, now=NOW + A_MINUTE, feed_at_end=True)
    entries = [parse_entry(line) for line in sealer.log.entries()]
    keys = [entry.key for entry in entries if isinstance(entry, RecordEntry)]
    assert sorted(keys) == sorted(each.key for each in told)


def test_adoption_ends_while_new_files_keep_coming(tmp_path: Path, store: LocalStore) -> None:
    began = NOW + A_MINUTE
    old = put(store, tmp_path, f"{TODAY}/{new_uuid7(NOW)}.json", NOW)
    sealer = sealer_of(store)
    come = []
    for minute in range(3):
        # Sorted after all that is there, as keys of runs are, and never told of before the next seal.
        at = began + minute * A_MINUTE
        come.append(put(store, tmp_path, f"{TODAY}/{new_uuid7(at)}.json", at))
        sealer.seal([], now=at, feed_at_end=True)
    assert found(sealer, "adopted") == [old]
    told = receipt(1, began + 3 * A_MINUTE)
    new = [type(told)(key, told.sha256, 1, told.at, f"3000-{n}") for n, key in enumerate(come)]
    sealer.seal(new, now=began + 4 * A_MINUTE, feed_at_end=True)
    entries = [parse_entry(line) for line in sealer.log.entries()]
    assert [entry.key for entry in entries if isinstance(entry, RecordEntry)] == [old, *come]
    assert_sound(sealer.log)


def test_a_file_of_the_millisecond_in_which_the_log_begins_has_one_entry(
    tmp_path: Path, store: LocalStore
) -> None:
    began = NOW.replace(microsecond=500)
    put(store, tmp_path, f"{TODAY}/{new_uuid7(NOW)}.json", NOW - A_MINUTE)
    key = put(store, tmp_path, f"{TODAY}/{new_uuid7(NOW)}.json", began.replace(microsecond=250))
    sealer = sealer_of(store)
    sealer.seal([], now=began, feed_at_end=True)
    told = receipt(1, began + A_MINUTE / 60)
    sealer.seal([type(told)(key, told.sha256, 1, told.at, "3000-1")], now=told.at, feed_at_end=True)
    entries = [parse_entry(line) for line in sealer.log.entries()]
    assert [entry.key for entry in entries if isinstance(entry, RecordEntry)].count(key) == 1
