"""What differs between two JSON objects, value by value: pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from rmos_shared.canonical import encode
from rmos_shared.models.base import Frozen, Utf8Text


class Change(Frozen):
    """One value that differs; of an added value ``left`` is null, of a removed one ``right``."""

    #: Dotted. A dot or backslash inside a key is written after a backslash; items of a list go by number.
    path: Utf8Text
    change: Literal["added", "removed", "changed"]
    left: Any
    right: Any


def changes(left: dict[str, Any], right: dict[str, Any]) -> Iterator[Change]:
    """Yield what differs, in order of paths; the order of keys does not count, that of a list does.

    Values differ when their canonical JSON does: 1 is neither true nor 1.0.
    """
    yield from _within((), left, right)


def _within(path: tuple[str, ...], left: Any, right: Any) -> Iterator[Change]:
    if isinstance(left, dict) and isinstance(right, dict):
        yield from _items(path, left, right)
    elif isinstance(left, list) and isinstance(right, list):
        yield from _items(path, dict(enumerate(left)), dict(enumerate(right)))
    elif encode(left) != encode(right):
        yield Change(path=_dotted(path), change="changed", left=left, right=right)


def _items(path: tuple[str, ...], left: dict[Any, Any], right: dict[Any, Any]) -> Iterator[Change]:
    for key in sorted(left.keys() | right.keys()):
        below = (*path, str(key))
        if key not in right:
            yield Change(path=_dotted(below), change="removed", left=left[key], right=None)
        elif key not in left:
            yield Change(path=_dotted(below), change="added", left=None, right=right[key])
        else:
            yield from _within(below, left[key], right[key])


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(part.replace("\\", "\\\\").replace(".", "\\.") for part in path)
