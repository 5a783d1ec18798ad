"""Where a list goes on: opaque to callers, bound to its filter, and the same with and without an index."""

from __future__ import annotations

import base64
import binascii
import hashlib

from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.runs.layout import partition_day, partition_of
from rmos_shared.runs.query import RunFilter

#: Another one says that places or filters mean something else now.
_VERSION = b"1"
_PROOF_BYTES = 12
_MOST_CHARACTERS = 4_096


def cursor_at(place: str, choice: RunFilter) -> str:
    """Return the cursor of what follows ``place`` in the list of a filter."""
    raw = _VERSION + _proof(place, choice) + place.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(cursor: str, choice: RunFilter) -> str:
    """Return the place that a cursor holds.

    It is no secret and grants nothing; the proof in it finds accidents and mix-ups.

    Raises:
        InvalidRequest: it is damaged, of another version, or of another filter.
    """
    try:
        padded = f"{cursor}{'=' * (-len(cursor) % 4)}".encode("ascii")
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        version, proof, place = raw[:1], raw[1 : 1 + _PROOF_BYTES], raw[1 + _PROOF_BYTES :].decode()
    except (ValueError, binascii.Error):
        raise _refused("is not one that a list gave") from None
    if len(cursor) > _MOST_CHARACTERS:
        raise _refused("is longer than any that a list gives")
    if version != _VERSION:
        raise _refused("is of another version; begin the list again")
    if proof != _proof(place, choice) or cursor != cursor_at(place, choice):
        raise _refused("is damaged, or of a list with other filters; begin the list again")
    if partition_day(partition_of(place)) is None or "\0" in place:
        raise _refused("is not one that a list gave")
    return place


def _proof(place: str, choice: RunFilter) -> bytes:
    # A filter's fields are checked text, so their JSON is one for each filter.
    whole = b"\0".join((_VERSION, choice.to_bytes(), place.encode()))
    return hashlib.sha256(whole).digest()[:_PROOF_BYTES]


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest((FieldProblem("cursor", reason),), what="list")
