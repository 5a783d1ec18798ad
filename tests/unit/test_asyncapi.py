"""The AsyncAPI document holds what it shows, and what the program sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError

from rmos_runs.gateway.routes.events import message_of
from rmos_shared.jobs.events import EventState, JobEvent, gap
from rmos_shared.tasks.payloads import DeliverWebhook, WebhookEvent
from rmos_shared.tasks.table import TASKS
from rmos_worker.handlers.webhook import body_of

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs/reference/asyncapi.yaml").read_text()
)
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
#: By the type that stands in a webhook's body.
BODIES: dict[str, str] = {
    kind: message
    for message, schema in (("done", "doneBody"), ("dead", "deadBody"), ("discarded", "discardedBody"))
    for told in [DOCUMENT["components"]["schemas"][schema]["properties"]["type"]]
    for kind in told.get("enum", [told.get("const")])
} | {"webhook.test": "test"}


def validator(schema: dict[str, Any]) -> Draft7Validator:
    # References are relative to the whole document.
    return Draft7Validator(
        {"allOf": [schema], "components": DOCUMENT["components"]},
        format_checker=Draft7Validator.FORMAT_CHECKER,
    )


def check(message: str, payload: object) -> None:
    validator(MESSAGES[message]["payload"]).validate(payload)


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_it_is_asyncapi_3_with_a_message_for_each_channel() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {operation["action"] for operation in DOCUMENT["operations"].values()} == {"send"}
    used = [name for channel in DOCUMENT["channels"].values() for name in channel["messages"]]
    assert sorted(used) == sorted(MESSAGES)
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_example_is_what_its_schema_says(message: str) -> None:
    assert MESSAGES[message]["examples"]
    for example in MESSAGES[message]["examples"]:
        check(message, example["payload"])
        if "headers" in example:
            validator(MESSAGES[message]["headers"]).validate(example["headers"])


def test_the_schemas_refuse_what_is_never_sent() -> None:
    for example in MESSAGES["done"]["examples"]:
        body = example["payload"]
        for wrong in (
            body | {"payload": {}},
            body | {"type": "job.dead"},
            body | {"timestamp": "2026-11-28T12:30:00+01:00"},
            {**body, "data": body["data"] | {"payload": "{}"}},
        ):
            with pytest.raises(ValidationError):
                check("done", wrong)


@pytest.mark.parametrize("state", EventState)
def test_every_event_that_is_sent_is_described(state: EventState) -> None:
    of_run = state in {EventState.ATTACHED, EventState.REVIEWED}
    event = JobEvent(
        event_id="1-2.3",
        job_id="" if of_run else "01a2225b1c5f7d6aa8b6f0d6c9b0f3a1",
        task="" if of_run else "runs.create",
        run_id="run",
        request_id=None,
        state=state,
        at_utc=datetime.now(UTC),
    )
    sent = message_of(gap() if state is EventState.GAP else event)
    assert sent.event in {"job", "run", "gap"}
    assert (sent.id is None) is (sent.event == "gap")
    check(sent.event, json.loads(str(sent.data)))


@pytest.mark.parametrize("event", get_args(WebhookEvent))
def test_every_body_that_is_sent_is_described(event: WebhookEvent) -> None:
    state = {"job.dead": "dead", "job.discarded": "discarded"}.get(event, "done")
    message = DeliverWebhook.read(
        {
            "endpoint": "erp",
            "event": event,
            "at_ms": 1_795_871_400_361,
            "job_id": "01a2225b1c5f7d6aa8b6f0d6c9b0f3a1",
            "task": "runs.create",
            "state": state,
            "run_id": "run",
            "result": {"outcome": "created"} if state == "done" and event != "webhook.test" else None,
            "reason": "conflict" if state == "dead" else None,
        }
    )
    check(BODIES[event], json.loads(body_of(message)))


def test_the_document_knows_every_event_and_no_other() -> None:
    assert set(BODIES) == set(get_args(WebhookEvent))
    assert {spec.event for spec in TASKS.values()} - {""} <= set(BODIES)
