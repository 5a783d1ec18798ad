"""Stored bytes back into the record that their name promises, or the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn, TypeVar

from rmos_shared.errors import CorruptArtifact, InvalidRequest
from rmos_shared.models.base import Frozen

Record = TypeVar("Record", bound=Frozen)

#: Problems that one error names; a foreign file may have thousands.
_NAMED_PROBLEMS = 3
_REASON_CHARACTERS = 300


def parse(model: type[Record], key: str, data: bytes, belongs: Callable[[Record], str]) -> Record:
    """Return the record in ``data``, proven: its shape, its hashes, and that it lies where it belongs.

    ``belongs`` says under which key a record must lie.

    Raises:
        CorruptArtifact: the reason names fields, never values (contract section 4).
    """
    if not data:
        raise CorruptArtifact(key, "the file is empty")
    try:
        record = model.read(json.loads(data.decode(), parse_constant=_refuse))
        right_key = belongs(record)
    except InvalidRequest as error:
        raise CorruptArtifact(key, _reason(error)) from None
    except (ValueError, RecursionError):
        # Cut off, not UTF-8, not JSON, NaN, nested without end. json's own text would quote the content.
        raise CorruptArtifact(key, "the content is not JSON") from None
    if right_key != key:
        raise CorruptArtifact(key, "the record inside belongs under another name")
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _reason(error: InvalidRequest) -> str:
    named = "; ".join(map(str, error.problems[:_NAMED_PROBLEMS]))
    more = len(error.problems) - _NAMED_PROBLEMS
    # Field names come from the file: a line break in one must not forge a line of somebody's log.
    text = named.encode("unicode_escape").decode()[:_REASON_CHARACTERS]
    return f"{text}; and {more} more" if more > 0 else text
