"""The key of an attachment: the hash of its content, and a suffix that tells its format."""

from __future__ import annotations

import re

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import FieldProblem, InvalidRequest

#: Where the attachments lie.
ATTACHMENTS = "_attachments/"

_SUFFIX = re.compile(r"(?:\.[a-z0-9]{1,16}){0,2}", re.ASCII)
_KEY = re.compile(rf"{ATTACHMENTS}([0-9a-f]{{2}})/(\1[0-9a-f]{{62}}){_SUFFIX.pattern}", re.ASCII)


def attachment_key(data: bytes, suffix: str) -> str:
    """Return the key of what has this content; ``suffix`` is up to two extensions, such as ``.nc``.

    Raises:
        InvalidRequest: see ``check_suffix``.
    """
    return attachment_key_of(sha256_hex(data), suffix)


def attachment_key_of(sha256: str, suffix: str) -> str:
    """Return the key of what has this hash, 64 lower-case hex digits; raises as ``attachment_key``."""
    check_suffix(suffix)
    return f"{ATTACHMENTS}{sha256[:2]}/{sha256}{suffix}"


def check_suffix(suffix: str) -> None:
    """Refuse a suffix that no attachment has.

    Raises:
        InvalidRequest: it is not up to two extensions of lower-case letters and digits.
    """
    if not _SUFFIX.fullmatch(suffix):
        raise InvalidRequest((FieldProblem("suffix", "must look like .nc or .json.gz"),), what="attachment")


def attachment_sha256(key: str) -> str | None:
    """Return the hash that a key holds; None for what is no key of an attachment."""
    match = _KEY.fullmatch(key)
    return match[2] if match else None
