"""Attachments: large outputs beside the artifacts, each named by the hash of its content.

One is published before the artifact that names it, so that no reader finds the name without the file. Memory
holds one piece of it, however large it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from rmos_shared.canonical import is_sha256
from rmos_shared.errors import (
    AttachmentNotFound,
    AttachmentTooLarge,
    CorruptArtifact,
    FieldProblem,
    InvalidRequest,
)
from rmos_shared.runs.attachment_key import (
    ATTACHMENTS,
    attachment_key,
    attachment_key_of,
    attachment_sha256,
    check_suffix,
)
from rmos_shared.runs.files import reported
from rmos_shared.runs.model import RunRecord, attached, original_of
from rmos_shared.settings.store import MAX_ATTACHMENT_BYTES
from rmos_shared.store.base import PIECE_BYTES, ArtifactStore, Draft, Head, Outcome
from rmos_shared.store.publication import Publication

_OTHER_CONTENT = "the content has another hash than its name says"


class Attachments:
    """The attachments of one store. Every method raises ``StoreUnavailable`` when the store is away.

    The same content under the same suffix is one file, whoever puts it, and however often.
    """

    def __init__(self, store: ArtifactStore, *, most_bytes: int = MAX_ATTACHMENT_BYTES) -> None:
        """Use ``store``; take attachments of up to ``most_bytes``."""
        self._store = store
        self._most_bytes = most_bytes

    def publish(self, data: bytes, suffix: str) -> Publication:
        """As ``put``, of what memory holds already, and return all that the audit log is told of it."""
        self.check_size(len(data))
        key = attachment_key(data, suffix)
        outcome = self._store.create(key, data)
        return Publication(
            _published(key, outcome), _sha256_of(key), len(data), created=outcome is Outcome.CREATED
        )

    def put(self, data: bytes | BinaryIO, suffix: str, claimed_sha256: str | None = None) -> str:
        """Publish ``data``, or all that is left of a stream, and return the key; durable when this returns.

        ``suffix`` is up to two extensions, such as ``.nc`` or ``.json.gz``. A stream is read once, in pieces.

        Raises:
            InvalidRequest: the suffix is wrong, or the content has another hash than ``claimed_sha256``, the
                64 hex digits that its sender counted; nothing is published.
            AttachmentTooLarge: it is larger than what is taken; nothing is published.
            CorruptArtifact: the file of that hash is there, and holds something else.
        """
        if isinstance(data, bytes):
            self.check_size(len(data))
            _check_form(claimed_sha256)
            key = attachment_key(data, suffix)
            _check_claim(claimed_sha256, key)
            return _published(key, self._store.create(key, data))
        with self.receive(suffix, claimed_sha256) as upload:
            while piece := data.read(PIECE_BYTES):
                upload.write(piece)
            return upload.publish()

    @contextmanager
    def receive(self, suffix: str, claimed_sha256: str | None = None) -> Iterator[Upload]:
        """Begin an attachment that comes piece by piece; unless it is published, the block leaves nothing.

        Raises:
            InvalidRequest: the suffix or the claimed hash is none.
        """
        check_suffix(suffix)
        _check_form(claimed_sha256)
        with self._store.draft() as draft:
            yield Upload(self, draft, suffix, claimed_sha256)

    def check_size(self, size_bytes: int) -> None:
        """Refuse what is larger than what is taken.

        Raises:
            AttachmentTooLarge: it is.
        """
        if size_bytes > self._most_bytes:
            raise AttachmentTooLarge(self._most_bytes)

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the content in pieces of at most ``PIECE_BYTES``, and prove its hash while it is read.

        What was yielded is proven only once the iteration ends without an error: keep it apart until then,
        and throw it away otherwise. The last piece is held back until the proof is done, so whoever merely
        passes the pieces on passes on a whole attachment or one that is visibly cut short.

        Raises:
            AttachmentNotFound: before the first piece: none is stored under ``key``, or it is no such key.
            CorruptArtifact: the content is not that of the name, or cannot be read.
        """
        claimed = _sha256_of(key)
        digest, held = hashlib.sha256(), b""
        with self._store.pieces(key) as pieces:
            if pieces is None:
                raise AttachmentNotFound(key)
            for piece in pieces:
                digest.update(piece)
                if held:
                    yield held
                held = piece
        if digest.hexdigest() != claimed:
            raise reported(CorruptArtifact(key, _OTHER_CONTENT))
        if held:
            yield held

    def verify(self, key: str) -> None:
        """Read it to its end and prove its hash; raises as ``read``."""
        for _ in self.read(key):
            pass

    def head(self, key: str) -> Head | None:
        """Return size and time; None when no attachment is stored under ``key``, or it is no such key.

        Raises:
            CorruptArtifact: something is there that is no file.
        """
        if attachment_sha256(key) is None:
            return None
        return self._store.head(key)

    def list(self) -> Iterator[str]:
        """Yield the keys of all attachments, in order; what else lies among them is passed by.

        ``StoreVerification`` names those. Memory holds the names of one directory.
        """
        return (key for key in self._store.list(ATTACHMENTS) if attachment_sha256(key) is not None)


class Upload:
    """An attachment on its way in: written piece by piece, published once."""

    def __init__(
        self, attachments: Attachments, draft: Draft, suffix: str, claimed_sha256: str | None
    ) -> None:
        """Fill ``draft``; ``Attachments.receive`` makes it."""
        self._attachments = attachments
        self._draft = draft
        self._suffix = suffix
        self._claimed = claimed_sha256
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much has been written."""
        return self._size_bytes

    def write(self, piece: bytes) -> None:
        """Add ``piece`` at the end.

        Raises:
            AttachmentTooLarge: with it, it is larger than what is taken.
            StoreUnavailable: it could not be written (disk full, read-only, gone).
        """
        self._size_bytes += len(piece)
        self._attachments.check_size(self._size_bytes)
        self._digest.update(piece)
        self._draft.write(piece)

    def publish(self) -> str:
        """Publish what was written under its hash, and return the key; raises as ``Attachments.put``."""
        key = attachment_key_of(self._digest.hexdigest(), self._suffix)
        _check_claim(self._claimed, key)
        return _published(key, self._draft.publish(key))


def named_by(run: RunRecord) -> set[str]:
    """Return the keys of the attachments that a run names; other paths are its caller's own."""
    named = {path for _, path, _ in attached(run.outputs) if attachment_sha256(path) is not None}
    original = original_of(run.meta)
    return named if original is None else named | {original}


def _sha256_of(key: str) -> str:
    sha256 = attachment_sha256(key)
    if sha256 is None:
        # It may come from outside, and hold anything.
        raise AttachmentNotFound(key.encode("ascii", "backslashreplace").decode()[:200])
    return sha256


def _check_form(claimed: str | None) -> None:
    if claimed is not None and not is_sha256(claimed):
        raise _refused("must be 64 lower-case hex digits")


def _check_claim(claimed: str | None, key: str) -> None:
    found = _sha256_of(key)
    if claimed is not None and claimed != found:
        raise _refused(f"the sender says {claimed}, the content that came has {found}")


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest((FieldProblem("sha256", reason),), what="attachment")


def _published(key: str, outcome: Outcome) -> str:
    if outcome is Outcome.CONFLICT:
        raise reported(CorruptArtifact(key, _OTHER_CONTENT))
    return key
