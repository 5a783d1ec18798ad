"""Broadcasts: control messages and events. They come by pub/sub, so the gate never sees them.

Celery believes what it reads there: a control message of another shape ends the worker, an event of such
shape stops Flower for a while, or stays in its memory and breaks pages from then on (docs/celery.md). So each
message is read here first, as Celery would read it, and dropped when Celery itself would never have sent it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from kombu.matcher import match
from kombu.pidbox import Node
from kombu.transport.redis import Channel, Transport
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from pydantic import Field, model_validator

from rmos_shared.models.base import Frozen
from rmos_shared.tasks.table import QUEUES
from rmos_shared.telemetry.events import BroadcastDropped, ControlFailed
from rmos_shared.telemetry.log import emit

_JSON = frozenset({"application/json"})
#: What a signed integer of 64 bits holds: clocks are compared and counted on.
_Clock = Annotated[int, Field(ge=0, lt=2**63 - 1)]
_Number = Annotated[float, Field(ge=0, le=1e9)]
#: Of processes or threads that one command may add or take away.
_Few = Annotated[int, Field(ge=0, le=100)]


class _Envelope(Frozen):
    """What of a message's headers Celery reckons with."""

    clock: _Clock | None


class _Arguments(Frozen):
    """Every argument that some control command takes; others, and other types, are for none of ours."""

    ids: str | list[str] | None = None
    task_id: str | list[str] | None = None
    task_name: str | None = None
    terminate: bool = False
    signal: str | int | None = None
    headers: dict[str, Any] | None = None
    rate_limit: _Number | Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?(/[smh])?$")] | None = None
    hard: _Number | None = None
    soft: _Number | None = None
    n: _Few = 1
    min: _Few | None = None
    max: _Few | None = None
    msg: str | None = None
    # Celery consumes or leaves a queue later, where nothing catches what a strange one raises.
    queue: Literal[QUEUES] | None = None  # type: ignore[valid-type]  # mypy knows no computed literal
    exchange: None = None
    exchange_type: Literal["direct"] | None = None
    routing_key: None = None
    with_defaults: bool = False
    safe: bool = False
    taskinfoitems: list[str] | None = None
    builtins: bool = False
    from_node: str | None = None
    revoked: dict[str, float | None] | None = None
    type: str | None = None
    num: _Few | None = None
    max_depth: _Few | None = None
    samples: _Few | None = None


class _ReplyTo(Frozen):
    exchange: Literal["reply.celery.pidbox"]
    routing_key: str


class _Control(Frozen):
    """A control message, as ``kombu.pidbox.Mailbox`` sends it."""

    method: str
    arguments: _Arguments | None = None
    destination: list[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: _ReplyTo | None = None

    @model_validator(mode="after")
    def _can_match(self) -> _Control:
        if self.pattern is not None and self.matcher is not None:
            match("", self.pattern, self.matcher)  # type: ignore[arg-type]  # the stubs are wrong
        return self


class _Event(Frozen):
    """An event with every field that Celery's workers send; Flower reckons, sorts and counts with them."""

    type: Annotated[str, Field(pattern=r"^(task|worker)-[a-z]+$")]
    hostname: str
    timestamp: Annotated[float, Field(ge=0, le=1e12)]
    clock: _Clock | None = None
    utcoffset: Annotated[float, Field(ge=-24, le=24)]
    pid: int
    uuid: str | None = None
    name: str | None = None
    args: str | None = None
    kwargs: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    retries: int | None = None
    eta: str | None = None
    expires: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    result: str | None = None
    runtime: _Number | None = None
    exception: str | None = None
    traceback: str | None = None
    requeue: bool | None = None
    terminated: bool | None = None
    signum: int | str | None = None
    expired: bool | None = None
    freq: _Number | None = None
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None

    @model_validator(mode="after")
    def _of_a_task(self) -> _Event:
        if self.type.startswith("task-") and self.uuid is None:
            raise ValueError("an event of no task")
        return self


def _check_body(exchange: str, body: Any) -> None:
    if exchange == "celeryev":
        for event in body if isinstance(body, list) else [body]:
            _Event.read(event)
    else:
        _Control.read(body)


class CheckedBroadcasts(Channel):
    """Drops the broadcasts that cannot be read, each with one line in the log and none of its words."""

    def _handle_message(self, client: Any, r: Any) -> dict[str, Any]:
        # kombu's own step between the socket and the reading; no data, and it goes on to the next message.
        message: dict[str, Any] = super()._handle_message(client, r)  # type: ignore[misc]  # the stubs lack it
        if bytes_to_str(message["type"]).endswith("message"):
            exchange = bytes_to_str(message["channel"]).partition(".")[2].partition("/")[0]
            try:
                self._check(exchange, message["data"])
            except Exception as error:  # noqa: BLE001 - it may be anything, and so may what it raises
                emit(BroadcastDropped(exchange=exchange, error=type(error).__name__))
                message["data"] = None
        return message

    def _check(self, exchange: str, data: Any) -> None:
        message = self.Message(loads(bytes_to_str(data)), channel=self)
        message.accept = _JSON
        if message.errors:
            message._reraise_error()  # noqa: SLF001 - as kombu's own consumer does
        _Envelope.read({"clock": message.headers.get("clock")})
        _check_body(exchange, message.decode())


class CheckedTransport(Transport):
    """Celery's Redis transport with checked broadcasts, for those who consume no jobs."""

    Channel = CheckedBroadcasts


class ControlNode(Node):
    """Answers a command that fails with the class of its error; kombu would log all that was sent with it."""

    def handle(self, method: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run the command."""
        try:
            return super().handle(method, arguments)
        except Exception as error:  # noqa: BLE001 - a command must not end the worker
            known = method if method in (self.handlers or {}) else "unknown"
            emit(ControlFailed(method=known, error=type(error).__name__))
            return {"error": f"{type(error).__name__}; see the worker's log"}
