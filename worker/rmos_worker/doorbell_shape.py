"""The one shape of message that may enter a worker, decided from its bytes alone.

Everything else would make Celery drop it without a trace or stop the worker (docs/celery.md).
The rule is a closed list: whatever is not known to be harmless is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rmos_shared.ids import JOB_ID
from rmos_shared.tasks import TASKS

#: Longer than any bell of 100 ids; checked first, so that no giant is ever parsed.
MAX_BELL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Bell:
    """A well-formed doorbell."""

    task: str
    job_ids: tuple[str, ...]


class NotABell(Exception):
    """The item is no doorbell; the text says which part is not, without quoting it."""


def read_bell(item: bytes, queue: str) -> Bell:
    """Return what the raw list item of ``queue`` rings for.

    Raises:
        NotABell: naming the first part that is not as it must be.
    """
    if len(item) > MAX_BELL_BYTES:
        raise NotABell(f"larger than {MAX_BELL_BYTES} bytes")
    envelope = _json(item, "envelope")
    _check("envelope", envelope, _ENVELOPE)
    headers, properties = envelope["headers"], envelope["properties"]
    _check("headers", headers, _HEADERS)
    _check("properties", properties, _PROPERTIES)
    _check("delivery_info", properties["delivery_info"], _DELIVERY)
    if properties["delivery_info"]["routing_key"] != queue:
        raise NotABell("delivery_info.routing_key is another queue")
    spec = TASKS.get(headers["task"])
    if spec is None:
        raise NotABell("headers.task is not a task of ours")
    if spec.queue != queue:
        raise NotABell("headers.task belongs to another queue")
    return Bell(spec.name, _job_ids(envelope["body"], spec.ids_per_bell))


def _job_ids(encoded: str, most: int) -> tuple[str, ...]:
    try:
        body = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NotABell("body is not base64") from None
    content = _json(body, "body")
    match content:
        case [[list(job_ids)], {**kwargs}, {**embed}] if not kwargs:
            pass
        case _:
            raise NotABell("body is not [[job ids], {}, {…}]")
    _check("embed", embed, _EMBED)
    if not 1 <= len(job_ids) <= most:
        raise NotABell(f"body does not hold 1 to {most} job ids")
    if not all(isinstance(job_id, str) and JOB_ID.fullmatch(job_id) for job_id in job_ids):
        raise NotABell("body holds what is no job id")
    if len(set(job_ids)) != len(job_ids):
        raise NotABell("body holds a job id twice")
    return tuple(job_ids)


def _json(data: bytes, what: str) -> Any:
    try:
        # Decoded here, as kombu does: from bytes, json.loads takes UTF-16, a mark and lone surrogates too.
        return json.loads(data.decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        # Not UTF-8, not JSON, a key twice, an endless number, or nested beyond any bell.
        raise NotABell(f"{what} is not plain JSON") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


_Rule = Callable[[Any], bool]


def _exactly(wanted: object) -> _Rule:
    return lambda value: type(value) is type(wanted) and value == wanted


def _text(value: Any) -> bool:
    # Printable leaves out lone surrogates, which kombu could not write back to Redis.
    return type(value) is str and value.isprintable()


def _text_or_none(value: Any) -> bool:
    return value is None or _text(value)


def _dict(value: Any) -> bool:
    return type(value) is dict


def _flag_or_none(value: Any) -> bool:
    return value is None or type(value) is bool


_nothing = _exactly(None)
_ENVELOPE: dict[str, _Rule] = {
    "body": _text,
    "content-encoding": _exactly("utf-8"),
    "content-type": _exactly("application/json"),
    "headers": _dict,
    "properties": _dict,
}
_HEADERS: dict[str, _Rule] = {
    "lang": _exactly("py"),
    "task": _text,
    "id": lambda value: _text(value) and value != "",
    "shadow": _nothing,
    "eta": _nothing,  # due times are the ledger's
    "expires": _nothing,  # an expired message is deleted unseen
    "group": _nothing,
    "group_index": _nothing,
    "retries": _exactly(0),
    "timelimit": _exactly([None, None]),
    "root_id": _text,
    "parent_id": _text_or_none,
    "argsrepr": _text,
    "kwargsrepr": _text,
    "origin": _text,
    "ignore_result": _flag_or_none,
    "replaced_task_nesting": _exactly(0),
    "stamped_headers": _nothing,
    "stamps": _exactly({}),
}
_PROPERTIES: dict[str, _Rule] = {
    "correlation_id": _text,
    "reply_to": _text,
    "delivery_mode": _exactly(2),
    "delivery_info": _dict,
    "priority": _exactly(0),
    "body_encoding": _exactly("base64"),
    "delivery_tag": lambda value: _text(value) and value != "",
}
_DELIVERY: dict[str, _Rule] = {"exchange": _exactly(""), "routing_key": _text}
_EMBED: dict[str, _Rule] = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"), _nothing)
#: Added by kombu when it brings a message back.
_REDELIVERED = "redelivered"


def _check(where: str, found: Any, rules: dict[str, _Rule]) -> None:
    if type(found) is not dict:
        raise NotABell(f"{where} is not an object")
    missing = rules.keys() - found.keys()
    if missing:
        raise NotABell(f"{where}.{min(missing)} is missing")
    for name, value in found.items():
        if name == _REDELIVERED and type(value) is bool and where in {"headers", "delivery_info"}:
            continue
        rule = rules.get(name)
        if rule is None:
            raise NotABell(f"{where} holds a field that no doorbell has")
        if not rule(value):
            raise NotABell(f"{where}.{name} is not as in a doorbell")
