"""Attachments from afar: an upload that comes piece by piece, and what one run may show of its own.

No HTTP here: the gateway's routes are a face of it. The disk is used in threads; a sender that is slow, goes
away or lies leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from rmos_shared.errors import AttachmentNotFound, FieldProblem, InvalidRequest, UploadTimeout
from rmos_shared.runs.attachment_key import attachment_sha256
from rmos_shared.runs.attachments import Attachments, named_by
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import PIECE_BYTES, Head

#: One member of RFC 9530's ``Content-Digest``: the hash as base64 between colons.
_SHA256_MEMBER = re.compile(r"(?:^|,)[ \t]*sha-256=:([A-Za-z0-9+/]{43}=):[ \t]*(?=,|;|$)", re.ASCII)
_Words = ParamSpec("_Words")
_AnswerT = TypeVar("_AnswerT")


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How slow a sender may be, in seconds."""

    #: Longest time without a byte.
    idle_seconds: float = 30.0
    #: Longest time for all of it.
    total_seconds: float = 3_600.0


async def receive(
    attachments: Attachments,
    pieces: AsyncIterator[bytes],
    *,
    suffix: str,
    claimed_sha256: str,
    limits: UploadLimits,
) -> str:
    """Store what ``pieces`` bring and return its key; durable when this returns.

    Raises:
        UploadTimeout: the sender was slower than ``limits`` allow.
        RmosError: as ``Attachments.put``. Whatever is raised, nothing is published.
    """
    draft = ExitStack()
    try:
        upload = await _in_thread(draft.enter_context, attachments.receive(suffix, claimed_sha256))
        try:
            async with asyncio.timeout(limits.total_seconds):
                async for block in _blocks(pieces, limits.idle_seconds):
                    await _in_thread(upload.write, block)
        except TimeoutError:
            raise UploadTimeout("the upload came too slowly, and nothing of it was kept") from None
        return await _in_thread(upload.publish)
    finally:
        await _in_thread(draft.close)


def find(reader: RunReader, attachments: Attachments, run_id: str, name: str) -> Head:
    """Return the attachment that a run names, by the last part of its key; it is shown through no other run.

    Raises:
        RunNotFound: there is no such run.
        AttachmentNotFound: the run names none of that name, or it is not stored.
        CorruptArtifact: the run, or the attachment, cannot be read.
    """
    for key in named_by(reader.get_artifact(run_id)):
        head = attachments.head(key) if key.rpartition("/")[2] == name else None
        if head is not None:
            return head
    # It comes from outside, and may hold anything.
    raise AttachmentNotFound(name.encode("ascii", "backslashreplace").decode()[:200])


def claimed_sha256(content_digest: str | None) -> str:
    """Return the hash that a ``Content-Digest`` header (RFC 9530) claims, as hex.

    Raises:
        InvalidRequest: it is missing, or has no member ``sha-256``.
    """
    member = _SHA256_MEMBER.search(content_digest or "")
    if member is None:
        reason = "must hold the sha-256 of the content, as sha-256=:<base64>: (RFC 9530)"
        raise InvalidRequest((FieldProblem("Content-Digest", reason),), what="upload")
    return base64.b64decode(member[1]).hex()


def content_digest(key: str) -> str:
    """Return the ``Content-Digest`` of an attachment, from the hash in its key."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(attachment_sha256(key) or '')).decode()}:"


async def _blocks(pieces: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    """Yield what comes in blocks worth a trip to a thread; raises ``TimeoutError`` when nothing comes."""
    block = bytearray()
    ended = False
    while not ended:
        try:
            async with asyncio.timeout(idle_seconds):
                block += await anext(pieces)
        except StopAsyncIteration:
            ended = True
        if len(block) >= PIECE_BYTES or (ended and block):
            yield bytes(block)
            block.clear()


async def _in_thread(
    work: Callable[_Words, _AnswerT], *args: _Words.args, **words: _Words.kwargs
) -> _AnswerT:
    """Do ``work`` in a thread; when cancelled, wait for it, for it uses what the caller is about to close."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **words))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        working.exception()  # seen: the cancellation is what counts
        raise
