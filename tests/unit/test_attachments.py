"""Attachments: named by their content, proven when they come and when they are read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import (
    AttachmentNotFound,
    AttachmentTooLarge,
    CorruptArtifact,
    InvalidRequest,
    StoreUnavailable,
)
from rmos_shared.runs.attachment_key import attachment_key, attachment_sha256
from rmos_shared.runs.attachments import Attachments, named_by
from rmos_shared.runs.reader import RunEntry, RunReader
from rmos_shared.runs.references import AttachmentEntry, every_attachment, naming, unreferenced
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.base import PIECE_BYTES, ArtifactStore
from rmos_shared.store.memory import MemoryStore
from rmos_shared.telemetry.events import FileCorrupt
from support.events import events_in
from support.records import HOUR, NOON, make_run
from support.stores import local_store

LARGE = os.urandom(2 * PIECE_BYTES + 7)
SIZES = [b"", b"G", LARGE[:PIECE_BYTES], LARGE]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return local_store(tmp_path / "runs") if request.param == "local" else MemoryStore()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def names(store: ArtifactStore) -> list[str]:
    return list(store.list(""))


@pytest.mark.parametrize("data", SIZES, ids=len)
def test_bytes_and_streams_become_the_same_file(store: ArtifactStore, data: bytes) -> None:
    attachments = Attachments(store)
    key = attachments.put(io.BytesIO(data), ".nc")
    assert key == f"_attachments/{sha256_hex(data)[:2]}/{sha256_hex(data)}.nc" == attachment_key(data, ".nc")
    assert attachments.put(data, ".nc", sha256_hex(data)) == key
    assert attachments.put(io.BytesIO(data), ".nc", sha256_hex(data)) == key
    assert names(store) == [key]
    assert b"".join(attachments.read(key)) == data
    head = attachments.head(key)
    assert head is not None
    assert head.size_bytes == len(data)


@pytest.mark.parametrize("as_stream", [False, True])
def test_another_hash_than_claimed_is_refused_with_both_named(
    store: ArtifactStore,
    as_stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    claimed, found = sha256_hex(b"meant"), sha256_hex(b"sent")
    with pytest.raises(InvalidRequest) as caught:
        Attachments(store).put(io.BytesIO(b"sent") if as_stream else b"sent", ".nc", claimed)
    assert claimed in str(caught.value)
    assert found in str(caught.value)
    assert names(store) == []


@pytest.mark.parametrize("claimed", ["", "secret", "A" * 64, "a" * 63, "a" * 64 + "\n"])
@pytest.mark.parametrize("as_stream", [False, True])
def test_a_claim_that_is_no_hash_is_refused_and_not_repeated(
    store: ArtifactStore,
    claimed: str,
    as_stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Attachments(store).put(io.BytesIO(b"x") if as_stream else b"x", ".nc", claimed)
    assert str(caught.value) == "invalid attachment: sha256: must be 64 lower-case hex digits"
    assert names(store) == []


@pytest.mark.parametrize("suffix", ["nc", ".", ".NC", ".a.b.c", "/x", ".nc\n", ".é", "." + "a" * 17])
@pytest.mark.parametrize("as_stream", [False, True])
def test_a_suffix_that_is_none_is_refused(
    store: ArtifactStore,
    suffix: str,
    as_stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    with pytest.raises(InvalidRequest, match="suffix"):
        Attachments(store).put(io.BytesIO(b"x") if as_stream else b"x", suffix)
    assert names(store) == []


@pytest.mark.parametrize("as_stream", [False, True])
def test_what_is_too_large_is_refused(store: ArtifactStore, as_stream: bool) -> None:  # noqa: FBT001 - as above
    attachments = Attachments(store, most_bytes=5)
    attachments.put(io.BytesIO(b"12345") if as_stream else b"12345", "")
    with pytest.raises(AttachmentTooLarge, match="RMOS_MAX_ATTACHMENT_BYTES"):
        attachments.put(io.BytesIO(b"123456") if as_stream else b"123456", "")
    assert len(names(store)) == 1


def test_an_endless_stream_is_read_no_further_than_the_limit(store: ArtifactStore) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(AttachmentTooLarge):
        Attachments(store, most_bytes=PIECE_BYTES).put(endless, "")  # type: ignore[arg-type]  # it reads
    assert endless.given <= 2 * PIECE_BYTES
    assert names(store) == []


def test_a_source_that_fails_leaves_nothing(store: ArtifactStore) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError("gone")
            return super().read(size)

    with pytest.raises(OSError, match="gone"):
        Attachments(store).put(Failing(LARGE), ".nc")
    assert names(store) == []


@pytest.mark.parametrize("data", SIZES[1:], ids=len)
@pytest.mark.parametrize("damage", ["altered", "cut", "longer"])
def test_damage_is_found_before_the_last_piece_is_handed_out(
    caplog: pytest.LogCaptureFixture, data: bytes, damage: str
) -> None:
    spoilt = {"altered": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "longer": data + b"x"}[damage]
    store = MemoryStore()
    key = attachment_key(data, ".nc")
    store.create(key, spoilt)
    handed: list[bytes] = []
    with pytest.raises(CorruptArtifact, match="another hash") as caught:
        handed.extend(Attachments(store).read(key))
    assert caught.value.key == key
    assert sum(map(len, handed)) < len(spoilt) or not spoilt
    assert [event.file for event in events_in(caplog) if isinstance(event, FileCorrupt)] == [key]
    with pytest.raises(CorruptArtifact):
        Attachments(store).put(data, ".nc")
    with pytest.raises(CorruptArtifact):
        Attachments(store).put(io.BytesIO(data), ".nc")
    assert store.get(key) == spoilt


@pytest.mark.parametrize(
    "key",
    [
        attachment_key(b"never stored", ".nc"),
        "2026-08-01/run.json",
        "_attachments/../2026-08-01/run.json",
        "_store.json",
        "",
        "\ud800",
    ],
)
def test_only_attachments_are_read(store: ArtifactStore, key: str) -> None:
    store.create("2026-08-01/run.json", b"{}")
    attachments = Attachments(store)
    assert attachments.head(key) is None
    with pytest.raises(AttachmentNotFound) as caught:
        next(attachments.read(key))
    str(caught.value).encode()


def test_reading_that_is_given_up_closes_the_file(tmp_path: Path) -> None:
    attachments = Attachments(local_store(tmp_path))
    reading = attachments.read(attachments.put(LARGE, ".nc"))
    before = open_files()
    next(reading)
    assert open_files() == before + 1
    reading.close()  # type: ignore[attr-defined]  # it is a generator
    assert open_files() == before


def test_a_key_tells_its_hash() -> None:
    assert attachment_sha256(attachment_key(b"x", ".json.gz")) == sha256_hex(b"x")
    for key in (
        attachment_key(b"x", "")[:-1],
        attachment_key(b"x", ".nc") + "/x",
        "x" + attachment_key(b"x", ""),
    ):
        assert attachment_sha256(key) is None
    digest = sha256_hex(b"x")
    assert attachment_sha256(f"_attachments/{digest[2:4]}/{digest}") is None


# References


def test_a_run_names_the_attachments_among_its_paths() -> None:
    key, other = attachment_key(b"G0", ".nc"), attachment_key(b"<svg/>", ".svg")
    assert named_by(make_run()) == set()
    run = make_run(outputs={"gcode_path": key, "opplan_path": "plans/mine.json", "preview_svg_path": other})
    assert named_by(run) == {key, other}
    assert named_by(make_run(outputs={"gcode_path": "_attachments/old"})) == set()


def test_a_migrated_run_names_its_original_bytes() -> None:
    key = attachment_key(b"{NaN}", ".json")
    legacy = {"original": key, "source_sha256": sha256_hex(b"{NaN}")}
    assert named_by(make_run(meta={"legacy": legacy})) == {key}
    for other in ({"original": key}, {**legacy, "source_sha256": "0" * 64}, {**legacy, "original": 7}, key):
        assert named_by(make_run(meta={"legacy": other})) == set()


@pytest.fixture
def three(store: ArtifactStore) -> tuple[list[str], RunReader]:
    """Three attachments, of which two runs name the first two; the second is named twice."""
    keys = [Attachments(store).put(data, ".nc") for data in (b"a", b"b", b"c")]
    runs = [
        make_run(outputs={"gcode_path": keys[0], "preview_svg_path": keys[1]}),
        make_run(NOON + 24 * HOUR, outputs={"opplan_path": keys[1]}),
        make_run(NOON + 48 * HOUR),
    ]
    RunWriter(store).put_runs(runs)
    return keys, RunReader(store)


def test_the_runs_that_name_an_attachment_are_found(three: tuple[list[str], RunReader]) -> None:
    keys, reader = three
    assert [len(list(naming(key, reader.list_runs()))) for key in keys] == [1, 2, 0]


def test_what_no_run_names_is_found(store: ArtifactStore, three: tuple[list[str], RunReader]) -> None:
    keys, reader = three
    attachments = Attachments(store)
    (left,) = unreferenced(attachments, reader.list_runs())
    assert isinstance(left, AttachmentEntry)
    assert left.key == keys[2]
    assert left.head is not None
    assert sorted(entry.key for entry in every_attachment(attachments)) == sorted(keys)


def test_an_attachment_that_comes_while_runs_are_read_is_not_called_unreferenced(
    store: ArtifactStore, three: tuple[list[str], RunReader]
) -> None:
    keys, reader = three
    attachments = Attachments(store)

    def meanwhile() -> Iterator[RunEntry]:
        attachments.put(b"late", ".nc")
        yield from reader.list_runs()

    assert [entry.key for entry in unreferenced(attachments, meanwhile())] == [keys[2]]


def test_runs_that_cannot_be_read_are_told_for_they_may_name_any(
    store: ArtifactStore, three: tuple[list[str], RunReader]
) -> None:
    keys, reader = three
    store.create("2026-08-05/broken.json", b"{")
    assert next(naming(keys[0], reader.list_runs())).key == "2026-08-05/broken.json"
    told = list(unreferenced(Attachments(store), reader.list_runs()))
    assert [entry.key for entry in told] == ["2026-08-05/broken.json", keys[2]]


def test_a_file_of_a_foreign_name_is_no_attachment(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    store.create("_attachments/notes.txt", b"x")
    assert list(Attachments(store).list()) == []


def test_a_store_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    store = local_store(tmp_path / "runs")
    attachments = Attachments(store)
    key = attachments.put(b"x", "")
    (tmp_path / "runs").rename(tmp_path / "away")

    @contextmanager
    def refused() -> Iterator[None]:
        with pytest.raises(StoreUnavailable):
            yield

    with refused():
        attachments.put(b"x", "")
    with refused():
        attachments.put(io.BytesIO(b"x"), "")
    with refused():
        attachments.head(key)
    with refused():
        next(attachments.read(key))
    with refused():
        list(attachments.list())
