"""The log as it lies in a store: its newest size, its entries, and the search for keys in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.auditlog import merkle
from rmos_shared.auditlog.entry import SealEntry, SealFacts
from rmos_shared.auditlog.layout import CHECKPOINTS, MOST, checkpoint_key
from rmos_shared.auditlog.log import MOST_SLACK, SLACK, AuditLog
from rmos_shared.auditlog.proof import prove
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.tiles import Tile, bundle
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.memory import MemoryStore
from support.audit_log import ORIGIN, START, keys_of, receipt, receipts, sealer_of

HOUR = timedelta(hours=1)


class Counting(MemoryStore):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lists = 0
        self.gets: list[str] = []

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        self.lists += 1
        return super().list(prefix, after)

    def get(self, key: str) -> bytes | None:
        self.gets.append(key)
        return super().get(key)


@given(
    st.sets(st.integers(1, MOST - 1), max_size=30),
    st.sets(st.sampled_from(["a", "000/x", "zzz", "999/999/999/999.tmp"])),
)
def test_the_newest_size_is_found_among_whatever_sizes_and_names(sizes: set[int], foreign: set[str]) -> None:
    store = Counting()
    for name in [*map(checkpoint_key, sizes), *(f"{CHECKPOINTS}{name}" for name in foreign)]:
        store.create(name, b"")
    log = AuditLog(store, ORIGIN)
    assert log.newest_size() == max(sizes, default=0)
    assert store.lists <= 90
    store.lists = 0
    assert log.newest_size() == max(sizes, default=0)
    assert store.lists <= 2
    assert list(log.sizes()) == sorted(sizes)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=12))
def test_the_newest_size_is_found_again_as_the_log_grows(steps: list[int]) -> None:
    store = MemoryStore()
    log = AuditLog(store, ORIGIN)
    size = 0
    for step in steps:
        assert log.newest_size() == size
        size += step
        store.create(checkpoint_key(size), b"")
    assert log.newest_size() == size


class SealTimes(AuditLog):
    """A log of which only the sizes and the times of seals are told."""

    def __init__(self, times: dict[int, datetime]) -> None:
        super().__init__(MemoryStore(), ORIGIN)
        self._times = times
        for size in times:
            self.store.create(checkpoint_key(size), b"")

    def seal(self, size: int) -> SealEntry:
        at = self._times[size]
        return SealEntry(at=at, seal=SealFacts(entries=1, feed="", next=at + HOUR, upto=at))


@given(
    st.dictionaries(st.integers(1, 5_000), st.integers(0, 50), min_size=1, max_size=40), st.integers(-1, 52)
)
def test_the_largest_tree_before_a_time_is_found(sizes: dict[int, int], moment: int) -> None:
    hours = sorted(sizes.values())
    times = {size: START + hour * HOUR for size, hour in zip(sorted(sizes), hours, strict=True)}
    wanted = START + moment * HOUR
    expected = max((size for size, at in times.items() if at < wanted), default=0)
    assert SealTimes(times).size_before(wanted, max(sizes)) == expected


# -- search --------------------------------------------------------------------------------------------


def old_log(store: MemoryStore, *, seals: int = 200, each: int = 300) -> AuditLog:
    """Return a log of a seal an hour."""
    sealer = sealer_of(store)
    for number in range(seals):
        now = START + number * HOUR
        sealer.seal(receipts(range(number * each, (number + 1) * each), now), now=now, feed_at_end=True)
    return sealer.log


@pytest.fixture(scope="module")
def log() -> AuditLog:
    return old_log(Counting())


def bundles_read(log: AuditLog, keys: dict[str, datetime]) -> tuple[dict[str, int], int]:
    store = log.store
    assert isinstance(store, Counting)
    store.gets.clear()
    found = log.find(keys)
    return found, sum("tile/entries" in key for key in store.gets)


@pytest.mark.parametrize("number", [0, 299, 300, 30_000, 59_999])
def test_a_key_is_found_where_it_is(log: AuditLog, number: int) -> None:
    key = receipt(number).key
    found, _ = bundles_read(log, {key: START + number // 300 * HOUR})
    assert found == {key: number + number // 300}
    assert next(log.entries(found[key])).find(key.encode()) > 0


def test_all_keys_are_found_in_one_pass(log: AuditLog) -> None:
    wanted = {receipt(number).key: START for number in range(0, 60_000, 777)}
    found, read = bundles_read(log, wanted)
    assert found.keys() == wanted.keys()
    assert read <= 60_200 / 256 + 20


def test_a_search_costs_what_was_sealed_since_the_earliest_time(log: AuditLog) -> None:
    all_of_it = 60_200 / 256
    costs = []
    for hours_ago in (1, 10, 100):
        fresh = AuditLog(log.store, ORIGIN)
        missing = {"2026-08-01/none.json": START + (199 - hours_ago) * HOUR}
        _, read = bundles_read(fresh, missing)
        costs.append(read)
        # The entries of these hours and of the day before, for clocks differ, and no more than a bundle for
        # each halving of the way there, which is gone twice.
        assert read <= (hours_ago + 24 + 2) * 300 / 256 + 40
        # They are in memory now.
        assert bundles_read(fresh, missing)[1] == 0
    assert costs == sorted(costs)
    _, nothing = bundles_read(AuditLog(log.store, ORIGIN), {"2026-08-01/none.json": START + 300 * HOUR})
    assert nothing <= 4
    _, everything = bundles_read(AuditLog(log.store, ORIGIN), {"2026-08-01/none.json": START})
    assert all_of_it <= everything <= all_of_it + 40


def test_no_more_is_kept_in_memory_than_so_many_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.tail.MOST_KEYS", 30)
    log = old_log(Counting(), seals=40, each=3)
    fresh = AuditLog(log.store, ORIGIN)
    for hour in (39, 20, 0, 39):
        key, none = receipt(hour * 3 + 1).key, "2026-08-01/none.json"
        assert fresh.find(dict.fromkeys((key, none), START + hour * HOUR)).keys() == {key}
    # The newest are in memory still, with seals' ends: the oldest are not.
    assert bundles_read(fresh, {"2026-08-01/none.json": START + 63 * HOUR})[1] == 0
    assert bundles_read(fresh, {"2026-08-01/none.json": START + 26 * HOUR})[1] > 0


def test_what_was_added_is_found_by_a_log_that_was_read_before() -> None:
    store = MemoryStore()
    log = AuditLog(old_log(store, seals=3, each=5).store, ORIGIN)
    assert log.find({receipt(20).key: START}) == {}
    sealer_of(store).seal(receipts(range(20, 25), START + 5 * HOUR), now=START + 5 * HOUR, feed_at_end=True)
    assert log.find({receipt(20).key: START}) == {receipt(20).key: 18}


def test_a_key_that_was_found_is_not_searched_for_again(log: AuditLog) -> None:
    again = AuditLog(log.store, ORIGIN)
    key = receipt(31).key
    first, cost = bundles_read(again, {key: START})
    assert cost > 0
    assert bundles_read(again, {key: START}) == (first, 0)
    # What is asked of a shorter log is not answered by what a longer one holds.
    assert again.find({receipt(50_000).key: START}) != {}
    assert again.find({receipt(50_000).key: START}, size=301) == {}


def test_only_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.log._REMEMBERED", 3)
    log = AuditLog(old_log(Counting(), seals=2, each=5).store, ORIGIN)
    keys = [receipt(number).key for number in range(10)]
    for key in keys:
        # A search that ends with what it finds keeps nothing else in memory.
        assert log.find({key: START}).keys() == {key}
    costs = [bundles_read(log, {key: START})[1] > 0 for key in reversed(keys)]
    assert costs[:3] == [False] * 3
    assert costs[3]


def test_a_log_that_a_backup_has_replaced_is_read_anew() -> None:
    store = MemoryStore()
    log = old_log(store, seals=3, each=5)
    key = receipt(12).key
    assert log.newest_size() == 18
    assert log.find({key: START}) == {key: 14}
    # The backup is shorter; then it goes on with other entries to the same size.
    backup = old_log(MemoryStore(), seals=2, each=5).store
    log.store = backup
    assert log.newest_size() == 12
    assert log.find({key: START}) == {}
    assert log.find({receipt(3).key: START}) == {receipt(3).key: 3}
    other = MemoryStore()
    sealer_of(other).seal(receipts(range(20, 31)), now=START, feed_at_end=True)
    log.store = other
    assert log.newest_size() == 12
    assert log.find({receipt(3).key: START}) == {}


def test_what_was_sealed_a_little_before_its_time_is_found_because_clocks_differ() -> None:
    store = MemoryStore()
    old_log(store, seals=3, each=2)
    key = receipt(2).key
    for behind in (SLACK, MOST_SLACK):
        assert AuditLog(store, ORIGIN).find({key: START + HOUR + behind}) == {key: 3}
    too_late = START + HOUR + MOST_SLACK + timedelta(seconds=1)
    assert AuditLog(store, ORIGIN).find({key: too_late}) == {}


def test_nothing_is_found_in_no_log_and_nothing_asked_costs_nothing() -> None:
    store = Counting()
    assert AuditLog(store, ORIGIN).find({"a": START}) == {}
    log = old_log(store, seals=1)
    store.gets.clear()
    assert log.find({}) == {}
    assert store.gets == []


def test_a_key_with_two_entries_is_found_at_the_first() -> None:
    store = MemoryStore()
    log = old_log(store, seals=2, each=2)
    # No sealer of ours writes it twice; a log is read as it is.
    lines = [*log.entries()]
    name = Tile(None, 0, 6).path
    other = MemoryStore()
    for key in store.list(""):
        data = store.get(key)
        assert data is not None
        other.create(key, bundle([*lines[:3], lines[0], *lines[4:]]) if key == name else data)
    assert AuditLog(other, ORIGIN).find({receipt(0).key: START}) == {receipt(0).key: 0}


MIGRATED_DAY = "2020-02-02"
#: Of ``START``; fixed, for it is part of the names of tests.
AT_START = "019fbd3206007962b092753717e4c32a"


@pytest.mark.parametrize(
    "key",
    [
        f"2026-08-01/{AT_START}.json",
        "2026-08-01/migrated.json",
        f"{MIGRATED_DAY}/migrated.json",
        f"_reviews/2026-08-01/migrated/{AT_START}.json",
        f"_acts/2026-08-01/{AT_START}_begun.json",
    ],
)
def test_a_file_restored_with_a_new_time_is_not_sealed_again(key: str) -> None:
    store = MemoryStore()  # whose files are all of this moment, far later than their entries
    sealer = sealer_of(store)
    store.create(key, b"x")
    first = Receipt(key, "ab" * 32, 1, START, "1-0")
    sealer.seal([first], now=START, feed_at_end=True)
    for hours in range(1, 30):
        sealer.seal(
            [replace(receipt(hours), at=START + hours * HOUR)], now=START + hours * HOUR, feed_at_end=True
        )
    now = datetime.now(UTC)
    sealer.seal([replace(first, feed_id="9000-0", created=False, at=now)], now=now, feed_at_end=True)
    assert keys_of(sealer.log).count(key) == 1


# -- what is damaged -----------------------------------------------------------------------------------


def test_entries_outside_of_the_log_are_refused(log: AuditLog) -> None:
    for start, end in ((-1, 1), (2, 1), (0, 60_201)):
        with pytest.raises(ValueError, match="has none from"):
            list(log.entries(start, end))


def test_entries_are_those_from_one_to_before_another(log: AuditLog) -> None:
    everything = list(log.entries(size=60_200))
    assert len(everything) == 60_200
    for start, end in ((0, 0), (0, 1), (255, 257), (256, 512), (60_199, 60_200), (1_000, 1_700)):
        assert list(log.entries(start, end)) == everything[start:end]
    node = merkle.nodes_of([merkle.leaf_hash(line) for line in everything])
    assert log.hash_reader().root() == merkle.tree_root(node, 60_200) == log.checkpoint(60_200).root
    assert prove(log, 12_345).hashes == tuple(merkle.inclusion_proof(node, 12_345, 60_200))


def test_the_newest_checkpoint_is_none_while_there_is_none() -> None:
    store = MemoryStore()
    assert AuditLog(store, ORIGIN).newest() is None
    log = old_log(store, seals=2, each=1)
    assert log.newest() == log.checkpoint(4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "is missing"),
        (b"", "no blank line"),
        (f"{ORIGIN}\n5\n{'A' * 43}=\n\n".encode(), "checkpoint of 5 entries"),
        (f"other\n4\n{'A' * 43}=\n\n".encode(), "another log"),
        (f"{ORIGIN}\n4\nAAAA\n\n".encode(), "no root hash"),
    ],
)
def test_a_checkpoint_that_is_damaged_is_named(data: bytes | None, reason: str) -> None:
    store = MemoryStore()
    if data is not None:
        store.create(checkpoint_key(4), data)
    with pytest.raises(CorruptArtifact, match=reason) as raised:
        AuditLog(store, ORIGIN).checkpoint(4)
    assert raised.value.key == checkpoint_key(4)


def test_a_log_that_does_not_end_with_a_seal_is_named() -> None:
    store = MemoryStore()
    line = receipt(1).to_line()
    store.create(Tile(None, 0, 1).path, bundle([line]))
    store.create(Tile(None, 0, 2).path, bundle([line, b"{}"]))
    log = AuditLog(store, ORIGIN)
    for size, reason in ((1, "ends no seal"), (2, "entry 1 is no entry")):
        with pytest.raises(CorruptArtifact, match=reason) as raised:
            log.seal(size)
        assert raised.value.key == Tile(None, 0, size).path
