"""Which list items are doorbells: those that ours are, and what Celery can use; nothing else."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kombu.serialization import loads as kombu_loads_body
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads as kombu_loads_item

from rmos_producer.embedded import EmbeddedServer
from rmos_shared.doorbell import Doorbell
from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.settings import BrokerSettings
from rmos_shared.tasks import ATTACH, CREATE, CREATE_MANY, SUGGEST, TASKS, TaskSpec
from rmos_worker.doorbell_shape import MAX_BELL_BYTES, Bell, NotABell, read_bell

JOB = "01a2081b2d907bd6a304d8afaaf693dc"
OTHER = "01a2081b2daa71fab6cab155d05434f5"

Ring = Callable[..., bytes]
Envelope = dict[str, Any]


@pytest.fixture(scope="module")
def ring(server: EmbeddedServer) -> Ring:
    """Ring with the real doorbell and return the list item that it left on the real server."""
    url = f"{server.url.removesuffix('/0')}/9"  # no other test's database

    def ring(spec: TaskSpec, job_ids: Iterable[str], *, again: bool = False) -> bytes:
        bells = Doorbell.connect(BrokerSettings.load(broker_url=url))
        try:
            assert bells.ring([(spec.name, job_id) for job_id in job_ids], again=again)
            with redis.Redis.from_url(url) as client:
                (item,) = client.lrange(spec.queue, 0, -1)
                client.delete(spec.queue)
        finally:
            bells.close()
        assert isinstance(item, bytes)
        return item

    return ring


@pytest.fixture(scope="module")
def good(ring: Ring) -> bytes:
    return ring(CREATE, [JOB])


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("spec", TASKS.values(), ids=TASKS)
def test_our_own_bells_pass(ring: Ring, spec: TaskSpec, *, again: bool) -> None:
    job_ids = tuple(new_uuid7() for _ in range(spec.ids_per_bell))
    assert read_bell(ring(spec, job_ids, again=again), spec.queue) == Bell(spec.name, job_ids)


def test_the_bell_of_a_following_job_passes(ring: Ring) -> None:
    job_id = explain_job_id(JOB)
    assert read_bell(ring(SUGGEST, [job_id]), SUGGEST.queue) == Bell(SUGGEST.name, (job_id,))


def test_the_largest_bell_is_far_below_the_limit(ring: Ring) -> None:
    item = ring(CREATE_MANY, [explain_job_id(new_uuid7()) for _ in range(100)])
    assert len(item) < MAX_BELL_BYTES / 4
    assert len(read_bell(item, CREATE_MANY.queue).job_ids) == 100


def test_a_bell_that_kombu_brought_back_passes(good: bytes) -> None:
    envelope = json.loads(good)
    envelope["headers"]["redelivered"] = True
    envelope["properties"]["delivery_info"]["redelivered"] = True
    assert read_bell(pack(envelope), CREATE.queue) == Bell(CREATE.name, (JOB,))


# -- the table of what must not pass --------------------------------------------------------------


def pack(envelope: Any) -> bytes:
    return json.dumps(envelope).encode()


def coded(body: bytes) -> str:
    return base64.b64encode(body).decode()


def args(job_ids: Any, *, kwargs: Any = None, **embed: Any) -> str:
    """Return a body with these arguments, as Celery writes it."""
    links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return coded(json.dumps([[job_ids], kwargs or {}, links | embed]).encode())


def at(*path: str, value: Any) -> Callable[[Envelope], None]:
    """Set the field at ``path``."""

    def edit(envelope: Envelope) -> None:
        for step in path[:-1]:
            envelope = envelope[step]
        envelope[path[-1]] = value

    return edit


def without(*path: str) -> Callable[[Envelope], None]:
    """Drop the field at ``path``."""

    def edit(envelope: Envelope) -> None:
        for step in path[:-1]:
            envelope = envelope[step]
        del envelope[path[-1]]

    return edit


def body(value: str) -> Callable[[Envelope], None]:
    return at("body", value=value)


#: What is wrong -> the edit that makes it so, and the part that must be named.
EDITS: dict[str, tuple[Callable[[Envelope], None], str]] = {
    "unknown_task": (at("headers", "task", value="runs.nothing"), "headers.task is not a task"),
    "task_is_a_list": (at("headers", "task", value=["runs.create"]), "headers.task"),
    "task_missing": (without("headers", "task"), "headers.task is missing"),
    "task_of_another_queue": (at("headers", "task", value=SUGGEST.name), "belongs to another queue"),
    "id_missing": (without("headers", "id"), "headers.id is missing"),
    "id_empty": (at("headers", "id", value=""), "headers.id"),
    "id_is_a_number": (at("headers", "id", value=5), "headers.id"),
    "headers_null": (at("headers", value=None), "envelope.headers"),
    "headers_missing": (without("headers"), "envelope.headers is missing"),
    "headers_surprise": (at("headers", "surprise", value=1), "headers holds a field"),
    "eta_bad": (at("headers", "eta", value="soon"), "headers.eta"),
    "eta_far": (at("headers", "eta", value="2999-01-01T00:00:00+00:00"), "headers.eta"),
    "eta_past": (at("headers", "eta", value="1999-01-01T00:00:00+00:00"), "headers.eta"),
    "expired": (at("headers", "expires", value="1999-01-01T00:00:00+00:00"), "headers.expires"),
    "expires_later": (at("headers", "expires", value="2999-01-01T00:00:00+00:00"), "headers.expires"),
    "retried_by_celery": (at("headers", "retries", value=1), "headers.retries"),
    "retries_is_false": (at("headers", "retries", value=False), "headers.retries"),
    "time_limit": (at("headers", "timelimit", value=[1, 1]), "headers.timelimit"),
    "in_a_group": (at("headers", "group", value="g"), "headers.group"),
    "stamped": (at("headers", "stamps", value={"a": 1}), "headers.stamps"),
    "pickle": (at("content-type", value="application/x-python-serialize"), "envelope.content-type"),
    "yaml": (at("content-type", value="application/x-yaml"), "envelope.content-type"),
    "data": (at("content-type", value="application/data"), "envelope.content-type"),
    "binary": (at("content-encoding", value="binary"), "envelope.content-encoding"),
    "compressed": (at("headers", "compression", value="application/x-gzip"), "headers holds a field"),
    "properties_null": (at("properties", value=None), "envelope.properties"),
    "delivery_info_null": (at("properties", "delivery_info", value=None), "properties.delivery_info"),
    "delivery_tag_missing": (without("properties", "delivery_tag"), "properties.delivery_tag is missing"),
    # Redis takes no lone surrogate, so kombu could not write this one among the unacknowledged.
    "delivery_tag_surrogate": (at("properties", "delivery_tag", value="\ud800"), "properties.delivery_tag"),
    "id_surrogate": (at("headers", "id", value="\ud800"), "headers.id"),
    "named_exchange": (at("properties", "delivery_info", "exchange", value="x"), "delivery_info.exchange"),
    "routed_elsewhere": (
        at("properties", "delivery_info", "routing_key", value=SUGGEST.queue),
        "delivery_info.routing_key is another queue",
    ),
    "body_not_base64": (body("%%%"), "body is not base64"),
    "body_not_ascii": (body("é"), "body is not base64"),
    "body_plain_encoding": (at("properties", "body_encoding", value=None), "properties.body_encoding"),
    "body_is_no_text": (at("body", value=[]), "envelope.body"),
    "body_empty": (body(""), "body is not plain JSON"),
    "body_bad_json": (body(coded(b"[[")), "body is not plain JSON"),
    "body_pickled": (body(coded(b"\x80\x04N.")), "body is not plain JSON"),
    "body_utf16": (body(coded(json.dumps([[[JOB]], {}, {}]).encode("utf-16"))), "body is not plain JSON"),
    "body_5": (body(coded(b"5")), "body is not [[job ids]"),
    "body_null": (body(coded(b"null")), "body is not [[job ids]"),
    "body_two_elements": (body(coded(json.dumps([[[JOB]], {}]).encode())), "body is not [[job ids]"),
    "body_nested": (body(coded(b"[" * 30_000)), "body is not plain JSON"),
    "body_key_twice": (body(coded(b'[[["x"]],{},{"chain":null,"chain":null}]')), "body is not plain JSON"),
    "arguments_no_list": (body(coded(b'[5,{},{"callbacks":null}]')), "body is not [[job ids]"),
    "ids_no_list": (body(args(JOB)), "body is not [[job ids]"),
    "two_arguments": (body(coded(json.dumps([[[JOB], 1], {}, {}]).encode())), "body is not [[job ids]"),
    "keyword_argument": (body(args([JOB], kwargs={"a": 1})), "body is not [[job ids]"),
    "callback": (body(args([JOB], callbacks=[{"task": "runs.create"}])), "embed.callbacks"),
    "chain": (body(args([JOB], chain=[])), "embed.chain"),
    "embed_surprise": (body(args([JOB], surprise=None)), "embed holds a field"),
    "no_ids": (body(args([])), "1 to 1 job ids"),
    "too_many_ids": (body(args([JOB, OTHER])), "1 to 1 job ids"),
    "id_is_null": (body(args([None])), "no job id"),
    "id_is_no_job_id": (body(args(["../etc/passwd"])), "no job id"),
    "id_with_newline": (body(args([JOB + "\n"])), "no job id"),
}
#: Items that are no edited envelope at all.
ITEMS: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"garbage",
    "number": b"5",
    "null": b"null",
    "list": b"[]",
    "empty_object": b"{}",
    "not_utf8": b'{"body": "\xff"}',
    "endless_number": b'{"body": ' + b"9" * 5_000 + b"}",
    "nested": b"[" * 60_000,
    "nested_100_000": b"[" * 100_000 + b"]" * 100_000,
    "huge": b"x" * 50_000_000,
}


@pytest.mark.parametrize(("edit", "named"), EDITS.values(), ids=EDITS)
def test_malformed_envelopes_are_refused_by_name(
    good: bytes, edit: Callable[[Envelope], None], named: str
) -> None:
    envelope = json.loads(good)
    edit(envelope)
    with pytest.raises(NotABell) as refused:
        read_bell(pack(envelope), CREATE.queue)
    assert named in str(refused.value)


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_what_is_no_envelope_is_refused(item: bytes) -> None:
    with pytest.raises(NotABell):
        read_bell(item, CREATE.queue)


def test_a_giant_is_refused_unparsed(good: bytes) -> None:
    envelope = json.loads(good)
    envelope["headers"]["origin"] = "x" * MAX_BELL_BYTES
    with pytest.raises(NotABell, match="larger than 65536 bytes"):
        read_bell(pack(envelope), CREATE.queue)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_only_utf8_without_a_mark_passes(good: bytes, encoding: str) -> None:
    # json.loads would take each of these; kombu takes none, and its worker would end.
    with pytest.raises(NotABell, match="envelope is not plain JSON"):
        read_bell(good.decode().encode(encoding), CREATE.queue)


def test_bytes_of_a_lone_surrogate_are_refused(good: bytes) -> None:
    with pytest.raises(NotABell, match="envelope is not plain JSON"):
        read_bell(good.replace(b'"gen', b'"\xed\xa0\x80gen', 1), CREATE.queue)


@pytest.mark.parametrize("name", [b'"body"', b'"task"', b'"delivery_tag"', b'"routing_key"'])
def test_a_key_twice_is_refused(good: bytes, name: bytes) -> None:
    # Two readers of such an object may see two different messages.
    twice = good.replace(name + b": ", name + b': "x", ' + name + b": ", 1)
    assert twice != good
    with pytest.raises(NotABell, match="envelope is not plain JSON"):
        read_bell(twice, CREATE.queue)


def test_a_bulk_bell_has_1_to_100_different_ids(ring: Ring) -> None:
    envelope = json.loads(ring(CREATE_MANY, [JOB]))
    hundred = [new_uuid7() for _ in range(100)]
    for job_ids, refused in {
        (*hundred, JOB): "1 to 100 job ids",
        (): "1 to 100 job ids",
        (JOB, OTHER, JOB): "job id twice",
    }.items():
        envelope["body"] = args(job_ids)
        with pytest.raises(NotABell, match=refused):
            read_bell(pack(envelope), CREATE_MANY.queue)
    envelope["body"] = args(hundred)
    assert read_bell(pack(envelope), CREATE_MANY.queue).job_ids == tuple(hundred)


def test_a_bell_on_another_queue_is_refused(ring: Ring) -> None:
    for spec in (CREATE, CREATE_MANY, SUGGEST, ATTACH):
        for queue in {other.queue for other in TASKS.values()} - {spec.queue}:
            with pytest.raises(NotABell, match="another queue"):
                read_bell(ring(spec, [JOB]), queue)


def test_refusals_quote_nothing_of_the_message(good: bytes) -> None:
    for path in [("headers", "s3cret"), ("properties", "s3cret"), ("s3cret",)]:
        envelope = json.loads(good)
        at(*path, value="s3cret")(envelope)
        with pytest.raises(NotABell) as refused:
            read_bell(pack(envelope), CREATE.queue)
        assert "s3cret" not in str(refused.value)


# -- whatever is done to a good one ---------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(["id", "task", "eta", "redelivered", "body", "__type__", "x"]) | st.text(max_size=4)


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Return every place (container, key or index) of a JSON value, at any depth."""
    steps: Iterable[Any]
    match value:
        case dict():
            steps = list(value)
        case list():
            steps = range(len(value))
        case _:
            return []
    return [(value, step) for step in steps] + [spot for step in steps for spot in spots(value[step])]


def containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(found for item in inner for found in containers(item))]


def mutate(data: st.DataObject, whole: Any) -> None:
    """Drop, replace or add one thing somewhere inside ``whole``."""
    how = data.draw(st.sampled_from(["drop", "replace", "add"]))
    if how == "add":
        container = data.draw(st.sampled_from(containers(whole)))
        if isinstance(container, dict):
            container[data.draw(FIELDS)] = data.draw(VALUES)
        else:
            container.insert(data.draw(st.integers(0, len(container))), data.draw(VALUES))
        return
    places = spots(whole)
    if not places:
        return
    container, step = data.draw(st.sampled_from(places))
    if how == "drop":
        del container[step]
    else:
        container[step] = data.draw(VALUES)


def as_celery_reads_it(item: bytes) -> Bell:
    """Decode with kombu's own functions, as its channel and Celery's consumer do."""
    envelope = kombu_loads_item(bytes_to_str(item))
    content = base64.b64decode(envelope["body"])
    job_ids, _, _ = kombu_loads_body(
        content, envelope["content-type"], envelope["content-encoding"], accept={"application/json"}
    )
    envelope["properties"]["delivery_tag"].encode()
    return Bell(envelope["headers"]["task"], tuple(job_ids[0]))


def assert_safe(item: bytes) -> Bell | None:
    """A refusal is fine; a bell must be what Celery, too, will make of these bytes."""
    try:
        bell = read_bell(item, CREATE.queue)
    except NotABell:
        return None
    assert as_celery_reads_it(item) == bell
    return bell


MUTATIONS = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@MUTATIONS
@given(data=st.data(), times=st.integers(1, 3))
def test_an_edited_envelope_is_the_same_bell_or_none(good: bytes, data: st.DataObject, times: int) -> None:
    envelope = json.loads(good)
    for _ in range(times):
        mutate(data, envelope)
    if (bell := assert_safe(pack(envelope))) is not None:
        assert bell == Bell(CREATE.name, (JOB,))


@MUTATIONS
@given(data=st.data(), times=st.integers(1, 3))
def test_an_edited_body_is_the_same_bell_or_none(good: bytes, data: st.DataObject, times: int) -> None:
    envelope = json.loads(good)
    content = json.loads(base64.b64decode(envelope["body"]))
    before = copy.deepcopy(content)
    for _ in range(times):
        mutate(data, content)
    envelope["body"] = coded(json.dumps(content).encode())
    bell = assert_safe(pack(envelope))
    assert (bell is not None) == (content == before)


@MUTATIONS
@given(flips=st.dictionaries(st.integers(0, 10_000), st.integers(1, 255), min_size=1, max_size=4))
@example(flips={0: 0x90})
def test_flipped_bytes_are_never_more_than_refused(good: bytes, flips: dict[int, int]) -> None:
    item = bytearray(good)
    for place, mask in flips.items():
        item[place % len(item)] ^= mask
    assert_safe(bytes(item))


@MUTATIONS
@given(item=st.binary(max_size=200))
def test_random_bytes_are_refused(item: bytes) -> None:
    assert assert_safe(item) is None


@MUTATIONS
@given(start=st.integers(0, 10_000), length=st.integers(1, 10_000))
def test_a_cut_message_is_refused(good: bytes, start: int, length: int) -> None:
    start %= len(good)
    assert assert_safe(good[:start] + good[start + length :]) in {None, Bell(CREATE.name, (JOB,))}
