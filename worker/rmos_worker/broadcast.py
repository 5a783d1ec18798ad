"""The gate for what travels by pub/sub: control messages and events that can be read, and nothing else.

Anybody who may publish on Redis reaches every worker at once. Celery takes such a message apart without
looking, and one of the wrong shape raises through its consumer: it ended every worker that heard it.
"""

from __future__ import annotations

import base64
import json
import logging
from types import NoneType
from typing import Any, Literal

from kombu.transport.redis import Channel, Transport

logger = logging.getLogger(__name__)

#: Far above any control message or group of events.
MAX_BYTES = 4_194_304
_CONTROL = ".pidbox"
_Kind = Literal["control message", "event"]


def fault_of(data: bytes, kind: _Kind) -> str | None:
    """Return why a message cannot be read, without its content; None when it can."""
    if len(data) > MAX_BYTES:
        return f"is larger than {MAX_BYTES} bytes"
    try:
        envelope = json.loads(data)
        if not isinstance(envelope, dict):
            return "is no envelope"
        fault = _fault_of_envelope(envelope)
        if fault is not None:
            return fault
        body = json.loads(_body(envelope))
    except (ValueError, RecursionError):
        return "is not JSON"
    if kind == "control message":
        return _fault_of_control(body)
    events = body if isinstance(body, list) else [body]
    return next((fault for fault in map(_fault_of_event, events) if fault), None)


def _fault_of_envelope(envelope: dict[str, Any]) -> str | None:
    properties, headers = envelope.get("properties"), envelope.get("headers")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        return "has no delivery tag"
    if not isinstance(properties.get("delivery_info", {}), dict):
        return "has delivery information that is no object"
    if not isinstance(headers, dict) or not isinstance(headers.get("clock") or 0, int):
        return "has no readable headers"
    if "compression" in headers:
        return "is compressed"
    if envelope.get("content-type") != "application/json" or envelope.get("content-encoding") != "utf-8":
        return "is not declared as JSON in UTF-8"
    return None if isinstance(envelope.get("body"), str) else "has no body"


def _body(envelope: dict[str, Any]) -> str | bytes:
    body: str = envelope["body"]
    encoded = envelope["properties"].get("body_encoding") == "base64"
    return base64.b64decode(body, validate=True) if encoded else body


def _fault_of_control(body: Any) -> str | None:
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return "names no method"
    if not isinstance(body.get("arguments") or {}, dict):
        return "has arguments that are no object"
    if not _is_list_of_names(body.get("destination") or []):
        return "has a destination that is no list of names"
    if not all(isinstance(body.get(name) or "", str) for name in ("pattern", "matcher", "ticket")):
        return "has a pattern, matcher or ticket that is no text"
    reply_to = body.get("reply_to") or {"exchange": "", "routing_key": ""}
    if not isinstance(reply_to, dict) or not all(
        isinstance(reply_to.get(name), str) for name in ("exchange", "routing_key")
    ):
        return "has an unreadable reply address"
    return None


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _fault_of_event(event: Any) -> str | None:
    if not isinstance(event, dict):
        return "is no event"
    wanted: dict[str, tuple[type, ...]] = {
        "type": (str,),
        "hostname": (str,),
        "timestamp": (int, float),
        "clock": (int, NoneType),
        "utcoffset": (int, float),
        "pid": (int,),
    }
    if str(event.get("type", "")).startswith("task-"):
        wanted["uuid"] = (str,)
    wrong = [name for name, kinds in wanted.items() if not isinstance(event.get(name), kinds)]
    return f"has no readable {wrong[0]}" if wrong else None


class BroadcastGate(Channel):
    """A channel that drops what it cannot read of control messages and events, with one line of log."""

    #: kombu's, which its stubs lack.
    connection_errors: Any
    channel_errors: Any

    def _handle_message(self, client: Any, r: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._handle_message(client, r)  # type: ignore[misc]  # the stubs lack it
        if payload["type"] in {b"message", b"pmessage"} and isinstance(payload["data"], bytes):
            channel = bytes(payload["channel"]).decode("utf-8", "backslashreplace")
            kind: _Kind = "control message" if channel.endswith(_CONTROL) else "event"
            fault = fault_of(payload["data"], kind)
            if fault is not None:
                logger.warning("%s dropped: it %s", kind, fault, extra={"bytes": len(payload["data"])})
                payload["data"] = b""  # which kombu passes over
        return payload

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        try:
            return bool(super()._deliver_fanout_message(message, exchange))  # type: ignore[misc]  # as above
        except (*self.connection_errors, *self.connection.channel_errors):
            raise  # the broker's doing, which the worker mends by connecting again
        except Exception as error:  # noqa: BLE001 - whatever it trips over, no broadcast may end a worker
            logger.warning("a broadcast on %s was dropped (%s)", exchange, type(error).__name__)
            return False


class WatchingTransport(Transport):
    """Celery's Redis transport with the gate for broadcasts alone: for Flower, which consumes no queue."""

    Channel = BroadcastGate
