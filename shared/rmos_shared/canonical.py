"""Canonical JSON and its hash, exactly as contract section 2 fixes them.

Everything that is stored or hashed passes ``check_json`` first, so that nothing is written that JSON
cannot carry exactly: a value that would change on the way through a file would change its hash too.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from rmos_shared.errors import FieldProblem, InvalidRequest

#: Deeper nesting is refused: other readers' parsers recurse, and ours must not run out of stack.
MAX_DEPTH = 100
#: Larger integers fit no IEEE double at all, so other JSON readers would refuse or mangle them.
MAX_INTEGER_BITS = 1023

_SHA256 = re.compile("[0-9a-f]{64}", re.ASCII)


def canonical_json(obj: object) -> bytes:
    """Return the canonical UTF-8 bytes of ``obj``.

    Raises:
        InvalidRequest: a value that JSON cannot carry exactly; its path is named (contract section 2).
    """
    check_json(obj)
    return encode(obj)


def encoder(plain: Callable[[Any], object] | None = None) -> Callable[[object], bytes]:
    """Return what writes canonical UTF-8 bytes; ``plain`` tells it what to write for an object of ours."""
    # Made once, for each call of json.dumps would make it anew. A checked value cannot contain itself.
    text = json.JSONEncoder(
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
        check_circular=False,
        default=plain,
    ).encode
    return lambda checked: text(checked).encode()


#: Writes the canonical UTF-8 bytes of what ``check_json``, or a model's validation, has let pass. Checking
#: costs more than encoding, so values that were checked when they came in are not checked again.
encode = encoder()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def is_sha256(text: str) -> bool:
    """Say whether ``text`` is a hash as ``sha256_hex`` writes it."""
    return _SHA256.fullmatch(text) is not None


def canonical_sha256(obj: object) -> str:
    """Return the contract's hash of ``obj``: SHA-256 over its canonical JSON.

    Raises:
        InvalidRequest: as ``canonical_json``.
    """
    return sha256_hex(canonical_json(obj))


def check_json(obj: object) -> None:
    """Refuse what JSON cannot carry exactly, naming the path of the first such value.

    Raises:
        InvalidRequest: NaN, infinity, lone surrogate, non-string key, tuple, bytes, a subclass of a
            JSON type, an oversized integer, or nesting deeper than ``MAX_DEPTH``.
    """
    try:
        _check_items([("", obj)], MAX_DEPTH)
    except _NotJson as error:
        # The outermost item is ``obj`` itself. Keys come from the caller, so a surrogate in one must not
        # break the error text; of a path too deep the first steps are enough.
        path = [str(part).encode("utf-8", "backslashreplace").decode() for part in error.path[-2::-1]]
        where = ".".join(path[:3] if error.deep else path)
        raise InvalidRequest((FieldProblem(where or "value", error.reason),), what="JSON value") from None


class _NotJson(Exception):
    """A value that is not JSON. The callers add its path on the way out, innermost step first."""

    def __init__(self, reason: str, *, deep: bool = False) -> None:
        self.reason = reason
        self.deep = deep
        self.path: list[str | int] = []


def _check_items(items: Iterable[tuple[str | int, Any]], depth_left: int) -> None:
    # Nearly all requests are faultless, so no path is kept on the way in.
    step: str | int = ""
    try:
        for step, value in items:  # noqa: B007 - told when something raises
            kind = type(value)
            if kind is dict:
                _check_depth(depth_left)
                for key in value:
                    if not (type(key) is str and key.isascii()):
                        _check_key(key)
                _check_items(value.items(), depth_left - 1)
            elif kind is list:
                _check_depth(depth_left)
                _check_items(enumerate(value), depth_left - 1)
            elif not ((kind is str and value.isascii()) or (kind is float and math.isfinite(value))):
                _check_scalar(value)
    except _NotJson as error:
        error.path.append(step)
        raise


def _check_scalar(value: Any) -> None:
    # By type, not isinstance: a subclass may be written as something else than what it is.
    kind = type(value)
    if kind is str:
        _check_text(value)
    elif kind is float:
        if not math.isfinite(value):
            raise _NotJson("NaN and infinity are not JSON")
    elif kind is int:
        if value.bit_length() > MAX_INTEGER_BITS:
            raise _NotJson(f"integer of more than {MAX_INTEGER_BITS} bits")
    elif kind is not bool and value is not None:
        raise _NotJson(f"type {kind.__name__} is not JSON")


def _check_key(key: object) -> None:
    if type(key) is not str:
        raise _NotJson(f"key of type {type(key).__name__} is not a string")
    _check_text(key)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotJson("lone surrogate is not Unicode text") from None


def _check_depth(depth_left: int) -> None:
    if not depth_left:
        raise _NotJson(f"nested deeper than {MAX_DEPTH} levels", deep=True)
