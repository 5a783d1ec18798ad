"""What the load has sent, on disk before and after: the truth that the audit holds the pipeline to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Sent:
    """One run that the load means to have stored."""

    run_id: str
    #: Which of the sample requests it is.
    sample: int
    feasibility_sha256: str


@dataclass(slots=True)
class Told:
    """What a journal holds."""

    intents: dict[str, Sent] = field(default_factory=dict)
    #: Job ids by run: more than one where an answer was lost and the run was sent again.
    receipts: dict[str, list[str]] = field(default_factory=dict)
    finished: bool = False

    @property
    def open(self) -> list[Sent]:
        """Runs whose acceptance nobody has confirmed."""
        return [sent for run_id, sent in self.intents.items() if run_id not in self.receipts]


class Journal:
    """Appends lines, each in the file before the method returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # A line that an earlier writer was killed in ends here.
        os.write(self._file, b"\n")

    def intend(self, batch: list[Sent]) -> None:
        self._write(
            {"intent": sent.run_id, "sample": sent.sample, "sha256": sent.feasibility_sha256}
            for sent in batch
        )

    def receive(self, run_id: str, job_id: str) -> None:
        self._write([{"receipt": run_id, "job_id": job_id}])

    def finish(self) -> None:
        self._write([{"finished": True}])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _write(self, lines: Any, *, sync: bool = True) -> None:
        os.write(self._file, "".join(json.dumps(line) + "\n" for line in lines).encode())
        if sync:
            os.fdatasync(self._file)


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal, which may not be there yet."""
    for line in path.read_bytes().splitlines() if path.exists() else []:
        # Torn by a kill: what it said was not said.
        with suppress(ValueError):
            yield json.loads(line)


def read_journal(path: Path) -> Told:
    told = Told()
    for entry in entries(path):
        if "intent" in entry:
            told.intents[entry["intent"]] = Sent(entry["intent"], entry["sample"], entry["sha256"])
        elif "receipt" in entry:
            told.receipts.setdefault(entry["receipt"], []).append(entry["job_id"])
        elif "finished" in entry:
            told.finished = True
    return told
