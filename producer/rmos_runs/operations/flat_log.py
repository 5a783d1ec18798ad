"""The flat log: one row a run, 24 columns, for spreadsheets and scripts. Drawn from the artifacts alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from rmos_runs.operations.compare import rule_ids
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import CorruptArtifact
from rmos_shared.models.base import format_utc
from rmos_shared.runs import layout as keys
from rmos_shared.runs.files import RunFiles, parse_run
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.query import RunPage
from rmos_shared.runs.vocabulary import meta_text
from rmos_shared.store.base import ArtifactStore

LogForm = Literal["csv", "jsonl"]
Row = dict[str, Any]

#: Names that stand in ``meta``; looked for as filters do.
_WORDS = ("session_id", "batch_label", "parent_run_id", "parent_kind", "machine_id", "material_id")
_HASHES = ("feasibility_sha256", "toolpaths_sha256", "gcode_sha256", "opplan_sha256")
COLUMNS = (
    *("run_id", "created_at_utc", "request_id", "event_type", "mode", "tool_id", "status", "risk_level"),
    *("score", "block_reason", "warnings", "rules"),
    *_WORDS,
    *_HASHES,
    *("artifact_sha256", "artifact_path"),
)
#: In the column ``status``, of a file that cannot be read as an artifact.
CORRUPT = "CORRUPT"
#: A cell that begins with one of these is a formula to some spreadsheet. The apostrophe is among them so that
#: what was put before can be taken away again.
_FORMULA = tuple("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")


def flat_log(
    pages: Iterable[RunPage],
    store: ArtifactStore,
    form: LogForm,
    on_damage: Callable[[CorruptArtifact], None],
) -> Iterator[bytes]:
    """Return the log of the runs on some pages, a piece at a time and in their order; memory holds one page.

    A damaged artifact is reported, and has a row of its own: its path, ``CORRUPT``, and why.

    Raises:
        StoreUnavailable: the store, or the index, is away.
    """
    rows = _rows(pages, RunFiles(store), on_damage)
    return csv_log(rows) if form == "csv" else jsonl_log(rows)


def row_of(run: RunArtifact, data: bytes, key: str) -> Row:
    """Return the row of a run that lies under ``key`` as ``data``."""
    decision = run.decision
    values = (
        *(run.run_id, format_utc(run.created_at_utc), run.request_id, run.event_type, run.mode, run.tool_id),
        *(run.status.value, decision.risk_level.value, decision.score, decision.block_reason),
        *(len(decision.warnings), " ".join(rule_ids(run))),
        *(meta_text(run.meta, name) for name in _WORDS),
        *(getattr(run.hashes, name) for name in _HASHES),
        *(sha256_hex(data), key),
    )
    return dict(zip(COLUMNS, values, strict=True))


def csv_log(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield rows as CSV (RFC 4180, UTF-8, a line of names first).

    An apostrophe is put before a text that a spreadsheet would take for a formula, and before one that begins
    with an apostrophe: taking one away, wherever one stands first, gives the text back.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([harmless(row[name]) for name in COLUMNS])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue().encode()


def jsonl_log(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield rows as JSON, one object a line, every value as it is."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _rows(
    pages: Iterable[RunPage],
    files: RunFiles,
    on_damage: Callable[[CorruptArtifact], None],
) -> Iterator[Row]:
    for page in pages:
        for key in [*(item.artifact_path for item in page.items), *page.corrupt]:
            try:
                data = _bytes(files, key)
                yield row_of(parse_run(key, data), data, key)
            except CorruptArtifact as error:
                on_damage(error)
                yield _damaged(error)


def _bytes(files: RunFiles, key: str) -> bytes:
    if keys.partition_day(key) is not None:
        files.json_keys(f"{key}/")  # a whole day that cannot be listed: this says why
        raise CorruptArtifact(key, "it was listed as damaged, and can be read now; make the list anew")
    return files.bytes(key)


def _damaged(error: CorruptArtifact) -> Row:
    empty: Row = dict.fromkeys(COLUMNS)
    return empty | {"status": CORRUPT, "block_reason": error.reason, "artifact_path": error.key}


def harmless(value: object) -> object:
    """Return a cell of a CSV file that no spreadsheet takes for a formula; see ``csv_log``."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
