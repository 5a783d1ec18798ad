"""Stamps: told by them alone, a day is looked at again whenever a name may have come."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from rmos_shared.errors import CorruptArtifact, StoreUnavailable
from rmos_shared.index.stamps import ABSENT, SETTLED_AFTER, UNKNOWN, same, stamps_of
from rmos_shared.store.base import KeyInvalid, StampedStore
from rmos_shared.store.local import LocalStore
from rmos_shared.store.memory import MemoryStore
from support.stores import local_store

DAY = "2026-08-01"


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StampedStore:
    return local_store(tmp_path / "runs") if request.param == "local" else MemoryStore()


def test_a_new_name_changes_the_stamp(store: StampedStore) -> None:
    assert store.stamp(DAY) is None
    store.create(f"{DAY}/0", b"")
    before = store.stamp(DAY)
    assert before is not None
    assert abs(before.changed_at - datetime.now(UTC)) < timedelta(seconds=60)
    deadline = time.monotonic() + 10
    # Within one tick of the file system's clock it may stay, which is why young stamps are not trusted.
    for number in count(1):
        store.create(f"{DAY}/{number}", b"")
        now = store.stamp(DAY)
        assert now is not None
        assert now.changed_at >= before.changed_at
        if now.token != before.token:
            break
        assert time.monotonic() < deadline


def test_reading_changes_no_stamp_and_neither_does_what_lies_deeper(store: StampedStore) -> None:
    store.create(f"_reviews/{DAY}/run/a.json", b"a")
    before = store.stamp(f"_reviews/{DAY}")
    store.create(f"_reviews/{DAY}/run/b.json", b"b")
    store.create(f"_reviews/{DAY}/run/a.json", b"a")
    assert store.get(f"_reviews/{DAY}/run/a.json") == b"a"
    assert [*store.list(f"_reviews/{DAY}/")]
    assert store.stamp(f"_reviews/{DAY}") == before
    assert store.stamp("_reviews") is not None


@pytest.mark.parametrize("directory", ["..", "/etc", "a/../b", "", "a\0"])
def test_a_stamp_never_leaves_the_root(store: StampedStore, directory: str) -> None:
    with pytest.raises(KeyInvalid):
        store.stamp(directory)


def test_what_stands_in_the_place_of_a_directory_is_damage(tmp_path: Path) -> None:
    store = local_store(tmp_path / "runs")
    (tmp_path / "runs" / DAY).symlink_to(tmp_path)
    with pytest.raises(CorruptArtifact):
        store.stamp(DAY)
    with pytest.raises(StoreUnavailable):
        LocalStore(tmp_path / "nowhere").stamp(DAY)


def test_repaired_access_changes_the_stamp(tmp_path: Path) -> None:
    store = local_store(tmp_path / "runs")
    store.create(f"{DAY}/a", b"")
    before = store.stamp(DAY)
    deadline = time.monotonic() + 10
    while store.stamp(DAY) == before:
        (tmp_path / "runs" / DAY).chmod(0o700)
        assert time.monotonic() < deadline


def test_a_young_stamp_is_none(store: StampedStore) -> None:
    store.create(f"{DAY}/a", b"")
    now = datetime.now(UTC)
    young = stamps_of(store, DAY, now)
    assert young == (None, ABSENT, ABSENT)
    assert not same(young, young)
    old = stamps_of(store, DAY, now + SETTLED_AFTER + timedelta(seconds=1))
    assert None not in old
    assert same(old, old)
    assert not same(old, UNKNOWN)
    # A clock that is behind the file system's makes all stamps young.
    assert stamps_of(store, DAY, now - timedelta(hours=1))[0] is None


def test_a_store_without_stamps_is_always_looked_at() -> None:
    class Plain:
        """As a store may be that knows no directories."""

    assert stamps_of(Plain(), DAY, datetime.now(UTC)) == UNKNOWN  # type: ignore[arg-type]
