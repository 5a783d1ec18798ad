"""Dead letters as a file, for a ticket or a script: one a line."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from rmos_runs.operations.dead_letters import died_at, id_of, kind_of
from rmos_runs.operations.flat_log import harmless
from rmos_runs.operations.letter_groups import place_of
from rmos_shared.jobs.dead_letters import DeadLetters
from rmos_shared.jobs.model import JobRecord, RawLetter
from rmos_shared.models.base import format_utc

LetterForm = Literal["csv", "jsonl"]
COLUMNS = (
    *("id", "kind", "queue", "run_id", "request_id", "reason", "error_type", "message", "place"),
    *("died_at_utc", "first_failed_at_utc", "accepted_at_utc", "retry_count", "crash_count"),
)
#: Beside them, where payloads are asked for: as text where it is UTF-8, else in base64.
PAYLOAD_COLUMNS = ("payload", "payload_base64")


def exported(
    letters: Iterable[JobRecord | RawLetter], source: DeadLetters, form: LetterForm, *, payloads: bool
) -> Iterator[bytes]:
    """Yield the letters in their order, a line a piece; memory holds one letter.

    CSV has the columns, after a line of their names; JSON lines have the same fields and the ``history``. The
    payload of a letter is in it only with ``payloads``: it may be confidential.

    Raises:
        BrokerUnavailable: the broker went away; what was yielded is cut short.
    """
    rows = (_row(letter, source, payloads=payloads) for letter in letters)
    if form == "jsonl":
        for row in rows:
            yield json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        return
    names = COLUMNS + (PAYLOAD_COLUMNS if payloads else ())
    yield _line(names)
    for row in rows:
        yield _line(harmless(row[name]) for name in names)


def _row(letter: JobRecord | RawLetter, source: DeadLetters, *, payloads: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "id": id_of(letter),
        "kind": kind_of(letter),
        "queue": letter.queue,
        "died_at_utc": format_utc(died_at(letter)),
        "history": letter.history,
    }
    if isinstance(letter, RawLetter):
        row |= {"reason": letter.reason, "message": letter.detail}
    else:
        failure, first = letter.failure, letter.first_failed_at_utc
        row |= {
            "run_id": letter.run_id,
            "request_id": letter.request_id,
            "reason": failure and failure.reason,
            "error_type": failure and failure.error_type,
            "message": failure and failure.message,
            "place": failure and place_of(failure.traceback),
            "first_failed_at_utc": None if first is None else format_utc(first),
            "accepted_at_utc": format_utc(letter.accepted_at_utc),
            "retry_count": letter.retry_count,
            "crash_count": letter.crash_count,
        }
    return row | _payload(letter, source) if payloads else row


def _payload(letter: JobRecord | RawLetter, source: DeadLetters) -> dict[str, str | None]:
    data = source.payload(letter.job_id) if isinstance(letter, JobRecord) else source.raw_item(letter.raw_id)
    try:
        return {"payload": (data or b"").decode(), "payload_base64": None}
    except UnicodeDecodeError:
        return {"payload": None, "payload_base64": base64.b64encode(data or b"").decode()}


def _line(values: Iterable[object]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(values)
    return buffer.getvalue().encode()
