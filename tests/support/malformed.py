"""Messages that are no notifications of ours: each made Celery drop it, hang or end, or nearly so."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.tasks.table import CREATE, SUGGEST, TaskSpec

Envelope = dict[str, Any]
Edit = Callable[[Envelope], object]


def notification_of(ledger: JobLedger, spec: TaskSpec = CREATE, job_id: str | None = None) -> bytes:
    """Accept a job, and return the notification that the ledger notified it."""
    job = Job(job_id=job_id or new_uuid7(), task=spec.name, run_id=new_uuid7(), request_id=None, payload="{}")
    ledger.accept([job])
    taken = ledger.queues.take(spec.queue)
    assert taken
    assert taken.notification
    return taken.notification


def pack(envelope: Any) -> bytes:
    """Write an envelope as the ledger does: unedited, it is the same bytes again."""
    return json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _header(name: str, value: Any) -> Edit:
    return lambda envelope: envelope["headers"].update({name: value})


def _property(name: str, value: Any) -> Edit:
    return lambda envelope: envelope["properties"].update({name: value})


def _body(value: Any) -> Edit:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return lambda envelope: envelope.update(body=text)


def _content(kind: str, body: str) -> Edit:
    return lambda envelope: envelope.update({"content-type": kind, "body": body})


def _ids(change: Callable[[list[str]], list[Any]]) -> Edit:
    def edit(envelope: Envelope) -> None:
        (ids,), _, _ = json.loads(envelope["body"])
        _body([[change(ids)], {}, {}])(envelope)

    return edit


#: What is wrong -> the edit of a good notification that makes it so.
EDITS: dict[str, Edit] = {
    "unknown_task": _header("task", "runs.nothing"),
    "task_missing": lambda envelope: envelope["headers"].pop("task"),
    "task_is_a_list": _header("task", [CREATE.name]),
    "task_of_another_queue": _header("task", SUGGEST.name),
    "id_missing": lambda envelope: envelope["headers"].pop("id"),
    "id_is_another": _header("id", "another"),
    "id_is_a_number": _header("id", 5),
    "id_of_a_later_notification_of_nothing": _header("id", "~1"),
    "eta_bad": _header("eta", "soon"),
    "eta_far": _header("eta", "2999-01-01T00:00:00+00:00"),
    "eta_past": _header("eta", "1999-01-01T00:00:00+00:00"),
    "expired": _header("expires", "1999-01-01T00:00:00+00:00"),
    "retried_by_celery": _header("retries", 1),
    "time_limit": _header("timelimit", [1, 1]),
    "in_a_group": _header("group", "g"),
    "redelivered": _header("redelivered", value=True),
    "headers_null": lambda envelope: envelope.update(headers=None),
    "headers_missing": lambda envelope: envelope.pop("headers"),
    "argsrepr_other": _header("argsrepr", "2 job(s)"),
    "arguments_no_list": _body([5, {}, {}]),
    "bad_json": _body("[["),
    "body_5": _body(5),
    "body_null": _body(None),
    "body_empty": _body(""),
    "body_missing": lambda envelope: envelope.pop("body"),
    "body_two_elements": _body([[[]], {}]),
    "keyword_arguments": _body([[[]], {"a": 1}, {}]),
    "no_ids": _ids(lambda _: []),
    "id_null": _ids(lambda _: [None]),
    "id_twice": _ids(lambda ids: ids * 2),
    "too_many_ids": _ids(lambda ids: [*ids, *(new_uuid7() for _ in range(100))]),
    "pickle": _content("application/x-python-serialize", "gARO"),
    "yaml": _content("application/x-yaml", "[[], {}, {}]"),
    "data": _content("application/data", "[[], {}, {}]"),
    "encoding_other": lambda envelope: envelope.update({"content-encoding": "utf-16"}),
    "properties_null": lambda envelope: envelope.update(properties=None),
    "delivery_tag_missing": lambda envelope: envelope["properties"].pop("delivery_tag"),
    "delivery_tag_surrogate": _property("delivery_tag", "\ud800"),
    "body_base64": _property("body_encoding", "base64"),
    "reply_to": _property("reply_to", "somebody"),
}


def _blank() -> bytes:
    """Return white space like no other, so that each item can be told from all others of its kind."""
    return bytes(secrets.choice(b" \t\n") for _ in range(40))


#: What is wrong -> an item that is no envelope, each like no other.
ITEMS: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"garbage " + secrets.token_hex(8).encode(),
    "number": lambda: str(secrets.randbits(60)).encode(),
    "null": lambda: b"null" + _blank(),
    "empty_object": lambda: b"{}" + _blank(),
    "empty_list": lambda: b"[]" + _blank(),
    "blank": _blank,
    "not_utf8": lambda: b"\xff\xfe" + secrets.token_bytes(16),
    "nested": lambda: _blank() + b"[" * 20_000 + b"]" * 20_000,
    "too_large": lambda: secrets.token_hex(8).encode() + b"x" * 70_000,
}


def _twice(whole: bytes) -> bytes:
    return whole.replace(b'"task":', b'"task":"runs.create","task":', 1)


def _for_an_unknown_job(whole: bytes) -> bytes:
    return whole.replace(json.loads(whole)["headers"]["id"].encode(), new_uuid7().encode())


#: What is wrong -> what becomes of the bytes of a good notification.
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "key_twice": _twice,
    "utf_8_sig": lambda whole: b"\xef\xbb\xbf" + whole,
    "utf_16": lambda whole: whole.decode().encode("utf-16"),
    "written_otherwise": lambda whole: json.dumps(json.loads(whole)).encode(),
    "with_a_tail": lambda whole: whole + b" ",
    "cut_off": lambda whole: whole[:-1],
    "nul_inside": lambda whole: whole.replace(b" job(s)", b"\x00job(s)", 1),
    # A perfect notification, for a job that nobody accepted.
    "unknown_job": _for_an_unknown_job,
}
KINDS: tuple[str, ...] = (*EDITS, *ITEMS, *BYTES)


def make(kind: str, good: bytes) -> bytes:
    """Return an item of this kind, made from a good notification of ``runs.create``."""
    if kind in ITEMS:
        return ITEMS[kind]()
    if kind in BYTES:
        return BYTES[kind](good)
    envelope = json.loads(good)
    EDITS[kind](envelope)
    return pack(envelope)
