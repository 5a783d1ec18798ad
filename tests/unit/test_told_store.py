"""A store that tells: all that is published, once it is, and as what the audit log must look for first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rmos_shared.canonical import sha256_hex
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.attachments import Attachments
from rmos_shared.store.base import ArtifactStore, Outcome
from rmos_shared.store.memory import MemoryStore
from rmos_shared.store.publication import Publication
from rmos_shared.store.told import ToldStore


class Listener:
    """Keeps what it is told, and looks whether that lies there."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.heard: list[list[Publication]] = []
        self.told = ToldStore(self.store, self.hear)

    def hear(self, published: Sequence[Publication]) -> None:
        assert all(self.store.get(item.key) is not None for item in published), "told of before it was there"
        self.heard.append(list(published))


@pytest.fixture
def listener() -> Listener:
    return Listener()


def told_of(key: str, data: bytes) -> Publication:
    return Publication(key, sha256_hex(data), len(data), created=False)


def test_it_is_a_store(listener: Listener) -> None:
    assert isinstance(listener.told, ArtifactStore)


def test_what_is_created_and_what_was_there_is_told_and_a_conflict_is_not(listener: Listener) -> None:
    told = listener.told
    assert told.create("a/1.json", b"one") is Outcome.CREATED
    outcomes = told.create_many([("a/1.json", b"one"), ("a/2.json", b"two"), ("a/1.json", b"other")])
    assert outcomes == [Outcome.ALREADY_SAME, Outcome.CREATED, Outcome.CONFLICT]
    assert told.create("a/1.json", b"other") is Outcome.CONFLICT
    one, two = told_of("a/1.json", b"one"), told_of("a/2.json", b"two")
    assert listener.heard == [[one], [one, two]]
    assert list(told.list("a/")) == ["a/1.json", "a/2.json"]
    assert told.get("a/2.json") == b"two"
    assert told.head("a/3.json") is None


def test_an_upload_is_told_by_the_hash_that_was_counted_on_the_way(listener: Listener) -> None:
    attachments = Attachments(listener.told)
    with attachments.receive(".nc") as upload:
        for piece in (b"G1 ", b"X1"):
            upload.write(piece)
        key = upload.publish()
    assert key == attachment_key(b"G1 X1", ".nc")
    assert listener.heard == [[told_of(key, b"G1 X1")]]
    with attachments.receive(".nc") as upload:
        upload.write(b"never published")
    assert len(listener.heard) == 1
