"""The commands of ``rmos``: where each one is, and what it does in one line.

The root's help is made of these lines alone, and each command's own help opens with its line: the docstring
of the function goes on from there.
"""

from __future__ import annotations

#: Name -> ``module:attribute`` in this folder, summary. Nothing is imported before it is called by its name.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo:demo", "Record, explain and judge a file of requests, end to end."),
    "enqueue": ("enqueue:enqueue", "Create a run for each line of FILE."),
    "suggest": ("enqueue:suggest", "Explain runs and link the explanations."),
    "attach": ("enqueue:attach", "Link an existing advisory to a run."),
    "up": ("up:up", "Run all processes of the Procfile until stopped."),
    "advisory-store": ("up:advisory_store", "Run the reference advisory store alone."),
    "doctor": ("doctor:doctor", "Check that all is as the guarantees need it."),
    "jobs": ("jobs:app", "The job ledger."),
    "runs": ("runs:app", "The stored runs."),
    "store": ("store:app", "The directory that holds the artifacts."),
    "dlq": ("dlq:app", "The dead letters: jobs and messages that could not be done."),
    "reviews": ("reviews:app", "The review queue."),
}
