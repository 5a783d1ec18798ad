"""The create handler by itself: what it keeps of a group while it works on it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import (
    ArtifactConflict,
    AttachmentPending,
    CorruptArtifact,
    InvalidRequest,
    StoreUnavailable,
)
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.model import RunArtifact, RunRequest
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import Outcome
from rmos_shared.store.memory import MemoryStore
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import CreateRun
from rmos_shared.tasks.table import CREATE_MANY
from support.handlers import create_handler


def claim(request: dict[str, Any]) -> Claim:
    run = RunRequest.read(request)
    payload = CreateRun(run=run).to_json().encode()
    return Claim(new_uuid7(), CREATE_MANY.name, payload, run.run_id, run.request_id, 0, 1, 0.0)


def naming(key: str, field: str = "gcode_path") -> dict[str, Any]:
    return {"request_id": "r", "mode": "router", "outputs": {field: key}}


def alive() -> int:
    # By type: isinstance would wake the proxies that Celery keeps.
    return sum(type(thing) in {RunRequest, RunArtifact} for thing in gc.get_objects())


def test_a_group_is_kept_as_bytes_while_it_is_made(sample_requests: list[dict[str, Any]]) -> None:
    seen: list[int] = []

    class Watching(MemoryStore):
        def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
            seen.append(alive())
            return super().create_many(items)

    claims = [claim(request) for request in sample_requests[:20]]
    gc.collect()
    before = alive()
    store = Watching()
    ends = create_handler(store).handle(claims)
    assert [end.job_id for end in ends if isinstance(end, Finish)] == [made.job_id for made in claims]
    assert seen == [before]


@pytest.mark.parametrize("field", ["gcode_path", "opplan_path", "preview_svg_path"])
def test_an_attachment_that_is_there_is_named(field: str) -> None:
    store = MemoryStore()
    key = Attachments(store).put(b"G0", ".nc")
    made = claim(naming(key, field))
    (end,) = create_handler(store).handle([made])
    assert isinstance(end, Finish)
    assert getattr(RunReader(store).get_artifact(made.run_id).outputs, field) == key


@pytest.mark.parametrize("field", ["gcode_path", "opplan_path", "preview_svg_path"])
def test_an_attachment_that_is_missing_is_waited_for_and_then_the_field_is_named(field: str) -> None:
    store = MemoryStore()
    made = claim(naming(attachment_key(b"G0", ".nc"), field))
    handler = create_handler(store, wait_seconds=60)
    (end,) = handler.handle([made])
    assert isinstance(end, AttachmentPending)
    assert end.field == f"outputs.{field}"
    (end,) = handler.handle([replace(made, waiting_seconds=59.9)])
    assert isinstance(end, AttachmentPending)
    (end,) = handler.handle([replace(made, waiting_seconds=60.0)])
    assert isinstance(end, InvalidRequest)
    assert [problem.field for problem in end.problems] == [f"outputs.{field}"]
    assert list(store.list("")) == []
    Attachments(store).put(b"G0", ".nc")
    (end,) = handler.handle([made])
    assert isinstance(end, Finish)


def test_a_damaged_attachment_keeps_the_artifact_from_being_stored_and_no_other() -> None:
    store = MemoryStore()
    key = attachment_key(b"G0", ".nc")
    store.create(key, b"G1")
    bad, good = claim(naming(key)), claim({"request_id": "r", "mode": "router"})
    damaged, done = create_handler(store).handle([bad, good])
    assert isinstance(damaged, CorruptArtifact)
    assert damaged.key == key
    assert isinstance(done, Finish)
    assert [entry.artifact.run_id for entry in RunReader(store).list_runs() if entry.artifact] == [
        good.run_id
    ]


def test_what_the_handler_attached_itself_is_not_read_again() -> None:
    class Unread(MemoryStore):
        def pieces(self, key: str) -> Any:
            raise AssertionError(key)

    store = Unread()
    (end,) = create_handler(store).handle(
        [claim({"request_id": "r", "outputs": {"gcode_text": "G" * 204_801}})]
    )
    assert isinstance(end, Finish)
    assert len(list(store.list("_attachments/"))) == 1


LARGE = "G1 X1 Y1\n" * 30_000


def published(end: object) -> dict[str, bool]:
    assert isinstance(end, Finish)
    return {item.key: item.created for item in end.published}


def test_the_audit_log_is_told_of_all_that_a_job_published_as_it_lies_there() -> None:
    store = MemoryStore()
    made = claim({"request_id": "r", "mode": "router", "outputs": {"gcode_text": LARGE}})
    (end,) = create_handler(store).handle([made])
    assert isinstance(end, Finish)
    attached = attachment_key(LARGE.encode(), ".nc")
    assert published(end) == dict.fromkeys([attached, *store.list("2")], True)
    for item in end.published:
        data = store.get(item.key) or b""
        assert (item.sha256, item.size_bytes) == (sha256_hex(data), len(data))
    (again,) = create_handler(store).handle([made])
    # Whoever published it first may have been killed before it told.
    assert published(again) == dict.fromkeys(published(end), False)


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), MemoryError()])
def test_of_what_a_job_attached_the_log_is_told_when_its_run_cannot_be_published(error: Exception) -> None:
    class Full(MemoryStore):
        """Has no room for a run."""

        def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
            if any(key.startswith("2") for key, _ in items):
                raise error
            return super().create_many(items)

    heard: list[Publication] = []
    store = Full()
    handler = create_handler(store, tell=heard.extend)
    made = claim({"request_id": "r", "mode": "router", "outputs": {"gcode_text": LARGE}})
    try:
        (end,) = handler.handle([made])
    except MemoryError as raised:
        end = raised
    assert end is error
    assert [(item.key, item.created) for item in heard] == [(key, False) for key in store.list("")]
    assert len(heard) == 1


def test_of_a_job_that_dies_the_log_is_told_what_lies_there() -> None:
    store = MemoryStore()
    first = claim({"request_id": "r", "mode": "router", "run_id": new_uuid7()})
    request = {"request_id": "r", "mode": "other", "run_id": first.run_id, "outputs": {"gcode_text": LARGE}}
    rival = claim(request)
    handler = create_handler(store)
    failure = Failure(reason="conflict", error_type="ArtifactConflict", message="x")
    assert handler.on_dead(rival, failure) == (), "nothing of it is published"
    handler.handle([first])
    (end,) = handler.handle([rival])
    assert isinstance(end, ArtifactConflict)
    (told,) = handler.on_dead(rival, failure)
    assert (told.key, told.created) == (attachment_key(LARGE.encode(), ".nc"), False)
    broken = replace(rival, payload=b"{}")
    assert handler.on_dead(broken, failure) == ()
