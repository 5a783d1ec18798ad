"""A line of a log: all ids, for machines or for eyes, and nothing that an exception of others quotes."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rmos_shared.errors import StoreUnavailable
from rmos_shared.telemetry.events import Event, FileCorrupt, JobDead
from rmos_shared.telemetry.log import EventMessage
from rmos_shared.telemetry.log_output import LineHandler, configure_logs, is_for_eyes, log_formatter
from rmos_shared.telemetry.scope import Scope, busy_with

SECRET = "spruce-top-of-a-customer"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DEAD = JobDead(
    task="runs.create", job_id="j1", run_id="r1", request_id=None, reason="conflict", error="ArtifactConflict"
)


def record(message: object, *, error: BaseException | None = None, name: str = "rmos") -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord(name, logging.WARNING, "file.py", 1, message, (), info)


def line(event: Event | str, error: BaseException | None = None, *, for_eyes: bool = False) -> str:
    message = EventMessage(event) if isinstance(event, Event) else event
    return log_formatter(for_eyes=for_eyes).format(record(message, error=error))


def fields(event: Event | str, error: BaseException | None = None) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(line(event, error))
    return told


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # noqa: TRY301 - for its traceback
    except BaseException as caught:  # noqa: BLE001 - whatever the test made
        return caught


def test_a_line_for_machines_has_the_event_and_the_ids_at_hand() -> None:
    with busy_with(Scope("j2", "r2", "req-2", CALLER)):
        told = fields(FileCorrupt(file="2026-01-01/r2.json", reason="is no JSON"))
        about_another = fields(DEAD)
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "event": "file.corrupt",
        "file": "2026-01-01/r2.json",
        "reason": "is no JSON",
        "level": "warning",
        "logger": "rmos",
        "job_id": "j2",
        "run_id": "r2",
        "request_id": "req-2",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    assert (about_another["job_id"], about_another["run_id"]) == ("j1", "r1"), "an event knows best"
    assert "trace_id" not in fields(DEAD)


def test_a_line_of_a_library_has_the_ids_too() -> None:
    with busy_with(Scope("j2")):
        assert fields("a line of its own")["job_id"] == "j2"


def test_a_line_for_eyes_has_the_same_in_words_and_no_colours_unasked() -> None:
    with busy_with(Scope(traceparent=CALLER)):
        told = line(DEAD, for_eyes=True)
    words = told.split()
    assert words[1:4] == ["[warning", "]", "job.dead"]
    assert {"job_id=j1", "run_id=r1", "reason=conflict", f"trace_id={CALLER.split('-')[1]}"} <= {*words}
    assert "None" not in told
    assert "\x1b" not in told
    assert "\x1b[" in log_formatter(for_eyes=True, colors=True).format(record(EventMessage(DEAD)))


def test_nothing_in_a_line_steers_a_terminal_or_forges_another_line() -> None:
    evil = "2026\x1b[2J\r\njob.finished \x9b31m \u202e"
    told = line(FileCorrupt(file=evil, reason=evil), for_eyes=True) + line(evil, for_eyes=True)
    assert all(char.isprintable() for char in told)
    assert "\\x1b[2J\\r\\njob.finished" in told
    assert line(FileCorrupt(file=evil, reason=evil)).isprintable()


def test_an_exception_is_told_by_place_and_class_and_never_by_what_it_quotes() -> None:
    inner = raised(KeyError(SECRET))
    told = fields(DEAD, raised(ValueError(f"cannot read {SECRET}"), inner))["exception"]
    assert "test_log_output.py" in told
    assert told.splitlines()[-1] == "KeyError"
    assert "\nValueError\ncaused by:\nTraceback (most recent call last):\n" in told
    for error in (
        OSError(28, SECRET),
        OSError(SECRET),
        BaseExceptionGroup(SECRET, [ValueError(SECRET)]),
        UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET),
    ):
        for for_eyes in (True, False):
            assert SECRET not in line("a bug", raised(error), for_eyes=for_eyes), error
    assert fields("x", raised(OSError(28, SECRET)))["exception"].endswith("OSError: No space left on device")
    ours = raised(StoreUnavailable("the disk is full"))
    assert fields("x", ours)["exception"].endswith("StoreUnavailable: the disk is full")


def test_causes_that_go_in_a_circle_end() -> None:
    error = raised(ValueError())
    error.__cause__ = error
    assert fields("x", error)["exception"].count("ValueError") == 5


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    quiet = {name: logging.getLogger(name).level for name in ("httpx", "opentelemetry")}
    yield logger
    logging.captureWarnings(capture=False)
    logger.handlers[:] = handlers
    logger.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def test_setting_up_replaces_what_was_there_and_quiets_libraries(
    root: logging.Logger, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = (tmp_path / "log").open("w")
    monkeypatch.setattr(sys, "stderr", stream)
    root.addHandler(logging.NullHandler())
    configure_logs("json", "ERROR")
    (handler,) = root.handlers
    assert isinstance(handler, LineHandler)
    assert root.level == logging.ERROR
    assert logging.getLogger("opentelemetry.sdk").getEffectiveLevel() == logging.CRITICAL
    stream.close()


@pytest.mark.parametrize(
    ("log_format", "terminal", "for_eyes"),
    [("auto", True, True), ("auto", False, False), ("json", True, False), ("console", False, True)],
)
def test_who_a_line_is_for(
    *, log_format: Any, terminal: bool, for_eyes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert is_for_eyes(log_format) is for_eyes


def test_a_line_that_cannot_be_written_or_made_is_lost_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (full, writer):
        handler = LineHandler(descriptor)
        handler.setFormatter(log_formatter(for_eyes=False))
        handler.handle(record(EventMessage(DEAD)))
        os.close(descriptor)
        handler.handle(record(EventMessage(DEAD)))  # a descriptor that is closed by now
    assert capsys.readouterr().err == ""


def test_a_line_is_written_in_one_piece(tmp_path: Any) -> None:
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    handler = LineHandler(descriptor)
    handler.setFormatter(log_formatter(for_eyes=False))
    handler.handle(record("x" * 100_000 + "\udcff"))
    os.close(descriptor)
    (told,) = file.read_text().splitlines()
    assert len(json.loads(told)["event"]) == 100_001
