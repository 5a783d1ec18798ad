"""The requests of a file, one JSON object a line, as jobs: the same ones each time that the file is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO, Any

from rmos_runs.jobs import Explain, prepare_run
from rmos_runs.receipt import Prepared
from rmos_shared.canonical import encode
from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.ids import new_uuid7, uuid7_time
from rmos_shared.runs.model import RunRequest
from rmos_shared.tasks.table import TaskSpec

#: JSON in ASCII alone writes a character of two bytes in six, so a payload that fits may come so much longer.
_ESCAPED = 3
#: Room for the white space of an ordinary writer around a payload of the largest size.
_SLACK_BYTES = 65_536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LineIds:
    """Gives requests without a run id one that their content decides, and their time.

    The time is the request's own ``created_at_utc``, or ``moment``: a request that has neither keeps the
    random id that it got, and ``random`` counts it. Of equal requests in one file each is a run of its own,
    told apart by their order. Some 100 bytes are held for each such line.
    """

    def __init__(self, moment: datetime | None) -> None:
        """Use ``moment``, which must be the same at every reading of the file."""
        self.moment = moment
        self.random = 0
        self._seen: set[bytes] = set()
        self._again: dict[bytes, int] = {}

    def settle(self, request: RunRequest, line: dict[str, Any]) -> RunRequest:
        """Return the request with the id that it has at every reading; ``line`` is what it was read from."""
        if line.get("run_id") is not None:
            return request
        if line.get("created_at_utc") is not None:
            run_id = new_uuid7(request.created_at_utc, noise=self._noise(line))
            return request.model_copy(update={"run_id": run_id})
        if self.moment is None:
            self.random += 1
            return request
        run_id = new_uuid7(max(_EPOCH, self.moment), noise=self._noise(line))
        return request.model_copy(update={"run_id": run_id, "created_at_utc": uuid7_time(run_id)})

    def _noise(self, line: dict[str, Any]) -> bytes:
        # Every value was checked when the request was read.
        digest = hashlib.sha256(encode(line)).digest()[:10]
        if digest not in self._seen:
            self._seen.add(digest)
            return digest
        self._again[digest] = self._again.get(digest, 0) + 1
        return hashlib.sha256(digest + b"%d" % self._again[digest]).digest()[:10]


def read_jobs(
    file: IO[bytes],
    spec: TaskSpec,
    *,
    explain: Explain,
    most_bytes: int,
    ids: LineIds,
    refuse: Callable[[int, InvalidRequest], None],
) -> Iterator[tuple[int, Prepared]]:
    """Yield the number and the job of each good line; call ``refuse`` for each other one.

    No more of a line is held than a request of ``most_bytes`` can need.
    """
    longest = _ESCAPED * most_bytes + _SLACK_BYTES
    for number, line in _lines(file, longest):
        if line is None:
            problem = FieldProblem("line", f"is longer than {longest} bytes; see RMOS_MAX_PAYLOAD_BYTES")
            refuse(number, InvalidRequest((problem,)))
        elif line.strip():
            try:
                data = _decode(line)
                request = ids.settle(RunRequest.read(data, what="request"), data)
                job = prepare_run(request, spec, explain=explain, most_bytes=most_bytes, derived=True)
            except InvalidRequest as error:
                refuse(number, error)
            else:
                yield number, job


def _lines(file: IO[bytes], longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number; None for one that is too long, of which the rest is passed by."""
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        whole = len(line) <= longest or line.endswith(b"\n")
        while not (whole or line.endswith(b"\n")) and (line := file.readline(_SLACK_BYTES)):
            pass
        yield number, line if whole else None


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        # The decoder's own text would quote the line.
        raise InvalidRequest((FieldProblem("line", "is not strict JSON"),)) from None


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and infinity are not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields
