"""Uploads without HTTP: a sender that is given up while the disk is at work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from rmos_runs.operations.attachments import UploadLimits, claimed_sha256, content_digest, receive
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import UploadTimeout
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.attachments import Attachments
from rmos_shared.store.memory import MemoryDraft, MemoryStore


class SlowDraft(MemoryDraft):
    """Writes once it is let, and tells what happened in which order."""

    def __init__(
        self, store: MemoryStore, order: list[str], begun: threading.Event, let: threading.Event
    ) -> None:
        super().__init__(store)
        self._order = order
        self._begun = begun
        self._let = let

    def write(self, data: bytes) -> None:
        self._order.append("write")
        self._begun.set()
        assert self._let.wait(timeout=30)
        super().write(data)
        self._order.append("written")


class SlowStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []
        self.begun = threading.Event()
        self.let = threading.Event()

    @contextmanager
    def draft(self) -> Iterator[MemoryDraft]:
        try:
            yield SlowDraft(self, self.order, self.begun, self.let)
        finally:
            self.order.append("closed")


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def upload(store: MemoryStore, data: bytes, *, total_seconds: float = 30) -> asyncio.Task[str]:
    limits = UploadLimits(total_seconds=total_seconds)
    return asyncio.ensure_future(
        receive(Attachments(store), once(data), suffix=".nc", claimed_sha256=sha256_hex(data), limits=limits)
    )


def test_a_file_is_not_closed_while_a_thread_writes_to_it() -> None:
    store = SlowStore()

    async def give_up() -> None:
        task = upload(store, b"x")
        assert await asyncio.to_thread(store.begun.wait, 30)
        for _ in range(3):
            # Once is enough to end it; the others must not hurry it.
            task.cancel()
            await asyncio.sleep(0)
        assert store.order == ["write"]
        store.let.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert store.order == ["write", "written", "closed"]
    assert list(store.list("")) == []


def test_an_upload_that_takes_too_long_ends_once_the_disk_has_done_its_part() -> None:
    store = SlowStore()

    async def wait() -> None:
        task = upload(store, b"x", total_seconds=1)
        assert await asyncio.to_thread(store.begun.wait, 30)
        asyncio.get_running_loop().call_later(1.3, store.let.set)
        with pytest.raises(UploadTimeout):
            await task

    asyncio.run(wait())
    assert store.order == ["write", "written", "closed"]
    assert list(store.list("")) == []


def test_a_digest_says_the_hash_of_a_key() -> None:
    assert claimed_sha256(content_digest(attachment_key(b"x", ".nc"))) == sha256_hex(b"x")
