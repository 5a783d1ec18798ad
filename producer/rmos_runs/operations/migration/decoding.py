"""The bytes of an old record back into its fields, or the reason why not; pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_BOM = b"\xef\xbb\xbf"
#: Python refuses to parse far longer ones, and by another limit in each version.
_MOST_DIGITS = 400
_SHOWN_CHARACTERS = 80


class Unreadable(Exception):
    """Nothing can be made of these bytes; the reason names fields, never values."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What an old record says."""

    fields: dict[str, Any]
    #: Keys that stand twice in one object; readers of the old systems saw the last one.
    repeated: tuple[str, ...]


def decode(data: bytes) -> Decoded:
    """Return the object in ``data``, which may begin with a byte order mark and hold NaN.

    Raises:
        Unreadable: empty, not UTF-8, not JSON, nested too deep to be parsed, no object.
    """
    if not data.strip():
        raise Unreadable("the file is empty")
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            keys = [key for key, _ in items]
            repeated.extend(sorted({shown(key) for key in keys if keys.count(key) > 1}))
        return made

    try:
        fields = json.loads(data.removeprefix(_BOM).decode(), object_pairs_hook=pairs, parse_int=_integer)
    except UnicodeDecodeError:
        raise Unreadable("the content is not UTF-8") from None
    except RecursionError:
        raise Unreadable("nested too deep to be parsed") from None
    except ValueError:
        # json's own text would quote the content.
        raise Unreadable("the content is not JSON, or was cut off") from None
    if not isinstance(fields, dict):
        raise Unreadable("is no JSON object")
    return Decoded(fields, tuple(dict.fromkeys(repeated)))


def shown(name: str) -> str:
    """Return a name from the source as it may be printed: one line, not long, ASCII or printable."""
    if not name.isprintable():
        name = name.encode("unicode_escape").decode()
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise Unreadable(f"holds a number of more than {_MOST_DIGITS} digits")
    return int(digits)
