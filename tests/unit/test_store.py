"""One suite for every artifact store: what `ArtifactStore` promises, and no more."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmos_shared.errors import CorruptArtifact, RmosError, StoreUnavailable
from rmos_shared.store.base import PIECE_BYTES, ArtifactStore, Head, KeyInvalid, Outcome
from rmos_shared.store.memory import MemoryStore
from rmos_shared.store.os_errors import PLANTED, UNREADABLE, store_error
from support.stores import local_store

CREATED, SAME, CONFLICT = Outcome.CREATED, Outcome.ALREADY_SAME, Outcome.CONFLICT
KEYS = [
    "2026-08-01/a-b.json",
    "2026-08-01/a.json",
    "2026-08-01/a_advisory_x.json",
    "2026-08-02/b.json",
    "_reviews/2026-08-01/a/r.json",
    "zebra",
]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return local_store(tmp_path / "runs") if request.param == "local" else MemoryStore()


@pytest.fixture
def filled(store: ArtifactStore) -> ArtifactStore:
    # Not in order, so that an order in the listing is the store's own.
    for key in reversed(KEYS):
        store.create(key, key.encode())
    return store


def test_is_an_artifact_store(store: ArtifactStore) -> None:
    assert isinstance(store, ArtifactStore)


@pytest.mark.parametrize("data", [b"", b"x", b"\0\xff" * 200_000])
def test_what_was_created_is_read_back_whole(store: ArtifactStore, data: bytes) -> None:
    assert store.create("2026-08-01/a.json", data) is CREATED
    assert store.get("2026-08-01/a.json") == data


def test_same_bytes_again_are_a_repeat(store: ArtifactStore) -> None:
    data = b"x"
    assert [store.create("a", data), store.create("a", data), store.create("a", b"x")] == [
        CREATED,
        SAME,
        SAME,
    ]


@pytest.mark.parametrize("other", [b"", b"y", b"xx"])
def test_other_bytes_conflict_and_the_first_stay(store: ArtifactStore, other: bytes) -> None:
    store.create("2026-08-01/a", b"x")
    assert store.create("2026-08-01/a", other) is CONFLICT
    assert store.get("2026-08-01/a") == b"x"


def test_many_have_an_outcome_each_in_order(store: ArtifactStore) -> None:
    store.create("p/taken", b"old")
    items = [("p/new", b"1"), ("p/taken", b"new"), ("q/new", b"2"), ("p/taken", b"old"), ("p/new", b"1")]
    assert store.create_many(items) == [CREATED, CONFLICT, CREATED, SAME, SAME]
    assert [store.get(key) for key in ("p/new", "p/taken", "q/new")] == [b"1", b"old", b"2"]


def test_many_may_be_none(store: ArtifactStore) -> None:
    assert store.create_many([]) == []


def test_many_may_be_more_than_one_group(store: ArtifactStore) -> None:
    items = [(f"2026-08-{day:02}/{number}", b"%d" % number) for day in (1, 2) for number in range(120)]
    assert set(store.create_many(items)) == {CREATED}
    assert set(store.create_many(items)) == {SAME}
    assert list(store.list("")) == sorted(key for key, _ in items)


def test_one_bad_key_among_many_publishes_nothing(store: ArtifactStore) -> None:
    with pytest.raises(KeyInvalid):
        store.create_many([("good", b""), ("../bad", b"")])
    assert list(store.list("")) == []


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_a_draft_is_published_under_a_key_that_comes_last(store: ArtifactStore, size: int) -> None:
    data = os.urandom(size)
    with store.draft() as draft:
        for start in range(0, size, 300_000):
            draft.write(data[start : start + 300_000])
        assert list(store.list("")) == []
        assert draft.publish("_attachments/ab/x.nc") is CREATED
    assert store.get("_attachments/ab/x.nc") == data


def test_a_draft_again_is_a_repeat_and_another_a_conflict(store: ArtifactStore) -> None:
    data = os.urandom(2 * PIECE_BYTES + 7)
    store.create("a", data)
    others = [data[:-1], data[:-1] + bytes([data[-1] ^ 1]), data + b"x", bytes([data[0] ^ 1]) + data[1:]]
    for content, outcome in [(data, SAME), *((other, CONFLICT) for other in others)]:
        with store.draft() as draft:
            draft.write(content)
            assert draft.publish("a") is outcome
    assert store.get("a") == data


def test_a_draft_that_is_not_published_leaves_nothing(store: ArtifactStore) -> None:
    with store.draft() as draft:
        draft.write(b"x")
    with pytest.raises(KeyInvalid), store.draft() as draft:
        draft.publish("../a")
    assert list(store.list("")) == []


def test_what_was_published_from_a_draft_never_changes(store: ArtifactStore) -> None:
    with store.draft() as draft:
        draft.write(b"x")
        draft.publish("a")
        with suppress(RuntimeError):
            draft.write(b"y")
        with suppress(RuntimeError):
            draft.publish("b")
    assert store.get("a") == b"x"


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_pieces_are_the_whole_in_parts(store: ArtifactStore, size: int) -> None:
    data = os.urandom(size)
    store.create("p/a", data)
    with store.pieces("p/a") as pieces:
        assert pieces is not None
        parts = list(pieces)
    assert b"".join(parts) == data
    assert all(0 < len(part) <= PIECE_BYTES for part in parts)


@pytest.mark.parametrize("key", ["missing", "2026-08-01/missing", "2026-08-01/a.json.x", "2026-08-09/a.json"])
def test_missing_is_none(filled: ArtifactStore, key: str) -> None:
    assert filled.get(key) is None
    assert filled.head(key) is None
    with filled.pieces(key) as pieces:
        assert pieces is None


def test_head_tells_size_and_time(store: ArtifactStore) -> None:
    store.create("2026-08-01/a", b"four")
    head = store.head("2026-08-01/a")
    assert isinstance(head, Head)
    assert (head.key, head.size_bytes) == ("2026-08-01/a", 4)
    assert head.modified_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - head.modified_at) < timedelta(minutes=5)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a//b",
        ".hidden",
        "a/.x",
        "a b",
        "a\0",
        "a\\b",
        "é",
        "a/",
        "a\n",
        "a.b/c",
        # Partial tiles of the audit log lie in the one directory with a dot: three digits, the last of a key.
        "12.p/1",
        "1234.p/1",
        "123.q/1",
        "123.P/1",
        "123.p/a/1",
        "a123.p/1",
        "\u0661\u0662\u0663.p/1",
        "1/2/3/4/5/6/7/8",
        "1/2/3/4/5/6/123.p/8",
    ],
)
def test_a_key_never_leaves_the_root(store: ArtifactStore, key: str) -> None:
    for verb in (lambda: store.create(key, b""), lambda: store.get(key), lambda: store.head(key)):
        with pytest.raises(KeyInvalid):
            verb()


def test_tiles_of_the_audit_log_have_keys_and_are_listed_in_order(store: ArtifactStore) -> None:
    keys = [
        "_log/tile/0/000",
        "_log/tile/0/000.p/255",
        "_log/tile/0/000.p/44",
        "_log/tile/0/001.p/1",
        "_log/tile/0/x999/x999/999.p/255",
    ]
    for key in reversed(keys):
        assert store.create(key, key.encode()) is CREATED
    assert list(store.list("_log/")) == keys
    assert list(store.list("_log/tile/0/000.p/")) == keys[1:3]
    assert list(store.list("_log/tile/0/000.p/4")) == keys[2:3]
    assert list(store.list("", keys[1])) == keys[2:]
    assert store.get(keys[2]) == keys[2].encode()
    assert store.head(keys[4]) is not None


@pytest.mark.parametrize("prefix", ["../", "/", "/etc/", "a/../", "./", "a//b"])
def test_a_listing_never_leaves_the_root(store: ArtifactStore, prefix: str) -> None:
    with pytest.raises(KeyInvalid):
        list(store.list(prefix))


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        ("", "", KEYS),
        ("2026-08-01/", "", KEYS[:3]),
        ("2026-08-01/a", "", KEYS[:3]),
        ("2026-08-01/a_", "", KEYS[2:3]),
        ("2026-08", "", KEYS[:4]),
        ("2026-08-0", "2026-08-01/a.json", KEYS[2:4]),
        ("_reviews/", "", KEYS[4:5]),
        ("_reviews/2026-08-01/a/", "", KEYS[4:5]),
        ("zebra", "", KEYS[5:]),
        ("nothing", "", []),
        ("nothing/", "", []),
        ("", "2026-08-01/a-b.json", KEYS[1:]),
        ("", "2026-08-01", KEYS),
        ("", "2026-08-01/", KEYS),
        ("", "2026-08-010", KEYS[3:]),
        ("", "_", KEYS[4:]),
        ("", "~", []),
    ],
)
def test_list_is_sorted_and_bounded(
    filled: ArtifactStore, prefix: str, after: str, expected: list[str]
) -> None:
    assert list(filled.list(prefix, after)) == expected


DIRECTORIES = st.sampled_from(["a", "a-", "a0", "aa", "a_", "A", "0", "_x"])
NAMES = DIRECTORIES | st.just("a.b")
LAST_DIRECTORIES = DIRECTORIES | st.sampled_from(["000.p", "001.p"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    paths=st.sets(st.tuples(DIRECTORIES, LAST_DIRECTORIES, NAMES | st.just("000")), max_size=8),
    prefix=st.lists(DIRECTORIES, max_size=3).map("/".join),
    after=st.lists(NAMES, max_size=3).map("/".join),
)
def test_a_local_listing_is_in_the_order_of_the_keys(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, str, str]], prefix: str, after: str
) -> None:
    store = local_store(tmp_path_factory.mktemp("runs"))
    names = ["/".join(path) for path in paths]
    store.create_many([(name, b"") for name in names])
    expected = sorted(name for name in names if name.startswith(prefix) and name > after)
    assert list(store.list(prefix, after)) == expected


def test_of_many_threads_one_creates(store: ArtifactStore) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> list[Outcome]:
        start.wait()
        return [store.create(f"2026-08-01/{turn}", b"%d" % number) for turn in range(20)]

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(8)))
    for turn in zip(*outcomes, strict=True):
        assert sorted(turn, key=str) == [CONFLICT] * 7 + [CREATED]


def test_a_listing_is_lazy_enough_to_stop_early(filled: ArtifactStore) -> None:
    listing: Iterator[str] = filled.list("")
    assert next(listing) == KEYS[0]


@pytest.mark.parametrize(
    ("number", "damage", "key", "expected", "said"),
    [
        (errno.ENOSPC, PLANTED, "k", StoreUnavailable, "free space"),
        (errno.EDQUOT, PLANTED, "k", StoreUnavailable, "quota"),
        (errno.EFBIG, PLANTED, "k", StoreUnavailable, "limit on file size"),
        (errno.EROFS, PLANTED, "k", StoreUnavailable, "mount it writable"),
        (errno.EACCES, PLANTED, "k", StoreUnavailable, "access"),
        (errno.EPERM, PLANTED, "k", StoreUnavailable, "hard links"),
        (errno.EOPNOTSUPP, PLANTED, "k", StoreUnavailable, "hard links"),
        (errno.EXDEV, PLANTED, "k", StoreUnavailable, "one file system"),
        (errno.ENOENT, PLANTED, "k", StoreUnavailable, "mounted"),
        (errno.ESTALE, PLANTED, "k", StoreUnavailable, "mount"),
        (errno.EMFILE, UNREADABLE, "k", StoreUnavailable, "open files"),
        (errno.EIO, PLANTED, "k", StoreUnavailable, "check the disk"),
        (errno.EINTR, PLANTED, "k", StoreUnavailable, "system log"),
        (errno.ENAMETOOLONG, PLANTED, "k", KeyInvalid, "too long"),
        (errno.ELOOP, PLANTED, "k", CorruptArtifact, "symbolic link"),
        (errno.ENOTDIR, PLANTED, "k", CorruptArtifact, "symbolic link"),
        (errno.ENOTDIR, PLANTED, "", StoreUnavailable, "RMOS_RUNS_DIR"),
        (errno.EACCES, UNREADABLE, "k", CorruptArtifact, "Permission denied"),
        (errno.EIO, UNREADABLE, "k", CorruptArtifact, "Input/output error"),
        (errno.EACCES, UNREADABLE, "", StoreUnavailable, "access"),
    ],
)
def test_an_os_error_says_what_where_and_what_to_do(
    number: int, damage: frozenset[int], key: str, expected: type[RmosError], said: str
) -> None:
    error = store_error(OSError(number, os.strerror(number)), "write", Path("runs"), key, damage)
    assert type(error) is expected
    assert said in str(error)
    if expected is StoreUnavailable:
        assert str(error).startswith(f"cannot write {Path('runs') / key}: ")
