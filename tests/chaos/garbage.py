"""What no program of ours would say on Celery's control and event channels."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

#: Kombu's names: database, then exchange, then routing key.
CONTROL = "/0.celery.pidbox"
EVENTS = ("/0.celeryev/worker.heartbeat", "/0.celeryev/task.received", "/0.celeryev/x")


def shapes(rng: random.Random) -> list[bytes]:
    """Return one message of every wrong shape, each a little different every time."""
    some = rng.randrange(1_000_000)
    # Never a method that is one: it would be obeyed.
    bodies: list[Any] = [
        [],
        some,
        None,
        "text",
        {},
        {"method": None},
        {"method": ["ping"]},
        {"method": f"nothing_{some}"},
        {"method": "ping", "arguments": some},
        {"method": "ping", "arguments": {f"unknown_{some}": 1}},
        {"method": "ping", "destination": some},
        {"method": "ping", "pattern": [], "matcher": "no_such"},
        {"method": "ping", "reply_to": some},
        {"method": "ping", "reply_to": {"exchange": some}},
        {"method": "ping", "expires": "never"},
        {"type": some, "hostname": [], "timestamp": "now"},
        {"type": "task-received", "uuid": None, "hostname": None, "timestamp": None, "clock": "x"},
        {"type": "worker-heartbeat"},
        [{"type": "task-received"}, some, None],
    ]
    packed = [_pack(body) for body in bodies]
    good = json.loads(_pack({}))
    broken: list[Any] = [
        [],
        some,
        None,
        "text",
        {},
        {"body": some},
        {**good, "body": "%%%"},
        {**good, "body": None},
        {**good, "headers": None},
        {**good, "headers": some},
        {**good, "properties": None},
        {**good, "properties": {}},
        {**good, "properties": {**good["properties"], "delivery_info": None}},
        {**good, "properties": {**good["properties"], "delivery_tag": None}},
        {**good, "content-type": "application/x-python-serialize"},
        {**good, "content-type": some},
        {**good, "content-encoding": "no-such"},
    ]
    raw = [b"", b"garbage", b"\xff\xfe", b"[" * 20_000 + b"]" * 20_000, b"x" * 200_000, packed[0][:-1]]
    return [*packed, *(json.dumps(item).encode() for item in broken), *raw]


def _pack(body: Any) -> bytes:
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"clock": 1, "expires": None},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
                "delivery_mode": 1,
                "delivery_tag": "x",
                "priority": 0,
            },
        }
    ).encode()
