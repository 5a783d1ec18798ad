"""Messages of wrong shape for Celery's control and event channels."""

from __future__ import annotations

import base64
import json
from typing import Any

#: What kombu publishes on: ``/<database>.<exchange>``, and a routing key for events.
CONTROL_CHANNEL = "/0.celery.pidbox"
EVENT_CHANNELS = ("/0.celeryev/worker.heartbeat", "/0.celeryev/task.multi")


def _envelope(content: Any, **changes: Any) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    envelope: dict[str, Any] = {
        "body": base64.b64encode(text).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"clock": 1, "expires": 0},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "7bf5d1a4-b3e8-4c3e-9f54-6cfa7fdd0a2f",
        },
    }
    return json.dumps(envelope | changes).encode()


_PING = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
_EVENT = {
    "type": "worker-heartbeat",
    "hostname": "x@y",
    "timestamp": 1.0,
    "clock": 1,
    "utcoffset": 0,
    "pid": 1,
}
_PROPERTIES: dict[str, Any] = json.loads(_envelope({}))["properties"]

#: No JSON, or no envelope.
BARE: dict[str, bytes] = {
    "list": b"[]",
    "number": b"5",
    "null": b"null",
    "text": b'"text"',
    "object": b"{}",
    "garbage": b"garbage",
    "half": b'{"body": ',
    "no UTF-8": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "no properties": _envelope(_PING, properties=None),
    "properties a list": _envelope(_PING, properties=[]),
    "no delivery tag": _envelope(_PING, properties={}),
    "delivery tag a number": _envelope(_PING, properties={**_PROPERTIES, "delivery_tag": 5}),
    "delivery info a list": _envelope(_PING, properties={**_PROPERTIES, "delivery_info": []}),
    "unknown encoding of the body": _envelope(_PING, properties={**_PROPERTIES, "body_encoding": "zip"}),
    "no headers": _envelope(_PING, headers=None),
    "headers a list": _envelope(_PING, headers=[1]),
    "clock a text": _envelope(_PING, headers={"clock": "late"}),
    "compressed": _envelope(_PING, headers={"compression": "application/x-gzip"}),
    "pickle": _envelope(b"\x80\x04N.", **{"content-type": "application/x-python-serialize"}),
    "unknown content": _envelope(_PING, **{"content-type": "application/data"}),
    "no content type": _envelope(_PING, **{"content-type": None}),
    "body no base64": _envelope(_PING, body="%%%"),
    "body a number": _envelope(_PING, body=5),
    "body missing": _envelope(_PING, body=None),
    "body no JSON": _envelope(b"garbage"),
}
#: Envelopes whose content is no control message.
CONTROL: dict[str, bytes] = {
    name: _envelope(body)
    for name, body in {
        "body a list": [],
        "body null": None,
        "no method": {"arguments": {}},
        "method a list": {**_PING, "method": []},
        "unknown method": {**_PING, "method": "no_such_method"},
        "arguments a list": {**_PING, "arguments": [1]},
        "arguments unknown": {**_PING, "arguments": {"no_such_argument": 1}},
        "arguments wrong": {
            **_PING,
            "method": "rate_limit",
            "arguments": {"task_name": [], "rate_limit": {}},
        },
        "destination a number": {**_PING, "destination": 5},
        "destination of numbers": {**_PING, "destination": [5]},
        "pattern a list": {**_PING, "pattern": ["x"], "matcher": ["x"]},
        "matcher unknown": {**_PING, "pattern": "x", "matcher": "no_such_matcher"},
        "reply to a text": {**_PING, "reply_to": "x", "ticket": "x"},
        "reply to nowhere": {**_PING, "reply_to": {"x": "y"}, "ticket": "x"},
        "ticket a list": {**_PING, "reply_to": {"exchange": "x", "routing_key": "x"}, "ticket": [1]},
        "unknown member": {**_PING, "no_such_member": 1},
    }.items()
}
#: Envelopes whose content is no event.
EVENTS: dict[str, bytes] = {
    name: _envelope(body)
    for name, body in {
        "body null": None,
        "body a number": 5,
        "list of numbers": [5],
        "no type": {key: value for key, value in _EVENT.items() if key != "type"},
        "type a list": {**_EVENT, "type": []},
        "type unknown": {**_EVENT, "type": "worker-no-such-thing"},
        "no host name": {key: value for key, value in _EVENT.items() if key != "hostname"},
        "host name a number": {**_EVENT, "hostname": 5},
        "time a text": {**_EVENT, "timestamp": "now"},
        "clock a text": {**_EVENT, "clock": "late"},
        "offset a list": {**_EVENT, "utcoffset": []},
        "task without an id": {**_EVENT, "type": "task-received"},
        "task whose id is a list": {**_EVENT, "type": "task-received", "uuid": []},
        "frequency a text": {**_EVENT, "freq": "often"},
    }.items()
}
