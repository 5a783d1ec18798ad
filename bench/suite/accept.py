"""Accepting many jobs from one producer, against sending the same payloads with nothing kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import redis
from kombu import Connection, Producer

from lib.ratio import Mark, compare
from lib.result import Section
from lib.scene import requests_of, scene
from lib.size import Size
from peers.celery_app import QUEUE
from rmos_runs import RunsClient
from rmos_shared.settings.broker import BrokerSettings
from rmos_worker.celery_app.broker import celery_config

_GROUP = 100
_BATCH = 500
_NAME = "accept, one producer, streamed"


def section(scratch: Path, size: Size) -> Section:
    """Compare on one server, emptied before each reference is met."""
    requests = requests_of(size.accept_jobs)
    with (
        scene(scratch) as place,
        RunsClient.connect(broker_url=place.url) as client,
        redis.Redis.from_url(place.url) as server,
    ):

        def ours() -> None:
            for _ in client.create_runs(requests):
                pass

        ours()
        references: list[tuple[Mark, Callable[[], object]]] = [
            (
                Mark("accept-celery", _NAME, "`apply_async` loop, same payloads", 10, "jobs/s"),
                _apply_async(place.url, requests),
            ),
            (
                Mark(
                    "accept-kombu",
                    _NAME,
                    "kombu's bare producer batch, same payloads",
                    1.4,
                    "jobs/s",
                    aim=2,
                ),
                _producer_batch(place.url, requests),
            ),
            (
                Mark("accept-redis", _NAME, "a bare redis-py pipeline, same bytes", 0.5, "jobs/s"),
                _pipeline(server, size.accept_jobs),
            ),
        ]
        rows = []
        for mark, reference in references:
            rows.append(compare(mark, ours, reference, amount=size.accept_jobs, rounds=size.rounds))
            server.flushall()
    return Section(rows)


def _apply_async(url: str, requests: Sequence[dict[str, Any]]) -> Callable[[], object]:
    # Here, not above: this app is made from the address of this very server.
    from celery import Celery  # noqa: PLC0415

    app = Celery(set_as_current=False)
    app.conf.update(celery_config(BrokerSettings.load(broker_url=url)))

    @app.task(name="bench.create", queue=QUEUE)
    def create(request: dict[str, Any]) -> None:
        raise NotImplementedError(request)

    return lambda: [create.apply_async((request,)) for request in requests]


def _producer_batch(url: str, requests: Sequence[dict[str, Any]]) -> Callable[[], object]:
    connection = Connection(url)

    def send() -> None:
        with Producer(connection) as producer, producer.batch(_BATCH):  # type: ignore[attr-defined]  # the stubs lack it
            for request in requests:
                producer.publish(request, routing_key=QUEUE, exchange="", serializer="json")

    return send


def _pipeline(server: redis.Redis, jobs: int) -> Callable[[], object]:
    """Return a loop that writes what ours left on the server: a command per key, a sync per 100 jobs."""
    commands = [command for key in server.scan_iter(count=10_000) for command in _commands(server, key)]
    step = -(-len(commands) * _GROUP // jobs)
    groups = [commands[start : start + step] for start in range(0, len(commands), step)]

    def write() -> None:
        for group in groups:
            with server.pipeline() as pipeline:
                for command in group:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                pipeline.execute()

    return write


def _commands(server: redis.Redis, key: bytes) -> list[list[Any]]:
    copy = b"copy:" + key
    match server.type(key):
        case b"hash":
            return [[b"HSET", copy, *(part for pair in server.hgetall(key).items() for part in pair)]]
        case b"list":
            return [[b"RPUSH", copy, *server.lrange(key, 0, -1)]]
        case b"set":
            return [[b"SADD", copy, *server.smembers(key)]]
        case b"zset":
            pairs = cast("list[tuple[bytes, float]]", server.zrange(key, 0, -1, withscores=True))
            return [[b"ZADD", copy, *(part for member, score in pairs for part in (repr(score), member))]]
        case b"stream":
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", server.xrange(key))
            return [
                [b"XADD", copy, b"*", *(part for pair in entry.items() for part in pair)]
                for _, entry in entries
            ]
        case _:
            return [[b"SET", copy, server.get(key)]]
