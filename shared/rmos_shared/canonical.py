"""Canonical JSON and its hash, exactly as contract section 2 fixes them.

Everything that is stored or hashed passes ``check_json`` first, so that nothing is written that JSON
cannot carry exactly: a value that would change on the way through a file would change its hash too.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from rmos_shared.errors import FieldProblem, InvalidRequest

#: Deeper nesting is refused: other readers' parsers recurse, and ours must not run out of stack.
MAX_DEPTH = 100
#: Larger integers fit no IEEE double at all, so other JSON readers would refuse or mangle them.
MAX_INTEGER_BITS = 1023


def canonical_json(obj: object) -> bytes:
    """Return the canonical UTF-8 bytes of ``obj``.

    Raises:
        InvalidRequest: a value that JSON cannot carry exactly; its path is named (contract section 2).
    """
    check_json(obj)
    return encode(obj)


def encode(checked: object) -> bytes:
    """Return the canonical UTF-8 bytes of what ``check_json``, or a model's validation, has let pass.

    Checking costs more than encoding, so values that were checked when they came in are not checked again.
    """
    text = json.dumps(checked, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_sha256(obj: object) -> str:
    """Return the contract's hash of ``obj``: SHA-256 over its canonical JSON.

    Raises:
        InvalidRequest: as ``canonical_json``.
    """
    return sha256_hex(canonical_json(obj))


def check_json(obj: object) -> None:  # noqa: C901 - one branch per JSON type reads best
    """Refuse what JSON cannot carry exactly, naming the path of the first such value.

    Raises:
        InvalidRequest: NaN, infinity, lone surrogate, non-string key, tuple, bytes, a subclass of a
            JSON type, an oversized integer, or nesting deeper than ``MAX_DEPTH``.
    """
    # An explicit stack, because the input may be nested far deeper than Python's own.
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(obj, ())]
    while stack:
        value, path = stack.pop()
        kind = type(value)
        if kind is str:
            _check_text(value, path)
        elif kind is dict:
            _check_depth(path)
            for key, item in value.items():
                if type(key) is not str:
                    _refuse(path, f"key of type {type(key).__name__} is not a string")
                _check_text(key, path)
                stack.append((item, (*path, key)))
        elif kind is list:
            _check_depth(path)
            stack.extend((item, (*path, index)) for index, item in enumerate(value))
        elif kind is float:
            if not math.isfinite(value):
                _refuse(path, "NaN and infinity are not JSON")
        elif kind is int:
            if value.bit_length() > MAX_INTEGER_BITS:
                _refuse(path, f"integer of more than {MAX_INTEGER_BITS} bits")
        elif kind is not bool and value is not None:
            _refuse(path, f"type {kind.__name__} is not JSON")


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(path, "lone surrogate is not Unicode text")


def _check_depth(path: tuple[str | int, ...]) -> None:
    if len(path) >= MAX_DEPTH:
        _refuse(path[:3], f"nested deeper than {MAX_DEPTH} levels")


def _refuse(path: tuple[str | int, ...], reason: str) -> None:
    # Keys come from the caller, so a surrogate in one must not break the error text itself.
    where = ".".join(str(part).encode("utf-8", "backslashreplace").decode() for part in path)
    raise InvalidRequest((FieldProblem(where or "value", reason),), what="JSON value")
