"""Messages that are no doorbells: each kind made Celery drop it, hang or end, or is near one that did."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

import redis

from rmos_shared.doorbell import Doorbell
from rmos_shared.ids import new_uuid7
from rmos_shared.settings import BrokerSettings
from rmos_shared.tasks import CREATE, SUGGEST

Envelope = dict[str, Any]
Edit = Callable[[Envelope], object]


def _header(name: str, value: Any) -> Edit:
    return lambda envelope: envelope["headers"].update({name: value})


def _body(data: bytes) -> Edit:
    return lambda envelope: envelope.update(body=base64.b64encode(data).decode())


def _content(kind: str, encoding: str, data: bytes) -> Edit:
    def edit(envelope: Envelope) -> None:
        envelope.update({"content-type": kind, "content-encoding": encoding})
        _body(data)(envelope)

    return edit


_EDITS: dict[str, Edit] = {
    "unknown_task": _header("task", "runs.nothing"),
    "task_missing": lambda envelope: envelope["headers"].pop("task"),
    "task_is_a_list": _header("task", ["runs.create"]),
    "task_of_another_queue": _header("task", SUGGEST.name),
    "id_missing": lambda envelope: envelope["headers"].pop("id"),
    "eta_bad": _header("eta", "soon"),
    "eta_far": _header("eta", "2999-01-01T00:00:00+00:00"),
    "expired": _header("expires", "1999-01-01T00:00:00+00:00"),
    "headers_null": lambda envelope: envelope.update(headers=None),
    "body_5": _body(b"5"),
    "body_null": _body(b"null"),
    "body_empty": _body(b""),
    "body_two_elements": _body(b"[[], {}]"),
    "body_bad_json": _body(b"[["),
    "pickle": _content("application/x-python-serialize", "binary", b"\x80\x04N."),
    "application_data": _content("application/data", "binary", b"[[], {}, {}]"),
    "properties_null": lambda envelope: envelope.update(properties=None),
    "delivery_tag_missing": lambda envelope: envelope["properties"].pop("delivery_tag"),
    "unknown_job": lambda _: None,  # a perfect bell, for a job that nobody accepted
}


def _blank() -> bytes:
    """Return white space like no other, so that each item can be told from all others of its kind."""
    return bytes(secrets.choice(b" \t\n") for _ in range(40))


_ITEMS: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"garbage " + secrets.token_hex(8).encode(),
    "number": lambda: str(secrets.randbits(60)).encode(),
    "null": lambda: b"null" + _blank(),
    "empty_object": lambda: b"{}" + _blank(),
    "blank": _blank,
    "not_utf8": lambda: b"\xff\xfe" + secrets.token_bytes(16),
    "nested": lambda: _blank() + b"[" * 20_000 + b"]" * 20_000,
    "too_large": lambda: secrets.token_hex(8).encode() + b"x" * 70_000,
}
KINDS: tuple[str, ...] = (*_EDITS, *_ITEMS)


def make(kind: str, scratch_url: str) -> bytes:
    """Return an item of this kind; ``scratch_url`` is an empty database on which a bell may be cast."""
    if kind in _ITEMS:
        return _ITEMS[kind]()
    envelope = _bell(scratch_url)
    _EDITS[kind](envelope)
    return json.dumps(envelope).encode()


def _bell(scratch_url: str) -> Envelope:
    doorbell = Doorbell.connect(BrokerSettings.load(broker_url=scratch_url))
    try:
        if not doorbell.ring([(CREATE.name, new_uuid7())]):
            raise ConnectionError("no bell could be cast")
    finally:
        doorbell.close()
    with redis.Redis.from_url(scratch_url) as client:
        item = client.lpop(CREATE.queue)
    assert isinstance(item, bytes)
    envelope: Envelope = json.loads(item)
    return envelope
