"""The sealer: what it adds to the log, and what it refuses to continue."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import RecordEntry, SealEntry, parse_entry
from rmos_shared.auditlog.layout import LOG, checkpoint_key, seal_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note, Signer, Verifier, verified
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.seal_file import SealFile
from rmos_shared.auditlog.sealer import Sealed
from rmos_shared.auditlog.tiles import MOST_ENTRIES
from rmos_shared.errors import CorruptArtifact, SettingsInvalid, StoreUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.store.base import Head, Outcome
from rmos_shared.store.memory import MemoryStore
from support.audit_log import HEARTBEAT, ORIGIN, START, assert_sound, keys_of, receipt, receipts, sealer_of
from support.dying_store import Died, DyingStore

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
NEXT = [replace(receipt(9_999), feed_id="9000-0")]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def signer() -> Signer:
    return Signer(ORIGIN, Ed25519PrivateKey.generate())


def seal(
    store: MemoryStore, new: Sequence[Receipt], signer: Signer | None = None, minutes: float = 0
) -> Sealed:
    sealed = sealer_of(store, signer).seal(new, now=START + minutes * MINUTE, feed_at_end=True)
    assert sealed is not None
    return sealed


def copied(store: MemoryStore, **changed: bytes | None) -> MemoryStore:
    """Return a copy of the store; ``changed`` are other bytes of files of the log, None where one is gone."""
    other = MemoryStore()
    for key in store.list(""):
        data = changed.get(key.removeprefix(LOG), store.get(key))
        if data is not None:
            other.create(key, data)
    return other


# -- what is added -------------------------------------------------------------------------------------


def test_what_was_sealed_is_in_the_log_once_and_in_order(store: MemoryStore, signer: Signer) -> None:
    sealer = sealer_of(store, signer)
    now, number, keys = START, 0, list[str]()
    for count in (1, 0, 254, 255, 256, 1, 700, 2):
        new = receipts(range(number, number + count), now)
        sealed = sealer.seal(new, now=now, feed_at_end=True)
        assert (sealed is None) is (count == 0)
        if sealed is not None:
            verified(sealed.note, [Verifier.parse(signer.vkey)])
        keys += [receipt.key for receipt in new]
        number, now = number + count, now + MINUTE
    assert keys_of(sealer.log) == keys
    assert_sound(sealer.log)


def test_a_log_without_a_key_has_checkpoints_without_a_signature(store: MemoryStore) -> None:
    sealed = seal(store, receipts(range(3)))
    assert store.get(checkpoint_key(4)) == f"{sealed.checkpoint.text}\n".encode()


def test_a_seal_says_of_itself_what_the_next_one_and_the_verifier_need(store: MemoryStore) -> None:
    sealed = seal(store, receipts(range(7)))
    assert json.loads(sealed.seal.to_line()) == {
        "at": "2026-08-01T12:00:00.000Z",
        "seal": {
            "entries": 8,
            "feed": "1000-6",
            "next": "2026-08-01T13:00:00.000Z",
            "upto": "2026-08-01T12:00:00.000Z",
        },
        "v": 1,
    }
    assert (sealed.start, sealed.size, sealed.more) == (0, 8, False)


def test_without_anything_new_there_is_a_seal_only_when_it_was_promised(store: MemoryStore) -> None:
    sealer = sealer_of(store)
    assert sealer.seal([], now=START, feed_at_end=True) is not None  # the log's first
    assert sealer.seal([], now=START + HEARTBEAT - SECOND, feed_at_end=True) is None
    sealed = sealer.seal([], now=START + HEARTBEAT, feed_at_end=True)
    assert sealed is not None
    assert (sealed.start, sealed.size) == (1, 2)
    assert_sound(sealer.log)


def test_all_up_to_the_seal_is_in_the_log_only_if_the_feed_was_read_to_its_end(store: MemoryStore) -> None:
    sealer = sealer_of(store)
    now = START + MINUTE
    some = sealer.seal(receipts(range(2), START + SECOND), now=now, feed_at_end=False)
    rest = sealer.seal(receipts(range(2, 3), START + 2 * SECOND), now=now, feed_at_end=True)
    assert some is not None
    assert rest is not None
    assert [each.seal.seal.upto for each in (some, rest)] == [START + SECOND, now]


def test_times_of_seals_never_step_back(store: MemoryStore) -> None:
    seal(store, receipts(range(2)), minutes=10)
    sealed = seal(store, receipts(range(2, 4)), minutes=5)
    assert sealed.seal.at == sealed.seal.seal.upto == START + 10 * MINUTE
    assert_sound(AuditLog(store, ORIGIN))


@pytest.mark.parametrize("minutes", [1 / 60, 3 / 60, 1, 10, 600])
def test_a_clock_that_was_set_back_makes_no_entry_older_than_what_the_last_seal_spoke_for(
    store: MemoryStore, minutes: float
) -> None:
    seal(store, receipts(range(3)))
    back = START - minutes * MINUTE
    new = [replace(receipt(number, back), feed_id=f"2000-{number}") for number in range(3, 6)]
    sealer = sealer_of(store)
    sealer.seal(new, now=back, feed_at_end=True)
    assert len(keys_of(sealer.log)) == 6
    assert_sound(sealer.log)
    # What was taken before the clock was set back, and is read after.
    ahead = replace(receipt(6, START + minutes * MINUTE), feed_id="3000-0")
    sealer.seal([ahead], now=back, feed_at_end=True)
    assert_sound(sealer.log)


def test_a_seal_speaks_for_no_time_after_its_feed_was_read(store: MemoryStore) -> None:
    """Another sealer took what came first; this one adds what it found, as of the time when it looked."""
    sealer = sealer_of(store)
    seal(store, receipts(range(2)))
    meanwhile = receipts(range(2, 4), START + 30 * SECOND)
    sealer.seal(meanwhile, now=START + 3 * MINUTE, feed_at_end=False)
    late = replace(receipt(9, START + MINUTE), feed_id="", found="late")
    sealed = sealer.seal([late], now=START + MINUTE, feed_at_end=True)
    assert sealed is not None
    assert (sealed.seal.at, sealed.seal.seal.upto) == (START + 3 * MINUTE, START + MINUTE)
    assert_sound(sealer.log)


@pytest.mark.parametrize("same_process", [True, False])
def test_a_file_that_two_jobs_tell_of_has_one_entry(store: MemoryStore, *, same_process: bool) -> None:
    """The job that found it there ends first, and is sealed before the one that created it ends."""
    sealer = sealer_of(store)
    store.create(receipt(1).key, b"")
    sealer.seal([], now=START, feed_at_end=True)
    found_there = receipt(1, START + MINUTE, created=False)
    sealer.seal([found_there], now=START + MINUTE, feed_at_end=True)
    other = sealer if same_process else sealer_of(store)
    created = replace(receipt(1, START + MINUTE + 50 * SECOND), feed_id="2000-0")
    other.seal([created, receipt_after(created)], now=START + 2 * MINUTE, feed_at_end=True)
    assert keys_of(sealer.log) == [receipt(1).key, receipt(8).key]
    assert_sound(sealer.log)


def receipt_after(before: Receipt) -> Receipt:
    return replace(receipt(8, before.at), feed_id=before.feed_id.replace("-0", "-1"))


def test_receipts_of_a_new_ledger_whose_clock_is_behind_are_sealed(store: MemoryStore) -> None:
    seal(store, [replace(receipt(number), feed_id=f"5000-{number}") for number in range(3)])
    behind = [replace(receipt(number, START - MINUTE), feed_id=f"4000-{number}") for number in range(2, 6)]
    sealed = seal(store, behind, minutes=-1)
    assert keys_of(AuditLog(store, ORIGIN)) == [receipt(number).key for number in range(6)]
    assert sealed.seal.seal.feed == "5000-2"
    assert_sound(AuditLog(store, ORIGIN))


@pytest.mark.parametrize("hours", [0.2, 1, 20])
def test_what_was_told_of_is_not_late_because_its_machine_is_hours_ahead(
    store: MemoryStore, hours: float
) -> None:
    """By the run's id and the file's time it was written long after the seal that holds it."""
    seal(store, receipts(range(3)))
    mine = f"2026-08-01/{new_uuid7(START + hours * HEARTBEAT)}.json"
    sealer = sealer_of(store)
    sealer.seal([replace(receipt(7), key=mine, feed_id="2000-0")], now=START + MINUTE, feed_at_end=True)
    again = replace(receipt(7), key=mine, feed_id="", found="late")
    for number in range(30):
        sealer.seal(
            [replace(receipt(100 + number), feed_id=f"3000-{number}", at=START + number * HEARTBEAT)],
            now=START + number * HEARTBEAT,
            feed_at_end=True,
        )
    for other in (sealer, sealer_of(store)):
        other.seal([again], now=datetime.now(UTC), feed_at_end=True)
    assert keys_of(sealer.log).count(mine) == 1


def test_more_than_fits_into_a_seal_is_left_for_the_next(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.sealer.MOST_RECORDS", 5)
    new = [replace(each, at=START + number * SECOND) for number, each in enumerate(receipts(range(12)))]
    sealer = sealer_of(store)
    seals = [sealer.seal(new, now=START + MINUTE, feed_at_end=True) for _ in range(4)]
    assert seals.pop() is None
    found = [(each.more, each.seal.seal.feed, each.seal.seal.upto) for each in seals if each is not None]
    assert found == [
        (True, "1000-4", START + 4 * SECOND),
        (True, "1000-9", START + 9 * SECOND),
        (False, "1000-11", START + MINUTE),
    ]
    assert keys_of(sealer.log) == [each.key for each in new]


def test_a_seal_reads_the_right_edge_of_the_tree_and_nothing_else(store: MemoryStore, signer: Signer) -> None:
    for first in range(0, 70_000, 10_000):
        seal(store, receipts(range(first, first + 10_000)), signer)
    later, read = START + 10 * MINUTE, list[str]()
    real = store.get

    def get(key: str) -> bytes | None:
        read.append(key.removeprefix(LOG))
        return real(key)

    store.get = get  # type: ignore[method-assign]
    sealer = sealer_of(store, signer)
    sealer.seal(receipts(range(70_000, 71_000), later), now=later, feed_at_end=True)
    assert read == [
        "checkpoints/000/000/070/007",
        "tile/0/273.p/119",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
        "tile/entries/273.p/119",
        "seals/000/000/070/007",
        # Whether the log's first seals adopted anything; asked once.
        "tile/entries/039.p/17",
        # Whether somebody told of one of them in the last two minutes: nobody told of anything.
        "tile/entries/273.p/119",
        "tile/entries/273.p/119",
        "checkpoints/000/000/070/007",
    ]
    read.clear()
    # What it sealed itself is in its memory, as long as the log is the same.
    sealer.seal(receipts(range(71_000, 72_000), later), now=later, feed_at_end=True)
    assert read == [
        "checkpoints/000/000/071/008",
        "tile/0/277.p/96",
        "tile/1/001.p/21",
        "tile/2/000.p/1",
        "tile/entries/277.p/96",
        "seals/000/000/071/008",
        "checkpoints/000/000/071/008",
    ]


def test_receipts_of_one_place_in_the_feed_are_sealed_together(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The seal says up to where the feed was read, so the rest of a place would be lost.
    monkeypatch.setattr("rmos_shared.auditlog.sealer.MOST_RECORDS", 5)
    new = [replace(receipt(number), feed_id=f"1000-{number // 4}") for number in range(10)]
    first = seal(store, new)
    assert (first.seal.seal.entries, first.seal.seal.feed, first.more) == (9, "1000-1", True)
    second = seal(store, new, minutes=1)
    assert (second.seal.seal.entries, second.seal.seal.feed, second.more) == (3, "1000-2", False)
    assert keys_of(AuditLog(store, ORIGIN)) == [each.key for each in new]


# -- what is there already -----------------------------------------------------------------------------


def test_receipts_that_are_read_again_after_a_crash_are_skipped(store: MemoryStore) -> None:
    numbers = [9, 10, 11]  # as texts, 10 sorts before 9
    seal(store, receipts(numbers))
    sealer = sealer_of(store)
    assert sealer.seal(receipts(numbers), now=START + MINUTE, feed_at_end=True) is None
    seal(store, receipts([*numbers, 100]), minutes=1)
    assert keys_of(sealer.log) == [each.key for each in receipts([*numbers, 100])]


def test_a_file_that_was_there_already_is_looked_for_and_has_one_entry(store: MemoryStore) -> None:
    seal(store, receipts(range(600)))
    seal(store, receipts(range(600, 700)), minutes=1)
    again = [replace(receipt(number, created=False), feed_id=f"2000-{number}") for number in (1, 650, 5_000)]
    sealed = seal(store, again, minutes=2)
    assert sealed.seal.seal.entries == 2
    assert keys_of(AuditLog(store, ORIGIN))[-1] == receipt(5_000).key


def test_receipts_of_which_nothing_is_new_are_sealed_so_that_the_feed_can_be_trimmed(
    store: MemoryStore,
) -> None:
    seal(store, receipts(range(3)))
    sealed = seal(store, [replace(receipt(1, created=False), feed_id="2000-0")], minutes=1)
    assert (sealed.seal.seal.entries, sealed.seal.seal.feed) == (1, "2000-0")


def test_a_key_that_is_told_of_twice_in_one_gathering_has_one_entry(store: MemoryStore) -> None:
    seal(store, [receipt(1), replace(receipt(1), feed_id="1000-2"), receipt(3)])
    assert keys_of(AuditLog(store, ORIGIN)) == [receipt(1).key, receipt(3).key]


def test_a_file_that_cannot_be_looked_at_is_sealed_as_its_receipt_says(store: MemoryStore) -> None:
    def head(key: str) -> Head | None:
        raise CorruptArtifact(key, "a directory stands where it should be")

    store.head = head  # type: ignore[method-assign]
    seal(store, [receipt(1, created=False)])
    assert keys_of(AuditLog(store, ORIGIN)) == [receipt(1).key]


def test_what_was_found_is_late_only_after_two_minutes(store: MemoryStore) -> None:
    sealer = sealer_of(store)
    sealer.seal([], now=START, feed_at_end=True)
    store.create(receipt(1).key, b"")
    late = replace(receipt(1), feed_id="", found="late")
    now = datetime.now(UTC)
    sealer.seal([late, *NEXT], now=now + timedelta(seconds=100), feed_at_end=True)
    assert keys_of(sealer.log) == [NEXT[0].key]
    sealer.seal([late], now=now + timedelta(seconds=130), feed_at_end=True)
    assert keys_of(sealer.log) == [NEXT[0].key, receipt(1).key]


def test_what_was_found_with_a_time_that_lies_ahead_is_late_at_once(store: MemoryStore) -> None:
    sealer = sealer_of(store)
    sealer.seal([], now=START, feed_at_end=True)
    store.create(receipt(1).key, b"")
    long_before = datetime.now(UTC) - timedelta(days=1)
    sealer.seal([replace(receipt(1), feed_id="", found="late")], now=long_before, feed_at_end=True)
    assert keys_of(sealer.log) == [receipt(1).key]


def test_a_checkpoint_of_another_tree_that_is_planted_meanwhile_is_named() -> None:
    other = Note(Checkpoint(ORIGIN, 4, bytes(32)).text).to_bytes()
    store = Overtaken(checkpoint_key(4), lambda store: MemoryStore.create(store, checkpoint_key(4), other))
    with pytest.raises(CorruptArtifact, match="not what follows from") as raised:
        seal(store, receipts(range(3)))
    assert raised.value.key == checkpoint_key(4)


@pytest.mark.parametrize("wrong", [{"key": f"{LOG}x"}, {"key": "../x"}, {"sha256": "x"}, {"size": -1}])
def test_a_receipt_of_what_no_log_can_hold_is_refused_and_decides_nothing(
    store: MemoryStore, wrong: dict[str, object]
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's or ours
        seal(store, [replace(receipt(1), **wrong)])  # type: ignore[arg-type]
    assert list(store.list("")) == []


# -- several sealers -----------------------------------------------------------------------------------


class Overtaken(MemoryStore):
    """A store in which somebody else does something just before the first write of a key."""

    def __init__(self, key: str, other: Callable[[MemoryStore], object]) -> None:
        super().__init__()
        self._key, self._other = key, other
        self._armed = True

    def create(self, key: str, data: bytes) -> Outcome:
        if key == self._key and self._armed:
            self._armed = False
            self._other(self)
        return super().create(key, data)


def test_a_sealer_that_is_overtaken_takes_the_other_seal_and_adds_what_it_lacks(signer: Signer) -> None:
    store = Overtaken(seal_key(0), lambda store: seal(store, receipts(range(3)), signer))
    sealed = seal(store, receipts(range(5)), signer, minutes=1)
    assert (sealed.start, sealed.size) == (4, 7)
    assert keys_of(AuditLog(store, ORIGIN)) == [each.key for each in receipts(range(5))]
    assert_sound(AuditLog(store, ORIGIN))


def test_a_sealer_that_is_always_overtaken_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmos_shared.auditlog.sealer._ATTEMPTS", 3)

    class Busy(MemoryStore):
        turn = 0

        def create(self, key: str, data: bytes) -> Outcome:
            if "seals" in key and self.turn % 2 == 0:
                self.turn += 1
                seal(self, [replace(receipt(1_000 + self.turn), feed_id=f"1-{self.turn}")])
                self.turn += 1
            return super().create(key, data)

    store = Busy()
    with pytest.raises(StoreUnavailable, match="came first each time"):
        seal(store, receipts(range(3)))
    assert len(keys_of(AuditLog(store, ORIGIN))) == 3
    assert_sound(AuditLog(store, ORIGIN))


def test_what_another_left_visible_is_made_durable_before_it_is_continued(store: MemoryStore) -> None:
    seal(store, receipts(range(3)))
    written: list[str] = []

    class Watched(MemoryStore):
        def create(self, key: str, data: bytes) -> Outcome:
            written.append(key)
            return store.create(key, data)

        def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
            return [self.create(*item) for item in items]

    watched = Watched()
    watched.get, watched.list = store.get, store.list  # type: ignore[method-assign]
    sealer = sealer_of(watched)
    sealer.seal(receipts(range(3, 5)), now=START + MINUTE, feed_at_end=True)
    assert written[:2] == [checkpoint_key(4), seal_key(4)]
    written.clear()
    sealer.seal(receipts(range(5, 6)), now=START + 2 * MINUTE, feed_at_end=True)
    assert checkpoint_key(7) not in written  # its own


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 7, 90, 256, 300]),  # new receipts
        st.booleans(),  # whether some come that came before
        st.none() | st.tuples(st.integers(0, 14), st.booleans()),  # the write at which the sealer dies
        st.integers(0, 5),  # how many of the feed's last are not read yet
        st.sampled_from([1, 1, 1, 0, -1, -30, 30]),  # minutes by which the ledger's clock goes on
    ),
    max_size=8,
)


@given(STEPS)
@settings(max_examples=25)
def test_whatever_happens_to_sealers_each_file_is_in_one_log_once(
    steps: list[tuple[int, bool, tuple[int, bool] | None, int, int]],
) -> None:
    store = MemoryStore()
    told: list[Receipt] = []
    now = START
    for new, again, death, unread, minutes in [*steps, (1, False, None, 0, 1)]:
        now += minutes * MINUTE
        number = len(told)
        more = receipts(range(number, number + new), now)
        told += [replace(each, feed_id=f"{number}-{at}") for at, each in enumerate(more)]
        if again and told:
            place = f"{number}-{new}"
            told.append(replace(told[number // 2], feed_id=place, created=False, at=now))
        dying = store if death is None else DyingStore(store, death[0], after=death[1])
        read = told[: len(told) - unread]
        with suppress(Died):
            # All that was told is read from the feed's beginning, as after a crash.
            sealer_of(dying).seal(read, now=now, feed_at_end=not unread)
    sealer_of(store).seal(told, now=now + MINUTE, feed_at_end=True)
    log = AuditLog(store, ORIGIN)
    assert keys_of(log) == list(dict.fromkeys(each.key for each in told))
    assert_sound(log)


# -- what is not continued -----------------------------------------------------------------------------


def refused(
    store: MemoryStore, signer: Signer | None = None, since: Checkpoint | None = None
) -> CorruptArtifact:
    """Return why the log is not continued; nothing may be written."""
    before = sorted(store.list(""))
    sealer = sealer_of(store, signer)
    with pytest.raises(CorruptArtifact) as raised:
        sealer.seal(
            [replace(receipt(9_999), feed_id="9000-0")],
            now=START + 99 * MINUTE,
            feed_at_end=True,
            since=since,
        )
    with pytest.raises(CorruptArtifact):
        sealer.complete(since=since)
    assert sorted(store.list("")) == before
    return raised.value


#: Entries of the log, and its files at the right edge.
EDGES = {
    300: ["tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1", "checkpoints/000/000/000/300"],
    512: ["tile/1/000.p/2", "checkpoints/000/000/000/512"],
}


@pytest.mark.parametrize("size", EDGES)
def test_a_file_at_the_edge_that_is_gone_or_another_is_named(
    store: MemoryStore, signer: Signer, size: int
) -> None:
    seal(store, receipts(range(size - 1)), signer)
    for name in EDGES[size]:
        data = file(store, name)
        at = len(data) * 3 // 4  # of a checkpoint, its signature
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert refused(copied(store, **{name: flipped}), signer).key == f"{LOG}{name}"
        if not name.startswith("checkpoints"):
            assert refused(copied(store, **{name: None}), signer).key == f"{LOG}{name}"


def file(store: MemoryStore, name: str) -> bytes:
    data = store.get(f"{LOG}{name}")
    assert data is not None
    return data


def test_a_tile_and_its_bundle_that_were_changed_alike_do_not_match_the_checkpoint(
    store: MemoryStore, signer: Signer
) -> None:
    seal(store, receipts(range(20)), signer)
    forged = MemoryStore()
    seal(forged, receipts(range(100, 120)), signer)
    tiles = [key.removeprefix(LOG) for key in forged.list(f"{LOG}tile/")]
    assert refused(
        copied(store, **{name: file(forged, name) for name in tiles}), signer
    ).key == checkpoint_key(21)


@pytest.mark.parametrize("at", [510, 511])
def test_a_last_entry_in_a_full_bundle_is_proven_too(store: MemoryStore, signer: Signer, at: int) -> None:
    seal(store, receipts(range(511)), signer)
    name = "tile/entries/001"
    old, new = {510: (b"run_510", b"run_910"), 511: (b'00Z","seal', b'01Z","seal')}[at]
    data = file(store, name)
    assert data.count(old) == 1
    error = refused(copied(store, **{name: data.replace(old, new)}), signer)
    assert (error.key, f"entry {at}" in error.reason) == (f"{LOG}{name}", True)


def test_a_checkpoint_of_another_log_or_size_is_named(store: MemoryStore, signer: Signer) -> None:
    seal(store, receipts(range(3)), signer)

    def other(text: str) -> MemoryStore:
        note = Note(text).signed(signer.sign(text))
        return copied(store, **{"checkpoints/000/000/000/004": note.to_bytes()})

    text = sealed_text(store, 4)
    assert "another log" in refused(other(text.replace("01a2", "01a3")), signer).reason
    assert "of 5 entries" in refused(other(text.replace("\n4\n", "\n5\n")), signer).reason


def sealed_text(store: MemoryStore, size: int) -> str:
    return AuditLog(store, ORIGIN).note(size)[1].text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda _: b"",
        lambda data: data + b"\n",
        lambda data: data.replace(b'"entries":4', b'"entries":5'),
        lambda data: data.split(b"\n", 1)[1],
        lambda data: data[:-1] + data.splitlines(keepends=True)[-2].replace(b":4", b":5") + b"\n",
        lambda data: data.replace(b"2026-08-01/", b"_log/2026/"),
        lambda data: data.splitlines(keepends=True)[0],
        lambda data: b"".join(data.splitlines(keepends=True)[:3]) + b"\n",
        lambda data: data.replace(b"\n0\n", b"\n4\n"),
        lambda data: data.replace(ORIGIN.encode(), b"another", 1),
        lambda data: data + b"no signature\n",
        lambda data: data + bytes(1 << 26),
    ],
)
def test_a_seal_that_is_none_is_named_and_not_taken(
    store: MemoryStore, spoil: Callable[[bytes], bytes]
) -> None:
    seal(store, receipts(range(3)))
    data = store.get(seal_key(0))
    assert data is not None
    SealFile.parse(ORIGIN, 0, data)
    planted = MemoryStore()
    planted.create(seal_key(0), spoil(data))
    assert refused(planted).key == seal_key(0)


def begun_by(store: MemoryStore, signer: Signer | None) -> bytes:
    """Return the seal that follows the log in ``store``, as another sealer begins it."""
    other = copied(store)
    with suppress(Died):
        # The first write makes the newest checkpoint durable, the second decides.
        dying = DyingStore(other, 1, after=True)
        sealer_of(dying, signer).seal(receipts(range(3, 5)), now=START + MINUTE, feed_at_end=True)
    data = other.get(seal_key(4))
    assert data is not None
    return data


def unsigned(data: bytes) -> bytes:
    return Note(Note.parse(data).text).to_bytes()


@pytest.mark.parametrize(
    "planted",
    [
        # Whoever can write to the store, and has no key.
        lambda data, _: unsigned(data),
        lambda data, other: Note(Note.parse(data).text).signed(other.sign(Note.parse(data).text)).to_bytes(),
        lambda data, _: data.replace(b"run_3", b"run_8"),
        lambda data, _: data.replace(b'"feed":"1000-4"', b'"feed":"9999-4"'),
        lambda data, other: data + f"{other.sign(Note.parse(data).text)}\n".encode(),
    ],
)
def test_a_seal_that_the_key_in_use_did_not_begin_is_not_finished(
    store: MemoryStore, signer: Signer, planted: Callable[[bytes, Signer], bytes]
) -> None:
    seal(store, receipts(range(3)), signer)
    data = begun_by(store, signer)
    other = Signer(ORIGIN, Ed25519PrivateKey.generate())
    store.create(seal_key(4), planted(data, other))
    damage = refused(store, signer)
    assert damage.key == seal_key(4)
    assert "planted" in damage.reason
    assert AuditLog(store, ORIGIN).newest_size() == 4


def test_a_seal_of_another_place_or_log_is_not_finished(store: MemoryStore, signer: Signer) -> None:
    """Signed by the log's own key: a copy of an old seal would bring its entries in once more."""
    seal(store, receipts(range(3)), signer)
    first = store.get(seal_key(0))
    assert first is not None
    store.create(seal_key(4), first)
    assert "no seal of" in refused(store, signer).reason


def test_keyed_and_keyless_sealers_do_not_finish_what_the_other_began(
    store: MemoryStore, signer: Signer
) -> None:
    seal(store, receipts(range(3)))
    keyless, keyed = copied(store), copied(store)
    keyless.create(seal_key(4), begun_by(store, None))
    keyed.create(seal_key(4), begun_by(store, signer))
    assert "setting of before finishes it" in refused(keyless, signer).reason
    assert "setting of before finishes it" in refused(keyed).reason
    # As it says.
    for left, key in ((keyless, None), (keyed, signer)):
        done = sealer_of(left, key).complete()
        assert done is not None
        assert_sound(AuditLog(left, ORIGIN))


def test_a_tile_that_lies_where_the_next_one_goes_is_named(store: MemoryStore) -> None:
    seal(store, receipts(range(3)))
    path = f"{LOG}tile/0/000.p/6"
    store.create(path, b"planted")
    with pytest.raises(CorruptArtifact) as raised:
        seal(store, [replace(each, feed_id="2000-1") for each in receipts([7])], minutes=1)
    assert raised.value.key == path


def test_a_checkpoint_that_was_planted_is_the_newest_and_does_not_match(store: MemoryStore) -> None:
    seal(store, receipts(range(3)))
    store.create(checkpoint_key(6), Note(Checkpoint(ORIGIN, 6, bytes(32)).text).to_bytes())
    assert refused(store).key == f"{LOG}tile/0/000.p/6"  # which that checkpoint would need


# -- what is known of the log --------------------------------------------------------------------------


def test_a_log_that_was_rolled_back_is_not_continued(store: MemoryStore, signer: Signer) -> None:
    first = seal(store, receipts(range(3)), signer)
    back = copied(store)
    known = seal(store, receipts(range(3, 6)), signer, minutes=1).checkpoint
    error = refused(back, signer, known)
    assert (error.key, "rolled back" in error.reason) == (checkpoint_key(known.size), True)
    sealer = sealer_of(back, signer)
    new = receipts(range(6, 9))
    assert sealer.seal(new, now=START + MINUTE, feed_at_end=True, since=first.checkpoint) is not None
    # It has grown beyond the other, and still is another.
    assert "does not continue" in refused(back, signer, known).reason


def test_a_log_that_was_written_anew_without_the_key_is_not_signed(
    store: MemoryStore, signer: Signer
) -> None:
    known = seal(store, receipts(range(3)), signer).checkpoint
    forged = MemoryStore()
    seal(forged, receipts(range(50, 60)))  # unsigned, so any key might begin to sign it
    assert "does not continue" in refused(forged, signer, known).reason


def test_a_checkpoint_of_another_log_is_not_taken_for_one_of_this(store: MemoryStore) -> None:
    known = seal(store, receipts(range(3))).checkpoint
    refused(store, since=replace(known, origin="rmos-runs/other"))


# -- keys ----------------------------------------------------------------------------------------------


def rotation(to: Signer, number: int) -> Receipt:
    return replace(receipt(number), trusts=to.vkey)


def test_a_new_key_signs_only_after_it_was_introduced_and_the_old_one_not_after_that(
    store: MemoryStore,
) -> None:
    first, second, third = (Signer(ORIGIN, Ed25519PrivateKey.generate()) for _ in range(3))
    seal(store, receipts(range(3)), first)
    with pytest.raises(SettingsInvalid, match="does not trust"):
        seal(store, receipts([3]), second, minutes=1)
    seal(store, [rotation(second, 3)], first, minutes=1)
    seal(store, receipts([4]), first, minutes=2)  # still
    seal(store, receipts([5]), second, minutes=3)
    with pytest.raises(SettingsInvalid, match="does not trust"):
        seal(store, receipts([6]), first, minutes=4)
    seal(store, [rotation(third, 6)], second, minutes=4)
    seal(store, receipts([7]), third, minutes=5)
    for retired in (first, second):
        with pytest.raises(SettingsInvalid, match="does not trust"):
            seal(store, receipts([8]), retired, minutes=6)
    entries = map(parse_entry, AuditLog(store, ORIGIN).entries())
    trusted = [entry.trusts for entry in entries if isinstance(entry, RecordEntry) and entry.trusts]
    assert trusted == [second.vkey, third.vkey]
    assert_sound(AuditLog(store, ORIGIN))


def test_a_signed_log_is_not_continued_without_a_key(store: MemoryStore, signer: Signer) -> None:
    seal(store, receipts(range(3)), signer)
    with pytest.raises(SettingsInvalid, match="RMOS_AUDIT_KEY_FILE names no key"):
        seal(store, receipts([3]), minutes=1)


def test_a_log_that_was_not_signed_may_begin_to_be(store: MemoryStore, signer: Signer) -> None:
    seal(store, receipts(range(3)))
    sealed = seal(store, receipts([3]), signer, minutes=1)
    verified(sealed.note, [signer.verifier])


def test_a_signature_of_our_key_that_does_not_hold_is_named(store: MemoryStore, signer: Signer) -> None:
    seal(store, receipts(range(3)), signer)
    text = sealed_text(store, 4)
    forged = Note(text).signed(replace(signer.sign(text), data=bytes(64))).to_bytes()
    error = refused(copied(store, **{"checkpoints/000/000/000/004": forged}), signer)
    assert (error.key, "does not hold" in error.reason) == (checkpoint_key(4), True)


def test_the_end_of_a_log_is_a_seal(store: MemoryStore) -> None:
    sealed = seal(store, receipts(range(3)))
    log = AuditLog(store, ORIGIN)
    assert log.seal(sealed.size) == sealed.seal
    assert isinstance(log.entry(3, 4), SealEntry)
    assert isinstance(log.entry(2, 4), RecordEntry)
    assert MOST_ENTRIES == 256_000_000_000
