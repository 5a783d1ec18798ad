"""Which events the index is told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from rmos_shared.index.notices import Notice
from rmos_shared.index.stream import StreamNotices, notice_of
from rmos_shared.tasks.table import TASKS


@dataclass(frozen=True)
class Event:
    event_id: str
    task: str
    run_id: str
    state: str


@pytest.mark.parametrize(
    ("task", "state", "expected"),
    [
        ("runs.create", "done", Notice("r", new=True)),
        ("runs.create_many", "done", Notice("r", new=True)),
        ("runs.create", "running", None),
        ("runs.create", "dead", None),
        ("runs.suggest_and_attach", "done", Notice("r", new=False)),
        ("runs.suggest_and_attach", "dead", Notice("r", new=False)),
        ("runs.suggest_and_attach", "waiting", None),
        ("runs.attach_advisory", "done", Notice("r", new=False)),
        ("runs.reexplain", "done", Notice("r", new=False)),
        ("batches.plan", "done", None),
        ("", "attached", Notice("r", new=False)),
        ("", "reviewed", Notice("r", new=False)),
        ("", "gap", None),
        ("unknown", "done", None),
    ],
)
def test_an_event_is_a_notice_when_a_file_came(task: str, state: str, expected: Notice | None) -> None:
    assert notice_of(Event("1-0", task, "r", state)) == expected
    assert expected is None or task in {"", *TASKS}


def test_each_event_is_read_once() -> None:
    asked: list[str] = []

    class Events:
        def position(self) -> str:
            return "5-0"

        def read(self, after: str, *, block_seconds: float = 0.0, most: int = 1_000) -> Sequence[Event]:
            assert block_seconds == 0.5
            assert most > 1
            asked.append(after)
            return [Event(f"{6 + len(asked)}-0", "runs.create", "r", "done")] if len(asked) < 3 else []

    notices = StreamNotices(Events())
    assert [len(notices.wait(0.5)) for _ in range(4)] == [1, 1, 0, 0]
    assert asked == ["5-0", "7-0", "8-0", "8-0"]
