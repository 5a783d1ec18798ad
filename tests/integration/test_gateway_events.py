"""The events as the gateway serves them: behind its keys and limits, and out of its way when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx

from support.gateway import RUNS, GatewayProcess

StartGateway = Callable[..., GatewayProcess]
EVENTS = f"{RUNS}/events"


def messages(answer: httpx.Response) -> Iterator[dict[str, str]]:
    """Yield each server-sent event by its fields; comments have none but an id."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line:
            yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def test_who_posted_a_run_follows_it_and_goes_on_where_it_was(
    start_gateway: StartGateway, start_worker: Callable[..., Any], sample_requests: list[dict[str, Any]]
) -> None:
    gateway = start_gateway()
    with gateway.client() as http:
        with http.stream("GET", EVENTS) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            coming = messages(answer)
            assert "event" not in next(coming), "the place in the stream comes first"
            run_id = http.post(RUNS, json=sample_requests[0]).json()["run_id"]
            accepted = next(coming)
        told = json.loads(accepted["data"])
        assert (told["state"], told["run_id"]) == ("accepted", run_id)
        # Away while the worker works; nothing is missed all the same.
        start_worker()
        states = []
        with http.stream("GET", EVENTS, headers={"Last-Event-ID": accepted["id"]}) as answer:
            for message in messages(answer):
                if "event" in message:
                    states.append(json.loads(message["data"])["state"])
                if states[-1:] == ["done"]:
                    break
        # On a machine that is slow enough it is taken for lost in between, and accepted again.
        assert [state for state in states if state != "accepted"] == ["running", "done"]


def test_a_wrong_question_is_answered_400_and_a_client_too_many_503(start_gateway: StartGateway) -> None:
    with start_gateway(event_clients=1).client() as http:
        for field, name in (("run_id", "run_id"), ("job_id", "job_id"), ("state.0", "state")):
            answer = http.get(EVENTS, params={name: "../x"})
            assert answer.status_code == 400
            assert [problem["field"] for problem in answer.json()["problems"]] == [field]
        assert http.get(EVENTS, headers={"Last-Event-ID": "x"}).status_code == 400
        with http.stream("GET", EVENTS) as followed:
            assert followed.status_code == 200
            refused = http.get(EVENTS)
            assert refused.status_code == 503
            assert refused.json()["error"] == "TOO_MANY_CLIENTS"


def test_followers_do_not_keep_the_gateway_from_stopping(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    with gateway.client(limits=httpx.Limits(max_connections=10)) as http, ExitStack() as open_streams:
        for _ in range(5):
            answer = open_streams.enter_context(http.stream("GET", EVENTS))
            next(messages(answer))
        assert gateway.stop() in {0, -15}
    assert gateway.events("gateway.failed") == []
