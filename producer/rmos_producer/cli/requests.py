"""The requests of a file, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.models.run import RunRequest


def read_requests(lines: Iterable[bytes], wrong: list[dict[str, Any]]) -> Iterator[RunRequest]:
    """Yield the request of each good line; append ``{"line", "error"}`` to ``wrong`` for each other one."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield RunRequest.read(_decode(line), what="request")
        except InvalidRequest as error:
            wrong.append({"line": number, "error": str(error)})


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        # The decoder's own text would quote the line.
        raise InvalidRequest((FieldProblem("line", "is not strict JSON"),)) from None


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and infinity are not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
