"""The index as it fills: a page among a million runs against one among ten thousand; rebuilding it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from lib.ratio import Mark, Row, compare
from lib.result import Section, Table
from lib.scene import requests_of
from lib.size import Size

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from rmos_shared.ids import new_uuid7
from rmos_shared.index.catalog import IndexCatalog
from rmos_shared.index.choice import chosen_database
from rmos_shared.index.cursor import cursor_at
from rmos_shared.index.database import State, write_state
from rmos_shared.index.process import processes_for_a_rebuild
from rmos_shared.index.rebuild import rebuild
from rmos_shared.index.reconciler import chunks
from rmos_shared.index.row import Facts, IndexRow
from rmos_shared.index.tables import FINGERPRINT
from rmos_shared.index.writer import IndexWriter
from rmos_shared.runs.model import ExplanationStatus, RunRequest
from rmos_shared.runs.query import RunFilter
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
from rmos_shared.store.memory import MemoryStore
from rmos_worker.handlers.artifact import artifact_of
from support.postgres import PostgresServer

_FIRST = datetime(2016, 1, 1, tzinfo=UTC)
_DAYS = 3_650
_FEW = 10_000
_ZEROS = "0" * 64
_TOOLS = 200
_MODES = ("router", "saw")
#: Years, counted from the first, in which a value is all there is and is not at all afterwards.
_EARLY, _LATE = range(2), range(8, 11)
#: Runs stored at a time.
_GROUP = 100
#: Filters that are asked for, by what is hard about each.
_CASES: dict[str, dict[str, Any]] = {
    "no filter": {},
    "status, most runs": {"status": "OK"},
    "status, few runs": {"status": "ERROR"},
    "one tool of 200": {"tool_id": "router:tool_007"},
    "a prefix of 10 tools": {"tool_id_prefix": "saw:tool_01"},
    "a prefix of 100 tools": {"tool_id_prefix": "router:"},
    "a session": {"session_id": "session-17"},
    "waits for a person": {"needs_review": True},
    "explanation": {"explanation_status": "NONE"},
    "machine, material and risk": {"machine_id": "m3", "material_id": "w5", "risk_level": "GREEN"},
    "status and prefix": {"status": "BLOCKED", "tool_id_prefix": "saw:tool_01"},
    "two that no run has both of": {"mode": "saw", "tool_id_prefix": "router:"},
    "two of other years": {"batch_label": "early", "parent_run_id": "late"},
    "a month of one status": {"status": "OK", "date_from": "2019-03-01", "date_to": "2019-03-31"},
}
_DEPTHS = (0.0, 0.5, 0.95)


def section(scratch: Path, size: Size) -> Section:
    """Fill two indexes of each kind with rows, and one from files."""
    directory = scratch / "index"
    try:
        with ExitStack() as stack:
            server = stack.enter_context(PostgresServer())
            urls = {
                kind: {runs: _url(kind, runs, directory, server) for runs in (_FEW, size.index_runs)}
                for kind in ("sqlite", "postgresql")
            }
            rows, tables = [], []
            for kind, places in urls.items():
                row, table = _pages(kind, places, size)
                rows.append(row)
                tables.append(table)
        rows += [_by_id(directory, size), _rebuilding(directory, size)]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    remark = (
        f"Rows are generated straight into the tables: {size.index_runs:,} of {_DAYS:,} days against "
        f"{_FEW:,} of the same days. Each page may have 50 runs. Each filter is asked for at the beginning, "
        "in the middle and near the end of the long list, against the beginning of the short one. The row of "
        "a database is its dearest page; PostgreSQL is Debian's, on a socket."
    )
    return Section(rows, tables=tables, remarks=[remark])


def _url(kind: str, runs: int, directory: Path, server: PostgresServer) -> str:
    return f"sqlite:///{directory / str(runs)}.db" if kind == "sqlite" else server.new_database()


# -- pages ----------------------------------------------------------------------------------------


def _pages(kind: str, places: dict[int, str], size: Size) -> tuple[Row, Table]:
    few, many = (_Filled(url, runs) for runs, url in places.items())
    lines: list[tuple[str, str, str, str]] = []
    dearest: tuple[float, str, list[float], list[float]] | None = None
    for name, fields in _CASES.items():
        for depth in _DEPTHS:
            ours, theirs = _alternating(few, many, RunFilter.read(fields), depth, 2 * size.rounds + 2)
            ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
            told = f"{name}, at {depth:.0%}"
            medians = [f"{statistics.median(taken):.2f}" for taken in (ours, theirs)]
            lines.append((told, f"{ratio:.2f}", medians[0], medians[1]))
            if dearest is None or ratio > dearest[0]:
                dearest = ratio, told, ours, theirs
    assert dearest is not None  # noqa: S101 - there are cases
    for filled in (few, many):
        filled.close()
    mark = Mark(
        f"index-page-{kind}",
        f"page of {kind}, {many.runs:,} runs: {dearest[1]}",
        f"itself at {few.runs:,}",
        1.5,
        "ms",
        at_most=True,
    )
    head = ("filter", "ratio", f"ms at {many.runs:,}", f"ms at {few.runs:,}")
    return mark.row(dearest[2], dearest[3]), Table(f"Pages of {kind}", head, lines)


def _alternating(
    few: _Filled, many: _Filled, choice: RunFilter, depth: float, rounds: int
) -> tuple[list[float], list[float]]:
    ours, theirs = [], []
    for index in range(rounds + 1):
        # A page near the end of a short list is cheap because it is short.
        mine, other = many.milliseconds(choice, depth), few.milliseconds(choice, 0.0)
        if index:
            ours.append(mine)
            theirs.append(other)
    return ours, theirs


@dataclass
class _Filled:
    """An index of generated rows."""

    url: str
    runs: int

    def __post_init__(self) -> None:
        store = MemoryStore()
        self._database = chosen_database(IndexSettings.load(index_url=self.url, index_timeout_seconds=60.0))
        with self._database.building() as index:
            for rows in chunks(_rows(self.runs), 20_000):
                with index.write() as connection:
                    IndexWriter(connection).put(rows)
            with index.write() as connection:
                state = State(
                    fingerprint=FINGERPRINT,
                    store_id="none",
                    built_at_utc=_FIRST,
                    complete_until_utc=_FIRST,
                )
                write_state(connection, state)
        self._catalog = IndexCatalog(self._database, RunReader(store), store_id=lambda: None)

    def milliseconds(self, choice: RunFilter, depth: float) -> float:
        """Return how long a page takes whose cursor is so deep in the list: the least of some.

        All that makes one longer is other people's load.
        """
        cursor = cursor_at(_place(self._number(choice, depth), self.runs), choice) if depth else None
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            self._catalog.page(choice, limit=50, cursor=cursor)
            taken.append(1000 * (time.perf_counter() - began))
        return min(taken)

    def _number(self, choice: RunFilter, depth: float) -> int:
        """Return the number of the run so deep among those of the filter's days: no cursor is elsewhere."""
        first = 0 if choice.date_from is None else self._numbered(choice.date_from)
        last = self.runs if choice.date_to is None else self._numbered(choice.date_to)
        return int(last - (last - first) * depth)

    def _numbered(self, day: str) -> int:
        return self.runs * (date.fromisoformat(day) - _FIRST.date()).days // _DAYS

    def close(self) -> None:
        self._database.close()


def _place(number: int, of: int) -> str:
    at = _FIRST + timedelta(days=_DAYS * number / of)
    return f"{at.date().isoformat()}/{new_uuid7(at, noise=number.to_bytes(10))}"


def _rows(runs: int) -> Iterator[IndexRow]:
    for number in range(runs):
        tool = number * 7919 % _TOOLS
        year = _DAYS * number // runs // 365
        yield IndexRow(
            place=_place(number, runs),
            created_at_utc="2026-08-01T06:00:00Z",
            status=_of(number, {"ERROR": 1, "BLOCKED": 19, "OK": 80}),
            mode=_MODES[tool % 2],
            tool_id=f"{_MODES[tool % 2]}:tool_{tool // 2:03}",
            event_type=_of(number * 31, {"toolpaths": 60, "feasibility": 40}),
            risk_level=_of(number * 17, {"RED": 5, "YELLOW": 25, "GREEN": 70}),
            score="87.5",
            feasibility_sha256=_ZEROS,
            toolpaths_sha256=None,
            request_id=f"request-{number}",
            session_id=f"session-{number % max(1, runs // 100)}",
            batch_label="early" if year in _EARLY else f"batch-{number // 500}",
            parent_run_id="late" if year in _LATE else None,
            machine_id=f"m{number * 13 % 8}",
            material_id=f"w{number * 29 % 12}",
            facts=Facts(
                ExplanationStatus(_of(number * 37, {"ERROR": 2, "NONE": 28, "READY": 70})),
                not number * 41 % 100,
                1,
            ),
        )


def _of(number: int, shares: dict[str, int]) -> str:
    rest = number % 100
    for value, share in shares.items():
        if rest < share:
            return value
        rest -= share
    raise AssertionError


# -- files ----------------------------------------------------------------------------------------


def _by_id(directory: Path, size: Size) -> Row:
    few, many = (
        _stored(directory / f"by-id-{days}", size.index_by_id_runs, days) for days in (1, size.index_days)
    )
    mark = Mark(
        "index-by-id",
        f"run by id, {size.index_days:,} partitions",
        "itself at 1",
        1.5,
        "ms",
        at_most=True,
    )

    def read(root: Path, run_ids: Sequence[str]) -> None:
        reader = RunReader(LocalStore(root))
        for run_id in run_ids:
            reader.get_artifact(run_id)

    return compare(mark, lambda: read(*many), lambda: read(*few), amount=len(many[1]), rounds=size.rounds)


def _rebuilding(directory: Path, size: Size) -> Row:
    root, _ = _stored(directory / "rebuild", size.index_files, 100)
    store = LocalStore(root)
    settings = IndexSettings.load(index_url=f"sqlite:///{directory}/rebuild.db")
    database = chosen_database(settings)

    def ours() -> None:
        made = rebuild(database, store, store_id=None, processes=processes_for_a_rebuild())
        if made.runs != size.index_files:
            raise AssertionError(made)

    def hashing() -> None:
        command = "find . -name '*.json' -print0 | xargs -0 sha256sum"
        subprocess.run(["/bin/sh", "-c", command], cwd=root, check=True, stdout=subprocess.DEVNULL)

    mark = Mark(
        "index-rebuild",
        f"rebuild of {size.index_files:,} runs, {processes_for_a_rebuild()} processes",
        "sha256sum over the same files",
        0.1,
        "runs/s",
        aim=1.0,
    )
    row = compare(mark, ours, hashing, amount=size.index_files, rounds=max(2, size.rounds // 3))
    database.close()
    return row


def _stored(root: Path, runs: int, days: int) -> tuple[Path, list[str]]:
    """Store some true runs of so many days; return where, and some of their ids."""
    init_store(root)
    writer = RunWriter(LocalStore(root))
    requests = requests_of(min(runs, 600))
    made: list[str] = []
    batch = []
    for number in range(runs):
        at = _FIRST + timedelta(days=number * days // runs, milliseconds=number)
        request = {**requests[number % len(requests)], "created_at_utc": at}
        request.pop("run_id", None)
        batch.append(artifact_of(RunRequest.read(request))[0])
        made.append(batch[-1].run_id)
        if len(batch) == _GROUP:
            writer.put_runs(batch)
            batch = []
    writer.put_runs(batch)
    return root, made[:: max(1, runs // 500)]
