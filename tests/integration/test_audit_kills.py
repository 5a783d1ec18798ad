"""Sealers that die at any write, and several at once: the log is that of one sealer that never did."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_shared.auditlog.layout import LOG, seal_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.sealer import Sealed
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.local import LocalStore
from support import sealers
from support.audit_log import ORIGIN, START, assert_sound, keys_of, receipts, sealer_of
from support.dying_store import Died, DyingStore
from support.stores import local_store

SIGNER = Signer(ORIGIN, Ed25519PrivateKey.generate())
NOW = START + timedelta(minutes=1)
LATER = NOW + timedelta(minutes=1)
#: The seal under test completes two tiles, begins a third, and moves the level above.
BEFORE, NEW = 250, receipts(range(250, 560), NOW)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose log holds some entries, to be copied."""
    root = tmp_path_factory.mktemp("before") / "runs"
    sealer_of(local_store(root), SIGNER).seal(receipts(range(BEFORE)), now=START, feed_at_end=True)
    return root


def copied(before: Path, root: Path) -> LocalStore:
    shutil.copytree(before, root, symlinks=True)
    return LocalStore(root)


def files(store: ArtifactStore) -> dict[str, bytes | None]:
    return {key: store.get(key) for key in store.list(LOG)}


def seal(store: ArtifactStore, *, later: bool = False) -> Sealed | None:
    return sealer_of(store, SIGNER).seal(NEW, now=LATER if later else NOW, feed_at_end=True)


@pytest.fixture(scope="module")
def undisturbed(
    before: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, bytes | None]]:
    """Return how many writes a seal takes, and what is there after it."""
    counting = DyingStore(copied(before, tmp_path_factory.mktemp("undisturbed") / "runs"))
    assert seal(counting) is not None
    return counting.writes, files(counting)


@pytest.mark.parametrize("later", [False, True], ids=["in the same moment", "a minute later"])
def test_a_sealer_that_died_at_any_write_is_finished_by_another(
    before: Path, undisturbed: tuple[int, dict[str, bytes | None]], tmp_path: Path, *, later: bool
) -> None:
    writes, expected = undisturbed
    assert writes == 10
    for at in range(writes):
        for after in (False, True):
            root = tmp_path / f"{at}-{after}"
            store = copied(before, root)
            with pytest.raises(Died):
                seal(DyingStore(store, at, after=after))
            decided = store.get(seal_key(BEFORE + 1)) is not None
            seal(store, later=later)
            if decided or not later:
                # Not a byte tells that there were two.
                assert files(store) == expected
            log = AuditLog(store, ORIGIN)
            assert keys_of(log) == [receipt.key for receipt in receipts(range(560))]
            assert assert_sound(log) == 2
            shutil.rmtree(root)


def test_a_sealer_that_died_is_finished_without_a_receipt_at_hand(
    before: Path, undisturbed: tuple[int, dict[str, bytes | None]], tmp_path: Path
) -> None:
    writes, expected = undisturbed
    store = copied(before, tmp_path / "runs")
    with pytest.raises(Died):
        seal(DyingStore(store, writes - 2))
    sealed = sealer_of(store, SIGNER).complete()
    assert sealed is not None
    assert sealed.size == BEFORE + len(NEW) + 2
    assert files(store) == expected
    assert sealer_of(store, SIGNER).complete() is None


def test_several_that_die_one_after_the_other_leave_one_seal(before: Path, tmp_path: Path) -> None:
    store = copied(before, tmp_path / "runs")
    for at in range(10):
        with pytest.raises(Died):
            seal(DyingStore(store, at), later=at % 2 == 1)
    seal(store)
    assert assert_sound(AuditLog(store, ORIGIN)) == 2


def test_sealers_in_several_processes_killed_at_random_make_one_log(tmp_path: Path) -> None:
    counted = sealers.campaign(tmp_path, seconds=6, seed=13, sealers=3)
    assert counted.kills > 0
    assert counted.seals > 2
