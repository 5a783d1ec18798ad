"""What Flower's pages say of a task, in words for a person; its API keeps Celery's own."""

from __future__ import annotations

import re
from typing import Any

from flower.views.tasks import TasksView

#: Flower's columns that are shown, in this order, with our headings.
COLUMNS = {
    "name": "Task",
    "uuid": "First job",
    "state": "State",
    "args": "Jobs",
    "result": "How it ended",
    "kwargs": "First run",
    "received": "Received",
    "runtime": "Runtime",
    "worker": "Worker",
}
#: What the ledger says in a notification (``lua/ready.lua``).
_NOTIFICATION = re.compile(r".*, (\d+) job\(s\), run (.*?)(?:, request (.*))?")
#: How Celery tells of the exceptions by which our tasks end; of a retry the pools tell in two ways.
_OURS = re.compile(
    r"""(?:Retry\(Retry\(\.\.\.\), )?(?:JobDead|PutOff)\((['"])(.*)\1,?\)(?:, None\))?""", re.DOTALL
)
_QUOTED = re.compile(r"""(['"])(.*)\1""", re.DOTALL)


def readable(task: Any) -> Any:
    """Change Flower's copy of a task so that a page tells its jobs and how they ended; return it.

    The reason of a task that failed or was put off stands where the result of the others does. Where it is
    one of ours, Celery's exception and traceback are left out: they say where the task ended, which is
    always the same line.
    """
    if notification := _NOTIFICATION.fullmatch(task.args or ""):
        # Apart, for Flower cuts long cells; its messages have no keyword arguments.
        number, run_id, request_id = notification.groups()
        request = f", request {request_id}" if request_id else ""
        task.args, task.kwargs = f"{number} job{'s' * (number != '1')}{request}", f"run {run_id}"
    if task.state in {"FAILURE", "RETRY"}:
        ours = _OURS.fullmatch(task.exception or "")
        task.result = ours[2] if ours else task.exception
        if ours:
            task.exception = task.traceback = None
    elif quoted := _QUOTED.fullmatch(task.result or ""):
        task.result = quoted[2]
    return task


class TasksPage(TasksView):  # type: ignore[misc]  # Flower has no types
    """The page of tasks, under our headings."""

    def render(self, template: str, **values: Any) -> None:
        """Render Flower's own page."""
        if "columns" in values:
            values["columns"] = [(name, COLUMNS.get(name, heading)) for name, heading in values["columns"]]
        super().render(template, **values)
